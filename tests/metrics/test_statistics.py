from __future__ import annotations

import math

import numpy as np
import pytest

from finemask.metrics import bootstrap_interval, spread


@pytest.mark.fault("F76")
def test_undefined_values_are_left_out_and_counted_out() -> None:
    result = spread([0.2, math.nan, 0.4, math.inf, 0.9])
    assert result.n == 3
    assert result.mean == pytest.approx(0.5)
    assert result.median == pytest.approx(0.4)
    assert result.sd == pytest.approx(np.std([0.2, 0.4, 0.9], ddof=1))


def test_a_clip_of_many_frames_weighs_as_much_as_a_short_one() -> None:
    result = spread([0.9, 0.9, 0.9, 0.1, math.nan], ["long", "long", "long", "short", "lost"])
    assert (result.n, result.groups) == (4, 2)
    assert result.mean == pytest.approx(0.7)
    assert result.group_mean == pytest.approx(0.5)


def test_nothing_defined() -> None:
    result = spread([math.nan, math.inf])
    assert result.n == 0
    assert math.isnan(result.mean)
    assert math.isnan(result.ci_low)


def test_interval_agrees_with_redrawing_patients_one_by_one() -> None:
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 12, 60)
    values = rng.random(60) + groups / 12
    low, high = bootstrap_interval(values, groups.tolist(), resamples=20000)
    patients = [values[groups == g] for g in np.unique(groups)]
    means = [
        np.concatenate([patients[i] for i in rng.integers(0, len(patients), len(patients))]).mean()
        for _ in range(20000)
    ]
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.01)


def test_images_of_one_patient_add_no_certainty() -> None:
    values = np.array([0.2, 0.4, 0.6, 0.8])
    alone = bootstrap_interval(values, list("abcd"))
    copied = bootstrap_interval(np.repeat(values, 25), [g for g in "abcd" for _ in range(25)])
    assert copied == pytest.approx(alone)
    as_if_independent = bootstrap_interval(np.repeat(values, 25), list(range(100)))
    assert as_if_independent[1] - as_if_independent[0] < 0.5 * (alone[1] - alone[0])


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(values, range(30), seed=4) == bootstrap_interval(
        values, range(30), seed=4
    )
    assert bootstrap_interval(values, range(30), seed=4) != bootstrap_interval(
        values, range(30), seed=5
    )


def test_one_patient_says_nothing_of_the_spread() -> None:
    assert all(math.isnan(v) for v in bootstrap_interval(np.array([0.1, 0.9]), ["a", "a"]))
