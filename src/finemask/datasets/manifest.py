"""Layout: ``manifest.csv``, one row a case, paths relative to it.

Columns: ``case,image`` and optional ``image_2..n`` (further channels), ``mask, split, group,
rater_1..n, soft, image_lr, spacing_mm, diameter_mm``. Others are ignored with a note. A
``dataset.json`` beside it may declare ``labels``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from finemask.datasets.dataset import Entry, Part
from finemask.datasets.listing import Listing, declared_labels, few, inside, read_table
from finemask.errors import DataError

REQUIRED = {"case", "image"}
OPTIONAL = {"mask", "split", "group", "soft", "image_lr", "spacing_mm", "diameter_mm"}
PARTS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def is_manifest(path: Path) -> bool:
    """Whether a CSV file has the columns of finemask's manifest."""
    try:
        return set(read_table(path)[0]) >= REQUIRED
    except DataError:
        return False


def list_manifest(path: Path) -> Listing:
    """List the cases of a manifest."""
    listing = Listing(path.parent, "manifest")
    columns, rows = read_table(path)
    if not set(columns) >= REQUIRED:
        raise DataError(
            path,
            f"has the columns {', '.join(columns)}, needs at least case,image",
            "rename its columns, or point finemask at a folder with images/ and masks/",
        )
    listing.labels = declared_labels(path.parent)
    channels, raters = _numbered(columns, "image"), _numbered(columns, "rater")
    unknown = [c for c in columns if c not in REQUIRED | OPTIONAL | {*channels, *raters}]
    if unknown:
        listing.notes.append(f"{path.name}: unknown columns are ignored: {few(unknown)}")
    if not rows:
        raise DataError(path, "has no rows", "write one row a case")
    for number, row in enumerate(rows, start=2):
        entry = _read_row(_Row(path, number, row, listing), channels, raters)
        if entry is not None:
            listing.entries.append(entry)
    unsplit = [e.name for e in listing.entries if e.split is None and e.labelled]
    if unsplit and any(e.split for e in listing.entries):
        listing.refuse(path, f"gives no split to {few(unsplit)}", "fill the column or remove it")
    unmasked = [e.name for e in listing.entries if not e.labelled]
    if unmasked and len(unmasked) < len(listing.entries):
        listing.notes.append(f"{len(unmasked)} cases have no mask: {few(unmasked)}")
    return listing


@dataclass
class _Row:
    """One row; what is wrong with it goes to the problems of the listing."""

    manifest: Path
    number: int
    values: dict[str, str]
    listing: Listing

    def refuse(self, what: str, fix: str) -> None:
        case = self.values["case"]
        where = f"row {self.number}" + (f" ({case})" if case else "")
        self.listing.refuse(self.manifest, f"{where} {what}", fix)

    def path(self, column: str) -> Path | None:
        """The file named in a column, which must exist below the manifest."""
        text = self.values.get(column, "")
        if not text:
            return None
        path = self.manifest.parent / text
        if not inside(self.manifest.parent, path):
            self.refuse(f"names {column} {text}, outside its folder", "use a path below it")
        elif not path.exists():
            self.refuse(f"names {column} {text}, which does not exist", "correct the path")
        return path

    def numbers(self, column: str) -> tuple[float, ...]:
        """Positive numbers such as ``0.7x0.7``."""
        parts = [p for p in re.split(r"[x, ]+", self.values.get(column, "")) if p]
        try:
            numbers = tuple(map(float, parts))
        except ValueError:
            numbers = (math.nan,)
        if not all(math.isfinite(n) and n > 0 for n in numbers):
            self.refuse(
                f"has {column} {self.values[column]}",
                "write positive numbers, one an axis, for example 0.7x0.7",
            )
        return numbers

    def part(self) -> Part | None:
        text = self.values.get("split", "")
        if text and text.lower() not in PARTS:
            self.refuse(f"has split {text}", "write train, val or test")
        return PARTS.get(text.lower())


def _numbered(columns: list[str], kind: str) -> list[str]:
    """Columns such as ``rater_2``, in the order of their numbers."""
    found = (c for c in columns if re.fullmatch(rf"{kind}_\d+", c))
    return sorted(found, key=lambda c: int(c.rpartition("_")[2]))


def _read_row(row: _Row, channels: list[str], raters: list[str]) -> Entry | None:
    """One case, or ``None`` with its problems listed."""
    before = len(row.listing.problems)
    image = row.path("image")
    diameter = row.numbers("diameter_mm")
    readers = {rater: path for rater in raters if (path := row.path(rater)) is not None}
    entry = Entry(
        name=row.values["case"],
        images=(image or row.manifest, *(path for path in map(row.path, channels) if path)),
        mask=row.path("mask"),
        readers=tuple(readers.values()),
        reader_names=tuple(readers),
        soft=row.path("soft"),
        image_lr=row.path("image_lr"),
        group=row.values.get("group", ""),
        split=row.part(),
        spacing_mm=row.numbers("spacing_mm"),
        diameter_mm=diameter[0] if diameter else None,
    )
    if not entry.name or image is None:
        row.refuse("lacks its case or image", "fill both columns")
    return entry if len(row.listing.problems) == before else None
