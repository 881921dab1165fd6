"""What probabilities are worth: how they rank voxels, and whether they mean what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from finemask.masks import as_mask
from finemask.metrics.maps import STEPS


def average_precision(probs: Float[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    r"""Area under precision over recall in steps: $\sum_n (R_n - R_{n-1}) P_n$.

    Over every value of the map as a threshold; the values of one image only.

    Args:
        probs: Probabilities in [0, 1].
        truth: Boolean or integer mask on the same grid.

    Returns:
        In [0, 1]; NaN without a lesion.

    Raises:
        ValueError: When the shapes differ or a value is outside [0, 1].

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1]))  # 1/2 + 1/2 * 2/3
        0.8333333333333333
    """
    return _in_steps(*_precision_recall(probs, truth))


def pr_auc(probs: Float[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Area under precision over recall by the trapezoid rule, from precision 1 at recall 0.

    Joins points that no classifier lies between, so it flatters; see `average_precision`.

    Args:
        probs: Probabilities in [0, 1].
        truth: Boolean or integer mask on the same grid.

    Returns:
        In [0, 1]; NaN without a lesion.

    Example:
        >>> pr_auc(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1]))  # 1/2 + 1/2 * (1/2 + 2/3) / 2
        0.7916666666666666
    """
    return _by_trapezoids(*_precision_recall(probs, truth))


@dataclass(frozen=True, eq=False)
class Ranking:
    """The voxels of any number of images by their probability, to be pooled by adding.

    Probabilities are taken in steps of 1/65535, as 16-bit files hold them.

    Args:
        lesion: Voxels of the lesion at each step from 0 to 1.
        every: All voxels at each step.

    Example:
        >>> a = Ranking.of(np.array([0.9]), np.array([True]))
        >>> b = Ranking.of(np.array([0.8, 0.7]), np.array([0, 1]))
        >>> (a + b).average_precision
        0.8333333333333333
    """

    lesion: Int[ndarray, " steps"]
    every: Int[ndarray, " steps"]

    @classmethod
    def of(cls, probs: Float[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> Ranking:
        """Of one image.

        Args:
            probs: Probabilities in [0, 1].
            truth: Boolean or integer mask on the same grid.
        """
        flat, lesion = _checked(probs, np.asarray(truth))
        steps = np.round(flat * STEPS).astype(np.int64)
        found = (np.bincount(steps[chosen], minlength=STEPS + 1)
                 for chosen in (lesion > 0, slice(None)))  # fmt: skip
        return cls(*found)

    def __add__(self, other: Ranking) -> Ranking:
        return Ranking(self.lesion + other.lesion, self.every + other.every)

    @property
    def average_precision(self) -> float:
        """As `average_precision`, of all voxels together."""
        return _in_steps(*self._curve())

    @property
    def pr_auc(self) -> float:
        """As `pr_auc`, of all voxels together."""
        return _by_trapezoids(*self._curve())

    def _curve(self) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
        tp, passed = (np.cumsum(counts[::-1]) for counts in (self.lesion, self.every))
        some = np.flatnonzero(self.every[::-1])
        return _curve(tp[some], passed[some])


def brier(probs: Float[ndarray, "..."], truth: Shaped[ndarray, "..."]) -> float:
    """Mean squared error of the probabilities, in [0, 1].

    Example:
        >>> brier(np.array([0.5, 0.0]), np.array([1, 0]))
        0.125
    """
    flat, lesion = _checked(probs, truth)
    return float(np.mean((flat - lesion) ** 2))


def calibration_error(
    probs: Float[ndarray, "..."], truth: Shaped[ndarray, "..."], *, bins: int = 15
) -> float:
    """Expected calibration error: how far probabilities are from how often they are right.

    The voxels of equally wide bins of probability are set against their share of lesion, and
    the differences averaged over the voxels.

    Args:
        probs: Probabilities of the lesion in [0, 1].
        truth: Boolean or integer mask on the same grid.
        bins: How many.

    Example:
        >>> calibration_error(np.array([0.75, 0.75, 0.75, 0.75]), np.array([1, 1, 1, 0]))
        0.0
    """
    flat, lesion = _checked(probs, truth)
    place = np.minimum((flat * bins).astype(np.int64), bins - 1)
    told = np.bincount(place, weights=flat, minlength=bins)
    true = np.bincount(place, weights=lesion, minlength=bins)
    return float(np.abs(told - true).sum() / flat.size)


def _precision_recall(
    probs: Float[ndarray, "..."], truth: Shaped[ndarray, "..."]
) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Recall and precision from the strictest threshold to the mildest; empty without a lesion."""
    flat, lesion = _checked(probs, truth)
    order = np.argsort(-flat, kind="stable")
    flat = flat[order]
    # Voxels of one value pass together.
    last = np.flatnonzero(np.append(flat[1:] != flat[:-1], True)) if flat.size else np.empty(0, int)
    return _curve(np.cumsum(lesion[order])[last], last + 1)


def _curve(
    tp: Shaped[ndarray, " n"], passed: Shaped[ndarray, " n"]
) -> tuple[Float[ndarray, " m"], Float[ndarray, " m"]]:
    """Recall and precision from the voxels that pass ever milder thresholds."""
    if not tp.size or not tp[-1]:
        return np.empty(0), np.empty(0)
    return np.append(0.0, tp / tp[-1]), np.append(1.0, tp / passed)


def _in_steps(recall: Float[ndarray, " n"], precision: Float[ndarray, " n"]) -> float:
    return float(np.sum(np.diff(recall) * precision[1:])) if recall.size else float("nan")


def _by_trapezoids(recall: Float[ndarray, " n"], precision: Float[ndarray, " n"]) -> float:
    if not recall.size:
        return float("nan")
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def _checked(
    probs: Float[ndarray, "..."], truth: Shaped[ndarray, "..."]
) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    probs, mask = np.asarray(probs), as_mask(truth, "truth")
    if probs.shape != mask.shape:
        raise ValueError(f"probs has shape {probs.shape}, truth {mask.shape}; they must share one")
    flat = probs.astype(np.float64).ravel()
    if not (flat.min(initial=0) >= 0 and flat.max(initial=0) <= 1):  # also refuses NaN
        raise ValueError(f"probs must lie in [0, 1], got {flat.min()} to {flat.max()}")
    return flat, mask.ravel().astype(np.float64)
