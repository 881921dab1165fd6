"""What a comparison found: scores of all cells put together, and what they allow to say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from finemask.comparison.plan import DONE, Cell, Plan, Row
from finemask.datasets.listing import read_json
from finemask.evaluation.undefined import IMAGE, IMAGE_METRICS, why_undefined
from finemask.metrics.paired import PairedDifference, holm, paired_difference
from finemask.metrics.protocols import METRICS, PROTOCOLS
from finemask.metrics.scores import EMPTY, EVERY_SIZE, Score, SizeGroups, group_by_size
from finemask.metrics.statistics import spread
from finemask.report.tables import read_cases_table

Place = tuple[int, str]
"""A case in a fold: what is scored once for every row and seed."""
Values = dict[Place, dict[int, float]]
"""A metric of one row by place and seed."""


@dataclass(frozen=True)
class CellScores:
    """What one cell left.

    Args:
        cell: Which.
        scores: Of its test cases.
        about: Contents of ``cell.json``.
    """

    cell: Cell
    scores: tuple[Score, ...]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One row, metric, class and size group of the tables.

    Args:
        row: Label.
        metric: By name.
        label: Class.
        size_group: Or ``all``.
        cases: With a defined value in at least one seed.
        mean: Over the cases, each the mean of its seeds.
        sd_cases: Between cases.
        median: Of the cases.
        ci_low: Lower end of the 95 % interval of the mean (patients drawn again).
        ci_high: Upper end.
        by_seed: Mean over the cases, seed by seed.
        undefined: Values left out, by reason, over all cases and seeds.
        difference: From the reference row, on what both define; ``None`` for that row itself.
        p_holm: Of the difference, corrected for the number of rows.
        seeds_above: Seeds whose mean difference is above zero.
        seeds_paired: Seeds with a difference.
        unpaired: Values of either row that have no partner.
    """

    row: str
    metric: str
    label: str
    size_group: str
    cases: int
    mean: float
    sd_cases: float
    median: float
    ci_low: float
    ci_high: float
    by_seed: Mapping[int, float]
    undefined: Mapping[str, int] = field(default_factory=dict)
    difference: PairedDifference | None = None
    p_holm: float = math.nan
    seeds_above: int = 0
    seeds_paired: int = 0
    unpaired: int = 0

    @property
    def sd_seeds(self) -> float:
        """Between the means of the seeds; NaN below two."""
        means = [value for value in self.by_seed.values() if math.isfinite(value)]
        return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan


@dataclass(frozen=True)
class Results:
    """A comparison as far as it is done.

    Args:
        plan: What was to be compared.
        cells: Those that are done.
        errors: Cells that could not be done, with the reason.
        sizes: How lesions were grouped.
        metrics: In the order of the tables.
        labels: Classes.
        unit: Of lengths.
        entries: By metric, class, size group and row.
        size_group_of: By place and class.
    """

    plan: Plan
    cells: tuple[CellScores, ...]
    errors: Mapping[str, str]
    sizes: SizeGroups
    metrics: tuple[str, ...]
    labels: tuple[str, ...]
    unit: str
    entries: Mapping[tuple[str, str, str, str], Entry]
    size_group_of: Mapping[tuple[Place, str], str]

    @property
    def rows(self) -> list[Row]:
        """Rows with at least one finished cell, in the order of the plan."""
        having = {c.cell.row.label for c in self.cells}
        return [row for row in self.plan.rows if row.label in having]

    @property
    def reference(self) -> str:
        """Label of the row that the others are compared with."""
        return self.rows[0].label

    @property
    def headline(self) -> str:
        return PROTOCOLS[self.plan.protocol].headline

    @property
    def failed_predictions(self) -> int:
        """Masks that are missing or unusable; each counts as the worst."""
        return sum(len(c.about["failed"]) for c in self.cells)

    @property
    def exit_code(self) -> int:
        """0 all done, 1 when a cell or a prediction failed."""
        return 1 if self.errors or self.failed_predictions else 0

    @property
    def size_names(self) -> tuple[str, ...]:
        """Size groups that have cases, from small to large."""
        present = set(self.size_group_of.values())
        return tuple(n for n in (*self.sizes.names, EMPTY) if n in present)

    def entry(
        self, row: str, metric: str, label: str, size_group: str = EVERY_SIZE
    ) -> Entry | None:
        """One number of the tables; ``None`` where there is none."""
        return self.entries.get((metric, label, size_group, row))

    def labels_of(self, metric: str) -> tuple[str, ...]:
        """Classes that a metric is known for: the image alone for its quality."""
        return (IMAGE,) if metric in IMAGE_METRICS else self.labels

    def case_values(self, row: str, metric: str, label: str) -> dict[Place, float]:
        """What a row scored on each case, the mean of its seeds; undefined ones are left out."""
        values: dict[Place, list[float]] = {}
        for c in self.cells:
            for s in c.scores:
                value = s.values.get(metric, math.nan)
                if c.cell.row.label == row and s.label == label and math.isfinite(value):
                    values.setdefault((c.cell.fold, s.case), []).append(value)
        return {place: float(np.mean(found)) for place, found in sorted(values.items())}

    def costs(self, row: str) -> dict[str, float]:
        """Median cost of a row's cells, by name."""
        costs = [c.about["cost"] for c in self.cells if c.cell.row.label == row]
        numbers = [k for k, v in costs[0].items() if isinstance(v, (int, float))]
        return {key: float(np.median([cost[key] for cost in costs])) for key in numbers}


def collect(plan: Plan, out: Path, errors: Mapping[str, str]) -> Results:
    """Read every finished cell again and work out all numbers.

    Whatever is written is read back, so a comparison that was stopped and one that was
    not give the same numbers.
    """
    done = [cell for cell in plan.cells if (out / "cells" / cell.name / DONE).exists()]
    return tabulate(plan, [_read(cell, out) for cell in done], errors)


def tabulate(plan: Plan, cells: Sequence[CellScores], errors: Mapping[str, str]) -> Results:
    """Work out all numbers from the scores of finished cells."""
    sizes, size_group_of = _sizes(cells, plan)
    known = PROTOCOLS[plan.protocol].metrics
    found = {m for c in cells for s in c.scores for m in s.values}
    metrics = tuple(m for m in (*known, *IMAGE_METRICS) if m in found)
    labels = tuple(dict.fromkeys(s.label for c in cells for s in c.scores if s.label != IMAGE))
    units = sorted({s.unit for c in cells for s in c.scores if s.label != IMAGE})
    results = Results(
        plan, tuple(cells), dict(errors), sizes, metrics, labels, " or ".join(units) or "px",
        {}, size_group_of,
    )  # fmt: skip
    entries: dict[tuple[str, str, str, str], Entry] = {}
    for metric in metrics:
        for label in results.labels_of(metric):
            groups = (EVERY_SIZE, *(results.size_names if label != IMAGE else ()))
            for group in groups:
                for entry in _entries(results, metric, label, group):
                    entries[metric, label, group, entry.row] = entry
    return replace(results, entries=entries)


def _read(cell: Cell, out: Path) -> CellScores:
    folder = out / "cells" / cell.name
    scores = read_cases_table(folder / "scores" / "cases.csv")
    return CellScores(cell, tuple(scores), read_json(folder / DONE))


def _sizes(
    cells: Sequence[CellScores], plan: Plan
) -> tuple[SizeGroups, dict[tuple[Place, str], str]]:
    """Group every lesion once, whatever the number of rows and seeds."""
    once: dict[tuple[Place, str], Score] = {}
    for c in cells:
        for s in c.scores:
            if s.label != IMAGE:
                once.setdefault(((c.cell.fold, s.case), s.label), s)
    grouped, sizes = group_by_size(list(once.values()), plan.size_edges)
    return sizes, {key: s.size_group for key, s in zip(once, grouped, strict=True)}


def _entries(results: Results, metric: str, label: str, size_group: str) -> list[Entry]:
    """One number a row, each but the first with its difference from the first."""
    values: dict[str, Values] = {}
    reasons: dict[str, Counter[str]] = {}
    groups: dict[Place, str] = {}
    for c in results.cells:
        row = c.cell.row.label
        for s in c.scores:
            place = (c.cell.fold, s.case)
            if s.label != label or metric not in s.values:
                continue
            if size_group not in (EVERY_SIZE, results.size_group_of.get((place, label))):
                continue
            groups[place] = s.group
            value = s.values[metric]
            if math.isfinite(value):
                values.setdefault(row, {}).setdefault(place, {})[c.cell.seed] = value
            else:
                reason = why_undefined(s, metric) or "not defined"
                reasons.setdefault(row, Counter())[reason] += 1
    rows = [r.label for r in results.rows if r.label in values or r.label in reasons]
    entries = [
        _described(row, (metric, label, size_group), values.get(row, {}), groups,
                   reasons.get(row, Counter()))
        for row in rows
    ]  # fmt: skip
    if not rows or rows[0] != results.reference:
        return entries
    compared = [
        _compared(entry, values.get(entry.row, {}), values.get(rows[0], {}), groups)
        for entry in entries[1:]
    ]
    corrected = holm([e.difference.p if e.difference else math.nan for e in compared])
    return [
        entries[0],
        *(replace(entry, p_holm=p) for entry, p in zip(compared, corrected, strict=True)),
    ]


def _described(
    row: str,
    place: tuple[str, str, str],
    values: Values,
    groups: Mapping[Place, str],
    reasons: Mapping[str, int],
) -> Entry:
    places = sorted(values)
    means = [float(np.mean(list(values[p].values()))) for p in places]
    found = spread(means, [groups[p] for p in places])
    seeds = sorted({seed for by_seed in values.values() for seed in by_seed})
    by_seed = {
        seed: float(np.mean([values[p][seed] for p in places if seed in values[p]]))
        for seed in seeds
    }
    metric, label, size_group = place
    return Entry(
        row, metric, label, size_group, found.n, found.mean, found.sd, found.median,
        found.ci_low, found.ci_high, by_seed, dict(sorted(reasons.items())),
    )  # fmt: skip


def _compared(entry: Entry, ours: Values, theirs: Values, groups: Mapping[Place, str]) -> Entry:
    """The same entry with its difference from the reference: seed by seed, then case by case."""
    differences: Values = {}
    for place in sorted(set(ours) & set(theirs)):
        common = set(ours[place]) & set(theirs[place])
        if common:
            differences[place] = {s: ours[place][s] - theirs[place][s] for s in sorted(common)}
    total = sum(len(v) for v in (*ours.values(), *theirs.values()))
    pairs = sum(len(v) for v in differences.values())
    seeds = sorted({s for v in differences.values() for s in v})
    by_seed = [np.mean([v[s] for v in differences.values() if s in v]) for s in seeds]
    places = list(differences)
    return replace(
        entry,
        difference=paired_difference(
            [float(np.mean(list(differences[p].values()))) for p in places],
            [groups[p] for p in places],
        ),
        seeds_above=sum(bool(m > 0) for m in by_seed),
        seeds_paired=len(seeds),
        unpaired=total - 2 * pairs,
    )


def in_unit_range(metric: str) -> bool:
    """Whether a metric lies in [0, 1], so that its whole range can be drawn."""
    return metric in METRICS and not METRICS[metric].is_length


def higher_is_better(metric: str) -> bool:
    """Which way is good, for the quality of the image too."""
    return metric in IMAGE_METRICS or METRICS[metric].higher_is_better
