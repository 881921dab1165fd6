"""How much of a lesion is found, and how much of the finding is lesion.

Voxels are counted once (`confusion`); every overlap metric is then a ratio of
four numbers. No smoothing constants: a reported value is the plain ratio, and
where that is 0/0 it is NaN, to be left out of means *and counted*.

========================  ===========  ===========  ===========  ============
metric                    both empty   truth empty  pred empty   truth is all
========================  ===========  ===========  ===========  ============
``dice``, ``iou``         NaN          0            0            defined
``sensitivity``           NaN          NaN          0            defined
``precision``             NaN          0            0            defined
``specificity``           1            defined      1            NaN
``informedness``          NaN          NaN          0            NaN
``mcc``                   0            0            0            0
``volume_error``          NaN          NaN          1            defined
``mae``                   0            defined      defined      defined
========================  ===========  ===========  ===========  ============
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from finemask.masks import as_masks


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


@dataclass(frozen=True)
class Confusion:
    """Voxel counts of a predicted mask against the truth, and their ratios.

    Args:
        tp: Lesion voxels found.
        fp: Voxels wrongly called lesion.
        fn: Lesion voxels missed.
        tn: The rest.

    Example:
        >>> counts = Confusion(tp=6, fp=2, fn=4, tn=88)
        >>> counts.dice, counts.iou, counts.sensitivity, counts.precision
        (0.6666666666666666, 0.5, 0.6, 0.75)
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Confusion) -> Confusion:
        """Counts of two cases pooled, so that large lesions weigh more than small ones."""
        return Confusion(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def dice(self) -> float:
        """``2 TP / (2 TP + FP + FN)``; NaN when both masks are empty.

        Paper: dsnet Eq. (20), ds2f Eq. (20)
        """
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """``TP / (TP + FP + FN)``; NaN when both masks are empty.

        Paper: ds2f Eq. (18)
        """
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        """``TP / (TP + FN)``, also called recall; NaN when there is no lesion.

        Paper: dsnet Eq. (21)
        """
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """``TP / (TP + FP)``; NaN when both are empty, 0 when a lesion got no prediction.

        Paper: dsnet Eq. (22)
        """
        if not self.tp + self.fp and self.fn:
            return 0.0
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def specificity(self) -> float:
        """``TN / (TN + FP)``; NaN when the lesion fills the image."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def mcc(self) -> float:
        """Matthews correlation of prediction and truth, in [-1, 1]; 0 when either is constant."""
        pairs = ((self.tp, self.fp), (self.tp, self.fn), (self.tn, self.fp), (self.tn, self.fn))
        # Each root on its own: the product of four counts leaves the range of 64 bits.
        norm = math.prod(math.sqrt(a + b) for a, b in pairs)
        return (self.tp * self.tn - self.fp * self.fn) / norm if norm else 0.0

    @property
    def informedness(self) -> float:
        """``sensitivity + specificity - 1`` (bookmaker, BM); NaN when either is undefined.

        Paper: ds2f Eq. (19)
        """
        return self.sensitivity + self.specificity - 1

    @property
    def volume_error(self) -> float:
        """``|predicted - true| / true`` volume; NaN when there is no lesion."""
        return _ratio(abs(self.fp - self.fn), self.tp + self.fn)


def confusion(pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> Confusion:
    """Count the voxels of a predicted mask against the truth.

    Args:
        pred: Boolean or integer mask; every label but 0 is foreground.
        truth: The same, on the same grid.

    Raises:
        ValueError: When the shapes differ or an array is no mask.

    Example:
        >>> confusion(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0]))
        Confusion(tp=1, fp=1, fn=1, tn=1)
    """
    pred, truth = as_masks(pred, truth)
    tp = int(np.count_nonzero(pred & truth))
    fp = int(np.count_nonzero(pred)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Confusion(tp, fp, fn, pred.size - tp - fp - fn)


def dice(pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Dice overlap in [0, 1]; NaN when both masks are empty, 0 when one is.

    Example:
        >>> dice(np.array([1, 1, 0]), np.array([0, 1, 0]))
        0.6666666666666666
    """
    return confusion(pred, truth).dice


def iou(pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Intersection over union (Jaccard) in [0, 1]; NaN when both masks are empty.

    Example:
        >>> iou(np.array([1, 1, 0]), np.array([0, 1, 0]))
        0.5
    """
    return confusion(pred, truth).iou


def sensitivity(pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Share of the lesion that was found (recall), in [0, 1]; NaN without a lesion."""
    return confusion(pred, truth).sensitivity


def precision(pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Share of the prediction that is lesion, in [0, 1]; NaN when both masks are empty."""
    return confusion(pred, truth).precision


def specificity(pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Share of the healthy voxels left alone, in [0, 1]; NaN when all is lesion."""
    return confusion(pred, truth).specificity


def mae(pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Mean absolute error of a probability map (or a mask) against the truth, in [0, 1].

    The map is taken as it is: it is not stretched to [0, 1] image by image first.

    Args:
        pred: Probabilities in [0, 1], or a mask.
        truth: Mask or soft mask in [0, 1], on the same grid.

    Raises:
        ValueError: When the shapes differ or a value is outside [0, 1].

    Example:
        >>> mae(np.array([0.75, 0.0]), np.array([1, 0]))
        0.125
    """
    pred, truth = np.asarray(pred), np.asarray(truth)
    if pred.shape != truth.shape:
        raise ValueError(
            f"pred has shape {pred.shape}, truth {truth.shape}; they must share a grid"
        )
    for name, array in (("pred", pred), ("truth", truth)):
        # The negation also refuses NaN.
        if array.dtype != bool and not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"{name} must lie in [0, 1], got {array.min()} to {array.max()}")
    return float(np.abs(pred.astype(np.float64) - truth).mean())
