"""PraNet's parts: sizes, what attention erases, and grids of levels that lie where they should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock, Style
from finemask.nn.encoders import EncoderName, make_encoder
from finemask.nn.pranet import (
    PartialDecoder,
    PraNetDecoder,
    PraNetwork,
    ReceptiveField,
    ReverseAttention,
    reverse_attention,
    to_grid,
)

STYLE = Style(norm="batch")


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def conv(c_in: int, c_out: int, taps: int) -> int:
    """Weights of a convolution without bias and of the batch norm behind it."""
    return c_in * c_out * taps + 2 * c_out


def test_sizes_by_formula() -> None:
    c = 32
    per_branch = [2 * conv(c, c, k) + conv(c, c, 9) for k in (3, 5, 7)]
    field = 5 * conv(512, c, 1) + sum(per_branch) + conv(4 * c, c, 9)
    decoder = 4 * conv(c, c, 9) + 2 * conv(2 * c, 2 * c, 9) + 2 * conv(3 * c, 3 * c, 9) + 3 * c + 1
    coarse = conv(2048, 256, 1) + 3 * conv(256, 256, 25) + conv(256, 1, 1)
    fine = conv(512, 64, 1) + 2 * conv(64, 64, 9) + conv(64, 1, 9)
    assert count(ReceptiveField(512, c, STYLE)) == field == 178_112
    assert count(PartialDecoder(c, 2, STYLE)) == decoder == 277_473
    assert count(ReverseAttention(2048, 256, 2, STYLE, (5, 5, 5, 1))) == coarse == 5_441_794
    assert count(ReverseAttention(512, 64, 2, STYLE)) == fine == 107_458


def test_attention_is_what_no_class_has_taken() -> None:
    z = torch.randn(1, 1, 3, 4)
    torch.testing.assert_close(reverse_attention(z), torch.sigmoid(-z))
    # Softmax over a background of logit 0 and one class is the sigmoid of that class.
    two = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(reverse_attention(two), reverse_attention(z))
    four = torch.randn(2, 4, 3, 4)
    torch.testing.assert_close(reverse_attention(four), torch.softmax(four, 1)[:, :1])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_stage_sees_only_where_nothing_is_found(classes: int) -> None:
    torch.manual_seed(0)
    stage = ReverseAttention(5, 4, classes, STYLE).eval()
    guide = torch.zeros(1, 1 if classes == 2 else classes, 16, 16)
    guide[:, -1, :, :8] = 50.0  # the last class is certain in the left half
    feature = torch.randn(1, 5, 16, 16)
    elsewhere = feature.clone()
    elsewhere[..., :8] += 1
    assert torch.equal(stage(feature, guide), stage(elsewhere, guide))
    assert not torch.equal(stage(feature, guide), stage(elsewhere, torch.zeros_like(guide)))


def test_a_stage_corrects_its_guide() -> None:
    stage = ReverseAttention(5, 4, 2, STYLE)
    nn.init.zeros_(stage.output.norm.weight)
    guide = torch.randn(2, 1, 6, 7)
    assert torch.equal(stage(torch.randn(2, 5, 6, 7), guide), guide)


@settings(max_examples=40)
@given(st.integers(2, 9), st.sampled_from([2, 4]), st.integers(0, 3))
def test_levels_lie_where_they_should(coarse: int, factor: int, missing: int) -> None:
    """Places, as feature values, stay themselves between grids; the finer one may end early."""
    fine = coarse * factor - min(missing, factor - 1, coarse - 1)
    here = (torch.arange(fine, dtype=torch.float32) + 0.5).reshape(1, 1, 1, -1)
    there = (torch.arange(coarse, dtype=torch.float32) + 0.5).reshape(1, 1, 1, -1) * factor
    inside = slice(factor, fine - factor)
    torch.testing.assert_close(to_grid(there, (1, fine))[..., inside], here[..., inside])
    torch.testing.assert_close(to_grid(here, (1, coarse))[..., :-1], there[..., :-1])


@settings(max_examples=10)
@given(st.sampled_from(["resnet18", "vgg16"]), st.integers(1, 70), st.integers(1, 70))
def test_any_size_and_scale_comes_back(name: EncoderName, h: int, w: int) -> None:
    encoder = make_encoder(name, 1, width=2)
    network = PraNetwork(encoder, PraNetDecoder(encoder.widths, 3, STYLE, 2), (1, 2))
    image = torch.randn(1, 1, h, w)
    maps = network.decoder(encoder(image))
    sides = network.on_hr_grid(maps, image)
    assert [tuple(side.shape) for side in sides] == [(1, 3, h, 2 * w)] * 4
    assert all(bool(side.isfinite().all()) for side in sides)


def test_a_map_of_an_odd_image_is_not_stretched() -> None:
    """33 pixels are five voxels of stride 8, of which the last reaches beyond the image."""
    encoder = make_encoder("resnet18", 1, width=2)
    network = PraNetwork(encoder, PraNetDecoder(encoder.widths, 2, STYLE, 2), (1, 1))
    place = (torch.arange(5.0) + 0.5) * 8
    whole = network.on_hr_grid([place.expand(1, 1, 5, 5)], torch.zeros(1, 1, 33, 33))[0]
    torch.testing.assert_close(whole[0, 0, 0, 4:], torch.arange(4, 33) + 0.5)


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "res2net50", "vgg16"])
def test_every_kind_of_encoder_fits(name: EncoderName) -> None:
    encoder = make_encoder(name, 3, width=4)
    network = PraNetwork(encoder, PraNetDecoder(encoder.widths, 2, STYLE, 2), (2, 2))
    assert network(torch.randn(2, 3, 64, 96)).shape == (2, 1, 128, 192)


def test_the_first_convolution_of_each_stage_can_be_another() -> None:
    class Twice(ConvBlock):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    decoder = PraNetDecoder((4, 8, 16), 2, STYLE, 2, first=Twice)
    assert [type(stage.first) for stage in decoder.stages] == [Twice] * 3
    assert [stage.first.conv.weight.shape[0] for stage in decoder.stages] == [16, 4, 4]
    plain = PraNetDecoder((4, 8, 16), 2, STYLE, 2)
    assert [stage.first.conv.kernel_size for stage in plain.stages] == [(5, 5), (3, 3), (3, 3)]


def test_every_level_reaches_the_answer() -> None:
    decoder = PraNetDecoder((4, 8, 16), 2, STYLE, 2)
    levels = [
        torch.randn(2, w, n, n, requires_grad=True)
        for w, n in zip((4, 8, 16), (16, 8, 4), strict=True)
    ]
    gradients = torch.autograd.grad(decoder(levels)[-1].square().sum(), levels)
    assert all(float(g.abs().sum()) > 0 for g in gradients)
