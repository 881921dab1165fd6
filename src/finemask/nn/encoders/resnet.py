"""ResNet encoders.

K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image
recognition", CVPR 2016. Strides sit in the 3x3 convolution of a bottleneck, as
in all public weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock, Style
from finemask.nn.encoders.base import Encoder, initialise

STYLE = Style(dims=2, norm="batch")
LINEAR = replace(STYLE, activation="none")

Finest = Literal["stem", "pool"]


class ResidualBlock(nn.Module, ABC):
    """A body beside a shortcut, activated after the sum.

    Args:
        c_in: Input feature maps.
        width: Feature maps within; ``expansion`` times as many behind.
        stride: Of the block's first 3x3 convolution.
        before: Distance of that convolution's taps.
        dilation: Distance of the taps of 3x3 convolutions behind it.
    """

    expansion: ClassVar[int]

    def __init__(
        self, c_in: int, width: int, stride: int = 1, before: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        c_out = self.expansion * width
        self.shortcut = (
            nn.Identity()
            if stride == 1 and c_in == c_out
            else self.make_shortcut(c_in, c_out, stride)
        )
        self.activation = nn.ReLU(inplace=True)

    def make_shortcut(self, c_in: int, c_out: int, stride: int) -> nn.Module:
        """The shortcut where width or grid change."""
        return ConvBlock(c_in, c_out, LINEAR, kernel=1, stride=stride)

    @abstractmethod
    def body(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b d i j"]: ...

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b d i j"]:
        return self.activation(self.body(x) + self.shortcut(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions: ResNet-18 and -34."""

    expansion = 1

    def __init__(
        self, c_in: int, width: int, stride: int = 1, before: int = 1, dilation: int = 1
    ) -> None:
        super().__init__(c_in, width, stride)
        self.first = ConvBlock(c_in, width, STYLE, dilation=before, stride=stride)
        self.second = ConvBlock(width, width, LINEAR, dilation=dilation)

    def body(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b d i j"]:
        return self.second(self.first(x))


class Bottleneck(ResidualBlock):
    """1x1 to fewer maps, 3x3 among them, 1x1 to four times as many: ResNet-50 and -101."""

    expansion = 4

    def __init__(
        self, c_in: int, width: int, stride: int = 1, before: int = 1, dilation: int = 1
    ) -> None:
        super().__init__(c_in, width, stride)
        self.reduce = ConvBlock(c_in, width, STYLE, kernel=1)
        self.spatial = ConvBlock(width, width, STYLE, dilation=before, stride=stride)
        self.expand = ConvBlock(width, self.expansion * width, LINEAR, kernel=1)

    def body(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b d i j"]:
        return self.expand(self.spatial(self.reduce(x)))


class ResNet(Encoder):
    """A stem and up to four stages of residual blocks.

    Args:
        block: ``BasicBlock`` or ``Bottleneck``.
        counts: Blocks of each stage.
        channels: Image channels.
        width: Feature maps of the stem; 64 in all public weights.
        levels: How many are returned; stages beyond are not built.
        finest: Level 0 is the ``stem`` behind its ReLU (stride 2), or that max-pooled
            (``pool``, stride 4, as stage 1).
        output_stride: Largest stride, 8, 16 or 32. Later stages are dilated instead, so that each
            feature is what it was, and others come between.
        multi_grid: Factors of the dilation of the last stage's blocks, repeated as needed.
    """

    def __init__(
        self,
        block: type[ResidualBlock],
        counts: Sequence[int],
        channels: int,
        *,
        width: int = 64,
        levels: int = 5,
        finest: Finest = "stem",
        output_stride: int = 32,
        multi_grid: Sequence[int] = (1,),
    ) -> None:
        inner = [width * 2**k for k in range(levels - 1)]
        widths = [width, *(block.expansion * maps for maps in inner)]
        whole = [4 * 2**k for k in range(levels - 1)]
        strides = [min(stride, output_stride) for stride in whole]
        super().__init__(widths, [2 if finest == "stem" else 4, *strides])
        self.finest = finest
        self.stem = self.make_stem(channels, width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        dilations = [w // s for w, s in zip(whole, strides, strict=True)]
        self.stages = nn.ModuleList()
        for k, (count, dilation) in enumerate(zip(counts, dilations, strict=False)):
            stride, before = (strides[k] // strides[k - 1], dilations[k - 1]) if k else (1, 1)
            grid = multi_grid if k == len(dilations) - 1 else (1,)
            steps = [dilation * grid[n % len(grid)] for n in range(count)]
            first = block(widths[k], inner[k], stride, before, steps[0])
            rest = (block(widths[k + 1], inner[k], 1, step, step) for step in steps[1:])
            self.stages.append(nn.Sequential(first, *rest))
        initialise(self)

    def make_stem(self, channels: int, width: int) -> nn.Module:
        return ConvBlock(channels, width, STYLE, kernel=7, stride=2)

    def forward(self, image: Float[Tensor, " b c h w"]) -> list[Tensor]:
        stem = self.stem(image)
        pooled = self.pool(stem)
        features, x = [stem if self.finest == "stem" else pooled], pooled
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
