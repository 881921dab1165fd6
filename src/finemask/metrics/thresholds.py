"""One probability map cut at 256 thresholds: curves of overlap and of alignment.

The polyp field scores grey maps, not masks: each map is cut at 0, 1/255 ... 1 and the
metric taken every time. All cuts are counted in one pass by a histogram of grey levels
inside and outside the lesion. A curve has 256 values; at index ``k`` the mask is
``p >= k/255`` (`maps.grey_levels` says how exactly).

Two things surprise. At threshold 0 everything is foreground, so a *perfect* mask of
foreground share ``f`` has a mean Dice of ``(255 + 2f/(1+f)) / 256``, not 1. And the maximum
is that of the curve averaged over all images, never the mean of each image's maximum.

Degenerate cases, as the toolbox of the field (PraNet) decides them:

=======================================  ==========================================
no true positive at a threshold          every overlap is 0 there, specificity too,
                                         even where both masks are empty
truth empty                              alignment is the share left background
truth is all                             alignment is the share of foreground
=======================================  ==========================================

References: D.-P. Fan et al., Enhanced-alignment measure for binary foreground map
evaluation, IJCAI 2018; D.-P. Fan et al., PraNet, MICCAI 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from finemask.metrics.maps import LEVELS, as_map_and_mask, grey_levels

EPS = float(np.spacing(1.0))
ROUNDING = 1e-12
"""Of a mean of float64: a voxel this close to the adaptive threshold reaches it."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """Voxel counts of a map cut at one or more thresholds.

    Args:
        tp: Lesion voxels found, a value a threshold.
        fp: Voxels wrongly called lesion.
        lesion: Lesion voxels of the truth.
        size: Voxels of the image.
    """

    tp: Int[ndarray, " t"]
    fp: Int[ndarray, " t"]
    lesion: int
    size: int

    def __add__(self, other: Cuts) -> Cuts:
        """Counts of two cases pooled."""
        return Cuts(
            self.tp + other.tp, self.fp + other.fp, self.lesion + other.lesion,
            self.size + other.size,
        )  # fmt: skip

    @property
    def pr_auc(self) -> float:
        """Area under precision over recall by the trapezoid rule, from precision 1 at recall 0.

        NaN without a lesion. Coarser than `metrics.pr_auc`, which cuts at every value.
        """
        if not self.lesion:
            return float("nan")
        recall = np.append(0.0, (self.tp / self.lesion)[::-1])
        precision = np.append(1.0, self.precision[::-1])
        found = np.append(True, (self.tp + self.fp)[::-1] > 0)
        return float(np.trapezoid(precision[found], recall[found]))

    @property
    def dice(self) -> Float[ndarray, " t"]:
        """``2 TP / (2 TP + FP + FN)``."""
        return self._share(2 * self.tp, self.tp + self.fp + self.lesion)

    @property
    def iou(self) -> Float[ndarray, " t"]:
        """``TP / (TP + FP + FN)``."""
        return self._share(self.tp, self.fp + self.lesion)

    @property
    def sensitivity(self) -> Float[ndarray, " t"]:
        """``TP / (TP + FN)``, also called recall."""
        return self._share(self.tp, np.full_like(self.tp, self.lesion))

    @property
    def precision(self) -> Float[ndarray, " t"]:
        """``TP / (TP + FP)``."""
        return self._share(self.tp, self.tp + self.fp)

    @property
    def specificity(self) -> Float[ndarray, " t"]:
        """``TN / (TN + FP)``, but 0 where nothing of the lesion is found."""
        healthy = np.full_like(self.tp, self.size - self.lesion)
        return self._share(healthy - self.fp, healthy)

    def _share(self, part: Int[ndarray, " t"], whole: Int[ndarray, " t"]) -> Float[ndarray, " t"]:
        shares = np.zeros(self.tp.shape)
        np.divide(part, whole, out=shares, where=(self.tp > 0) & (whole > 0))
        return shares

    @cached_property
    def alignment(self) -> Float[ndarray, " t"]:
        """E-measure at each threshold; see `e_measure`."""
        return self.e_measure()

    def e_measure(self, eps: float = EPS) -> Float[ndarray, " t"]:
        """Enhanced alignment of mask and truth, both with their means taken off.

        ``sum (1 + 2ab / (a^2 + b^2 + eps))^2 / 4 / (N - 1 + eps)``. Divided by N - 1, it
        reaches ``N / (N - 1)``, which is left as it is. Masks and truths take two values each,
        so that four terms make the sum. NaN for an image of one voxel.

        Args:
            eps: The smallest float step; larger ones (1e-8 in M2SNet's code) lower the value of
                lesions of a few voxels.
        """
        if self.size < 2:
            return np.full(self.tp.shape, np.nan)
        found = self.tp + self.fp
        if not self.lesion:
            total = (self.size - found).astype(np.float64)
        elif self.lesion == self.size:
            total = found.astype(np.float64)
        else:
            missed = self.lesion - self.tp
            parts = ((self.tp, 1, 1), (self.fp, 1, 0), (missed, 0, 1),
                     (self.size - found - missed, 0, 0))  # fmt: skip
            total = np.zeros(self.tp.shape)
            for count, in_mask, in_truth in parts:
                a, b = in_mask - found / self.size, in_truth - self.lesion / self.size
                total += count * (1 + 2 * a * b / (a * a + b * b + eps)) ** 2 / 4
        return total / (self.size - 1 + eps)


def cut_everywhere(probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> Cuts:
    """Cut a map at ``k/255`` for k = 0 to 255.

    Args:
        probs: Probabilities in [0, 1]; stretch them first (`maps.minmax`) where that is the custom.
        truth: Boolean or integer mask on the same grid.

    Raises:
        ValueError: When the shapes differ or a probability is outside [0, 1].

    Example:
        >>> cuts = cut_everywhere(np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([[1, 0, 0, 0]]))
        >>> cuts.dice[[0, 1, 255]], round(float(cuts.dice.mean()), 4)
        (array([0.4, 1. , 1. ]), 0.9977)
    """
    probs, truth = as_map_and_mask(probs, truth)
    bins = grey_levels(probs).astype(np.intp)
    bins[truth] += LEVELS
    healthy, lesion = np.bincount(bins.ravel(), minlength=2 * LEVELS).reshape(2, LEVELS)
    at_least = [np.cumsum(counts[::-1])[::-1] for counts in (lesion, healthy)]
    return Cuts(at_least[0], at_least[1], int(lesion.sum()), truth.size)


def cut_adaptively(probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> Cuts:
    """Cut a map at twice its mean, at most 1; a map of zeros is then all foreground.

    Example:
        >>> cut_adaptively(np.array([[0.9, 0.5, 0.0, 0.0]]), np.array([[1, 0, 0, 0]])).fp
        array([0])
    """
    probs, truth = as_map_and_mask(probs, truth)
    found = probs >= min(2 * float(probs.mean()), 1.0) - ROUNDING
    tp = int(np.count_nonzero(found & truth))
    fp = int(np.count_nonzero(found)) - tp
    return Cuts(np.array([tp]), np.array([fp]), int(np.count_nonzero(truth)), truth.size)


def e_measure_adaptive(probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """E-measure of the map cut at twice its mean.

    Example:
        >>> truth = np.eye(4)
        >>> round(e_measure_adaptive(truth, truth > 0), 4)  # 16 / 15
        1.0667
    """
    return float(cut_adaptively(probs, truth).alignment[0])
