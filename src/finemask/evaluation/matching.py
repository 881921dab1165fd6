"""Masks on disk matched by case name: what was predicted, and what is true."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.case import Case
from finemask.datasets import Dataset, load_dataset
from finemask.datasets.listing import few, read_table
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.io import (
    find_images,
    is_image,
    label_values,
    read_case,
    read_image,
    read_labels,
    read_probs,
    stem,
)
from finemask.io.cases import on_grid
from finemask.io.outputs import class_in_file_name

_DATASET_MARKS = ("images", "imagesTr", "dataset.json")
_MOST_VALUES = 64


@dataclass(frozen=True)
class Truth:
    """True classes of one case.

    Args:
        classes: ``(*S)``, 0 is background, class ``k`` the ``k``-th name.
        geometry: Grid of ``S``.
        image: ``(C, *S)`` on the same grid, where it is known.
        readers: ``(R, *S)`` classes, one map a reader, where several were asked.
    """

    classes: NDArray[Any]
    geometry: Geometry
    image: NDArray[np.float32] | None = None
    readers: NDArray[Any] | None = None


@dataclass(frozen=True)
class TruthFile:
    """A case that has a truth, not read yet, and the names of its readers."""

    name: str
    group: str
    read: Callable[[], Truth]
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truths:
    """Every case that must be scored.

    Args:
        labels: Name to value in the files of each class, in class order.
        cases: By name.
    """

    labels: Mapping[str, int]
    cases: Mapping[str, TruthFile]


@dataclass(frozen=True)
class Predicted:
    """Files that were predicted for one case.

    Args:
        mask: Label map.
        probs: Probabilities: one file, or one a class in class order; empty for none.
        sr: Super-resolved image.
        unused: Probabilities that belong to no known set of classes.
    """

    mask: Path
    probs: tuple[Path, ...] = ()
    sr: Path | None = None
    unused: tuple[Path, ...] = ()


def find_truths(
    truth: Path,
    *,
    images: Path | None = None,
    group: str | None = None,
) -> Truths:
    """List the cases of a data set, a manifest with ``case,mask``, a folder of masks or a mask.

    Args:
        truth: Where the masks are.
        images: Folder of images with the same names, where ``truth`` has none.
        group: Column of the manifest that names the patient.

    Raises:
        DataError: When there is no truth, or the labels may mean anything.
        UsageError: On a column that does not exist.
    """
    if not truth.exists():
        raise DataError(truth, "does not exist", "check the path")
    found = _of_dataset(truth) if _is_dataset(truth) else _of_masks(truth, images)
    if group is not None:
        owners = _column(truth, group)
        lacking = [name for name in found.cases if not owners.get(name)]
        if lacking:
            raise DataError(truth, f"gives no {group} to {few(lacking)}", "fill the column")
        regrouped = {n: replace(c, group=owners[n]) for n, c in found.cases.items()}
        found = Truths(found.labels, regrouped)
    return found


def select(found: Truths, cases: Collection[str] | None, truth: Path) -> Truths:
    """Only some cases of those that were found.

    Raises:
        DataError: When none is left.
        UsageError: On a case that does not exist.
    """
    if cases is not None:
        unknown = [name for name in cases if name not in found.cases]
        if unknown:
            raise UsageError(truth, f"has no truth for {few(unknown)}", "correct the case names")
        found = Truths(found.labels, {n: c for n, c in found.cases.items() if n in set(cases)})
    if not found.cases:
        raise DataError(truth, "holds no mask", "give a folder of masks or a data set")
    return found


def find_predictions(pred: Path, truths: Truths, *, of_maps: bool = False) -> dict[str, Predicted]:
    """List predicted masks by case, each with its probabilities and super-resolved image.

    ``<case>_probs``, ``<case>_probs_<class>`` and ``<case>_sr`` go with the mask of a
    case, whether that mask is there or only its truth; a file named as a truth is a mask.

    Args:
        pred: Folder of masks, a table with ``case,mask``, or one mask.
        truths: Names of the cases and classes.
        of_maps: Probabilities without a mask are a prediction too.

    Raises:
        DataError: When there is none, or two for one case.
    """
    if not pred.exists():
        raise DataError(pred, "does not exist", "check the path")
    files = _masks_of(pred)
    if pred.is_file() and pred.suffix.lower() != ".csv":
        return {name: Predicted(path) for name, path in files.items()}
    known = {*files, *truths.cases}
    sides: dict[str, dict[str, Path]] = {}
    for name in files.keys() - truths.cases.keys():
        if (owner := _owner(name, known)) is not None:
            sides.setdefault(owner, {})[name.removeprefix(owner)] = files[name]
    beside = {path for ends in sides.values() for path in ends.values()}
    labels = list(truths.labels)
    found = {
        name: _with_sides(path, sides.get(name, {}), labels)
        for name, path in files.items()
        if path not in beside
    }
    if of_maps:
        for name in sides.keys() - found.keys():
            alone = _with_sides(next(iter(sides[name].values())), sides[name], labels)
            if alone.probs:
                found[name] = alone
    return found


def _owner(name: str, known: Collection[str]) -> str | None:
    """The case that a file goes with, if its name says so; the longest name that fits."""
    places = [m.start() for m in re.finditer(r"_sr$|_probs$|_probs_", name)]
    return next((name[:at] for at in reversed(places) if name[:at] in known), None)


def _with_sides(mask: Path, sides: Mapping[str, Path], labels: Sequence[str]) -> Predicted:
    """A mask with what lies beside it, the probabilities in class order."""
    ends = ["_probs"]
    if "_probs" not in sides:
        ends = [f"_probs_{class_in_file_name(label)}" for label in labels]
    probs = tuple(sides[end] for end in ends if end in sides)
    if len(probs) < len(ends):
        probs = ()
    unused = [path for end, path in sorted(sides.items()) if end != "_sr" and path not in probs]
    return Predicted(mask, probs, sides.get("_sr"), tuple(unused))


def read_prediction(path: Path, labels: Mapping[str, int], truth: Truth) -> NDArray[Any]:
    """Predicted classes on the grid of the truth.

    Raises:
        DataError: When the mask is unsound, on another grid or of other classes.
    """
    # One class needs no agreement on its value: {0, 1} and {0, 255} say the same.
    classes, geometry = read_labels(path, labels if len(labels) > 1 else None)
    if len(labels) == 1 and classes.max(initial=0) > 1:
        raise DataError(
            path,
            f"has {classes.max()} classes, the truth has one ({next(iter(labels))})",
            "give one mask a class, or a truth with all classes",
        )
    return on_grid(path, classes, geometry, truth.geometry, "the truth")


def read_predicted_probs(paths: Sequence[Path], classes: int, truth: Truth) -> NDArray[np.float32]:
    """Predicted probabilities ``(F, *S)`` on the grid of the truth.

    Args:
        paths: One file, or one a class in class order.
        classes: ``F``.
        truth: Of the case.

    Raises:
        DataError: When the file is unsound, on another grid or of other classes.
    """
    probs, geometry = read_probs(list(paths))
    if len(probs) != classes:
        raise DataError(
            paths[0], f"has {len(probs)} maps, the truth {classes} classes", "remove it"
        )
    return on_grid(paths[0], probs, geometry, truth.geometry, "the truth")


def read_super_resolved(path: Path, truth: Truth) -> NDArray[np.float32]:
    """Super-resolved image ``(C, *S)`` on the grid of the truth.

    Raises:
        DataError: When the file is unsound, on another grid or of other channels.
    """
    image, geometry = read_image(path)
    wanted = len(truth.image) if truth.image is not None else len(image)
    if len(image) == 1 and wanted == 3:
        image = np.repeat(image, 3, axis=0)  # a grey picture of a data set in colour
    if len(image) != wanted:
        raise DataError(path, f"has {len(image)} channels, the image has {wanted}", "remove it")
    return on_grid(path, image, geometry, truth.geometry, "the truth")


def _is_dataset(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() == ".csv" and "image" in read_table(path)[0]
    if any((path / mark).exists() for mark in _DATASET_MARKS):
        return True
    manifest = path / "manifest.csv"
    return manifest.is_file() and {"case", "image"} <= set(read_table(manifest)[0])


def _of_dataset(path: Path) -> Truths:
    dataset = load_dataset(path)
    cases = {
        entry.name: TruthFile(
            entry.name,
            entry.group,
            partial(_read_entry, dataset, entry.name),
            entry.reader_names,
        )
        for entry in dataset.entries
        if entry.labelled
    }
    return Truths(dict(dataset.labels), cases)


def _read_entry(dataset: Dataset, name: str) -> Truth:
    case = dataset.read(dataset.entry(name))
    return Truth(_agreed(case), case.geometry, case.image, case.readers)


def _agreed(case: Case) -> NDArray[Any]:
    """The truth, else what half of the readers or of the Soft Mask agree on."""
    if case.truth is not None:
        return case.truth
    if case.soft is not None:
        return _likeliest(case.soft)
    assert case.readers is not None  # a labelled case has one of the three
    return consensus_of(case.readers)


def consensus_of(readers: NDArray[Any]) -> NDArray[Any]:
    """Classes that at least half of the readers marked.

    Args:
        readers: ``(R, *S)`` classes, one map a reader who was asked.

    Example:
        >>> consensus_of(np.array([[0, 1, 1], [0, 0, 1]])).tolist()
        [0, 1, 1]
    """
    last = int(readers.max(initial=1))
    return _likeliest(np.stack([(readers == k).mean(axis=0) for k in range(1, last + 1)]))


def _likeliest(shares: NDArray[Any]) -> NDArray[Any]:
    """The class with the largest share of at least one half, or background."""
    return np.where(shares.max(axis=0) >= 0.5, shares.argmax(axis=0) + 1, 0).astype(np.uint8)


def _of_masks(truth: Path, images: Path | None) -> Truths:
    files = _masks_of(truth)
    labels = _labels_in(truth, files)
    pictures = _masks_of(images) if images is not None else {}
    cases = {
        name: TruthFile(name, name, partial(_read_mask, path, labels, pictures.get(name)))
        for name, path in files.items()
    }
    return Truths(labels, cases)


def _read_mask(path: Path, labels: Mapping[str, int], picture: Path | None) -> Truth:
    if picture is None:
        return Truth(*read_labels(path, labels))
    case = read_case(picture, truth=path, labels=labels)
    return Truth(_agreed(case), case.geometry, case.image)


def _masks_of(path: Path) -> dict[str, Path]:
    """Image files by case name: one file, a folder, or a table with ``case,mask``."""
    manifest = path if path.suffix.lower() == ".csv" else path / "manifest.csv"
    if manifest.is_file():
        columns, rows = read_table(manifest)
        if not {"case", "mask"} <= set(columns):
            raise DataError(manifest, f"has the columns {', '.join(columns)}",
                            "name two of them case and mask")  # fmt: skip
        pairs = [(row["case"], manifest.parent / row["mask"]) for row in rows if row["mask"]]
    else:
        files = [path] if path.is_file() and is_image(path) else find_images(path)
        pairs = [(stem(file), file) for file in files]
    found: dict[str, Path] = {}
    for name, file in pairs:
        if name in found:
            raise DataError(
                path, f"has two files for case {name} ({found[name].name}, {file.name})",
                "keep one of them",
            )  # fmt: skip
        found[name] = file
    if not found:
        raise DataError(path, "holds no mask", "give a folder with one mask a case")
    return found


def _labels_in(path: Path, files: Mapping[str, Path]) -> Mapping[str, int]:
    """The classes of masks that nobody declares: one value, or 1 to n without a gap.

    All masks are looked at, because a class may be absent from any one of them.
    """
    values: set[int] = set()
    for file in files.values():
        try:
            values |= set(label_values(file)) - {0}
        except DataError:
            continue  # met again, and reported, when the case is scored
        if len(values) > _MOST_VALUES:
            return {"lesion": 255}  # smoothed black and white, or refused case by case
    if not values:
        return {"lesion": 1}
    if len(values) == 1:
        return {"lesion": values.pop()}
    if values == set(range(1, len(values) + 1)):
        return {f"class_{value}": value for value in sorted(values)}
    listed = few(map(str, sorted(values)), 8)
    raise DataError(
        path,
        f"has masks with the values {listed}, which may mean anything",
        "give the truth as a data set whose dataset.json declares the labels",
    )


def _column(truth: Path, column: str) -> dict[str, str]:
    table = truth if truth.is_file() else truth / "manifest.csv"
    if not table.is_file() or table.suffix.lower() != ".csv":
        raise UsageError(column, f"is asked of {truth}, which has no manifest.csv", "leave it out")
    columns, rows = read_table(table)
    if not {"case", column} <= set(columns):
        raise UsageError(
            column, f"is no column of {table} ({', '.join(columns)})", "pick one of them"
        )
    return {row["case"]: row[column] for row in rows}


def single_files(pred: Path, truth: Path) -> str | None:
    """Name of the case when one mask is compared with one mask, whatever they are called."""
    both = all(p.is_file() and p.suffix.lower() != ".csv" for p in (pred, truth))
    return stem(truth) if both else None


def nearest_names(names: Collection[str], others: Collection[str]) -> str:
    """An example of what did not match, for a message."""
    pairs = itertools.zip_longest(sorted(names)[:1], sorted(others)[:1])
    return "; ".join(f"a truth is called {a}, a prediction {b}" for a, b in pairs)
