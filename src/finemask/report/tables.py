"""Tables for other programs: CSV that no spreadsheet runs, JSON that every reader takes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from finemask.metrics.scores import Score


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
    counted = ("tp", "fp", "fn", "tn")
    names = ("case", "group", "class", "diameter", "unit", "size_group")
    rows = [
        [
            *(s.case, s.group, s.label, s.size if s.size >= 0 else "", s.unit, s.size_group),
            *(s.values.get(metric, "") for metric in metrics),
            *(getattr(s.counts, name) if s.counts else "" for name in counted),
            s.flag,
        ]
        for s in scores
    ]
    return csv_table([*names, *metrics, *counted, "flags"], rows)


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
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@") else text
