"""From what is on an image to a case of Soft Masks: one for each image, slice or mark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.annotation.plan import Task
from finemask.case import Case
from finemask.errors import DataError, FinemaskError
from finemask.geometry import Geometry
from finemask.io import check_name, label_values, read_case, read_header, warn
from finemask.softmask.marks import MarkedLesion
from finemask.softmask.recist import Mark, check_mark
from finemask.softmask.softening import (
    Softened,
    Softening,
    soften_mark,
    soften_mask,
    soften_readers,
)

HU_OFFSET = 32768
"""DeepLesion stores Hounsfield units in 16-bit PNG as value + 32768."""
CROP_SHARE = 1.5
"""A crop is at least this many long axes wide."""


@dataclass(frozen=True, eq=False)
class Product:
    """A case of the new data set, before it is written.

    Args:
        name: Of the case.
        image: ``(C, *S)``.
        geometry: Grid of the image.
        made: On the finer grid.
        file: The image file, if there is just one and it holds these intensities.
        readers: Masks of the readers, to be shown.
        marks: Marks in pixels of the image, to be shown and measured.
        slice: Of the volume that it was taken from.
    """

    name: str
    image: NDArray[Any]
    geometry: Geometry
    made: Softened
    file: Path | None = None
    readers: tuple[NDArray[np.bool_], ...] = ()
    marks: tuple[Mark, ...] = ()
    slice: int | None = None


def make_products(
    task: Task, settings: Softening, crop: int, failures: list[FinemaskError]
) -> Iterator[Product]:
    """The cases that a task makes.

    Args:
        task: One image and what is on it.
        settings: How soft masks are made.
        crop: Side of a crop round each mark, in pixels; 0 for the whole slice.
        failures: Takes the error of each mark that is none.

    Raises:
        FinemaskError: When nothing can be made of the image.
    """
    if task.origin == "mask":
        yield _of_mask(task, settings)
    elif task.origin == "raters":
        yield _of_readers(task, settings)
    else:
        yield from _of_marks(task, settings, crop, failures)


def _of_mask(task: Task, settings: Softening) -> Product:
    case = _read(task, truth=task.entry.mask)
    mask = np.asarray(case.truth == task.label)
    made = soften_mask(case.image, mask, settings, case.geometry.spacing)
    return Product(task.name, case.image, case.geometry, made, _only_file(task))


def _only_file(task: Task) -> Path | None:
    images = task.entry.images
    return images[0] if len(images) == 1 and images[0].is_file() else None


def _of_readers(task: Task, settings: Softening) -> Product:
    for path in task.entry.readers:
        _refuse_soft(path, {0, *(task.labels or {}).values()})
    case = _read(task, readers=task.entry.readers)
    masks = np.asarray(case.readers == task.label)
    made = soften_readers(case.image, masks, settings, case.geometry.spacing)
    if "identical_readers" in made.flags:
        warn(task.entry.images[0], "two of its readers drew exactly the same; one may be a copy")
    readers, file = tuple(masks), _only_file(task)
    return Product(task.name, case.image, case.geometry, made, file, readers)


def _refuse_soft(path: Path, declared: set[int]) -> None:
    """A reader's mask that is itself soft would be cut at mid-grey without being asked."""
    if read_header(path).lossy:
        return
    values = label_values(path)
    if len(set(values) - declared) > 1:
        raise DataError(
            path,
            f"has {len(values)} values from {values[0]} to {values[-1]}, as a soft mask; the mean "
            "of soft and hard masks is the share of nobody",
            "give each reader's hard mask, or leave this one out",
        )


def _read(task: Task, **masks: Any) -> Case:
    entry = task.entry
    return read_case(
        entry.images if len(entry.images) > 1 else entry.images[0],
        name=entry.name,
        group=entry.group,
        spacing_mm=entry.spacing_mm or None,
        labels=task.labels or None,
        **masks,
    )


def _of_marks(
    task: Task, settings: Softening, crop: int, failures: list[FinemaskError]
) -> Iterator[Product]:
    case, file = _read(task), _only_file(task)
    image = case.image
    if task.marks[0].files and file and read_header(file).dtype == np.uint16:
        image, file = image - HU_OFFSET, None
    by_slice = defaultdict[int | None, list[MarkedLesion]](list)
    for row in task.marks:
        try:
            by_slice[_slice_of(row, case.geometry)].append(row)
        except FinemaskError as error:
            failures.append(error)
    for number, rows in sorted(by_slice.items(), key=lambda item: item[0] or 0):
        name, plane = task.name, image
        if number is not None:
            name, plane, file = f"{name}_s{number:03d}", image[:, number], None
        geometry = _plane(case.geometry, rows)
        found = Product(name, plane, geometry, _nothing(geometry, settings), file, slice=number)
        whole, done = _with_marks(found, rows, settings, failures)
        if done and not crop:
            yield whole
        elif done:
            yield from (_cropped(whole, k, f"{name}_l{done[k].lesion}", crop, settings)
                        for k in range(len(done)))  # fmt: skip


def _slice_of(row: MarkedLesion, geometry: Geometry) -> int | None:
    """The slice that a mark is on; none in a picture."""
    if geometry.ndim == 2:
        return None
    if row.slice is None:
        raise DataError(row.where, "is on a volume and names no slice", "fill the column slice")
    if row.slice >= geometry.shape[0]:
        raise DataError(
            row.where,
            f"is on slice {row.slice} of a volume of {geometry.shape[0]}, counted from 0",
            "correct the slice",
        )
    return row.slice


def _plane(geometry: Geometry, rows: Sequence[MarkedLesion]) -> Geometry:
    """Grid of a picture or slice, spaced as its image says or else the table."""
    shape = geometry.shape[-2:]
    if geometry.unit == "mm":
        return Geometry.regular(shape, geometry.spacing[-2:])
    return Geometry.regular(shape, next((r.spacing_mm for r in rows if r.spacing_mm), None))


def _nothing(geometry: Geometry, settings: Softening) -> Softened:
    shape = geometry.refined(settings.factors(2)).shape
    trimap = np.zeros(shape, np.float32) if settings.method == "matting" else None
    return Softened(np.zeros(shape, np.float32), trimap, np.zeros(shape, bool))


def _with_marks(
    product: Product,
    rows: Sequence[MarkedLesion],
    settings: Softening,
    failures: list[FinemaskError],
) -> tuple[Product, list[MarkedLesion]]:
    """A slice with the Soft Masks of its marks put together, and the marks that are in it."""
    made, geometry, scale = product.made, product.geometry, settings.factors(2)
    flags, marks, done = list[str](), list[Mark](), list[MarkedLesion]()
    for row in rows:
        try:
            mark = _checked(row, geometry)
            window = settings.window or row.window
            part, lesion = soften_mark(
                product.image, mark, replace(settings, window=window), geometry.spacing
            )
        except FinemaskError as error:
            failures.append(error)
            continue
        place = tuple(slice(s.start * f, s.stop * f) for s, f in zip(part, scale, strict=True))
        made.soft[place] = np.maximum(made.soft[place], lesion.soft)
        made.reference[place] |= lesion.reference
        if made.trimap is not None and lesion.trimap is not None:
            made.trimap[place] = np.maximum(made.trimap[place], lesion.trimap)
        made = replace(made, threshold=lesion.threshold)
        flags += [*row.flags, *lesion.flags]
        marks.append(mark)
        done.append(row)
    if len(done) < len(rows):
        flags.append("marks_missing")
    made = replace(made, flags=tuple(dict.fromkeys(flags)))
    return replace(product, made=made, marks=tuple(marks)), done


def _checked(row: MarkedLesion, geometry: Geometry) -> Mark:
    """A mark in pixels of the slice that it is on."""
    spacing = geometry.spacing if geometry.unit == "mm" else ()
    if spacing and row.spacing_mm and not np.allclose(spacing, row.spacing_mm, rtol=0.01):
        told = [" x ".join(f"{s:.5g}" for s in pair) for pair in (row.spacing_mm, spacing)]
        raise DataError(
            row.where, f"has pixels of {told[0]} mm, its image {told[1]}", "correct the spacing"
        )
    mark = row.mark_px(spacing)
    return check_mark(mark, geometry.shape, row.where, spacing=geometry.spacing)


def _cropped(whole: Product, number: int, name: str, side: int, settings: Softening) -> Product:
    """A square part of a slice with one of its marks in the middle, as far as the image goes."""
    check_name(name)
    points, shape = whole.marks[number].points, np.array(whole.geometry.shape)
    side = max(side, int(np.ceil(CROP_SHARE * max(whole.marks[number].lengths()))))
    lengths = np.minimum(side, shape)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    start = np.clip(np.rint(middle + 0.5 - lengths / 2), 0, shape - lengths).astype(int)
    window = tuple(slice(int(a), int(a + n)) for a, n in zip(start, lengths, strict=True))
    scale, made = settings.factors(2), whole.made
    fine = tuple(slice(s.start * f, s.stop * f) for s, f in zip(window, scale, strict=True))
    inside = [
        mark.on_grid(start.tolist())
        for mark in whole.marks
        if all(s.start <= at < s.stop for s, at in zip(window, mark.crossing, strict=True))
    ]
    trimap = None if made.trimap is None else made.trimap[fine]
    return replace(
        whole,
        name=name,
        image=whole.image[(slice(None), *window)],
        geometry=whole.geometry.cropped(start.tolist(), lengths.tolist()),
        made=replace(made, soft=made.soft[fine], trimap=trimap, reference=made.reference[fine]),
        marks=tuple(inside),
    )
