"""Parts of networks that answer a whole volume on a grid finer than they read it on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import (
    Block,
    ResidualUnit,
    Style,
    TransposeUp,
    make_activation,
    make_conv,
    make_norm,
    make_transpose,
    resize,
)
from finemask.nn.unet import UNetDecoder

UpHead = Literal["residual", "light"]

KERNELS = (3, 5, 7)
"""Sides of the parallel convolutions of a multi-scale unit; the first has half of the maps."""


class MultiScaleUnit(nn.Module):
    """A residual unit whose first convolution has three reaches side by side.

    Half of its maps come from 3-wide, a quarter each from 5-wide and 7-wide kernels;
    they are normalised together, and a second convolution halves their number.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        style: Of the network; the shortcut never has a bias.
    """

    def __init__(self, c_in: int, c_out: int, style: Style) -> None:
        super().__init__()
        bias = style.bias or style.norm == "none"
        maps = (c_out, c_out // 2, c_out // 2)
        self.branches = nn.ModuleList(
            make_conv(style.dims, c_in, c, kernel, bias=bias)
            for c, kernel in zip(maps, KERNELS, strict=True)
            if c
        )
        self.body = nn.Sequential(
            make_norm(sum(maps), style),
            make_activation(style),
            make_conv(style.dims, sum(maps), c_out, bias=bias),
            make_norm(c_out, style),
        )
        self.shortcut = nn.Sequential(
            make_conv(style.dims, c_in, c_out, 1, bias=False), make_norm(c_out, style)
        )
        self.activation = make_activation(style)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *s"]:
        scales = torch.cat([branch(x) for branch in self.branches], 1)
        return self.activation(self.body(scales) + self.shortcut(x))


class ResidualHead(nn.Sequential):
    """Transposed convolution to the HR grid, a block there, a 1x1 convolution.

    Args:
        width: LR feature maps.
        maps: Of the answer.
        scale: HR voxels for each LR voxel along each axis.
        style: Of the network.
        block: Makes the block on the HR grid, where nearly all of a network's time goes.
    """

    def __init__(
        self, width: int, maps: int, scale: Sequence[int], style: Style, block: Block = ResidualUnit
    ) -> None:
        inner = max(1, width // 2)
        super().__init__(
            make_transpose(width, width, scale),
            make_activation(style),
            block(width, inner, style),
            make_conv(style.dims, inner, maps, 1),
        )


class LightHead(nn.Module):
    """Transposed convolution to the HR grid and a 1x1 convolution, with nothing between.

    Two linear maps in a row are one: their kernels are multiplied first, so the
    feature maps on the HR grid are never made, neither in training nor later.

    Args:
        width: LR feature maps.
        maps: Of the answer.
        scale: HR voxels for each LR voxel along each axis.
    """

    def __init__(self, width: int, maps: int, scale: Sequence[int]) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.up = make_transpose(width, inner, scale)
        self.output = make_conv(len(scale), inner, maps, 1)

    def kernel(self) -> tuple[Float[Tensor, " w m *k"], Float[Tensor, " m"]]:
        """Weight and bias of the one transposed convolution that both make together."""
        mix = self.output.weight.flatten(1)
        weight = torch.einsum("wi...,mi->wm...", self.up.weight, mix)
        assert self.up.bias is not None
        assert self.output.bias is not None
        return weight, mix @ self.up.bias + self.output.bias

    def forward(self, x: Float[Tensor, " b w *s"]) -> Float[Tensor, " b m *hr"]:
        weight, bias = self.kernel()
        transpose: Callable[..., Tensor] = {4: F.conv_transpose2d, 5: F.conv_transpose3d}[x.ndim]
        return transpose(x, weight, bias, self.up.stride, self.up.padding)

    def folded(self) -> nn.Module:
        """The one transposed convolution as a layer of its own, with weights of its own."""
        weight, bias = self.kernel()
        maps, scale = len(bias), self.up.stride
        layer = make_transpose(len(weight), maps, scale).to(weight.device, weight.dtype)
        layer.load_state_dict({"weight": weight.detach(), "bias": bias.detach()}, assign=True)
        return layer


class PatchFreeDecoder(nn.Module):
    """From features on the LR grid to maps on the HR grid, for the mask or for the image.

    Args:
        widths: Feature maps of each level, as the encoder's.
        code: Feature maps of the guidance that is joined to the bottleneck; 0 for none.
        maps: Of the answer.
        scale: HR voxels for each LR voxel along each axis.
        style: Of the network.
        block: Makes the blocks behind the skips, and the one of a ``residual`` head.
        head: How the HR grid is reached.
    """

    def __init__(
        self,
        widths: Sequence[int],
        code: int,
        maps: int,
        scale: Sequence[int],
        style: Style,
        block: Block = ResidualUnit,
        head: UpHead = "residual",
    ) -> None:
        super().__init__()
        self.decoder = UNetDecoder(widths, style, block, TransposeUp, widths[-1] + code)
        self.head: nn.Module
        if head == "light":
            self.head = LightHead(widths[0], maps, scale)
        else:
            self.head = ResidualHead(widths[0], maps, scale, style, block)

    def forward(self, features: Sequence[Tensor]) -> Float[Tensor, " b m *hr"]:
        """The maps, from the features of each level, finest first."""
        return self.head(self.decoder(features))


def join_code(features: Sequence[Tensor], code: Float[Tensor, " b g *p"]) -> list[Tensor]:
    """The features of each level with those of the guidance beside the bottleneck's.

    They are joined cell by cell, though they show another extent; where the
    grids have other sides, the code is interpolated.
    """
    *finer, bottleneck = features
    return [*finer, torch.cat([bottleneck, resize(code, bottleneck.shape[2:])], 1)]
