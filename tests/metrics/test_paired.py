from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finemask.metrics import paired
from finemask.metrics.paired import (
    holm,
    least_p,
    paired_difference,
    rank_biserial,
    wilcoxon_p,
)

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("n", [1, 5, 20, 60])
def test_exact_p_is_that_of_scipy(n: int) -> None:
    values = RNG.normal(0.3, 1, n)
    expected = stats.wilcoxon(values, method="exact").pvalue
    assert wilcoxon_p(values) == pytest.approx(expected, rel=1e-9)


def test_p_of_many_patients_is_that_of_scipy() -> None:
    values = np.round(RNG.normal(0.1, 1, 150), 1)  # ties and zeros
    expected = stats.wilcoxon(values, method="approx", correction=True).pvalue
    assert wilcoxon_p(values) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9).filter(any))
def test_exact_p_counts_every_set_of_signs_also_with_ties(whole: list[int]) -> None:
    values = np.array([v for v in whole if v], dtype=float)
    ranks = stats.rankdata(np.abs(values))
    middle = ranks.sum() / 2
    far = abs(ranks[values > 0].sum() - middle)
    signs = np.array(list(itertools.product((0, 1), repeat=len(values))))
    expected = np.mean(np.abs(signs @ ranks - middle) >= far - 1e-9)
    assert wilcoxon_p(np.array(whole, dtype=float)) == pytest.approx(expected)


def test_p_by_hand() -> None:
    # Ranks 1 to 6, one negative of rank 1: sums of at most 1 are 0 and 1, on both sides.
    assert wilcoxon_p(np.array([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == 4 / 64
    assert math.isnan(wilcoxon_p(np.zeros(4)))


def test_rounding_is_no_difference() -> None:
    values = np.array([0.3 - 0.1 - 0.2, 0.5, 0.25, 0.125])
    assert wilcoxon_p(values) == least_p(3)
    assert rank_biserial(np.array([0.1 + 0.2 - 0.3, 0.0])) == 0.0


def test_effect_by_hand() -> None:
    assert rank_biserial(np.array([4.0, -1.0, 2.0, -3.0])) == pytest.approx((4 + 2 - 1 - 3) / 10)
    assert rank_biserial(np.array([1.0, -1.0])) == 0.0  # tied ranks
    assert rank_biserial(np.array([-1.0, -2.0])) == -1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_never_smaller(p: list[float]) -> None:
    corrected = holm(p)
    assert all(c >= raw and c <= 1 for c, raw in zip(corrected, p, strict=True))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)
    assert min(corrected) == pytest.approx(min(1.0, min(p) * len(p)))


def test_holm_by_hand_and_without_the_undefined() -> None:
    assert holm([0.02, math.nan, 0.01, 0.5])[:1] == [0.04]
    assert holm([0.02, 0.01, 0.5])[1] == pytest.approx(0.03)
    assert math.isnan(holm([0.02, math.nan])[1])


def test_bootstrap_draws_patients_again() -> None:
    """Against the slow way: draw patients one by one, with all of their cases."""
    groups = RNG.integers(0, 9, 40)
    values = RNG.normal(0.05, 0.1, 40) + groups / 40
    found = paired_difference(values, groups.tolist(), resamples=20000)
    patients = [values[groups == g] for g in np.unique(groups)]
    draws = RNG.integers(0, len(patients), (20000, len(patients)))
    means = [np.concatenate([patients[i] for i in draw]).mean() for draw in draws]
    effects = [rank_biserial(np.array([patients[i].mean() for i in draw])) for draw in draws[:4000]]
    assert found.mean == pytest.approx(values.mean())
    assert (found.ci_low, found.ci_high) == pytest.approx(
        tuple(np.percentile(means, [2.5, 97.5])), abs=0.006
    )
    assert (found.effect_low, found.effect_high) == pytest.approx(
        tuple(np.percentile(effects, [2.5, 97.5])), abs=0.04
    )
    assert (found.cases, found.groups) == (40, len(patients))


def test_images_of_one_patient_add_no_certainty() -> None:
    values = [0.1, 0.3, -0.05, 0.2]
    few = paired_difference(values, list("abcd"))
    many = paired_difference(np.repeat(values, 20), np.repeat(list("abcd"), 20).tolist())
    assert (many.mean, many.ci_low, many.ci_high, many.p) == pytest.approx(
        (few.mean, few.ci_low, few.ci_high, few.p)
    )


def test_too_little_says_nothing() -> None:
    nothing = paired_difference([], [])
    assert nothing.cases == 0
    assert math.isnan(nothing.mean)
    alone = paired_difference([0.1, 0.2], ["a", "a"])
    assert alone.mean == pytest.approx(0.15)
    assert math.isnan(alone.ci_low)
    assert alone.p == 1.0


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = RNG.normal(0, 1, 30), list(range(30))
    whole = paired_difference(values, groups)
    monkeypatch.setattr(paired, "_CHUNK", 30 * 100)
    assert paired_difference(values, groups) == whole
