"""Blocks: what each computes, and that nothing depends on the number of dimensions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from finemask.nn.blocks import (
    ConvBlock,
    DoubleConv,
    InstanceNorm,
    MaxPool,
    ResidualUnit,
    ResizeUp,
    Style,
    TransposeUp,
    box_sum,
    enlarge,
    make_conv,
    resize,
)

SIDES = {2: (7, 6), 3: (5, 7, 6)}


@pytest.mark.parametrize("side", [1, 3, 5, 9])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_box_sum_is_a_convolution_with_ones(dims: int, side: int) -> None:
    """Also where the box is wider than the image."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *(5, 7, 6)[:dims])
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
    expected = convolve(x, torch.ones(3, 1, *[side] * dims), padding=side // 2, groups=3)
    torch.testing.assert_close(box_sum(x, side), expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_equals_pytorchs(dims: int, affine: bool) -> None:
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(2, 4, *SIDES[dims])
    theirs = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](4, affine=affine)
    ours = InstanceNorm(4, affine=affine)
    if affine:
        nn.init.normal_(theirs.weight)
        nn.init.normal_(theirs.bias)
        ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


def test_instance_norm_lets_a_single_voxel_pass() -> None:
    assert InstanceNorm(3)(torch.randn(1, 3, 1, 1)).abs().max() < 1e-3


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["instance", "instance_plain", "batch", "none"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "none"])
@pytest.mark.parametrize("block", [DoubleConv, ResidualUnit])
def test_every_style_keeps_the_size(dims: int, norm: str, activation: str, block: type) -> None:
    style = Style(dims, norm, activation)
    out = block(3, 5, style)(torch.randn(2, 3, *SIDES[dims]))
    assert out.shape == (2, 5, *SIDES[dims])
    assert (out.min() >= 0) == (activation == "relu")


def test_a_bias_stands_before_a_norm_only_on_request() -> None:
    assert ConvBlock(1, 2, Style()).conv.bias is None
    assert ConvBlock(1, 2, Style(bias=True)).conv.bias is not None
    assert ConvBlock(1, 2, Style(norm="none")).conv.bias is not None


def test_dropout_drops_whole_maps_in_training_only() -> None:
    block = DoubleConv(2, 64, Style(dropout=0.5))
    x = torch.randn(1, 2, 8, 8)
    empty = (block(x) == 0).flatten(2).all(2)
    assert 10 < int(empty.sum()) < 54
    block.eval()
    assert not (block(x) == 0).flatten(2).all(2).any()


def test_pooling_keeps_the_last_voxel_of_an_odd_side() -> None:
    x = torch.tensor([1.0, 2.0, 5.0]).reshape(1, 1, 3, 1)
    assert MaxPool(1, Style(2))(x).flatten().tolist() == [2.0, 5.0]


def test_1x1_upsampling_before_interpolation_equals_after() -> None:
    torch.manual_seed(0)
    up = ResizeUp(4, 3, Style(2))
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(up(x, (9, 12)), up.block(enlarge(x, (9, 12))), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("up", [ResizeUp, TransposeUp])
def test_ways_up_meet_the_skip(dims: int, up: type) -> None:
    coarse, fine = [(n + 1) // 2 for n in SIDES[dims]], SIDES[dims]
    assert up(4, 2, Style(dims))(torch.randn(1, 4, *coarse), fine).shape == (1, 2, *fine)


def test_enlarging_an_odd_side_shifts_nothing() -> None:
    """A ramp of voxel positions stays the ramp of positions, away from the ends."""
    centres = (torch.arange(4.0) * 2 + 0.5).reshape(1, 1, 4, 1)
    fine = enlarge(centres, (7, 1)).flatten()
    torch.testing.assert_close(fine[1:], torch.arange(1.0, 7.0))


def test_resizing_keeps_edges_together() -> None:
    x = torch.arange(6.0).reshape(1, 1, 6)
    torch.testing.assert_close(resize(x, (3,)).flatten(), torch.tensor([0.5, 2.5, 4.5]))
    assert resize(x, (12,), "nearest").flatten().tolist() == [n // 2 for n in range(12)]
    assert resize(x, (6,)) is x


def test_flat_volumes_behave_like_pictures() -> None:
    """A 3-D block whose kernels have weights in one slice only computes the 2-D block."""
    torch.manual_seed(0)
    flat, deep = ResidualUnit(2, 3, Style(2)), ResidualUnit(2, 3, Style(3))
    weights = flat.state_dict()
    for name, value in deep.state_dict().items():
        value.zero_()
        if value.ndim == 5:
            value[:, :, value.shape[2] // 2] = weights[name]
        else:
            value.copy_(weights[name])
    x = torch.randn(1, 2, 6, 5)
    torch.testing.assert_close(deep(x[:, :, None])[:, :, 0], flat(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sides", [(1, 2, 3), (2, 6, 5), (3, 2, 3), (3, 3, 3)])
def test_bf16_gradients_of_thin_volumes_are_right(sides: tuple[int, ...]) -> None:
    """Freed memory full of NaN shows any read beyond the volume."""
    for seed in range(5):
        torch.manual_seed(seed)
        conv = make_conv(3, 16, 16)
        x, upstream = torch.randn(2, 2, 16, *sides)
        (expected,) = torch.autograd.grad(conv(x), conv.weight, upstream)
        for n in (100, 1000, 7000, 30_000):
            _ = [torch.full((n,), float("nan")) for _ in range(20)]
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x)
        (got,) = torch.autograd.grad(out, conv.weight, upstream.to(out.dtype))
        error = (got - expected).norm() / expected.norm()
        assert float(error) < 0.02
