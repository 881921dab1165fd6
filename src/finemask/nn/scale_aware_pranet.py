"""PraNet with scale-aware blocks: what its decoder saw, and a twin that restores images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import Block, ConvBlock, Style, TransposeUp, enlarge
from finemask.nn.encoders import Encoder
from finemask.nn.pranet import PraNetDecoder, to_grid
from finemask.nn.scale_aware import ScaleAwareConv


def trace(
    decoder: PraNetDecoder, features: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """The maps of a decoder as its ``forward`` gives them, and what the affinity losses compare.

    Args:
        decoder: With SDC blocks in its stages, or without.
        features: Of each level of the encoder, finest first.

    Returns:
        Logits S_g, S_5, S_4 and S_3; the features behind S_3; and the scale coefficient maps of
        the SDC blocks, coarsest first.
    """
    levels = features[-3:]
    maps, scales, x = [decoder.global_map(levels)], list[Tensor](), levels[0]
    for stage, level in zip(decoder.stages, reversed(levels), strict=True):
        guide = to_grid(maps[-1], level.shape[2:])
        x, weights = with_maps(stage.first, stage.erase(level, guide))
        x = stage.rest(x)
        maps.append(guide + stage.output(x))
        scales += weights
    return maps, x, scales


class TwinDecoder(nn.Module):
    """From the same levels as PraNet's decoder, by as many blocks of its widths, to the LR grid.

    Args:
        encoder: Whose three coarsest levels are used.
        channel: Of PraNet.
        style: Of the network.
        block: Makes the block of a level.
    """

    def __init__(self, encoder: Encoder, channel: int, style: Style, block: Block) -> None:
        super().__init__()
        widths = (8 * channel, 2 * channel, 2 * channel)
        levels = zip(encoder.widths[:-4:-1], widths, strict=True)
        self.skips = nn.ModuleList(ConvBlock(a, b, style, kernel=1) for a, b in levels)
        self.coarsest = block(widths[0], widths[0], style)
        self.blocks = nn.ModuleList(block(a + b, b, style) for a, b in pairwise(widths))
        self.width, doublings = widths[-1], int(math.log2(encoder.strides[-3]))
        self.ups = nn.ModuleList(
            TransposeUp(self.width, self.width, style) for _ in range(doublings)
        )

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> Float[Tensor, " b w *s"]:
        """Features on the grid of the image, of ``size``."""
        return self.trace(features, size)[0]

    def trace(self, features: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Features on the LR grid, and the scale coefficient maps, coarsest first.

        Args:
            features: Of each level, finest first.
            size: Of the LR image.
        """
        coarsest, *finer = (s(f) for s, f in zip(self.skips, features[:-4:-1], strict=True))
        x, scales = with_maps(self.coarsest, coarsest)
        for block, skip in zip(self.blocks, finer, strict=True):
            x, weights = with_maps(block, torch.cat([enlarge(x, skip.shape[2:]), skip], 1))
            scales = scales + weights
        for k, up in enumerate(self.ups, start=1):
            left = 2 ** (len(self.ups) - k)
            x = up(x, [-(-side // left) for side in size])
        return x, scales


def with_maps(block: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Features behind a block, and its scale coefficient maps where it has any."""
    if isinstance(block, ScaleAwareConv):
        features, maps = block.with_maps(x)
        return features, [maps]
    return block(x), []
