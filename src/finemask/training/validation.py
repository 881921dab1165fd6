"""Validation while training: the score that picks a checkpoint, and its threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from finemask.inference.model import Machine
from finemask.inference.network import run_whole, to_labels
from finemask.inference.torch_backend import resolving, segmenting
from finemask.methods import Method, Segmenter
from finemask.metrics import psnr
from finemask.pairs.degradation import Pair
from finemask.pairs.guidance import cut_guidance
from finemask.pairs.targets import truth_of
from finemask.recipe import Recipe

THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
"""Candidates for the probability from which a voxel is foreground."""

Counts = tuple[Float[ndarray, " t"], Float[ndarray, " t"], Float[ndarray, " t"]]

_SCORES: dict[str, Callable[..., Float[ndarray, " t"]]] = {
    "dice": lambda tp, fp, fn: _ratio(2 * tp, 2 * tp + fp + fn),
    "iou": lambda tp, fp, fn: _ratio(tp, tp + fp + fn),
    "sensitivity": lambda tp, fp, fn: _ratio(tp, tp + fn),
    "precision": lambda tp, fp, fn: _ratio(tp, tp + fp),
}


@dataclass(frozen=True)
class Validation:
    """Mean score over the validation cases at the best threshold."""

    score: float
    threshold: float
    psnr_db: float | None = None
    cases: int = 0


def validate(
    method: Method, segmenter: Segmenter, pairs: Sequence[Pair], recipe: Recipe
) -> Validation:
    """Score whole images of the validation cases on the HR grid.

    Binary tasks take the candidate threshold with the best Dice (the one nearest
    0.5 among equals), whatever the metric: sensitivity alone would want it at
    nothing, precision at everything. Several classes compete by their
    probability instead. A class absent from truth and prediction scores 1.

    Args:
        method: Training network, asked for its super-resolved image.
        segmenter: What will be deployed; it alone is scored.
        pairs: LR and HR of each case.
        recipe: Names the metric, the target and the classes.
    """
    if not pairs:
        return Validation(score=math.nan, threshold=0.5)
    curves, psnrs = [], []
    metric = recipe.train.metric
    for pair in pairs:
        probs, resolved = predict_pair(method, segmenter, pair)
        if probs is not None:
            truth = truth_of(pair.hr, recipe.pairs, recipe.task.foreground)
            curves.append([score_curve(probs, truth, m) for m in ("dice", metric) if m in _SCORES])
        if resolved is not None:
            hr = pair.hr.image
            psnrs.append(psnr(resolved, hr, data_range=float(np.ptp(hr))))
    psnr_db = float(np.mean(psnrs)) if psnrs else None
    if not curves:
        assert psnr_db is not None
        return Validation(psnr_db, threshold=0.5, psnr_db=psnr_db, cases=len(pairs))
    dice, *others = np.mean(curves, axis=0)
    best = max(range(len(dice)), key=lambda t: (dice[t], -abs(THRESHOLDS[t] - 0.5)))
    single = recipe.task.foreground == 1
    return Validation(
        score=float(others[0][best]) if others else cast(float, psnr_db),
        threshold=float(THRESHOLDS[best]) if single else 0.5,
        psnr_db=psnr_db,
        cases=len(pairs),
    )


def predict_pair(
    method: Method, segmenter: Segmenter, pair: Pair
) -> tuple[Float[ndarray, " f *s"] | None, Float[ndarray, " c *s"] | None]:
    """Probabilities on the HR grid and the super-resolved image, from methods that make them."""
    machine = Machine(str(next(segmenter.parameters()).device))
    scale, probs = method.task.scale, None
    guidance = cut_guidance(method.guide, pair.hr.image, segmenter.window, scale)
    if method.needs_masks:
        shown = pair.lr if segmenter.task.scale == scale else pair.hr
        probs = run_whole(segmenting(segmenter, machine), shown.image, guidance)
    if not method.makes_image():
        return probs, None
    network = resolving(method, machine, segmenter.stride, segmenter.window)
    return probs, run_whole(network, pair.lr.image, guidance)


def score_curve(
    probs: Float[ndarray, " f *s"], truth: Bool[ndarray, " f *s"], metric: str = "dice"
) -> Float[ndarray, " t"]:
    """A case's score at each candidate threshold, the mean over its classes.

    Example:
        >>> curve = score_curve(np.array([[0.2, 0.7]]), np.array([[False, True]]))
        >>> curve[[0, 9]].round(3).tolist()
        [0.667, 1.0]
    """
    if len(probs) == 1:
        return _SCORES[metric](*_counts_by_threshold(probs[0], truth[0]))
    labels = to_labels(probs, 0.5)
    scores = []
    for k, inside in enumerate(truth):
        predicted = labels == k + 1
        tp, fp, fn = (
            (predicted & inside).sum(),
            (predicted & ~inside).sum(),
            (~predicted & inside).sum(),
        )
        scores.append(_SCORES[metric](*(np.full(len(THRESHOLDS), float(n)) for n in (tp, fp, fn))))
    return np.mean(scores, axis=0)


def _counts_by_threshold(probs: Float[ndarray, " *s"], truth: Bool[ndarray, " *s"]) -> Counts:
    """True positives, false positives and false negatives in one pass over the voxels."""
    bins = np.array([-np.inf, *THRESHOLDS.astype(probs.dtype), np.inf])
    inside, outside = (np.histogram(probs[part], bins)[0] for part in (truth, ~truth))
    at_least = np.cumsum(np.stack([inside, outside])[:, ::-1], axis=1)[:, ::-1][:, 1:].astype(float)
    tp, fp = at_least
    return tp, fp, inside.sum() - tp


def _ratio(above: Float[ndarray, " t"], below: Float[ndarray, " t"]) -> Float[ndarray, " t"]:
    return np.divide(above, below, out=np.ones_like(above), where=below > 0)
