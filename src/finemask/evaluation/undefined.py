"""What cannot be scored: never a number that is wrong, never left out without a count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from finemask.geometry import Geometry
from finemask.metrics.protocols import METRICS
from finemask.metrics.scores import Score

IMAGE = "image"
"""The class under which the super-resolved image is scored."""
IMAGE_METRICS = ("psnr_db", "ssim")
SHEARED = "sheared grid"
"""Flag of a case whose axes are not square to each other: voxels along them give no lengths."""
NO_PROBS = "no probabilities"
BOTH_EMPTY = "both empty"


def complete(scores: Iterable[Score]) -> list[Score]:
    """Scores in which whatever some cases have is counted as undefined in all others.

    A failed case is the worst in what is measured of the probabilities only where other
    cases have probabilities: else the mean would be that of the failures alone.
    """
    rows = list(scores)
    for metric in (name for name, kind in METRICS.items() if kind.of_probs):
        if not any(math.isfinite(s.values.get(metric, math.nan)) for s in rows if not s.failed):
            rows = [_without(s, (metric,)) for s in rows]
    having = {s.case for s in rows if s.label == IMAGE}
    if not having:
        return rows
    missing = {s.case: s for s in rows if s.case not in having}
    none = dict.fromkeys(IMAGE_METRICS, math.nan)
    return rows + [
        Score(s.case, s.group, IMAGE, math.nan, s.unit, none,
              flag=s.flag if s.failed else "no super-resolved image")
        for s in missing.values()
    ]  # fmt: skip


def why_undefined(score: Score, metric: str) -> str:
    """Why a metric of a case is undefined, where it is."""
    if score.failed:
        return score.flag
    if metric in METRICS and METRICS[metric].of_probs and not _has_probs(score):
        return NO_PROBS
    if SHEARED in score.flag and metric in METRICS:
        other = score.flag.removesuffix(SHEARED).removesuffix("; ")
        return SHEARED if _needs_lengths(metric) else other
    return score.flag


def is_sheared(geometry: Geometry, tolerance: float = 1e-3) -> bool:
    """Whether the axes of a grid are not square to each other.

    Example:
        >>> is_sheared(Geometry.regular((4, 4)))
        False
    """
    direction = np.array(geometry.direction)
    return not np.allclose(direction.T @ direction, np.eye(geometry.ndim), rtol=0, atol=tolerance)


def without_lengths(score: Score) -> Score:
    """The score of a case on a sheared grid: no length in it, nor a size."""
    lengths = [name for name in score.values if _needs_lengths(name)]
    flag = score.flag if score.failed else "; ".join(filter(None, (score.flag, SHEARED)))
    return replace(_without(score, lengths), size=math.nan if score.size else 0.0, flag=flag)


def settle_empty(
    scores: Sequence[Score], empty: Literal["nan", "one"]
) -> tuple[list[Score], list[str]]:
    """Scores in which an empty case that was left empty is perfect in Dice and IoU, if ``one``.

    The rule of challenges whose sets hold many images without a lesion.

    Returns:
        The scores, and what a reader must know of it.
    """
    if empty == "nan":
        return list(scores), []
    settled = [_as_perfect(s) if s.flag.startswith(BOTH_EMPTY) else s for s in scores]
    count = sum(new is not old for new, old in zip(settled, scores, strict=True))
    return settled, [f"Dice and IoU are 1 where both masks are empty (--empty one), {count} times"]


def _as_perfect(score: Score) -> Score:
    perfect = {name: 1.0 for name in ("dice", "iou") if name in score.values}
    return replace(score, values={**score.values, **perfect})


def _needs_lengths(metric: str) -> bool:
    return METRICS[metric].is_length or METRICS[metric].by_length


def _has_probs(score: Score) -> bool:
    """Whether anything was measured of the probabilities: some of it is always defined."""
    return any(METRICS[n].of_probs and math.isfinite(v) for n, v in score.values.items()
               if n in METRICS)  # fmt: skip


def _without(score: Score, metrics: Iterable[str]) -> Score:
    unknown = {name: math.nan for name in metrics if name in score.values}
    return replace(score, values={**score.values, **unknown})
