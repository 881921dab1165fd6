"""Scale-aware dilated convolution: every voxel weighs receptive fields of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import Block, ConvBlock, ResizeUp, Style, enlarge, make_conv, make_dropout
from finemask.nn.unet import UNetDecoder

Fusion = Literal["sum", "concat"]

DILATIONS = (1, 2, 5)
"""Of the 3-wide kernels, beside one of a single voxel."""
FIELDS = (1, *(2 * dilation + 1 for dilation in DILATIONS))
"""Voxels a side that each branch of a block sees."""


class ScaleAwareConv(nn.Module):
    """The SDC block: parallel convolutions of several reaches, each weighed voxel by voxel.

    One 1x1 convolution and three 3-wide ones with dilations 1, 2 and 5 read the
    same input. Four scale coefficient maps, made from that input too, say at
    every voxel how much each of them contributes.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        style: Of the network; its dropout is applied to the result.
        fusion: ``sum`` adds the weighed branches; ``concat`` joins them and lets a 1x1
            convolution mix them.
    """

    def __init__(self, c_in: int, c_out: int, style: Style, fusion: Fusion = "sum") -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [ConvBlock(c_in, c_out, style, kernel=1)]
            + [ConvBlock(c_in, c_out, style, dilation=dilation) for dilation in DILATIONS]
        )
        self.gates = make_conv(style.dims, c_in, len(FIELDS))
        self.mix = (
            ConvBlock(len(FIELDS) * c_out, c_out, style, kernel=1) if fusion == "concat" else None
        )
        self.dropout = make_dropout(style)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *s"]:
        return self.with_maps(x)[0]

    def with_maps(
        self, x: Float[Tensor, " b c *s"]
    ) -> tuple[Float[Tensor, " b d *s"], Float[Tensor, " b m *s"]]:
        """Features, and the scale coefficient maps that weighed them.

        ``S_i = sigmoid(conv_i(x))`` and ``sum_i S_i * branch_i(x)``.

        Paper: sasrnet Eq. (3)

        Args:
            x: Features of any size.

        Returns:
            Features, and one map in [0, 1] a branch, from the smallest reach to the largest.
        """
        maps = torch.sigmoid(self.gates(x))
        pairs = zip(self.branches, maps.split(1, dim=1), strict=True)
        if self.mix is not None:
            weighed = [branch(x) * share for branch, share in pairs]
            return self.dropout(self.mix(torch.cat(weighed, 1))), maps
        first, share = next(pairs)
        total = first(x) * share
        for branch, share in pairs:  # prediction holds one branch at a time
            total += branch(x) * share
        return self.dropout(total), maps


class ScaleAwareDecoder(UNetDecoder):
    """A U-Net decoder of SDC blocks.

    Args:
        widths: Feature maps of each level, as the encoder's.
        style: Of the network.
        up: Makes the way to the next finer level.
        fusion: See ``ScaleAwareConv``.
    """

    def __init__(
        self, widths: Sequence[int], style: Style, up: Block = ResizeUp, fusion: Fusion = "sum"
    ) -> None:
        super().__init__(widths, style, block=partial(ScaleAwareConv, fusion=fusion), up=up)

    def with_maps(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The finest features, and the scale coefficient maps of every level, coarsest first.

        Args:
            features: Of each level, finest first.
        """
        x, maps = features[-1], []
        for up, block, skip in zip(self.ups, self.blocks, reversed(features[:-1]), strict=True):
            assert isinstance(block, ScaleAwareConv)
            x, level = block.with_maps(torch.cat([up(x, skip.shape[2:]), skip], 1))
            maps.append(level)
        return x, maps


def stack_maps(maps: Sequence[Tensor]) -> Float[Tensor, " b m *s"]:
    """All scale coefficient maps of a decoder on its finest grid, S_all of the paper.

    Args:
        maps: Of each block, any order; the largest grid is kept.

    Returns:
        In [0, 1]; as many channels as the maps have together.
    """
    size = max((level.shape[2:] for level in maps), key=lambda shape: shape.numel())
    return torch.cat([enlarge(level, size) for level in maps], 1)
