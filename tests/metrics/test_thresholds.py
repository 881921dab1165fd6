from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from finemask.metrics import confusion, cut_adaptively, cut_everywhere, e_measure_adaptive

pictures = hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=6).flatmap(
    lambda shape: st.tuples(hnp.arrays(np.uint8, shape), hnp.arrays(bool, shape))
)


def alignment(mask: np.ndarray, truth: np.ndarray) -> float:
    """The E-measure of one mask voxel by voxel, as its paper writes it."""
    if not truth.any():
        total = (~mask).sum()
    elif truth.all():
        total = mask.sum()
    else:
        a, b = mask - mask.mean(), truth - truth.mean()
        total = ((1 + 2 * a * b / (a * a + b * b + 2.2e-16)) ** 2 / 4).sum()
    return total / (truth.size - 1)


@given(pictures)
def test_one_pass_counts_what_256_cuts_count(picture) -> None:
    grey, truth = picture
    cuts = cut_everywhere(grey / 255, truth)
    for k in (0, 1, 77, 128, 254, 255):
        mask = grey >= k
        counts = confusion(mask, truth)
        assert (cuts.tp[k], cuts.fp[k]) == (counts.tp, counts.fp)
        if counts.tp:
            shares = (cuts.dice[k], cuts.iou[k], cuts.sensitivity[k], cuts.precision[k])
            wanted = (counts.dice, counts.iou, counts.sensitivity, counts.precision)
            assert shares == pytest.approx(wanted)
            if not truth.all():
                assert cuts.specificity[k] == pytest.approx(counts.specificity)
        else:
            assert cuts.dice[k] == cuts.iou[k] == cuts.specificity[k] == 0
        assert cuts.alignment[k] == pytest.approx(alignment(mask, truth), abs=1e-12)


@given(pictures)
def test_the_adaptive_threshold_is_twice_the_mean_of_the_integers(picture) -> None:
    grey, truth = picture
    whole = grey.astype(int)
    mask = whole * whole.size >= min(2 * whole.sum(), 255 * whole.size)
    counts, cut = confusion(mask, truth), cut_adaptively(grey / 255, truth)
    assert (cut.tp[0], cut.fp[0]) == (counts.tp, counts.fp)
    assert e_measure_adaptive(grey / 255, truth) == pytest.approx(alignment(mask, truth), abs=1e-12)


def test_a_perfect_mask_stays_below_one_over_256_thresholds() -> None:
    truth = np.zeros((10, 10), bool)
    truth[:3, :4] = True
    f = truth.mean()
    expected = (255 + 2 * f / (1 + f)) / 256
    assert cut_everywhere(truth, truth).dice.mean() == pytest.approx(expected)


def test_alignment_may_exceed_one_and_is_not_clipped() -> None:
    truth = np.eye(5) > 0
    assert cut_everywhere(truth, truth).alignment.max() == pytest.approx(25 / 24)


def test_a_map_of_zeros_is_all_foreground_at_its_adaptive_threshold() -> None:
    empty = np.zeros((4, 4))
    assert e_measure_adaptive(empty, empty > 0) == 0
    assert cut_adaptively(empty, empty > 0).fp.tolist() == [16]


def test_an_image_of_one_voxel_has_no_alignment() -> None:
    assert np.isnan(cut_everywhere(np.ones((1, 1)), np.ones((1, 1), bool)).alignment).all()
