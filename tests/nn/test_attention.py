"""CBAM against a NumPy version, and the learnt way down on odd sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from finemask.nn.attention import CBAMBlock, ChannelAttention, SpatialAttention, StridedDown
from finemask.nn.blocks import Style


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_channels_are_weighed_by_their_mean_and_maximum() -> None:
    torch.manual_seed(0)
    attention, x = ChannelAttention(8, ratio=2).double(), torch.randn(2, 8, 5, 6).double()
    first, _, last = attention.perceptron
    w1, b1, w2, b2 = (p.detach().numpy() for p in (*first.parameters(), *last.parameters()))
    values = x.numpy().reshape(2, 8, -1)
    logits = sum(np.maximum(v @ w1.T + b1, 0) @ w2.T + b2 for v in (values.mean(2), values.max(2)))
    expected = x.numpy() * sigmoid(logits)[..., None, None]
    np.testing.assert_allclose(attention(x).detach().numpy(), expected, rtol=1e-10)


def test_places_are_weighed_by_what_is_around_them() -> None:
    torch.manual_seed(0)
    attention, x = SpatialAttention(2, kernel=3).double(), torch.randn(1, 4, 5, 6).double()
    weight, bias = attention.conv.weight.detach().numpy()[0], attention.conv.bias.item()
    seen = np.pad(np.stack([x[0].mean(0), x[0].amax(0)]), ((0, 0), (1, 1), (1, 1)))
    logits = [
        [(weight * seen[:, i : i + 3, j : j + 3]).sum() + bias for j in range(6)] for i in range(5)
    ]
    expected = x.numpy() * sigmoid(np.array(logits))
    np.testing.assert_allclose(attention(x).detach().numpy(), expected, rtol=1e-10)


def test_each_convolution_is_followed_by_relu_and_then_batch_norm() -> None:
    block = CBAMBlock(3, 8, Style(2), convs=3)
    kinds = [type(layer) for layer in block.body]
    assert [k.__name__ for k in kinds] == ["Conv2d", "ReLU", "BatchNorm2d"] * 3
    assert isinstance(block.shortcut, nn.Conv2d)
    assert isinstance(CBAMBlock(8, 8, Style(2)).shortcut, nn.Identity)


def test_attention_acts_before_the_shortcut_is_added() -> None:
    block, x = CBAMBlock(4, 4, Style(2)).eval(), torch.randn(1, 4, 6, 6)
    nn.init.constant_(block.places.conv.bias, -1e4)  # no place is let through
    nn.init.zeros_(block.places.conv.weight)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("sides", [(8, 6), (5, 7), (1, 1)])
def test_every_side_is_halved_rounding_up(sides: tuple[int, int]) -> None:
    down = StridedDown(2, Style(2))
    out = down(torch.randn(1, 2, *sides))
    assert out.shape[2:] == tuple(-(-side // 2) for side in sides)
    assert float(out.min()) >= 0
    whole = torch.randn(1, 2, 8, 6)
    torch.testing.assert_close(down(whole), torch.relu(down.conv(whole)))
