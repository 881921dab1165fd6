"""DeepLabV3+ in two halves, so that a second decoder can share the encoder.

L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff and H. Adam, "Encoder-decoder with atrous
separable convolution for semantic image segmentation", ECCV 2018; with plain convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock, Style, average_cells, enlarge, make_conv
from finemask.nn.encoders import make_encoder

ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101"]

DILATIONS = (12, 24, 36)
"""Of the pyramid at an output stride of 8, beside a 1x1 convolution."""


class AtrousPyramid(nn.Module):
    """ASPP: convolutions at several distances beside the image's mean, joined.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps, also of each branch.
        style: Of the network.
        dilations: Distances of the taps.
    """

    def __init__(
        self, c_in: int, c_out: int, style: Style, dilations: Sequence[int] = DILATIONS
    ) -> None:
        super().__init__()
        spatial = (ConvBlock(c_in, c_out, style, dilation=d) for d in dilations)
        self.branches = nn.ModuleList([ConvBlock(c_in, c_out, style, kernel=1), *spatial])
        # No norm: one value a map would be nothing but its offset.
        self.image, self.activation = make_conv(2, c_in, c_out, 1), nn.ReLU(inplace=True)
        self.join = ConvBlock((len(self.branches) + 1) * c_out, c_out, style, kernel=1)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b d h w"]:
        made = [branch(x) for branch in self.branches]
        mean = self.activation(self.image(average_cells(x, (1, 1))))
        return self.join(torch.cat([*made, mean.expand_as(made[0])], 1))


class DeepLabEncoder(nn.Module):
    """A dilated ResNet and its pyramid: fine features (stride 4) and context (stride 8).

    Args:
        name: Of the ResNet.
        channels: Image channels.
        width: Feature maps of the context.
        encoder_width: Feature maps of the ResNet's stem; 64 in all public weights.
        style: Of the pyramid.
    """

    def __init__(
        self, name: ResNetName, channels: int, width: int, encoder_width: int, style: Style
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(
            name, channels, width=encoder_width, output_stride=8, multi_grid=(1, 2, 4)
        )
        self.pyramid = AtrousPyramid(self.encoder.widths[-1], width, style)
        self.widths, self.stride = (self.encoder.widths[1], width), self.encoder.strides[-1]

    def forward(self, image: Float[Tensor, " b c h w"]) -> list[Tensor]:
        levels = self.encoder(image)
        return [levels[1], self.pyramid(levels[-1])]


class DeepLabDecoder(nn.Module):
    """From fine features and context back to the fine grid.

    Args:
        widths: Of both, as the encoder's.
        style: Of the network.
    """

    def __init__(self, widths: Sequence[int], style: Style) -> None:
        super().__init__()
        fine, width = widths
        reduced = max(1, 3 * width // 16)
        self.reduce = ConvBlock(fine, reduced, style, kernel=1)
        self.join = nn.Sequential(
            ConvBlock(width + reduced, width, style), ConvBlock(width, width, style)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.levels(features)[-1]

    def levels(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The features of the only level, as ``UNetDecoder.levels``."""
        fine, context = features
        context = enlarge(context, fine.shape[2:])
        return [self.join(torch.cat([context, self.reduce(fine)], 1))]
