"""The U-Net's halves: levels, any size, and the published networks they must reproduce."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from finemask.nn.blocks import DoubleConv, ResidualUnit, ResizeUp, Style, TransposeUp, make_conv
from finemask.nn.superres import ImageHead
from finemask.nn.unet import UNetDecoder, UNetEncoder, unet_widths


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("sides", [(16, 24), (8, 16, 8)])
def test_levels_halve(sides: tuple[int, ...]) -> None:
    style, widths = Style(len(sides)), (4, 6, 8)
    features = UNetEncoder(3, widths, style)(torch.randn(2, 3, *sides))
    decoder = UNetDecoder(widths, style)
    expected = [(2, w, *(n // 2**k for n in sides)) for k, w in enumerate(widths)]
    assert [tuple(f.shape) for f in features] == expected
    assert [tuple(f.shape) for f in decoder.levels(features)] == expected[-2::-1]
    assert tuple(decoder(features).shape) == expected[0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 19), min_size=2, max_size=3))
def test_any_size_comes_back(sides: list[int]) -> None:
    style, widths = Style(len(sides)), (2, 3, 4, 4)
    with torch.no_grad():
        x = torch.randn(1, 1, *sides)
        out = UNetDecoder(widths, style)(UNetEncoder(1, widths, style)(x))
    assert tuple(out.shape) == (1, 2, *sides)
    assert bool(out.isfinite().all())


def test_every_level_reaches_the_output() -> None:
    style, widths = Style(2), (2, 3, 4)
    features = [f.requires_grad_() for f in UNetEncoder(1, widths, style)(torch.randn(1, 1, 8, 8))]
    gradients = torch.autograd.grad(UNetDecoder(widths, style)(features).square().sum(), features)
    assert all(g.abs().sum() > 0 for g in gradients)


def test_widths_stop_growing() -> None:
    assert unet_widths(16, 4) == (16, 32, 64, 128)
    assert unet_widths(32, 5) == (32, 64, 128, 256, 256)


def test_parts_reproduce_the_size_of_sasrnets_encoder_and_image_head() -> None:
    """spec_000: encoder 3,515,040 and LISR head 64,641 weights (3-D, biased, batch norm)."""
    style = Style(3, norm="batch", bias=True)
    assert count(UNetEncoder(1, (32, 64, 128, 256), style)) == 3_515_040
    assert count(ImageHead(32, 1, (2, 2, 2), project=True)) == 64_641


def test_parts_reproduce_the_size_of_pfsegs_encoder_and_decoder() -> None:
    """spec_003: residual encoder 3,612,544; decoder 5,299,793 with the last x2 and head."""
    style = Style(3, norm="instance_plain", activation="leaky_relu", bias=True)
    widths = (32, 32, 64, 128, 256)
    encoder = UNetEncoder(1, widths, style, block=ResidualUnit)
    decoder = UNetDecoder(widths, style, block=ResidualUnit, up=TransposeUp, bottleneck=256 + 64)
    last = (TransposeUp(32, 32, style), ResidualUnit(32, 16, style), make_conv(3, 16, 1, 1))
    assert count(encoder) == 3_612_544
    assert count(decoder, *last) == 5_299_793


def test_parts_reproduce_the_size_of_ds2fs_unet() -> None:
    """spec_002: 28,949,698 weights at inference with 3 channels and 2 logits."""
    style, widths = Style(2, norm="batch"), (64, 128, 256, 512, 1024)
    encoder = UNetEncoder(
        3, widths, style, block=DoubleConv, down=lambda _w, _s: nn.MaxPool2d(3, 2, 1)
    )
    decoder = UNetDecoder(widths, style, up=partial(ResizeUp, kernel=1))
    head = make_conv(2, 64, 2, 1)
    assert count(encoder, decoder, head) == 28_949_698
    assert head(decoder(encoder(torch.randn(1, 3, 33, 20)))).shape == (1, 2, 33, 20)
