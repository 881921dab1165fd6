"""The loss that heeds outlines: against NumPy, on soft targets, and what its weights do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.lib.stride_tricks import sliding_window_view

from finemask.losses.overlap import cross_entropy
from finemask.losses.structure import (
    edge_weight,
    structure_losses,
    weighted_cross_entropy,
    weighted_iou_loss,
)

shares = arrays(np.float64, (2, 1, 5, 4), elements=st.floats(0, 1, width=16))
masks = arrays(np.float64, (2, 1, 5, 4), elements=st.sampled_from([0.0, 1.0]))


def weight_in_numpy(y: np.ndarray, window: int) -> np.ndarray:
    """``1 + 5 |mean - y|`` of one picture, zeros beyond it counted."""
    around = sliding_window_view(np.pad(y, window // 2), (window, window))
    return 1 + 5 * np.abs(around.mean((2, 3)) - y)


def losses_in_numpy(z: np.ndarray, y: np.ndarray, window: int) -> tuple[float, float]:
    """The papers' formulas, sample by sample."""
    iou, bce = [], []
    for logit, truth in zip(z[:, 0], y[:, 0], strict=True):
        p, w = 1 / (1 + np.exp(-logit)), weight_in_numpy(truth, window)
        both = (w * p * truth).sum()
        iou.append(1 - (both + 1) / ((w * (p + truth)).sum() - both + 1))
        entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
        bce.append((w * entropy).sum() / w.sum())
    return float(np.mean(iou)), float(np.mean(bce))


@settings(max_examples=30)
@given(arrays(np.float64, (2, 1, 5, 4), elements=st.floats(-4, 4)), masks)
def test_hard_targets_give_the_papers_formulas(z: np.ndarray, y: np.ndarray) -> None:
    found = structure_losses(torch.from_numpy(z), torch.from_numpy(y), window=3)
    assert [float(part) for part in found] == pytest.approx(losses_in_numpy(z, y, 3), abs=1e-5)


def test_the_weight_of_a_volume_is_a_box_mean_in_three_axes() -> None:
    y = (torch.rand(1, 1, 4, 5, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    around = sliding_window_view(np.pad(y[0, 0].numpy(), 1), (3, 3, 3)).mean((3, 4, 5))
    expected = 1 + 5 * np.abs(around - y[0, 0].numpy())
    np.testing.assert_allclose(edge_weight(y, 3)[0, 0].numpy(), expected, atol=1e-5)


def test_outlines_weigh_more_than_the_inside() -> None:
    y = torch.zeros(1, 1, 96, 96)
    y[..., 16:80, 16:80] = 1
    weight = edge_weight(y)
    assert float(weight[0, 0, 48, 48]) == pytest.approx(1, abs=1e-5)
    assert float(weight[0, 0, 0, 0]) == pytest.approx(1, abs=1e-5)
    assert float(weight[0, 0, 48, 16]) == pytest.approx(1 + 5 * 15 / 31, abs=1e-4)


@settings(max_examples=30)
@given(shares, shares)
def test_nothing_is_better_than_the_target_itself(p: np.ndarray, y: np.ndarray) -> None:
    probs, target = torch.from_numpy(p), torch.from_numpy(y)
    weight = edge_weight(target, 3)
    assert float(weighted_iou_loss(target, target, weight)) == pytest.approx(0, abs=1e-6)
    assert float(weighted_iou_loss(probs, target, weight)) >= 0


def test_descent_finds_a_soft_target() -> None:
    """The papers' formula, linear in p, would end at 0 and 1 instead."""
    target = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).reshape(1, 1, 5)
    logits = torch.zeros(1, 1, 5, requires_grad=True)
    optimiser = torch.optim.Adam([logits], 0.05)
    for step in range(600):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 600)
        optimiser.zero_grad()
        torch.stack(structure_losses(logits, target, window=3)).sum().backward()
        optimiser.step()
    torch.testing.assert_close(torch.sigmoid(logits).detach(), target, atol=0.01, rtol=0)


def test_the_released_slip_is_a_plain_cross_entropy() -> None:
    torch.manual_seed(0)
    z, y = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.7).float()
    slip = structure_losses(z, y, weighted_bce=False)
    right = structure_losses(z, y)
    assert torch.equal(slip[1], cross_entropy(z, y))
    assert torch.equal(slip[0], right[0])
    assert abs(float(slip[1] - right[1])) > 1e-3


def test_one_logit_equals_two() -> None:
    z, y = torch.randn(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
    weight = edge_weight(y, 3)
    both = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(
        weighted_cross_entropy(z, y, weight), weighted_cross_entropy(both, y, weight)
    )


def test_a_voxel_of_several_classes_takes_the_largest_weight() -> None:
    """The second class's outline counts in the softmax's one cross-entropy."""
    z = torch.zeros(1, 3, 1, 2)
    z[0, 0] = torch.tensor([[2.0, 0.0]])
    y, weight = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 1.0]], [[1.0, 3.0]]]])
    entropy = -torch.log_softmax(z, 1)[0, 0, 0]
    expected = float((entropy[0] + 3 * entropy[1]) / 4)
    assert float(weighted_cross_entropy(z, y, weight)) == pytest.approx(expected)


def test_half_precision_is_left_for_the_sums() -> None:
    torch.manual_seed(0)
    z, y = torch.randn(1, 1, 64, 64).bfloat16(), (torch.rand(1, 1, 64, 64) > 0.5).bfloat16()
    for half, full in zip(
        structure_losses(z, y), structure_losses(z.float(), y.float()), strict=True
    ):
        assert half.dtype == torch.float32
        assert float(half) == pytest.approx(float(full), rel=1e-5)
