"""How well a probability map matches a mask as a shape: structure, weighted F and soft overlap.

Maps are taken as they are; stretch them first (`maps.minmax`) where that is the custom.

===================  =======================  ==================  =====================
metric               both empty               truth empty         truth is all
===================  =======================  ==================  =====================
``s_measure``        1                        ``1 - mean(p)``     ``mean(p)``
``weighted_f``       0                        0                   defined
``dice_soft``        1                        near 0              defined
``iou_half``         1                        near 0              defined
===================  =======================  ==================  =====================

References: D.-P. Fan et al., Structure-measure, ICCV 2017; R. Margolin et al., How to
evaluate foreground maps?, CVPR 2014.

Differences to public code, each decided here:

* The centroid of a lesion is rounded up at one half, as in the authors' MATLAB code;
  NumPy's ``round`` goes to the even number and moves the quadrants of every second such
  lesion (PySODMetrics; up to 0.03 on small images).
* A quadrant without a voxel weighs nothing. It is NaN in PySODMetrics and the MATLAB code,
  and one such image makes the mean of the data set NaN.
* A quadrant in which the map is constant has no variance, whatever its value; elsewhere that
  hangs on the rounding of the mean.
* M2SNet's code divides variances by N but covariances by N - 1, so that its value of a
  perfect mask exceeds 1.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from scipy import ndimage

from finemask.masks import bounding_box
from finemask.metrics.maps import as_map_and_mask

EPS = float(np.spacing(1.0))
SMOOTH = 1e-5
RADIUS, SIGMA = 3, 5.0
"""Of the 7 x 7 Gaussian over which the weighted F-measure spreads an error."""
HALF_WAY = 5.0
"""Voxels from the lesion at which half of the added weight of a false alarm is reached."""


def s_measure(
    probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."], *, alpha: float = 0.5
) -> float:
    """Structural similarity of map and mask, of the object and of four regions around it.

    ``max(0, alpha S_object + (1 - alpha) S_region)``. The regions are the quadrants about the
    centroid of the lesion, weighted by their area.

    Args:
        probs: Probabilities in [0, 1] of a picture.
        truth: Boolean or integer mask on the same grid.
        alpha: Share of the object.

    Returns:
        In [0, 1].

    Raises:
        ValueError: When the shapes differ, the arrays are no pictures or values leave [0, 1].

    Example:
        >>> truth = np.zeros((20, 20), bool)
        >>> truth[6:14, 6:14] = True
        >>> round(s_measure(truth, truth), 6), round(s_measure(0 * truth, truth), 6)
        (1.0, 0.42)
    """
    probs, truth = _as_picture(probs, truth)
    share = float(truth.mean())
    if share in (0.0, 1.0):
        mean = float(probs.mean())
        return mean if share else 1 - mean
    of_object = share * _similarity_to_one(probs[truth])
    of_object += (1 - share) * _similarity_to_one(1 - probs[~truth])
    return max(0.0, alpha * of_object + (1 - alpha) * _region_similarity(probs, truth))


def _similarity_to_one(values: Float[ndarray, " n"]) -> float:
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + EPS)


def _region_similarity(probs: Float[ndarray, " h w"], truth: Bool[ndarray, " h w"]) -> float:
    """Similarity in the four quadrants about the centroid, each weighing as its area."""
    middle = []
    for axis, side in enumerate(truth.shape):
        counts = truth.sum(axis=1 - axis)
        total, number = int(counts @ np.arange(side)), int(counts.sum())
        middle.append((2 * total + number) // (2 * number) + 1)  # one half rounds up
    value = 0.0
    for rows in (slice(None, middle[0]), slice(middle[0], None)):
        for columns in (slice(None, middle[1]), slice(middle[1], None)):
            p, g = probs[rows, columns], truth[rows, columns]
            value += p.size / truth.size * _block_similarity(p, g) if p.size else 0.0
    return value


def _block_similarity(probs: Float[ndarray, " h w"], truth: Bool[ndarray, " h w"]) -> float:
    # About the first voxel, so that a constant block has deviations of exactly 0.
    first = float(probs.flat[0])
    p = probs - first
    shift = float(p.mean())
    p, x, y = p - shift, first + shift, float(truth.mean())
    g = truth - y
    n = probs.size - 1 + EPS
    var_p, var_g, covariance = (float(np.vdot(a, b)) / n for a, b in ((p, p), (g, g), (p, g)))
    product = 4 * x * y * covariance
    sums = (x**2 + y**2) * (var_p + var_g)
    if product:
        return product / (sums + EPS)
    return 0.0 if sums else 1.0


def weighted_f(
    probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."], *, beta_squared: float = 1.0
) -> float:
    """F-measure in which errors weigh by where they are.

    Within the lesion an error is excused by good neighbours (a 7 x 7 Gaussian); outside, a
    false alarm weighs more the farther it is from the lesion, up to twice.

    Args:
        probs: Probabilities in [0, 1] of a picture.
        truth: Boolean or integer mask on the same grid.
        beta_squared: Weight of recall against precision.

    Returns:
        In [0, 1]; 0 without a lesion.

    Raises:
        ValueError: When the shapes differ, the arrays are no pictures or values leave [0, 1].

    Example:
        >>> truth = np.zeros((20, 20), bool)
        >>> truth[6:14, 6:14] = True
        >>> round(weighted_f(truth, truth), 6), weighted_f(0 * truth, truth)
        (1.0, 0.0)
    """
    probs, truth = _as_picture(probs, truth)
    if not truth.any():
        return 0.0
    relevant = probs > 0
    relevant[_around(truth)] = True
    window = bounding_box(relevant)
    assert window is not None  # it holds the lesion
    probs, truth = probs[window], truth[window]
    nearest = ndimage.distance_transform_edt(~truth, return_distances=False, return_indices=True)
    error, wrong = np.abs(probs - truth), ~truth & (probs > 0)
    near = _around(truth)
    spread = _smooth(error[tuple(nearest[:, *near])])
    missed = np.minimum(error[truth], spread[truth[near]])
    offsets = [there[wrong] - at for there, at in zip(nearest, np.nonzero(wrong), strict=True)]
    weight = 2 - np.exp(np.log(0.5) / HALF_WAY * np.hypot(*offsets))
    false_alarm = float((error[wrong] * weight).sum())
    found = float(missed.size - missed.sum())
    recall = 1 - float(missed.mean())
    precision = found / (found + false_alarm + EPS)
    return (1 + beta_squared) * recall * precision / (recall + beta_squared * precision + EPS)


def _around(truth: Bool[ndarray, " h w"]) -> tuple[slice, ...]:
    """The box of a lesion and of all from which an error is spread to it."""
    box = bounding_box(truth)
    assert box is not None  # there is a lesion
    return tuple(slice(max(0, side.start - RADIUS), side.stop + RADIUS) for side in box)


def _smooth(error: Float[ndarray, " h w"]) -> Float[ndarray, " h w"]:
    """A Gaussian window of sum 1; what lies beyond the picture counts as no error."""
    kernel = np.exp(-(np.arange(-RADIUS, RADIUS + 1.0) ** 2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        error = ndimage.correlate1d(error, kernel, axis=axis, mode="constant")
    return error


def dice_soft(probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Dice of the map itself, never cut: ``(2 sum(p g) + s) / (sum(p) + sum(g) + s)``, s = 1e-5.

    What M2SNet's published code reports as mDice. It cannot be turned into an IoU.

    Example:
        >>> round(dice_soft(np.array([[0.5, 0.0]]), np.array([[1, 0]])), 4)
        0.6667
    """
    probs, truth = as_map_and_mask(probs, truth)
    overlap = float(probs[truth].sum())
    return (2 * overlap + SMOOTH) / (float(probs.sum()) + int(truth.sum()) + SMOOTH)


def iou_half(probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """IoU of the map cut above 0.5, smoothed by 1e-5: mIoU of M2SNet's published code.

    Example:
        >>> round(iou_half(np.array([[0.6, 0.5]]), np.array([[1, 1]])), 4)
        0.5
    """
    probs, truth = as_map_and_mask(probs, truth)
    found = probs > 0.5
    overlap = np.count_nonzero(found & truth)
    return float((overlap + SMOOTH) / (np.count_nonzero(found | truth) + SMOOTH))


def _as_picture(
    probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]
) -> tuple[Float[ndarray, " h w"], Bool[ndarray, " h w"]]:
    probs, truth = as_map_and_mask(probs, truth)
    if truth.ndim != 2 or not truth.size:
        raise ValueError(f"pictures are needed, got an array of shape {truth.shape}")
    return probs, truth
