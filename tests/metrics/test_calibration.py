from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finemask.metrics import Ranking, average_precision, brier, calibration_error, pr_auc


def points(probs: np.ndarray, truth: np.ndarray) -> list[tuple[float, float]]:
    """Recall and precision at every threshold, counted one by one."""
    found = [(0.0, 1.0)]
    for threshold in sorted(set(probs), reverse=True):
        mask = probs >= threshold
        found.append((truth[mask].sum() / truth.sum(), truth[mask].mean()))
    return found


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30))
def test_areas_are_those_of_thresholds_one_by_one(voxels: list[tuple[int, bool]]) -> None:
    probs = np.array([p for p, _ in voxels]) / 6
    truth = np.array([t for _, t in voxels])
    if not truth.any():
        assert math.isnan(average_precision(probs, truth))
        assert math.isnan(pr_auc(probs, truth))
        return
    curve = points(probs, truth)
    steps = sum((r - r0) * p for (r0, _), (r, p) in itertools.pairwise(curve))
    trapezoids = sum((r - r0) * (p + p0) / 2 for (r0, p0), (r, p) in itertools.pairwise(curve))
    assert average_precision(probs, truth) == pytest.approx(steps)
    assert pr_auc(probs, truth) == pytest.approx(trapezoids)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=30))
def test_pooled_images_are_one_image_of_all_their_voxels(voxels: list[tuple[int, bool]]) -> None:
    probs = np.round(np.array([p for p, _ in voxels]) / 9 * 65535) / 65535
    truth = np.array([t for _, t in voxels])
    half = len(voxels) // 2
    total = Ranking.of(probs[:half], truth[:half]) + Ranking.of(probs[half:], truth[half:])
    for pooled, single in (
        (total.average_precision, average_precision(probs, truth)),
        (total.pr_auc, pr_auc(probs, truth)),
    ):
        assert pooled == pytest.approx(single, nan_ok=True)


def test_golden_values_of_scikit_learn() -> None:
    """average_precision_score, auc(*precision_recall_curve) and brier_score_loss, version 1.9."""
    probs = np.array([[0.1, 0.4, 0.35], [0.8, 0.8, 0.4]])
    truth = np.array([[0, 0, 1], [1, 0, 1]])
    assert average_precision(probs, truth) == pytest.approx(0.5333333333333333)
    assert pr_auc(probs, truth) == pytest.approx(0.6)
    assert brier(probs, truth) == pytest.approx(0.2720833333333334)


def test_calibration_counts_voxels_not_bins() -> None:
    # Ninety voxels told 0.1 of which nine are lesion, ten told 0.9 of which five are.
    probs = np.array([0.1] * 90 + [0.9] * 10)
    truth = np.array([1] * 9 + [0] * 81 + [1] * 5 + [0] * 5)
    assert calibration_error(probs, truth) == pytest.approx(0.1 * 0.4)
    assert calibration_error(truth.astype(float), truth) == 0


@pytest.mark.parametrize("measure", [average_precision, pr_auc, brier, calibration_error])
def test_what_is_no_probability_is_refused(measure) -> None:
    truth = np.array([1, 0])
    for probs in (np.array([0.5, 1.5]), np.array([np.nan, 0.5])):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            measure(probs, truth)
    with pytest.raises(ValueError, match="shape"):
        measure(np.array([0.5]), truth)
