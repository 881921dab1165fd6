"""The U-Net in two halves, so that a second decoder can share the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import Block, ConvBlock, DoubleConv, MaxPool, ResizeUp, Style
from finemask.nn.encoders import Encoder


def unet_widths(width: int, depth: int, largest: int = 8) -> tuple[int, ...]:
    """Feature maps of each level: doubled level by level, at most ``largest`` times the first.

    Example:
        >>> unet_widths(24, 5)
        (24, 48, 96, 192, 192)
    """
    return tuple(width * min(2**level, largest) for level in range(depth))


class UNetEncoder(nn.Module):
    """From an image to features at ever coarser levels, finest first.

    Args:
        channels: Image channels.
        widths: Feature maps of each level; the last is the bottleneck.
        style: Of the network.
        block: Makes the block of a level.
        down: Makes the way from a level to the next coarser one, from its width and the style.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        style: Style,
        block: Block = DoubleConv,
        down: Callable[[int, Style], nn.Module] = MaxPool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block(a, b, style) for a, b in pairwise((channels, *widths)))
        self.downs = nn.ModuleList(down(width, style) for width in widths[:-1])
        self.widths, self.stride = tuple(widths), 2 ** (len(widths) - 1)

    def forward(self, image: Float[Tensor, " b c *s"]) -> list[Tensor]:
        features = [self.blocks[0](image)]
        for down, block in zip(self.downs, self.blocks[1:], strict=True):
            features.append(block(down(features[-1])))
        return features


class PublicUNetEncoder(nn.Module):
    """An encoder with public weights in the place of the U-Net's own.

    1x1 convolution blocks bring its levels to the decoder's widths, so that
    nothing but the encoder differs. Where its finest level is coarser than the
    image, a block on the image itself makes the finest one.

    Args:
        encoder: From ``make_encoder``.
        channels: Image channels.
        width: Feature maps of the finest level; those of the others follow ``unet_widths``.
        style: Of all but the encoder.
        block: Makes the block on the image.
    """

    def __init__(
        self,
        encoder: Encoder,
        channels: int,
        width: int,
        style: Style,
        block: Block = DoubleConv,
    ) -> None:
        super().__init__()
        self.encoder, self.stride = encoder, encoder.strides[-1]
        image_levels = 1 if encoder.strides[0] > 1 else 0
        self.widths = unet_widths(width, image_levels + len(encoder.widths))
        self.finest = block(channels, width, style) if image_levels else None
        self.laterals = nn.ModuleList(
            ConvBlock(theirs, ours, style, kernel=1)
            for theirs, ours in zip(encoder.widths, self.widths[image_levels:], strict=True)
        )

    def forward(self, image: Float[Tensor, " b c h w"]) -> list[Tensor]:
        finest = [self.finest(image)] if self.finest else []
        levels = zip(self.laterals, self.encoder(image), strict=True)
        return finest + [lateral(features) for lateral, features in levels]


class UNetDecoder(nn.Module):
    """From the encoder's features back to the finest level, with a skip at each one.

    Args:
        widths: Feature maps of each level, as the encoder's.
        style: Of the network.
        block: Makes the block behind each concatenation [upsampled, skip].
        up: Makes the way to the next finer level.
        bottleneck: Feature maps of the coarsest input where they are more than ``widths[-1]``
            (a guidance code joined to it, for example).
    """

    def __init__(
        self,
        widths: Sequence[int],
        style: Style,
        block: Block = DoubleConv,
        up: Block = ResizeUp,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        coarse_to_fine = (bottleneck or widths[-1], *widths[-2::-1])
        self.ups = nn.ModuleList(up(a, b, style) for a, b in pairwise(coarse_to_fine))
        self.blocks = nn.ModuleList(block(2 * b, b, style) for b in coarse_to_fine[1:])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The finest features.

        Args:
            features: Of each level, finest first.
        """
        return self.levels(features)[-1]

    def levels(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The features of every level above the bottleneck, coarsest first."""
        x, outputs = features[-1], []
        for up, block, skip in zip(self.ups, self.blocks, reversed(features[:-1]), strict=True):
            x = block(torch.cat([up(x, skip.shape[2:]), skip], 1))
            outputs.append(x)
        return outputs
