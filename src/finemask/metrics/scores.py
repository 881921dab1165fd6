"""Scores of many cases: one row a case and class, grouped by lesion size, summed up."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from finemask.metrics.comparison import Comparison
from finemask.metrics.lesions import equivalent_diameter_mm
from finemask.metrics.overlap import Confusion
from finemask.metrics.protocols import CURVES, METRICS
from finemask.metrics.statistics import spread
from finemask.metrics.thresholds import Cuts

FAILED = "failed"
UNREADABLE = "truth unreadable"
EMPTY = "empty"
EVERY_SIZE = "all"
POOLED = ("dice", "iou", "sensitivity", "precision", "specificity", "mcc", "informedness")
TERTILES = ("small", "medium", "large")


@dataclass(frozen=True)
class Score:
    """One case and one class.

    Args:
        case: Name of the case.
        group: The patient.
        label: Name of the class.
        size: Equivalent diameter of the true lesion in ``unit``; NaN when unknown.
        unit: ``mm``, or ``px`` where the spacing is unknown.
        values: By metric; NaN or ``inf`` where undefined.
        counts: Voxels, for pooled values; ``None`` when nothing could be counted.
        flag: Why some values are undefined or the worst possible; ``""`` for none.
        size_group: Set by `group_by_size`.
        curves: By metric, its values at the thresholds 0, 1/255 ... 1.
        cuts: Voxel counts at these thresholds, where the area under precision over recall is
            asked for.
    """

    case: str
    group: str
    label: str
    size: float
    unit: str
    values: Mapping[str, float]
    counts: Confusion | None = None
    flag: str = ""
    size_group: str = ""
    curves: Mapping[str, Float[ndarray, " 256"]] = field(default_factory=dict, compare=False)
    cuts: Cuts | None = field(default=None, compare=False)

    @property
    def failed(self) -> bool:
        return self.flag in (FAILED, UNREADABLE)


def score(
    comparison: Comparison,
    metrics: Sequence[str],
    curves: Sequence[str] = (),
    *,
    case: str,
    group: str,
    label: str,
    unit: str,
) -> Score:
    """Score one class of one case by the metrics and curves named."""
    return Score(
        case=case,
        group=group,
        label=label,
        size=equivalent_diameter_mm(comparison.truth, comparison.spacing),
        unit=unit,
        values={name: METRICS[name].compute(comparison) for name in metrics},
        counts=comparison.counts,
        flag=comparison.emptiness,
        curves={name: CURVES[name].compute(comparison) for name in curves},
        cuts=comparison.cuts if "pr_auc" in metrics and comparison.probs is not None else None,
    )


def score_failure(
    comparison: Comparison, metrics: Sequence[str], curves: Sequence[str] = (), **names: str
) -> Score:
    """Score a case that got no usable prediction: the worst of every metric, whatever the truth.

    Args:
        comparison: The truth against an empty prediction.
        metrics: By name.
        curves: By name; 0 at every threshold.
        **names: As for `score`.
    """
    scored = score(comparison, (), **names)
    values = {m: METRICS[m].worst for m in metrics}
    nothing = comparison.cuts if "pr_auc" in metrics else None
    return replace(
        scored,
        values=values,
        flag=FAILED,
        curves=dict.fromkeys(curves, np.zeros(256)),
        cuts=nothing,
    )


@dataclass(frozen=True)
class SizeGroups:
    """How lesions were grouped by size.

    Args:
        names: From small to large, without ``empty``.
        edges: Between the groups, by class, in the unit of the sizes.
        rule: In words.
    """

    names: tuple[str, ...]
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rule: str = ""


def group_by_size(
    scores: Sequence[Score], edges: Sequence[float | int] = ()
) -> tuple[list[Score], SizeGroups]:
    """Put every score into a group by the size of its true lesion.

    Args:
        scores: Without groups yet.
        edges: Ascending diameters; a lesion as large as an edge is in the group above.
            None given: the tertiles of each class, where three sizes differ.

    Returns:
        The scores with their groups (an empty truth is in ``empty``), and the rule.

    Raises:
        ValueError: When the edges do not ascend from above 0.
    """
    if list(edges) != sorted({*edges}) or not all(0 < e < math.inf for e in edges):
        raise ValueError(f"size edges must be positive and ascend, got {tuple(edges)}")
    if edges:
        names = _names_between(edges)
        by_label = {s.label: tuple(float(e) for e in edges) for s in scores}
        rule = "edges given"
    else:
        names, rule = TERTILES, "tertiles of the true lesions of each class"
        by_label = {label: _tertiles(scores, label) for label in {s.label: None for s in scores}}
    grouped = [replace(s, size_group=_group_of(s, by_label[s.label], names)) for s in scores]
    return grouped, SizeGroups(names, by_label, rule)


def _names_between(edges: Sequence[float | int]) -> tuple[str, ...]:
    between = [f"{a:g}-{b:g}" for a, b in itertools.pairwise(edges)]
    return (f"<{edges[0]:g}", *between, f">={edges[-1]:g}")


def _tertiles(scores: Sequence[Score], label: str) -> tuple[float, ...]:
    sizes = [s.size for s in scores if s.label == label and s.size > 0]
    if len(set(sizes)) < 3:
        return ()
    return tuple(float(q) for q in np.quantile(sizes, [1 / 3, 2 / 3]))


def _group_of(score: Score, edges: Sequence[float | int], names: Sequence[str]) -> str:
    if math.isnan(score.size):
        return ""
    if not score.size:
        return EMPTY
    return names[int(np.searchsorted(edges, score.size, side="right"))] if edges else EVERY_SIZE


def summarise(
    scores: Sequence[Score], metrics: Sequence[str], names: Sequence[str], *, seed: int = 0
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Mean, spread and interval by metric, class and size group.

    Returns:
        ``[metric][class][size group]`` with the fields of `Spread` and
        ``undefined`` (reason to count); group ``all`` holds every case. NaN where there is
        nothing to tell; groups without cases are left out.
    """
    table: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for metric in metrics:
        having = [s for s in scores if metric in s.values]
        table[metric] = {
            label: _by_size([s for s in having if s.label == label], metric, names, seed)
            for label in dict.fromkeys(s.label for s in having)
        }
    return table


def _by_size(
    scores: Sequence[Score], metric: str, names: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    members = {EVERY_SIZE: list(scores)}
    members |= {n: [s for s in scores if s.size_group == n] for n in (*names, EMPTY)}
    return {name: _describe(some, metric, seed) for name, some in members.items() if some}


def _describe(scores: Sequence[Score], metric: str, seed: int) -> dict[str, Any]:
    values = [s.values[metric] for s in scores]
    reasons = Counter(
        s.flag or "not defined"
        for s, value in zip(scores, values, strict=True)
        if not math.isfinite(value)
    )
    described = spread(values, [s.group for s in scores], seed=seed)
    return {**vars(described), "undefined": dict(sorted(reasons.items()))}


def pooled(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Overlap of all voxels of a class put together, in which large lesions outweigh small ones.

    A failed case counts as an empty prediction. Where every case has probabilities and the
    protocol their PR-AUC, that of all voxels is told too, by 256 thresholds and the trapezoid rule.
    """
    table = {}
    for label in dict.fromkeys(s.label for s in scores):
        counted = [s for s in scores if s.label == label and s.counts is not None]
        if counted:
            total = sum((s.counts for s in counted if s.counts), start=Confusion(0, 0, 0, 0))
            table[label] = {f"{name}_pooled": getattr(total, name) for name in POOLED}
            cuts = [s.cuts for s in counted if s.cuts is not None]
            if len(cuts) == len(counted):
                table[label]["pr_auc_pooled"] = sum(cuts[1:], start=cuts[0]).pr_auc
    return table


def mean_curves(scores: Sequence[Score]) -> dict[str, dict[str, dict[str, Any]]]:
    """The curve of each class averaged over all cases, told by its mean and its maximum.

    Returns:
        ``[class][metric]`` with ``n`` cases, ``mean`` and ``max`` of the mean curve,
        and ``threshold_at_max``, the lowest in [0, 1].
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for label in dict.fromkeys(s.label for s in scores if s.curves):
        having = [s.curves for s in scores if s.label == label and s.curves]
        table[label] = {}
        for name in having[0]:
            curve = np.mean([curves[name] for curves in having], axis=0)
            best = int(curve.argmax())
            table[label][name] = {
                "n": len(having),
                "mean": float(curve.mean()),
                "max": float(curve[best]),
                "threshold_at_max": best / (curve.size - 1),
            }
    return table
