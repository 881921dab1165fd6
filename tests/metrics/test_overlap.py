from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from finemask import metrics
from finemask.metrics import Confusion, confusion

pairs = hnp.array_shapes(min_dims=2, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)
nan = math.nan


@given(pairs)
def test_agrees_with_sets_of_voxels(pair) -> None:
    found, lesion = (set(map(tuple, np.argwhere(m))) for m in pair)
    if found or lesion:
        expected = 2 * len(found & lesion) / (len(found) + len(lesion))
        assert metrics.dice(*pair) == pytest.approx(expected)
        assert metrics.iou(*pair) == pytest.approx(len(found & lesion) / len(found | lesion))
    if lesion:
        assert metrics.sensitivity(*pair) == pytest.approx(len(found & lesion) / len(lesion))
    if found:
        assert metrics.precision(*pair) == pytest.approx(len(found & lesion) / len(found))
    healthy = pair[0].size - len(lesion)
    if healthy:
        expected = 1 - len(found - lesion) / healthy
        assert metrics.specificity(*pair) == pytest.approx(expected)
    assert metrics.mae(*pair) == pytest.approx(len(found ^ lesion) / pair[0].size)


@given(pairs)
def test_dice_and_iou_tell_the_same_story(pair) -> None:
    dice, iou = metrics.dice(*pair), metrics.iou(*pair)
    assert dice == pytest.approx(2 * iou / (1 + iou), nan_ok=True)


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        # dice, iou, sensitivity, precision, specificity, mae
        ([0, 0], [0, 0], (nan, nan, nan, nan, 1, 0)),
        ([1, 0], [0, 0], (0, 0, nan, 0, 0.5, 0.5)),
        ([0, 0], [1, 0], (0, 0, 0, 0, 1, 0.5)),
        ([1, 1], [1, 1], (1, 1, 1, 1, nan, 0)),
        ([0, 0], [1, 1], (0, 0, 0, 0, nan, 1)),
    ],
)
@pytest.mark.fault("F76", "F96")
def test_degenerate_masks(pred, truth, expected) -> None:
    pair = np.array(pred), np.array(truth)
    names = ("dice", "iou", "sensitivity", "precision", "specificity", "mae")
    for name, value in zip(names, expected, strict=True):
        assert getattr(metrics, name)(*pair) == pytest.approx(value, nan_ok=True), name


def test_pooling_weighs_voxels_and_the_mean_weighs_cases() -> None:
    large, small = Confusion(950, 50, 50, 0), Confusion(0, 0, 10, 0)
    assert (large.dice + small.dice) / 2 == pytest.approx(0.475)
    assert (large + small).dice == pytest.approx(1900 / 2010)


def test_mae_takes_probabilities_as_they_are() -> None:
    weak = np.array([[0.3, 0.0], [0.1, 0.0]])
    truth = np.array([[1, 0], [0, 0]])
    assert metrics.mae(weak, truth) == pytest.approx(0.2)


def test_counts_do_not_overflow() -> None:
    counts = confusion(np.ones((300, 300), np.uint8), np.ones((300, 300), np.uint8))
    assert counts == Confusion(90000, 0, 0, 0)
    assert counts.dice == 1


def test_refuses_what_is_no_mask() -> None:
    with pytest.raises(ValueError, match="pred must be boolean or integer, got float64; threshold"):
        metrics.dice(np.zeros((2, 2)), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match=r"pred has shape \(2, 2\), truth \(1, 2\)"):
        metrics.dice(np.zeros((2, 2), bool), np.zeros((1, 2), bool))
    with pytest.raises(ValueError, match=r"pred must lie in \[0, 1\], got 0 to 255"):
        metrics.mae(np.array([0, 255]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"pred must lie in \[0, 1\], got nan"):
        metrics.mae(np.array([0, np.nan]), np.array([0, 1]))


@given(pairs)
def test_mcc_is_the_correlation_of_the_masks(pair) -> None:
    pred, truth = (m.ravel().astype(float) for m in pair)
    found = confusion(*pair).mcc
    if pred.std() and truth.std():
        assert found == pytest.approx(np.corrcoef(pred, truth)[0, 1])
    else:
        assert found == 0


def test_mcc_of_a_large_image_does_not_overflow() -> None:
    counts = Confusion(tp=10**9, fp=10**8, fn=10**8, tn=10**10)
    share = counts.tp / (counts.tp + counts.fp)
    assert counts.mcc == pytest.approx(share - counts.fp / (counts.fn + counts.tn), abs=1e-3)


def test_informedness_and_volume_error_by_hand() -> None:
    counts = Confusion(tp=6, fp=2, fn=4, tn=88)
    assert counts.informedness == pytest.approx(6 / 10 + 88 / 90 - 1)
    assert counts.volume_error == pytest.approx(2 / 10)
    assert Confusion(0, 0, 5, 5).volume_error == 1.0  # nothing was predicted
    assert math.isnan(Confusion(0, 3, 0, 7).volume_error)
    assert math.isnan(Confusion(0, 3, 0, 7).informedness)
