from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.distance import cdist

from finemask.metrics import (
    assd,
    hd95_max,
    hd95_medpy,
    hd100,
    surface,
    surface_dice,
    surface_distances,
)

masks = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)
spacings = st.tuples(*[st.floats(0.2, 6)] * 3)


def naive_distances(pred, truth, spacing):
    """Border by erosion, every pair of points: slow and plain."""
    cross = ndimage.generate_binary_structure(pred.ndim, 1)
    points = [
        np.argwhere(mask & ~ndimage.binary_erosion(mask, cross)) * np.array(spacing)
        for mask in (pred, truth)
    ]
    table = cdist(*points)
    return table.min(1), table.min(0)


@given(masks, spacings)
@settings(max_examples=60, deadline=None)
@pytest.mark.fault("F94", "F95")
def test_agrees_with_all_pairs(pair, spacing) -> None:
    pred, truth = pair
    if not (pred.any() and truth.any()):
        return
    there, back = naive_distances(pred, truth, spacing)
    ours = surface_distances(pred, truth, spacing)
    np.testing.assert_allclose(np.sort(ours.pred_to_truth), np.sort(there), atol=1e-9)
    np.testing.assert_allclose(np.sort(ours.truth_to_pred), np.sort(back), atol=1e-9)
    both = np.concatenate([there, back])
    assert ours.hd95_max == pytest.approx(
        max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9
    )
    assert ours.hd95_medpy == pytest.approx(np.percentile(both, 95), abs=1e-9)
    assert ours.hd100 == pytest.approx(both.max(), abs=1e-9)
    assert ours.assd == pytest.approx(both.mean(), abs=1e-9)


@given(masks, spacings)
@settings(max_examples=40, deadline=None)
def test_tree_and_distance_transform_agree(pair, spacing) -> None:
    pred, truth = (surface.border(m) for m in pair)
    if not (pred.any() and truth.any()):
        return
    one, other = (f(pred, truth, spacing) for f in (surface._by_tree, surface._by_transform))
    np.testing.assert_allclose(one.pred_to_truth, other.pred_to_truth, atol=1e-9)
    np.testing.assert_allclose(one.truth_to_pred, other.truth_to_pred, atol=1e-9)


@given(masks, spacings)
@settings(max_examples=30, deadline=None)
def test_doubling_the_spacing_doubles_the_distance(pair, spacing) -> None:
    doubled = tuple(2 * s for s in spacing)
    for metric in (hd95_max, hd95_medpy, hd100, assd):
        once, twice = metric(*pair, spacing), metric(*pair, doubled)
        assert twice == pytest.approx(2 * once, nan_ok=True)


@given(masks)
@settings(max_examples=30, deadline=None)
def test_swapping_and_flipping_change_nothing(pair) -> None:
    pred, truth = pair
    for metric in (hd95_max, hd95_medpy, hd100, assd):
        value = metric(pred, truth, 1)
        assert metric(truth, pred, 1) == pytest.approx(value, nan_ok=True)
        assert metric(pred[::-1, :, ::-1], truth[::-1, :, ::-1], 1) == pytest.approx(
            value, nan_ok=True
        )


def test_a_volume_of_one_slice_is_all_border() -> None:
    truth = np.zeros((20, 20), bool)
    truth[5:12, 5:12] = True
    outline = surface.border(truth)
    assert outline.sum() == 24
    assert surface.border(truth[None]).sum() == truth.sum()


def test_object_at_the_image_edge_has_its_border_there() -> None:
    full = np.ones((5, 6), bool)
    assert surface.border(full).sum() == 18
    one_less = full.copy()
    one_less[:, -1] = False
    assert hd100(full, one_less, 1) == 1


def test_one_voxel_each() -> None:
    pred, truth = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    pred[1, 1, 1] = truth[3, 1, 1] = True
    for metric in (hd95_max, hd95_medpy, hd100, assd):
        assert metric(pred, truth, (2.5, 1, 1)) == 5


def test_cropping_to_the_lesion_is_exact_for_far_apart_masks() -> None:
    pred, truth = np.zeros((60, 50), bool), np.zeros((60, 50), bool)
    pred[2:5, 3:6], truth[50:58, 40:47] = True, True
    there, back = naive_distances(pred, truth, (1, 1))
    assert assd(pred, truth, 1) == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-9)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, np.nan), (1, -1, 1), ()])
def test_refuses_a_spacing_that_makes_no_sense(spacing) -> None:
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(ValueError, match="spacing_mm needs 3 positive numbers"):
        hd95_max(mask, mask, spacing)


@given(masks, spacings, st.floats(0, 8))
@settings(max_examples=40, deadline=None)
def test_surface_dice_counts_the_border_within_the_tolerance(pair, spacing, tolerance) -> None:
    pred, truth = pair
    found = surface_dice(pred, truth, spacing, tolerance_mm=tolerance)
    if not (pred.any() or truth.any()):
        assert np.isnan(found)
    elif not (pred.any() and truth.any()):
        assert found == 0
    else:
        both = np.concatenate(naive_distances(pred, truth, spacing))
        near = (both < tolerance - 1e-9).mean(), (both < tolerance + 1e-9).mean()
        assert near[0] <= found <= near[1]


def test_surface_dice_forgives_a_shift_within_the_tolerance() -> None:
    truth = np.zeros((30, 30), bool)
    truth[10:20, 10:20] = True
    moved = np.roll(truth, 1, axis=0)
    assert surface_dice(moved, truth, (2.0, 1.0), tolerance_mm=2) == 1.0
    assert surface_dice(moved, truth, (2.0, 1.0), tolerance_mm=1.9) < 1.0
