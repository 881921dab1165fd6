"""CBAM: a block that weighs its channels, then its places.

S. Woo, J. Park, J.-Y. Lee and I. S. Kweon, "CBAM: Convolutional block attention
module", ECCV 2018.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import BATCH_NORM, CONV, Style, make_conv

LEAST_HIDDEN = 4
"""Units that are left of a narrow block's channels however large the reduction."""


class ChannelAttention(nn.Module):
    """A weight in (0, 1) for each channel, from its mean and its maximum over the image.

    Args:
        width: Feature maps.
        ratio: Channels for each hidden unit of the perceptron that both go through.
    """

    def __init__(self, width: int, ratio: int = 16) -> None:
        super().__init__()
        hidden = max(LEAST_HIDDEN, width // ratio)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width)
        )

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *s"]:
        places = x.flatten(2)
        logits = self.perceptron(places.mean(2)) + self.perceptron(places.amax(2))
        return x * torch.sigmoid(logits).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


class SpatialAttention(nn.Module):
    """A weight in (0, 1) for each place, from the mean and the maximum of its channels.

    Args:
        dims: 2 or 3.
        kernel: Odd side of the surroundings that it is found in.
    """

    def __init__(self, dims: int, kernel: int = 7) -> None:
        super().__init__()
        self.conv = make_conv(dims, 2, 1, kernel)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *s"]:
        return x * self.weights(x)

    def weights(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b 1 *s"]:
        """The weight of each place."""
        channels = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv(channels))


class CBAMBlock(nn.Module):
    """Convolutions, each followed by ReLU and then batch norm; both attentions; a shortcut.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        style: Of the network, of which the dimension is used.
        convs: How many 3x3 convolutions.
        ratio: See ``ChannelAttention``.
        kernel: See ``SpatialAttention``.
    """

    def __init__(
        self, c_in: int, c_out: int, style: Style, convs: int = 2, ratio: int = 16, kernel: int = 7
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(convs):
            layers += [
                make_conv(style.dims, c_out if number else c_in, c_out),
                nn.ReLU(inplace=True),
                BATCH_NORM[style.dims](c_out),
            ]
        self.body = nn.Sequential(*layers)
        self.channels = ChannelAttention(c_out, ratio)
        self.places = SpatialAttention(style.dims, kernel)
        self.shortcut: nn.Module = nn.Identity()
        if c_in != c_out:
            self.shortcut = make_conv(style.dims, c_in, c_out, 1, bias=False)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *s"]:
        return self.places(self.channels(self.body(x))) + self.shortcut(x)


class StridedDown(nn.Module):
    """Halve every side by a learnt convolution (4 wide, step 2) and ReLU, where others pool.

    An odd side is continued by its last voxel, so no image is too small for a network.

    Args:
        width: Feature maps.
        style: Of the network, of which the dimension is used.
    """

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.conv = CONV[style.dims](width, width, 4, stride=2, padding=1)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *t"]:
        odd = [side % 2 for side in reversed(x.shape[2:])]
        if any(odd):
            x = F.pad(x, [n for end in odd for n in (0, end)], mode="replicate")
        return torch.relu(self.conv(x))
