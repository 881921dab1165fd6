"""Scores for other programs: as CSV, and as JSON that every reader takes."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finemask.errors import DataError
from finemask.io.tables import csv_table, plain_cell
from finemask.metrics.overlap import Confusion
from finemask.metrics.scores import Score

COUNTED = ("tp", "fp", "fn", "tn")


def cases_table(scores: Sequence[Score], metrics: Sequence[str]) -> str:
    """``cases.csv``: a row a case and class with every metric, voxel counts and flags."""
    names = ("case", "group", "class", "diameter", "unit", "size_group")
    rows = [
        [
            *(s.case, s.group, s.label, s.size if s.size >= 0 else "", s.unit, s.size_group),
            *(s.values.get(metric, "") for metric in metrics),
            *(getattr(s.counts, name) if s.counts else "" for name in COUNTED),
            s.flag,
        ]
        for s in scores
    ]
    return csv_table([*names, *metrics, *COUNTED, "flags"], rows)


def read_cases_table(path: Path) -> list[Score]:
    """The scores that ``cases_table`` wrote, to its ten digits.

    Raises:
        DataError: When the file is missing or no such table.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [_score(row) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(path, f"is no table of scores ({error})", "evaluate again") from error


def _score(row: Mapping[str, str]) -> Score:
    names = list(row)
    metrics = names[names.index("size_group") + 1 : names.index("tp")]
    counts = [row[name] for name in COUNTED]
    return Score(
        case=plain_cell(row["case"]),
        group=plain_cell(row["group"]),
        label=plain_cell(row["class"]),
        size=float(row["diameter"] or "nan"),
        unit=row["unit"],
        values={name: float(row[name]) for name in metrics if row[name]},
        counts=Confusion(*map(int, counts)) if all(counts) else None,
        flag=row["flags"],
        size_group=plain_cell(row["size_group"]),
    )


def plain(value: Any) -> Any:
    """The same value for JSON, which has neither NaN nor infinity: both become null.

    Example:
        >>> plain({"mean": float("nan"), "edges": (1, 2)})
        {'mean': None, 'edges': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
