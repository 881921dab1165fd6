"""From the values of many cases to a mean with its uncertainty."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

RESAMPLES = 2000
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Spread:
    """A metric over the cases for which it is defined.

    Args:
        n: Cases with a finite value.
        mean: Their mean (macro: every case weighs the same); NaN for none.
        sd: Sample standard deviation (n - 1); NaN below two cases.
        median: NaN for none.
        ci_low: Lower end of the 95 % interval of the mean; NaN below two groups.
        ci_high: Upper end.
        groups: Patients (or clips of a video) with a finite value.
        group_mean: Mean of their means: every group weighs the same, however many cases it has.
    """

    n: int
    mean: float
    sd: float
    median: float
    ci_low: float
    ci_high: float
    groups: int
    group_mean: float


def spread(
    values: Sequence[float] | Float[ndarray, " n"],
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> Spread:
    """Describe the finite values; NaN and ``inf`` are left out (and missing from ``n``).

    Args:
        values: One a case.
        groups: The patient of each case; cases of one patient are drawn together.
        seed: Of the bootstrap.

    Example:
        >>> spread([0.5, 0.7, float("nan")]).mean
        0.6
    """
    array = np.asarray(values, dtype=np.float64)
    keep = np.isfinite(array)
    owners = list(groups) if groups is not None else list(range(array.size))
    finite = array[keep]
    if not finite.size:
        return Spread(0, *(float("nan"),) * 5, 0, float("nan"))
    owners = [g for g, k in zip(owners, keep, strict=True) if k]
    low, high = bootstrap_interval(finite, owners, seed=seed)
    sums, counts = _by_group(finite, owners)
    return Spread(
        n=int(finite.size),
        mean=float(finite.mean()),
        sd=float(finite.std(ddof=1)) if finite.size > 1 else float("nan"),
        median=float(np.median(finite)),
        ci_low=low,
        ci_high=high,
        groups=len(counts),
        group_mean=float((sums / counts).mean()),
    )


def bootstrap_interval(
    values: Float[ndarray, " n"],
    groups: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean when *patients*, not images, are drawn again.

    Args:
        values: Finite, one a case.
        groups: The patient of each case.
        confidence: Mass of the interval.
        resamples: Draws of as many patients as there are, with replacement.
        seed: Same seed, same interval.

    Returns:
        Lower and upper end; NaN for fewer than two patients, who say nothing of a spread.

    Example:
        >>> bootstrap_interval(np.array([0.6, 0.6, 0.6]), ["a", "b", "c"])
        (0.6, 0.6)
    """
    sums, counts = _by_group(values, groups)
    n = len(counts)
    if n < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means: list[Float[ndarray, " b"]] = []
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        # How often each patient is drawn is all that a mean needs to know.
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - start))
        means.append((drawn @ sums) / (drawn @ counts))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return float(low), float(high)


def _by_group(
    values: Float[ndarray, " n"], groups: Sequence[Hashable]
) -> tuple[Float[ndarray, " g"], Int[ndarray, " g"]]:
    """Sum of the values and number of cases of each group."""
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    owner = np.array([index[g] for g in groups], dtype=np.int64)
    return np.bincount(owner, weights=values), np.bincount(owner)
