"""A layout as it was found: cases, and everything that is odd or wrong about them."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finemask.datasets.dataset import Entry, LayoutName
from finemask.errors import DataError


@dataclass
class Listing:
    """Cases of a data set before they are trusted; filled by one layout reader.

    Args:
        root: Folder that no path may leave.
        layout: Layout that was read.
        entries: Cases found.
        labels: Declared labels, or ``None`` where nothing declares them.
        notes: What was assumed or ignored.
        problems: What must be mended before the set is used.
    """

    root: Path
    layout: LayoutName
    entries: list[Entry] = field(default_factory=list)
    labels: Mapping[str, int] | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[DataError] = field(default_factory=list)

    def refuse(self, subject: Path, what: str, fix: str) -> None:
        self.problems.append(DataError(subject, what, fix))


def few(names: Iterable[str], most: int = 4) -> str:
    """The first few of many names.

    Example:
        >>> few(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


def inside(root: Path, path: Path) -> bool:
    """Whether ``path``, links followed, stays under ``root``."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or one line that says why not."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file") from error
    except ValueError as error:
        raise DataError(path, f"is not JSON ({error})", "correct the file") from error
    if not isinstance(value, dict):
        raise DataError(path, "holds no JSON object", "write {...} with labels in it")
    return value


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV file, separated by commas or semicolons.

    Raises:
        DataError: When it is no such table, or a row does not fit its header.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        separator = ";" if ";" in header and "," not in header else ","
        rows = [
            r for r in csv.reader(text.splitlines(), delimiter=separator, strict=True) if any(r)
        ]
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, f"is no CSV table ({error})", "save it as UTF-8 CSV") from error
    if not rows:
        raise DataError(path, "is empty", "write a header and one row a case")
    columns = [column.strip() for column in rows[0]]
    if len(set(columns)) != len(columns):
        raise DataError(path, f"names a column twice ({', '.join(columns)})", "remove one")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(columns):
            raise DataError(
                path, f"has {len(row)} fields in row {number}, needs {len(columns)}", "mend the row"
            )
    return columns, [{c: v.strip() for c, v in zip(columns, row, strict=True)} for row in rows[1:]]


def read_groups(folder: Path, listing: Listing) -> dict[str, str]:
    """Patient of each case from ``groups.csv`` (``case,group``), or dataset.json's ``groups``."""
    table, description = folder / "groups.csv", folder / "dataset.json"
    declared = read_json(description).get("groups") if description.is_file() else None
    if not table.is_file():
        if isinstance(declared, dict) and all(isinstance(g, str) for g in declared.values()):
            return declared
        if declared is None:
            return {}
        raise DataError(
            description,
            "has groups that do not map case to patient",
            'write "groups": {"case": "patient"}',
        )
    columns, rows = read_table(table)
    if not {"case", "group"} <= set(columns):
        raise DataError(table, f"has columns {', '.join(columns)}", "name them case,group")
    if declared:
        listing.notes.append("groups.csv is used, the groups in dataset.json are not")
    groups = {row["case"]: row["group"] for row in rows}
    if len(groups) != len(rows):
        listing.refuse(table, "names a case twice", "keep one row a case")
    return groups


def declared_labels(folder: Path) -> dict[str, int] | None:
    """Labels in the ``dataset.json`` of a folder, if it declares any."""
    path = folder / "dataset.json"
    declared = read_json(path) if path.is_file() else {}
    return parse_labels(path, declared["labels"]) if "labels" in declared else None


def parse_labels(path: Path, declared: object) -> dict[str, int]:
    """Foreground labels by value from nnU-Net's ``{"lesion": 1}``, or ``{"1": "lesion"}`` of old.

    Raises:
        DataError: On regions, an ignore label, or values that are no label map.
    """
    if not isinstance(declared, dict) or not declared:
        raise DataError(path, "has no labels", 'write "labels": {"background": 0, "lesion": 1}')
    older = all(re.fullmatch(r"\d+", str(k)) and isinstance(v, str) for k, v in declared.items())
    pairs = [(v, int(k)) for k, v in declared.items()] if older else list(declared.items())
    if any(isinstance(value, list) for _, value in pairs):
        raise DataError(
            path, "declares regions, which overlap", "declare one label for each value instead"
        )
    if any(name == "ignore" for name, _ in pairs):
        raise DataError(
            path, "declares an ignore label, which is not supported", "relabel those voxels"
        )
    values = [value for _, value in pairs]
    if not all(type(v) is int and v >= 0 for v in values) or len(set(values)) != len(values):
        raise DataError(path, f"has labels {declared}", "give each name its own whole number")
    foreground = sorted(((v, str(name)) for name, v in pairs if v), key=lambda p: p[0])
    if not foreground:
        raise DataError(path, "declares only background", "declare the lesion label too")
    return {name: value for value, name in foreground}
