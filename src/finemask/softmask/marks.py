"""Tables of RECIST marks: DeepLesion's ``DL_info.csv``, and a simple one of our own.

Ours has a row a mark. ``case`` names the image and ``long_x1, long_y1, long_x2,
long_y2, short_x1 ... short_y2`` are the end points: x along the columns, y
along the rows, from the centre of the first pixel. The other columns may be
left out:

* ``points_unit``: ``px`` (if not given) or ``mm``.
* ``lesion``: number in the case; counted if not given.
* ``slice``: of a volume, from 0 along its first array axis.
* ``spacing_x, spacing_y``: pixel size, for images that do not know it.
* ``long_diameter, short_diameter``: compared with the end points.
* ``unit``: of spacing and diameters, ``mm`` (if not given) or ``px``.
* ``window_low, window_high``: intensities that are shown black and white.
* ``group, split``: patient; train, val or test.

The ``recist.csv`` of phantoms is such a table.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finemask.datasets.dataset import Part
from finemask.datasets.listing import read_table
from finemask.datasets.manifest import PARTS
from finemask.errors import DataError
from finemask.io.notices import warn
from finemask.softmask.recist import Mark

NAMES = ("recist.csv", "DL_info.csv")
"""What a table of marks beside the images is called."""
COORDINATES = tuple(
    f"{axis}_{xy}{end}" for axis in ("long", "short") for end in (1, 2) for xy in "xy"
)
DEEPLESION = {"File_name", "Measurement_coordinates"}
DEEPLESION_PARTS: dict[str, Part] = {"1": "train", "2": "val", "3": "test"}
DEEPLESION_PAD_PX = 5.0
"""DeepLesion's bounding boxes are the extent of the axes, this much larger on each side."""
DIAMETERS_AGREE = 0.02
"""Share by which diameters may differ from the distance of their end points."""


@dataclass(frozen=True)
class MarkedLesion:
    """One row of a table of marks.

    Args:
        where: Table and row, the subject of an error about this mark.
        case: Name of the image.
        lesion: Name of the lesion within its case.
        mark: Its axes, in ``unit``.
        unit: ``px`` or ``mm``.
        slice: Of a volume; ``None`` in a picture.
        spacing_mm: Declared pixel size along rows and columns; empty for none.
        window: Intensities that are black and white; empty for none.
        group: The patient.
        split: Declared part.
        files: Where the image may lie, from the folder of the images; empty for by name.
        flags: What a user should know of the mark.
    """

    where: str
    case: str
    lesion: str
    mark: Mark
    unit: str = "px"
    slice: int | None = None
    spacing_mm: tuple[float, ...] = ()
    window: tuple[float, ...] = ()
    group: str = ""
    split: Part | None = None
    files: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def mark_px(self, spacing_mm: Sequence[float] = ()) -> Mark:
        """The mark in pixels of an image.

        Args:
            spacing_mm: Pixel size of the image along rows and columns; empty where unknown.

        Raises:
            DataError: When lengths in mm meet an unknown pixel size.

        Example:
            >>> mm = Mark.from_xy(0, 6, 4, 6, 2, 3, 2, 9)
            >>> MarkedLesion("row 2", "a", "1", mm, unit="mm").mark_px((3.0, 0.5)).long
            ((2.0, 0.0), (2.0, 8.0))
        """
        if self.unit == "px":
            return self.mark
        spacing = np.array(self.spacing_mm or spacing_mm)
        if not spacing.size:
            raise DataError(
                self.where, "is in mm, and the pixel size of its image is unknown",
                "add the columns spacing_x,spacing_y, or give the points in px",
            )  # fmt: skip
        (y1, x1), (y2, x2), (y3, x3), (y4, x4) = (self.mark.points / spacing).tolist()
        return Mark(((y1, x1), (y2, x2)), ((y3, x3), (y4, x4)))


@dataclass(frozen=True)
class MarkTable:
    """The marks of a table, and what is wrong with its other rows.

    Args:
        rows: Marks in the order of the table.
        problems: One error for each row that is no mark.
    """

    rows: tuple[MarkedLesion, ...]
    problems: tuple[DataError, ...]


def find_marks(folder: Path) -> Path | None:
    """The table of marks in a folder, if there is one."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def read_marks(path: str | Path) -> MarkTable:
    """Read a table of RECIST marks in DeepLesion's columns or in ours.

    Raises:
        DataError: When it is no table, or has other columns.
    """
    path = Path(path)
    columns, rows = read_table(path)
    read: Callable[[_Row], MarkedLesion]
    if set(columns) >= DEEPLESION:
        read = _read_deeplesion
    elif set(columns) >= {"case", *COORDINATES}:
        read = _read_own
    else:
        raise DataError(
            path,
            f"has the columns {', '.join(columns)}, needs case,{','.join(COORDINATES)} or those "
            "of DeepLesion's DL_info.csv",
            "rename its columns",
        )
    found: list[MarkedLesion] = []
    problems: list[DataError] = []
    for number, values in enumerate(rows, start=2):
        try:
            found.append(read(_Row(path, number, values)))
        except DataError as error:
            problems.append(error)
    numbered: dict[tuple[str, int | None, str], MarkedLesion] = {}
    for row in _numbered(found):
        key = row.case, row.slice, row.lesion
        if (twin := numbered.setdefault(key, row)) is not row:
            what = f"is lesion {row.lesion} as is {twin.where.removeprefix(f'{path} ')}"
            problems.append(DataError(row.where, what, "number the lesions of a case"))
    return MarkTable(tuple(numbered.values()), tuple(problems))


def _numbered(rows: Sequence[MarkedLesion]) -> Iterator[MarkedLesion]:
    """Give lesions without a name their number within the case."""
    seen = Counter[str]()
    for row in rows:
        seen[row.case] += 1
        yield row if row.lesion else replace(row, lesion=str(seen[row.case]))


@dataclass(frozen=True)
class _Row:
    """The cells of one row, read with the row in mind."""

    path: Path
    number: int
    values: Mapping[str, str]

    @property
    def where(self) -> str:
        name = self.text("case") or self.text("File_name")
        return f"{self.path} row {self.number}" + (f" ({name})" if name else "")

    def refuse(self, what: str, fix: str) -> DataError:
        return DataError(self.where, what, fix)

    def text(self, column: str) -> str:
        return self.values.get(column, "")

    def numbers(self, column: str, count: int, finite: bool = True) -> tuple[float, ...]:
        """So many numbers in one cell; none where the cell is empty."""
        parts = [p for p in re.split(r"[,; ]+", self.text(column)) if p]
        try:
            numbers = tuple(map(float, parts))
        except ValueError:
            numbers = ()
        sound = len(numbers) == count and (not finite or all(map(math.isfinite, numbers)))
        if parts and not sound:
            needed = "a number" if count == 1 else f"{count} numbers"
            raise self.refuse(
                f"has {column} {self.text(column)!r}, needs {needed}", "correct or remove the row"
            )
        return numbers

    def number_in(self, column: str) -> float | None:
        return next(iter(self.numbers(column, 1)), None)

    def index(self, column: str) -> int | None:
        value = self.number_in(column)
        if value is not None and (value != int(value) or value < 0):
            raise self.refuse(f"has {column} {value:g}", "count from 0, in whole numbers")
        return None if value is None else int(value)

    def pair(self, first: str, second: str) -> tuple[float, ...]:
        """Two columns that go together, or nothing."""
        found = self.number_in(first), self.number_in(second)
        if None in found and found != (None, None):
            raise self.refuse(f"has only one of {first} and {second}", "fill both or neither")
        return tuple(value for value in found if value is not None)


def _read_own(row: _Row) -> MarkedLesion:
    missing = [column for column in COORDINATES if not row.text(column)]
    if not row.text("case") or missing:
        raise row.refuse(f"lacks {(missing or ['case'])[0]}", "fill it or remove the row")
    points = [row.number_in(column) or 0.0 for column in COORDINATES]
    unit = row.text("points_unit") or "px"
    if unit not in ("px", "mm"):
        raise row.refuse(f"has points_unit {unit!r}", "write px or mm")
    part = row.text("split").lower()
    if part and part not in PARTS:
        raise row.refuse(f"has split {part!r}", "write train, val or test")
    spacing = row.pair("spacing_y", "spacing_x") if row.text("unit") != "px" else ()
    found = MarkedLesion(
        where=row.where,
        case=row.text("case"),
        lesion=row.text("lesion"),
        mark=Mark.from_xy(*points),
        unit=unit,
        slice=row.index("slice"),
        spacing_mm=_positive(row, spacing),
        window=_window(row, row.pair("window_low", "window_high")),
        group=row.text("group"),
        split=PARTS.get(part),
    )
    declared = row.pair("long_diameter", "short_diameter")
    if unit == "mm":
        return _compared(found, declared, (1.0, 1.0))
    return _compared(found, declared, found.spacing_mm or (1.0, 1.0))


def _read_deeplesion(row: _Row) -> MarkedLesion:
    file = row.text("File_name")
    series, _, slice_ = file.rpartition("_")
    if not series or not slice_.endswith(".png"):
        raise row.refuse(
            f"has the File_name {file!r}, needs one such as 000001_01_01_109.png", "correct it"
        )
    points = row.numbers("Measurement_coordinates", 8, finite=False)
    if not points:
        raise row.refuse("lacks Measurement_coordinates", "fill it or remove the row")
    spacing = row.numbers("Spacing_mm_px_", 3)[:2][::-1]
    found = MarkedLesion(
        where=row.where,
        case=file.removesuffix(".png"),
        lesion="",
        mark=Mark.from_xy(*points),
        spacing_mm=_positive(row, spacing),
        window=_window(row, row.numbers("DICOM_windows", 2)),
        group=row.text("Patient_index") or series.partition("_")[0],
        split=DEEPLESION_PARTS.get(row.text("Train_Val_Test")),
        files=(f"Images_png/{series}/{slice_}", f"{series}/{slice_}", f"images/{file}", file),
        flags=("possibly_noisy",) if row.text("Possibly_noisy") == "1" else (),
    )
    found = _compared(found, row.numbers("Lesion_diameters_Pixel_", 2), (1.0, 1.0))
    box = row.numbers("Bounding_boxes", 4)
    if box:
        low, high = found.mark.points.min(axis=0), found.mark.points.max(axis=0)
        expected = (*(low - DEEPLESION_PAD_PX)[::-1], *(high + DEEPLESION_PAD_PX)[::-1])
        if not np.allclose(box, expected, atol=1.0):
            warn(row.where, "its Bounding_boxes is not that of its Measurement_coordinates")
            return replace(found, flags=(*found.flags, "box_differs"))
    return found


def _compared(
    found: MarkedLesion, declared: Sequence[float], spacing: Sequence[float]
) -> MarkedLesion:
    """Flag a mark whose diameters were said to be others than its end points have."""
    measured = found.mark.lengths(spacing)
    if not declared or np.allclose(declared, measured, rtol=DIAMETERS_AGREE, atol=0.1):
        return found
    told = " and ".join(f"{d:.4g}" for d in declared)
    warn(found.where, f"its diameters are said to be {told}, its end points are "
         f"{measured[0]:.4g} and {measured[1]:.4g} apart")  # fmt: skip
    return replace(found, flags=(*found.flags, "diameters_differ"))


def _positive(row: _Row, spacing: tuple[float, ...]) -> tuple[float, ...]:
    if any(s <= 0 for s in spacing):
        raise row.refuse(f"has the spacing {spacing}", "give positive mm along x and y")
    return spacing


def _window(row: _Row, window: tuple[float, ...]) -> tuple[float, ...]:
    if window and window[0] >= window[1]:
        raise row.refuse(f"has the window {window}", "give the lower intensity first")
    return window
