"""Tables for other programs: CSV that no spreadsheet runs, JSON that every reader takes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finemask.errors import DataError
from finemask.metrics.overlap import Confusion
from finemask.metrics.scores import Score

COUNTED = ("tp", "fp", "fn", "tn")
FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for the beginning of a formula."""


def csv_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A CSV table; floats to ten digits, text that looks like a formula made harmless.

    Example:
        >>> print(csv_table(["case", "dice"], [["=1+1", 0.5]]), end="")
        case,dice
        '=1+1,0.5
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


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
        case=_bare(row["case"]),
        group=_bare(row["group"]),
        label=_bare(row["class"]),
        size=float(row["diameter"] or "nan"),
        unit=row["unit"],
        values={name: float(row[name]) for name in metrics if row[name]},
        counts=Confusion(*map(int, counts)) if all(counts) else None,
        flag=row["flags"],
        size_group=_bare(row["size_group"]),
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


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in FORMULA else text


def _bare(text: str) -> str:
    """A cell as it was before it was made harmless."""
    return text[1:] if text[:1] == "'" and text[1:2] in FORMULA else text
