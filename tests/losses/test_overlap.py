"""Overlap losses against NumPy, and where their minimum lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from finemask.losses.overlap import cross_entropy, dice_loss, iou_loss

shares = arrays(np.float64, (2, 2, 3, 4), elements=st.floats(0, 1, width=16))


@settings(max_examples=40, deadline=None)
@given(shares, shares, st.sampled_from([1e-3, 1.0]))
def test_against_numpy(p: np.ndarray, y: np.ndarray, eps: float) -> None:
    dice, iou = [], []
    for a, b in zip(p.reshape(4, -1), y.reshape(4, -1), strict=True):
        both, squares = a @ b, a @ a + b @ b
        dice.append(1 - (2 * both + eps) / (squares + eps))
        iou.append(1 - (both + eps) / (squares - both + eps))
    tensors = torch.from_numpy(p), torch.from_numpy(y)
    assert float(dice_loss(*tensors, eps)) == pytest.approx(np.mean(dice), abs=1e-5)
    assert float(iou_loss(*tensors, eps)) == pytest.approx(np.mean(iou), abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(shares, shares)
def test_nothing_is_better_than_the_target_itself(p: np.ndarray, y: np.ndarray) -> None:
    probs, target = torch.from_numpy(p), torch.from_numpy(y)
    for loss in (dice_loss, iou_loss):
        assert float(loss(target, target)) == pytest.approx(0, abs=1e-6)
        assert float(loss(probs, target)) >= -1e-6


@pytest.mark.parametrize("loss", [dice_loss, iou_loss])
def test_descent_finds_a_soft_target(loss) -> None:
    """The form without squares ends at 0 and 1 instead."""
    target = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).reshape(1, 1, 5)
    logits = torch.zeros(1, 1, 5, requires_grad=True)
    optimiser = torch.optim.Adam([logits], 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        loss(torch.sigmoid(logits), target).backward()
        optimiser.step()
    torch.testing.assert_close(torch.sigmoid(logits).detach(), target, atol=0.01, rtol=0)


def test_silence_on_an_empty_sample_is_perfect() -> None:
    empty = torch.zeros(1, 1, 4, 4)
    assert float(dice_loss(empty, empty)) == 0
    assert float(dice_loss(empty + 1, empty)) == pytest.approx(1 - 1 / 17)


def test_samples_weigh_equally_whatever_their_lesion() -> None:
    probs, target = torch.zeros(2, 1, 100), torch.zeros(2, 1, 100)
    target[0, 0, :100], probs[0, 0, :100] = 1, 1
    target[1, 0, 0] = 1
    assert float(dice_loss(probs, target, 1e-9)) == pytest.approx(0.5, abs=1e-6)


def test_half_precision_loses_nothing() -> None:
    torch.manual_seed(0)
    p = torch.rand(1, 1, 40_000).bfloat16()
    y = (torch.rand(1, 1, 40_000) > 0.5).bfloat16()
    assert float(dice_loss(p, y)) == pytest.approx(float(dice_loss(p.double(), y.double())), 1e-5)
    assert dice_loss(p, y).dtype == torch.float32


def test_binary_cross_entropy_against_numpy() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(2, 1, 3, 4)), rng.random((2, 1, 3, 4))
    p = 1 / (1 + np.exp(-z))
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(cross_entropy(torch.from_numpy(z), torch.from_numpy(y))) == pytest.approx(expected)


def test_softmax_cross_entropy_against_numpy() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 3, 4))
    y = rng.dirichlet(np.ones(3), size=(2, 4)).transpose(0, 2, 1)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    expected = -(y * np.log(p)).sum(1).mean()
    got = cross_entropy(torch.from_numpy(z), torch.from_numpy(y[:, 1:]))
    assert float(got) == pytest.approx(expected)


def test_one_logit_equals_two() -> None:
    """A sigmoid of z is a softmax of (0, z)."""
    z, y = torch.randn(2, 1, 5), torch.rand(2, 1, 5)
    both = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(cross_entropy(z, y), cross_entropy(both, y))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_cross_entropy_of_huge_logits_is_finite(size: float) -> None:
    z = torch.full((1, 3, 4), size)
    z[:, 0] = -size
    assert bool(cross_entropy(z, torch.full((1, 2, 4), 0.3)).isfinite())
    assert bool(cross_entropy(z[:, :1], torch.full((1, 1, 4), 0.3)).isfinite())
