"""Two methods on the same cases: by how much they differ, and whether that can be chance."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from finemask.metrics.statistics import RESAMPLES

_CHUNK = 4_000_000
EXACT_UP_TO = 60
"""Patients for which the distribution of the signed ranks is counted out, ties and all."""


@dataclass(frozen=True)
class PairedDifference:
    """What one method gains over another on the same cases.

    Args:
        cases: With a difference.
        groups: Patients they come from.
        mean: Mean difference over the cases; NaN for none.
        ci_low: Lower end of its 95 % interval (patients drawn again); NaN below two.
        ci_high: Upper end.
        p: Two-sided Wilcoxon signed-rank test over the patients' mean differences; NaN for none.
        effect: Rank-biserial correlation: share of the ranks for less share against, in [-1, 1].
        effect_low: Lower end of its 95 % interval.
        effect_high: Upper end.
    """

    cases: int
    groups: int
    mean: float
    ci_low: float
    ci_high: float
    p: float
    effect: float
    effect_low: float
    effect_high: float


def paired_difference(
    differences: Sequence[float] | Float[ndarray, " n"],
    groups: Sequence[Hashable],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedDifference:
    """Describe differences of cases, with patients as the independent unit.

    Args:
        differences: One a case, finite.
        groups: The patient of each case.
        seed: Of the bootstrap.
        resamples: Draws of as many patients as there are, with replacement.

    Example:
        >>> found = paired_difference([0.25, 0.25, 0.25], ["a", "b", "c"])
        >>> found.mean, found.p, found.effect
        (0.25, 0.25, 1.0)
    """
    values = np.asarray(differences, dtype=np.float64)
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    owner = np.array([index[g] for g in groups], dtype=np.int64)
    n = len(index)
    if not n:
        return PairedDifference(0, 0, *(math.nan,) * 7)
    sums = np.bincount(owner, weights=values, minlength=n)
    counts = np.bincount(owner, minlength=n)
    patients = sums / counts
    mean, effect = float(values.mean()), rank_biserial(patients)
    if n < 2:
        return PairedDifference(values.size, n, mean, math.nan, math.nan,
                                wilcoxon_p(patients), effect, math.nan, math.nan)  # fmt: skip
    rng = np.random.default_rng(seed)
    means, effects = [], []
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - start))
        means.append((drawn @ sums) / (drawn @ counts))
        effects.append(_drawn_effects(patients, drawn))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    effect_low, effect_high = np.percentile(np.concatenate(effects), [2.5, 97.5])
    return PairedDifference(
        values.size, n, mean, float(low), float(high), wilcoxon_p(patients),
        effect, float(effect_low), float(effect_high),
    )  # fmt: skip


def wilcoxon_p(differences: Float[ndarray, " n"]) -> float:
    r"""Two-sided p of the Wilcoxon signed-rank test: could the signs be those of coins?

    $W^+$, the sum of the ranks of $|d|$ with $d > 0$, is compared with what $2^n$
    equally likely sets of signs give: counted out for up to `EXACT_UP_TO` values, by the
    normal distribution (tie and continuity corrected) beyond. Zeros are left out.

    Args:
        differences: One a patient; NaN when none differs from zero.

    Example:
        >>> wilcoxon_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))  # 2 / 2**6
        0.03125
    """
    ranks, positive = _signed_ranks(differences)
    n = ranks.size
    if not n:
        return math.nan
    w = float(ranks[positive].sum())
    expected = ranks.sum() / 2
    if n <= EXACT_UP_TO:
        ways = _rank_sum_ways(np.rint(2 * ranks).astype(np.int64))
        far = round(2 * abs(w - expected))
        distance = np.abs(2 * np.arange(ways.size) - (ways.size - 1))  # twice, in half ranks
        return float(min(1.0, ways[distance >= 2 * far].sum()))
    z = max(0.0, abs(w - expected) - 0.5) / math.sqrt(float((ranks**2).sum()) / 4)
    return math.erfc(z / math.sqrt(2))


def rank_biserial(differences: Float[ndarray, " n"]) -> float:
    """Matched-pairs rank-biserial correlation: $(W^+ - W^-) / (W^+ + W^-)$.

    Args:
        differences: One a patient. Zeros are left out; 0 when nothing differs.

    Example:
        >>> round(rank_biserial(np.array([3.0, 2.0, -1.0])), 3)  # (3 + 2 - 1) / 6
        0.667
    """
    ranks, positive = _signed_ranks(differences)
    if not ranks.size:
        return 0.0
    return float((ranks[positive].sum() - ranks[~positive].sum()) / ranks.sum())


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: p values that may be compared with one level although there are many.

    NaN stays NaN and counts for no test.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    known = [i for i, value in enumerate(p) if not math.isnan(value)]
    corrected, largest = [math.nan] * len(p), 0.0
    for place, i in enumerate(sorted(known, key=lambda i: p[i])):
        largest = max(largest, min(1.0, p[i] * (len(known) - place)))
        corrected[i] = largest
    return corrected


def least_p(n: int) -> float:
    """The smallest p that the signed-rank test can give for ``n`` patients.

    Example:
        >>> least_p(5), least_p(6)
        (0.0625, 0.03125)
    """
    return min(1.0, 2.0 ** (1 - n))


def _signed_ranks(
    differences: Float[ndarray, " n"],
) -> tuple[Float[ndarray, " m"], ndarray]:
    """Mid-ranks of the sizes of what is not zero, and which are positive."""
    # Scores with ten digits: what differs by less is rounding, and a tie.
    values = np.round(np.asarray(differences, dtype=np.float64), 9)
    values = values[values != 0]
    sizes = np.abs(values)
    _, place, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place.reshape(-1)], values > 0


def _rank_sum_ways(doubled: Int[ndarray, " n"]) -> Float[ndarray, " w"]:
    """Probability of each sum of (doubled) ranks when every sign is a coin."""
    chances = np.ones(1)
    for rank in doubled:
        wider = np.zeros(chances.size + rank)
        wider[: chances.size] += chances / 2
        wider[rank:] += chances / 2
        chances = wider
    return chances


def _drawn_effects(
    patients: Float[ndarray, " n"], drawn: Int[ndarray, " b n"]
) -> Float[ndarray, " b"]:
    """Rank-biserial correlation of each draw, from how often it has each patient."""
    values = np.round(patients, 9)
    order = np.argsort(np.abs(values), kind="stable")
    values, drawn = values[order], drawn[:, order]
    drawn, values = drawn[:, values != 0], values[values != 0]
    if not values.size:
        return np.zeros(len(drawn))
    sizes, first = np.unique(np.abs(values), return_index=True)
    tied = np.add.reduceat(drawn, first, axis=1)
    ranks = np.cumsum(tied, axis=1) - (tied - 1) / 2
    place = np.searchsorted(sizes, np.abs(values))
    weighted = drawn * ranks[:, place]
    total = weighted.sum(1)
    return np.where(total > 0, weighted @ np.sign(values) / np.maximum(total, 1), 0.0)
