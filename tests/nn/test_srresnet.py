"""SRResNet: its published graph and size, grids at any scale, and what its features are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finemask.methods.describe import count_parameters
from finemask.nn.srresnet import SRResNet


def test_the_published_size() -> None:
    """64 maps, 16 blocks, x4, three colours: added up layer by layer."""
    prelu, norm = 1, 2 * 64
    first = 3 * 64 * 81 + 64 + prelu
    block = 2 * (64 * 64 * 9 + norm) + prelu
    merge = 64 * 64 * 9 + norm
    up = 64 * 256 * 9 + 256 + prelu
    last = 64 * 3 * 81 + 3
    assert count_parameters(SRResNet(3, (4, 4))) == first + 16 * block + merge + 2 * up + last


@pytest.mark.parametrize("scale", [(1, 1), (2, 2), (3, 3), (4, 4), (1, 4), (2, 2, 2)])
def test_the_image_lies_on_the_hr_grid(scale: tuple[int, ...]) -> None:
    network = SRResNet(2, scale, width=4, blocks=1)
    sides = (5, 6, 4)[: len(scale)]
    image = torch.randn(1, 2, *sides)
    hr = tuple(n * f for n, f in zip(sides, scale, strict=True))
    assert network(image).shape == (1, 2, *hr)
    assert network.features(image).shape == (1, 4, *hr)


def test_with_the_skip_it_adds_to_the_interpolated_image() -> None:
    network, image = SRResNet(1, (2, 2), width=4, blocks=1, skip=True), torch.rand(1, 1, 6, 6)
    for weight in network.output.parameters():
        nn.init.zeros_(weight)
    expected = nn.functional.interpolate(image, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(network(image), expected)
