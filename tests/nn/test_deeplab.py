"""DeepLabV3+ in two halves: grids, dilations, and the public names of its ResNet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finemask.nn.blocks import Style
from finemask.nn.deeplab import DILATIONS, AtrousPyramid, DeepLabDecoder, DeepLabEncoder
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names

STYLE = Style(norm="batch")


@pytest.mark.parametrize("sides", [(32, 48), (29, 37)])
def test_grids_are_a_fourth_and_an_eighth(sides: tuple[int, int]) -> None:
    encoder = DeepLabEncoder("resnet18", 3, width=16, encoder_width=8, style=STYLE)
    fine, context = encoder(torch.randn(2, 3, *sides))
    assert fine.shape == (2, 8, *(-(-n // 4) for n in sides))
    assert context.shape == (2, 16, *(-(-n // 8) for n in sides))
    assert DeepLabDecoder(encoder.widths, STYLE)([fine, context]).shape == (2, 16, *fine.shape[2:])


def test_the_last_stage_is_dilated_by_the_multi_grid() -> None:
    def dilations(encoder: nn.Module) -> list[int]:
        stage = encoder.stages[-1]
        convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        return [conv.dilation[0] for conv in convs]

    build = {"channels": 3, "width": 4, "output_stride": 8}
    assert dilations(make_encoder("resnet50", **build)) == [2, 4, 4]
    assert dilations(make_encoder("resnet50", **build, multi_grid=(1, 2, 4))) == [2, 8, 16]


def test_public_weights_have_the_same_names() -> None:
    plain = make_encoder("resnet50", 3, width=4)
    dilated = DeepLabEncoder("resnet50", 3, 8, 4, STYLE).encoder
    assert public_names(dilated) == public_names(plain)


def test_the_pyramid_looks_as_far_as_it_says() -> None:
    torch.manual_seed(0)
    pyramid = AtrousPyramid(2, 4, STYLE).eval()
    for branch, reach in zip(pyramid.branches, (0, *DILATIONS), strict=True):
        x = torch.zeros(1, 2, 1, 2 * max(DILATIONS) + 1, requires_grad=True)
        middle = x.shape[3] // 2
        branch.conv(x)[..., middle].sum().backward()
        assert x.grad is not None
        seen = torch.nonzero(x.grad.abs().sum((0, 1, 2))).flatten() - middle
        assert seen.tolist() == sorted({-reach, 0, reach})
