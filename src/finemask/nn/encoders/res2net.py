"""Res2Net encoders, version 1b with 4 scales of 26 maps ("26w x 4s").

S.-H. Gao et al., "Res2Net: a new multi-scale backbone architecture", IEEE
TPAMI 43(2), 2021. A bottleneck's feature maps are split into four parts; each
3x3 convolution also sees what the one before it made, so one block looks at
several scales. Version 1b has a stem of three 3x3 convolutions and averages
before a strided shortcut instead of skipping pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock
from finemask.nn.encoders.resnet import LINEAR, STYLE, Finest, ResidualBlock, ResNet

SCALES, BASE_WIDTH = 4, 26


class Res2Bottleneck(ResidualBlock):
    """Bottleneck whose 3x3 convolution is a chain over parts of the feature maps.

    The last part passes by. The first block of a stage convolves the parts side
    by side and averages the last one over 3x3 pixels, as its grid may change.
    """

    expansion = 4

    def __init__(
        self, c_in: int, width: int, stride: int = 1, before: int = 1, dilation: int = 1
    ) -> None:
        super().__init__(c_in, width, stride)
        c_out, part = self.expansion * width, width * BASE_WIDTH // 64
        self.chained = c_in == c_out
        self.reduce = ConvBlock(c_in, SCALES * part, STYLE, kernel=1)
        self.parts = nn.ModuleList(
            ConvBlock(part, part, STYLE, stride=stride) for _ in range(SCALES - 1)
        )
        self.last_part = nn.Identity() if self.chained else nn.AvgPool2d(3, stride, padding=1)
        self.expand = ConvBlock(SCALES * part, c_out, LINEAR, kernel=1)

    def body(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b d i j"]:
        *splits, last = self.reduce(x).chunk(SCALES, 1)
        made: list[Tensor] = []
        for convolve, split in zip(self.parts, splits, strict=True):
            made.append(convolve(split + made[-1] if self.chained and made else split))
        return self.expand(torch.cat([*made, self.last_part(last)], 1))

    def make_shortcut(self, c_in: int, c_out: int, stride: int) -> nn.Module:
        pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, ConvBlock(c_in, c_out, LINEAR, kernel=1))


class Res2Net(ResNet):
    """ResNet of Res2Net bottlenecks behind a deep stem.

    Args:
        counts: Blocks of each stage.
        channels: Image channels.
        width: Feature maps of the stem; 64 in all public weights.
        levels: How many are returned; stages beyond are not built.
        finest: As of ``ResNet``.
    """

    def __init__(
        self,
        counts: Sequence[int],
        channels: int,
        *,
        width: int = 64,
        levels: int = 5,
        finest: Finest = "stem",
    ) -> None:
        super().__init__(
            Res2Bottleneck, counts, channels, width=width, levels=levels, finest=finest
        )

    def make_stem(self, channels: int, width: int) -> nn.Module:
        return nn.Sequential(
            ConvBlock(channels, width // 2, STYLE, stride=2),
            ConvBlock(width // 2, width // 2, STYLE),
            ConvBlock(width // 2, width, STYLE),
        )
