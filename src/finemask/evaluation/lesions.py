"""Lesion by lesion: a row for each true one, and for each that is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finemask.metrics.detection import Detection, Kind, Lesion
from finemask.metrics.scores import Score, group_by_size, summarise

WHETHER = {"found": 1.0, "missed": 0.0}


@dataclass(frozen=True)
class LesionRow:
    """One lesion of a case.

    Args:
        case: Name of the case.
        group: The patient.
        label: Name of the class.
        unit: Of its diameter.
        lesion: What it is and what became of it.
        size_group: Set by `group_lesions`; ``""`` for a false one.
    """

    case: str
    group: str
    label: str
    unit: str
    lesion: Lesion
    size_group: str = ""


def rows_of(
    detection: Detection, *, case: str, group: str, label: str, unit: str, sheared: bool = False
) -> list[LesionRow]:
    """The lesions of one class of a case; on a sheared grid their size is unknown."""
    lesions = detection.lesions
    if sheared:
        lesions = tuple(replace(lesion, diameter_mm=math.nan) for lesion in lesions)
    return [LesionRow(case, group, label, unit, lesion) for lesion in lesions]


def group_lesions(
    rows: Sequence[LesionRow], cases: Mapping[str, int], edges: Sequence[float | int] = ()
) -> tuple[list[LesionRow], dict[str, Any]]:
    """Put each true lesion into a group by its own size, and sum up.

    Args:
        rows: Of all cases.
        cases: Number of cases by class, those without a lesion too.
        edges: Diameters between the groups; tertiles of the lesions of each class if not given.

    Returns:
        The rows with their groups, and by class: ``found`` and ``dice`` by size group as
        `summarise` tells them, edges, and how many false lesions there are a case.
    """
    true = [row for row in rows if row.lesion.kind != "false"]
    scores = [
        Score(
            row.case, row.group, row.label, row.lesion.diameter_mm, row.unit,
            {"found": WHETHER[row.lesion.kind], "dice": row.lesion.dice},
        )
        for row in true
    ]  # fmt: skip
    grouped, sizes = group_by_size(scores, edges)
    found = summarise(grouped, ["found", "dice"], sizes.names)
    marked = [replace(row, size_group=s.size_group)
              for row, s in zip(true, grouped, strict=True)]  # fmt: skip
    summary = {
        label: {
            **{metric: found[metric].get(label, {}) for metric in ("found", "dice")},
            "edges": list(sizes.edges.get(label, ())),
            "false": (count := _count(rows, label, "false")),
            "false_a_case": count / total if total else math.nan,
        }
        for label, total in cases.items()
    }
    about = {"names": list(sizes.names), "rule": sizes.rule, "classes": summary}
    return [*marked, *(row for row in rows if row.lesion.kind == "false")], about


def _count(rows: Sequence[LesionRow], label: str, kind: Kind) -> int:
    return sum(row.label == label and row.lesion.kind == kind for row in rows)


HEADER = ("case", "group", "class", "kind", "diameter", "unit", "size_group", "voxels", "dice",
          "centre")  # fmt: skip
"""Columns of ``lesions.csv``."""


def cells_of(row: LesionRow) -> list[Any]:
    """A lesion as a row of ``lesions.csv``; its centre in voxels, along each array axis."""
    lesion = row.lesion
    return [
        row.case, row.group, row.label, lesion.kind,
        lesion.diameter_mm if lesion.diameter_mm >= 0 else "", row.unit, row.size_group,
        lesion.voxels, lesion.dice, " ".join(f"{c:.1f}" for c in lesion.centre),
    ]  # fmt: skip
