"""The VGG-16 encoder.

K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale
image recognition", ICLR 2015: the feature layers of configuration D, without
batch norm.
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock, MaxPool, Style
from finemask.nn.encoders.base import Encoder, initialise

STYLE = Style(dims=2, norm="none")
COUNTS = (2, 2, 3, 3, 3)


class VGG16(Encoder):
    """Five stages of 3x3 convolutions, each but the first behind a max-pooling.

    Levels are the last activation of each stage: relu1_2, relu2_2, relu3_3,
    relu4_3, relu5_3. An odd side keeps its last pixel in pooling, where the
    public code drops it.

    Args:
        channels: Image channels.
        width: Feature maps of the first stage; 64 in all public weights.
        levels: How many are returned; stages beyond are not built.
    """

    def __init__(self, channels: int, *, width: int = 64, levels: int = 5) -> None:
        widths = [width * min(2**k, 8) for k in range(levels)]
        super().__init__(widths, [2**k for k in range(levels)])
        self.pool = MaxPool(width, STYLE)
        self.stages = nn.ModuleList()
        for (c_in, c_out), count in zip(pairwise((channels, *widths)), COUNTS, strict=False):
            rest = (ConvBlock(c_out, c_out, STYLE) for _ in range(count - 1))
            self.stages.append(nn.Sequential(ConvBlock(c_in, c_out, STYLE), *rest))
        initialise(self)

    def forward(self, image: Float[Tensor, " b c h w"]) -> list[Tensor]:
        features = [self.stages[0](image)]
        for stage in self.stages[1:]:
            features.append(stage(self.pool(features[-1])))
        return features
