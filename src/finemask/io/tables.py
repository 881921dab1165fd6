"""CSV that no spreadsheet runs: the one place where tables are written and made harmless."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

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


def plain_cell(text: str) -> str:
    """A cell as it was before it was made harmless.

    Example:
        >>> plain_cell("'=1+1"), plain_cell("'tis")
        ('=1+1', "'tis")
    """
    return text[1:] if text[:1] == "'" and text[1:2] in FORMULA else text


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in FORMULA else text
