"""The saliency attention network of Point-Unet: where to look, and on which maps."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock, Style, enlarge, make_conv

RATES = (3, 5, 7)
"""Dilations of the context features, beside a 1x1 convolution."""
REACH = 9
"""Side of the long kernels of the spatial attention."""


class ResidualPair(nn.Module):
    """Two convolution blocks, what came in added behind them."""

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvBlock(width, width, style), ConvBlock(width, width, style))

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *s"]:
        return x + self.body(x)


class Context(nn.Module):
    """A 1x1 and three dilated convolutions side by side.

    Args:
        c_in: Input feature maps.
        width: Of each of the four.
        style: Of the network.
    """

    def __init__(self, c_in: int, width: int, style: Style) -> None:
        super().__init__()
        dilated = (ConvBlock(c_in, width, style, 3, dilation=rate) for rate in RATES)
        self.branches = nn.ModuleList([ConvBlock(c_in, width, style, 1), *dilated])

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *s"]:
        return torch.cat([branch(x) for branch in self.branches], 1)


class ChannelAttention(nn.Module):
    """Each map weighed in [0, 1] by what all maps have on average."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, width // 4)
        self.gate = nn.Sequential(
            nn.Linear(width, inner), nn.ReLU(inplace=True), nn.Linear(inner, width), nn.Sigmoid()
        )

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *s"]:
        weights: Tensor = self.gate(x.flatten(2).mean(2))
        return x * weights.reshape(*weights.shape, *(1,) * (x.ndim - 2))


class SpatialAttention(nn.Module):
    """A weight in [0, 1] a voxel, of a wide kernel across and a long one along each axis."""

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        for axis in range(style.dims):
            across = tuple(1 if k == axis else REACH for k in range(style.dims))
            along = tuple(REACH if k == axis else 1 for k in range(style.dims))
            first = ConvBlock(width, max(1, width // 2), style, across)
            second = ConvBlock(max(1, width // 2), 1, style, along)
            self.branches.append(nn.Sequential(first, second))

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b 1 *s"]:
        return torch.stack([branch(x) for branch in self.branches]).sum(0).sigmoid()


class SaliencyNet(nn.Module):
    """Deep context, weighed map by map, says where the fine features count.

    Args:
        channels: Of the image.
        maps: Logit maps.
        width: Feature maps of the finest level, doubled at each coarser one; all others are
            in proportion. The authors' code has 16, and fine features of 4 widths.
        depth: Levels; context is taken from the third on, so there are three at least.
        style: Of the network.
    """

    def __init__(self, channels: int, maps: int, width: int, depth: int, style: Style) -> None:
        super().__init__()
        widths, fine = [width * 2**k for k in range(depth)], 20 * width // 3
        wide = 8 * width
        block = partial(ConvBlock, style=style)
        self.first = block(channels, width)
        self.pairs = nn.ModuleList(ResidualPair(w, style) for w in widths)
        self.downs = nn.ModuleList(block(a, b, stride=2) for a, b in pairwise(widths))
        self.low = nn.ModuleList(block(w, fine) for w in widths[:2])
        self.context = nn.ModuleList(Context(w, 2 * width, style) for w in widths[2:])
        self.ups = nn.ModuleList(block(wide, wide) for _ in widths[3:])
        together = wide * len(self.context)
        self.attend = ChannelAttention(together)
        self.squeeze, self.high_up = block(together, fine, kernel=1), block(fine, fine)
        self.look = SpatialAttention(fine, style)
        self.low_up, self.low_mix = block(fine, fine), block(2 * fine, fine)
        self.output = make_conv(style.dims, 2 * fine, maps)

    def forward(self, image: Float[Tensor, " b c *s"]) -> Float[Tensor, " b m *s"]:
        levels = [self.pairs[0](self.first(image))]
        for down, pair in zip(self.downs, self.pairs[1:], strict=True):
            levels.append(pair(down(levels[-1])))
        middle = levels[2].shape[2:]
        context, *deeper = (c(x) for c, x in zip(self.context, levels[2:], strict=True))
        raised = [up(enlarge(x, middle)) for up, x in zip(self.ups, deeper, strict=True)]
        high = self.squeeze(self.attend(torch.cat([context, *raised], 1)))
        high = self.high_up(enlarge(high, image.shape[2:]))
        finest, second = (block(x) for block, x in zip(self.low, levels[:2], strict=True))
        second = self.low_up(enlarge(second, image.shape[2:]))
        low = self.look(high) * self.low_mix(torch.cat([finest, second], 1))
        return self.output(torch.cat([low, high], 1))
