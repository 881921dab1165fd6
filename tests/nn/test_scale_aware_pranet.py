"""PraNet with SDC blocks: the traced maps are the answer's, and the twin reaches every pixel."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from finemask.nn.blocks import ConvBlock, Style
from finemask.nn.encoders import EncoderName, make_encoder
from finemask.nn.pranet import PraNetDecoder
from finemask.nn.scale_aware import ScaleAwareConv
from finemask.nn.scale_aware_pranet import TwinDecoder, trace

STYLE = Style(norm="batch")


def levels_of(name: EncoderName, *sides: int) -> list[Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return make_encoder(name, 1, width=4)(torch.randn(2, 1, *sides))


@pytest.mark.parametrize("first", [None, ScaleAwareConv, partial(ScaleAwareConv, fusion="concat")])
def test_tracing_changes_nothing(first: type | None) -> None:
    levels = levels_of("resnet18", 70, 96)
    decoder = PraNetDecoder([f.shape[1] for f in levels], 3, STYLE, 2, first).eval()
    with torch.no_grad():
        maps, features, scales = trace(decoder, levels)
        assert all(map(torch.equal, maps, decoder(levels)))
        stage = decoder.ra_3
        guide = maps[-1] - stage.output(features)
    assert features.shape == (2, 4, 9, 12)
    torch.testing.assert_close(stage(levels[-3], guide), maps[-1])
    found = [tuple(s.shape) for s in scales]
    assert found == ([(2, 4, 3, 3), (2, 4, 5, 6), (2, 4, 9, 12)] if first else [])
    assert all(float(s.min()) > 0 and float(s.max()) < 1 for s in scales)


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
@pytest.mark.parametrize("sides", [(64, 96), (37, 50), (5, 1)])
def test_the_twin_ends_on_the_grid_of_the_image(name: EncoderName, sides: tuple[int, int]) -> None:
    encoder = make_encoder(name, 1, width=4)
    levels = levels_of(name, *sides)
    twin = TwinDecoder(encoder, 3, STYLE, ScaleAwareConv).eval()
    features, scales = twin.trace(levels, sides)
    assert features.shape == (2, twin.width, *sides)
    assert torch.equal(features, twin(levels, sides))
    assert [s.shape[2:] for s in scales] == [f.shape[2:] for f in levels[:-4:-1]]
    assert TwinDecoder(encoder, 3, STYLE, ConvBlock).trace(levels, sides)[1] == []


def test_the_twin_sees_all_three_levels() -> None:
    encoder = make_encoder("resnet18", 1, width=4)
    levels = [f.requires_grad_() for f in levels_of("resnet18", 64, 64)]
    out = TwinDecoder(encoder, 3, STYLE, ScaleAwareConv)(levels, (64, 64))
    gradients = torch.autograd.grad(out.square().sum(), levels[-3:])
    assert all(float(g.abs().sum()) > 0 for g in gradients)
