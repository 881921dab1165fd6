from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from finemask.metrics import dice_soft, iou_half, s_measure, weighted_f

rng = np.random.default_rng(3)


def blob(shape: tuple[int, int] = (24, 31)) -> np.ndarray:
    return ndimage.gaussian_filter(rng.normal(size=shape), 3) > 0.01


def margolin(probs: np.ndarray, truth: np.ndarray) -> float:
    """The weighted F-measure over the whole picture with the full 7 x 7 window."""
    distance, nearest = ndimage.distance_transform_edt(~truth, return_indices=True)
    error = np.abs(probs - truth)
    y, x = np.mgrid[-3:4, -3:4]
    window = np.exp(-(x * x + y * y) / 50)
    spread = ndimage.convolve(error[tuple(nearest)], window / window.sum(), mode="constant")
    error[truth] = np.minimum(error, spread)[truth]
    error[~truth] *= 2 - np.exp(np.log(0.5) / 5 * distance[~truth])
    found = (1 - error[truth]).sum()
    recall, precision = found / truth.sum(), found / (found + error[~truth].sum())
    return 2 * recall * precision / (recall + precision)


@pytest.mark.parametrize("number", range(12))
def test_weighted_f_in_a_box_is_that_of_the_whole_picture(number) -> None:
    truth = blob()
    probs = ndimage.gaussian_filter(truth + rng.normal(0, 0.1 * number, truth.shape), 1)
    probs = (probs - probs.min()) / np.ptp(probs)
    if number % 2:  # zeros around lesion and map, which the box leaves out
        probs, truth = np.pad(probs, (0, 40)), np.pad(truth, (0, 40))
        truth[:, :9], probs[probs < 0.3] = False, 0
    assert weighted_f(probs, truth) == pytest.approx(margolin(probs, truth), abs=1e-12)


def test_a_distant_false_alarm_weighs_more() -> None:
    truth = np.zeros((40, 40), bool)
    truth[5:10, 5:10] = True
    near, far = truth * 1.0, truth * 1.0
    near[11, 7] = far[35, 35] = 1
    assert weighted_f(far, truth) < weighted_f(near, truth) < weighted_f(truth, truth)


def test_s_measure_is_the_mean_where_the_truth_is_constant() -> None:
    probs = rng.random((5, 6))
    assert s_measure(probs, np.zeros((5, 6), bool)) == pytest.approx(1 - probs.mean())
    assert s_measure(probs, np.ones((5, 6), bool)) == pytest.approx(probs.mean())


@pytest.mark.parametrize("place", [(5, 19), (19, 5), (19, 19), (0, 0)])
def test_a_pixel_in_the_last_row_or_column_has_an_s_measure(place) -> None:
    truth = np.zeros((20, 20), bool)
    truth[place] = True
    assert s_measure(truth, truth) == pytest.approx(1)
    assert 0 < s_measure(0 * truth, truth) < 1


@pytest.mark.parametrize("level", [0.1, 0.3, 0.7])
def test_a_constant_quadrant_has_no_variance_whatever_its_level(level) -> None:
    truth = np.zeros((20, 20), bool)
    truth[3, 3] = True
    region = s_measure(np.full((20, 20), level), truth, alpha=0.0)
    # Of the quadrants, 4 x 4 voxels hold a lesion that the map misses; the others are alike.
    assert region == pytest.approx(1 - 16 / 400, abs=1e-9)


def test_soft_overlap_of_m2snets_code() -> None:
    empty, half = np.zeros((4, 4), bool), np.full((4, 4), 0.5)
    assert dice_soft(empty, empty) == iou_half(empty, empty) == 1
    assert dice_soft(half, ~empty) == pytest.approx(2 / 3, abs=1e-5)
    assert iou_half(half, ~empty) == pytest.approx(0, abs=1e-5)  # 0.5 does not exceed 0.5


@pytest.mark.parametrize("metric", [s_measure, weighted_f])
def test_volumes_are_refused(metric) -> None:
    with pytest.raises(ValueError, match="pictures are needed"):
        metric(np.zeros((2, 3, 4)), np.zeros((2, 3, 4), bool))
