"""Pooling and enlarging as released U-Nets do it: grids whose corner voxels coincide.

Three pixels pooled at every second one lie about its centre, and interpolation that aligns
corners takes them back there. Against the true extent this shifts a mask outwards, so nothing
here is a default; weights that learned with it need it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import LINEAR, MAX_POOL, ConvBlock, Style


class OverlappingMaxPool(nn.Module):
    """Keep the largest of three neighbours at every second voxel along each axis.

    Args:
        width: Feature maps, unused: the signature of every way down.
        style: Of the network.
    """

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.pool = MAX_POOL[style.dims](3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *t"]:
        return self.pool(x)


class AlignedUp(nn.Module):
    """``ResizeUp`` by a 1x1 convolution, between grids whose corner voxels coincide.

    Against the true extent it shifts everything outwards, by up to half a coarse voxel at the
    edges; it is there for released weights that learned with it.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        style: Of the network.
    """

    def __init__(self, c_in: int, c_out: int, style: Style) -> None:
        super().__init__()
        self.block = ConvBlock(c_in, c_out, style, kernel=1)

    def forward(self, x: Float[Tensor, " b c *s"], size: Sequence[int]) -> Float[Tensor, " b d *t"]:
        return self.block.activation(self.block.norm(align(self.block.conv(x), size)))


def align(x: Float[Tensor, " b c *s"], size: Sequence[int]) -> Float[Tensor, " b c *t"]:
    """Interpolate to another grid so that the centres of the corner voxels coincide.

    Example:
        >>> import torch
        >>> align(torch.tensor([[[[0.0, 3.0]]]]), (1, 4)).flatten()
        tensor([0., 1., 2., 3.])
    """
    return F.interpolate(x, tuple(size), mode=LINEAR[x.ndim - 2], align_corners=True)
