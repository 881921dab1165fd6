"""DeepLesion: RECIST marks on key slices of CT, to be softened; no masks.

Layout: ``DL_info.csv`` with its 18 columns, and ``Images_png/000001_01_01/103.png``: 16 bits,
Hounsfield units + 32768. Lesions are of many kinds; their coarse type (5 is lung) is told for
the validation and test parts alone, -1 elsewhere. Of a partial download the marks of missing
images are left out, and counted.

What comes out are slices in Hounsfield units with a ``recist.csv``, for

    finemask soften OUT LESIONS --from recist --crop 64 --scale 4

DSNet's nodules (LNSM; sheet 001 section 1) are 1,500 crops of 64 x 64. Its rule of choice is not
told. Here: lung, not flagged as noisy, a short axis of at least 3 pixels, the whole lesion well
inside the crop; 1,500 of them by a seed. They become one case a nodule, so that

    finemask soften OUT LNSM --from recist --scale 4 --window -1000 400

gives the Soft Masks. Its split is by nodule, which puts nodules of one patient into several
parts; the default here is by patient.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from finemask.datasets.dataset import Part
from finemask.datasets.listing import few, read_table
from finemask.datasets.public.grids import cut_window
from finemask.datasets.public.layout import Raw
from finemask.datasets.public.records import Computed, Draft, Item, Picture
from finemask.datasets.public.splits import by_count, declared, split_of
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.images import read_image
from finemask.softmask.marks import COORDINATES, MarkedLesion, read_marks

HU_OFFSET = 32768
LUNG = "5"
LNSM_COUNT, LNSM_SEED = 1500, 0
LNSM_PARTS: dict[Part, int] = {"train": 1000, "val": 100, "test": 400}
CROP = 64
SHORTEST_PX = 3.0
LONGEST_PX = CROP / 1.5
LEAK = "it divides nodules, and those of one patient or slice may be in several parts"
COLUMNS = (
    *("case", "lesion", *COORDINATES, "points_unit", "spacing_x", "spacing_y", "unit"),
    *("window_low", "window_high", "group", "split"),
)


@dataclass(frozen=True)
class Marked:
    """A mark whose image is there.

    Args:
        lesion: As ``DL_info.csv`` tells it.
        image: Its slice.
        kind: Coarse type.
    """

    lesion: MarkedLesion
    image: Path
    kind: str


def read_deeplesion(raw: Raw) -> Draft:
    """Key slices with their marks, or DSNet's crops of lung nodules."""
    home = raw.home("DL_info.csv")
    table = home.file("DL_info.csv")
    found = read_marks(table)
    kinds = [row.get("Coarse_lesion_type", "-1") for row in read_table(table)[1]]
    rows = {row.where: row for row in found.rows}
    marked, missing = list[Marked](), list[str]()
    for lesion in rows.values():
        number = int(lesion.where.rpartition(" row ")[2].partition(" ")[0])
        image = next((p for p in (home.root / f for f in lesion.files) if p.is_file()), None)
        if image is None:
            missing.append(lesion.case)
        else:
            marked.append(Marked(lesion, image, kinds[number - 2]))
    if not marked:
        raise DataError(
            home.root,
            f"has none of the {len(missing)} images of DL_info.csv (first {few(missing, 1)})",
            "unpack Images_png/ beside it",
        )
    notes = []
    if missing:
        notes.append(f"{len(missing)} marks are left out, as their images are not there")
    if found.problems:
        notes.append(f"{len(found.problems)} rows of DL_info.csv are no marks: "
                     f"{few(p.what for p in found.problems)}")  # fmt: skip
    return _nodules(marked, notes) if raw.variant == "dsnet" else _slices(marked, notes)


def _slices(marked: Sequence[Marked], notes: Sequence[str]) -> Draft:
    """Every key slice once, with all of its marks."""
    items = {}
    for mark in marked:
        row = mark.lesion
        image = Computed(partial(hounsfield, mark.image), (mark.image,), ".tif")
        spacing = row.spacing_mm
        items[row.case] = Item(
            row.case, (image,), group=row.group, split=row.split, spacing_mm=spacing
        )
    table = _table([mark.lesion for mark in marked])
    official = declared(list(items.values()), "the official parts, by patient")
    return Draft(
        tuple(items.values()),
        {"lesion": 1},
        {"official": official},
        {"recist.csv": table},
        tuple(notes),
    )


def hounsfield(path: Path) -> Picture:
    """A slice in Hounsfield units.

    Raises:
        DataError: When it is no 16-bit slice of the set.
    """
    array, geometry = read_image(path)
    if len(array) != 1 or array.max() < 4096:
        raise DataError(
            path, f"has {len(array)} channels up to {array.max():g}, needs 16-bit greys (HU + "
            f"{HU_OFFSET})", "unpack the official Images_png/",
        )  # fmt: skip
    return (array - HU_OFFSET).astype(np.int16), geometry


def _nodules(marked: Sequence[Marked], notes: Sequence[str]) -> Draft:
    """One crop a lung nodule."""
    chosen = [mark for mark in marked if _is_nodule(mark)]
    if not chosen:
        raise DataError(
            marked[0].lesion.where.partition(" row ")[0],
            f"tells no lung nodule among {len(marked)} marks with images",
            "unpack images of the validation and test parts, whose lesion types are told",
        )
    if len(chosen) > LNSM_COUNT:
        order = np.random.default_rng(LNSM_SEED).permutation(len(chosen))[:LNSM_COUNT]
        chosen = [chosen[i] for i in sorted(order)]
    items, rows = [], []
    for mark in chosen:
        name = f"{mark.lesion.case}_l{mark.lesion.lesion}"
        start, row = _centred(mark.lesion)
        rows.append(replace(row, case=name, lesion="1"))
        image = Computed(partial(_crop, mark.image, start), (mark.image,), ".tif")
        group, spacing = row.group, row.spacing_mm
        items.append(Item(name, (image,), group=group, spacing_mm=spacing, about=(start,)))
    drawn = by_count(items, LNSM_PARTS, seed=LNSM_SEED, by_group=True)
    part_of = {name: part for part, names in drawn.items() for name in names}
    items = [replace(item, split=part_of[item.name]) for item in items]
    rows = [replace(row, split=part_of[row.case]) for row in rows]
    splits = {
        "patients": declared(items, "1000/100/400 nodules as nearly as patients allow, drawn"),
        "dsnet": split_of(
            by_count(items, LNSM_PARTS, seed=LNSM_SEED),
            "DSNet's 1000/100/400 nodules at random; its own list is not published",
            LEAK,
        ),
    }
    tables = {"recist.csv": _table(rows)}
    return Draft(tuple(items), {"nodule": 1}, splits, tables, tuple(notes))


def _is_nodule(mark: Marked) -> bool:
    long, short = mark.lesion.mark.lengths()
    fits = short >= SHORTEST_PX and long <= LONGEST_PX
    return mark.kind == LUNG and "possibly_noisy" not in mark.lesion.flags and fits


def _centred(lesion: MarkedLesion) -> tuple[tuple[int, int], MarkedLesion]:
    """Where a crop round a mark starts, and the mark in its pixels."""
    middle = (lesion.mark.points.min(axis=0) + lesion.mark.points.max(axis=0)) / 2
    start = tuple(int(c) for c in np.floor(middle - CROP / 2 + 0.5))
    return (start[0], start[1]), replace(lesion, mark=lesion.mark.on_grid(start))


def _crop(path: Path, start: tuple[int, int]) -> Picture:
    array, _ = hounsfield(path)
    return cut_window(array, start, (CROP, CROP), -1024), Geometry.regular((CROP, CROP))


def _table(rows: Sequence[MarkedLesion]) -> str:
    """Marks in the columns that ``soften`` reads."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        xy = row.mark.points[:, ::-1].ravel().tolist()
        cells = dict(zip(COORDINATES, (f"{v:.6g}" for v in xy), strict=True))
        cells |= {"case": row.case, "lesion": row.lesion, "points_unit": "px", "group": row.group}
        cells |= {"split": row.split or "", "unit": "mm"}
        if row.spacing_mm:
            cells |= {"spacing_y": f"{row.spacing_mm[0]:g}", "spacing_x": f"{row.spacing_mm[1]:g}"}
        if row.window:
            cells |= {"window_low": f"{row.window[0]:g}", "window_high": f"{row.window[1]:g}"}
        writer.writerow(cells)
    return table.getvalue()
