"""The small parts that every network here is made of, in 2-D and 3-D from one code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Norm = Literal["instance", "instance_plain", "batch", "none"]
Activation = Literal["relu", "leaky_relu", "gelu", "none"]
Sides = int | tuple[int, ...]
"""Of a kernel: the same along each axis, or one for each."""


class Conv3d(nn.Conv3d):
    """PyTorch's 3-D convolution, safe in bfloat16 on thin volumes.

    On CPUs with bfloat16 units, oneDNN's weight gradient of a volume thinner than
    the kernel reads memory that is not its own (torch 2.13: NaN, 1e31 or a crash).
    A bottleneck of two slices is common, so such a volume is convolved in float32
    while learning; it is small, and nothing else changes.
    """

    def forward(self, input: Tensor) -> Tensor:
        reach = max(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        half = torch.bfloat16 in (input.dtype, self.weight.dtype)
        half = half or torch.is_autocast_enabled("cpu")
        thin = input.device.type == "cpu" and min(input.shape[2:]) < reach
        if not (thin and half and torch.is_grad_enabled()):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            out = self._conv_forward(input.float(), self.weight.float(), bias)
        return out.to(input.dtype)


class LoneValue(_BatchNorm):
    """Lets batch norm learn from a single value per feature map, which has no variance.

    PyTorch refuses it. The coarsest level of a deep network may be one voxel of
    one sample, and is then normalised as in prediction.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.numel() > input.shape[1]:
            return super().forward(input)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(input, mean, var, self.weight, self.bias, eps=self.eps)


class BatchNorm2d(LoneValue, nn.BatchNorm2d):
    """PyTorch's batch norm, for a single value too."""


class BatchNorm3d(LoneValue, nn.BatchNorm3d):
    """PyTorch's batch norm, for a single value too."""


Conv = nn.Conv2d | Conv3d
CONV: Mapping[int, Callable[..., Conv]] = {2: nn.Conv2d, 3: Conv3d}
ConvTranspose = nn.ConvTranspose2d | nn.ConvTranspose3d
CONV_TRANSPOSE: Mapping[int, Callable[..., ConvTranspose]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
BATCH_NORM = {2: BatchNorm2d, 3: BatchNorm3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
AVERAGE_CELLS: Mapping[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


@dataclass(frozen=True)
class Style:
    """What all blocks of a network have in common.

    Args:
        dims: 2 for pictures, 3 for volumes.
        norm: ``instance`` has a gain and an offset a channel, ``instance_plain`` has not.
        activation: ``leaky_relu`` has PyTorch's slope of 0.01.
        bias: Convolutions before a norm have a bias. The norm subtracts it again, so it is
            there only for released weights that have one.
        dropout: Share of feature maps dropped at the end of a block, in [0, 1).
    """

    dims: int = 2
    norm: Norm = "instance"
    activation: Activation = "relu"
    bias: bool = False
    dropout: float = 0.0


Block = Callable[[int, int, Style], nn.Module]
"""Makes a block from input width, output width and style: a class here, or a ``partial``."""


class InstanceNorm(nn.Module):
    """Bring each feature map of each sample to mean 0 and standard deviation 1.

    Group normalisation with one channel a group computes the same numbers, here
    twice as fast as PyTorch's own layer (CPU, forward and backward), and it lets
    a map of one voxel pass, as the bottleneck of a small lesion's crop may be.

    Args:
        channels: Feature maps.
        affine: Learn a gain and an offset for each.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *s"]:
        if torch.onnx.is_in_onnx_export():  # other libraries are faster with the plain layer
            return torch.instance_norm(
                x, self.weight, self.bias, None, None, True, 0.0, self.eps, False
            )
        return torch.group_norm(x, self.channels, self.weight, self.bias, self.eps)


def make_norm(channels: int, style: Style) -> nn.Module:
    if style.norm == "batch":
        return BATCH_NORM[style.dims](channels)
    if style.norm == "none":
        return nn.Identity()
    return InstanceNorm(channels, affine=style.norm == "instance")


def make_activation(style: Style) -> nn.Module:
    if style.activation == "none":
        return nn.Identity()
    if style.activation == "gelu":
        return nn.GELU()
    return nn.ReLU(inplace=True) if style.activation == "relu" else nn.LeakyReLU(inplace=True)


def make_dropout(style: Style) -> nn.Module:
    return DROPOUT[style.dims](style.dropout) if style.dropout else nn.Identity()


def make_conv(
    dims: int,
    c_in: int,
    c_out: int,
    kernel: Sides = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> Conv:
    """A convolution that keeps the size, or divides it by ``stride`` rounded up (odd kernels)."""
    kernel = (kernel,) * dims if isinstance(kernel, int) else kernel
    padding = tuple(dilation * (side // 2) for side in kernel)
    return CONV[dims](
        c_in, c_out, kernel, stride, padding=padding, dilation=dilation, groups=groups, bias=bias
    )


class ConvBlock(nn.Module):
    """Convolution, norm, activation: "CBR" in the papers' figures.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        style: Of the network.
        kernel: Odd side of the kernel, or sides where they differ between axes.
        dilation: Distance of the kernel's taps.
        stride: Input voxels for each output voxel along each axis.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        style: Style,
        kernel: Sides = 3,
        dilation: int = 1,
        stride: int = 1,
    ) -> None:
        super().__init__()
        bias = style.bias or style.norm == "none"
        self.conv = make_conv(
            style.dims, c_in, c_out, kernel, stride=stride, dilation=dilation, bias=bias
        )
        self.norm = make_norm(c_out, style)
        self.activation = make_activation(style)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *t"]:
        return self.activation(self.norm(self.conv(x)))


class DoubleConv(nn.Sequential):
    """The U-Net's block: two convolution blocks, then dropout where the style asks for it."""

    def __init__(self, c_in: int, c_out: int, style: Style) -> None:
        super().__init__(
            ConvBlock(c_in, c_out, style), ConvBlock(c_out, c_out, style), make_dropout(style)
        )


class ResidualUnit(nn.Module):
    """Two convolutions beside a 1x1 shortcut, each path normalised, activated after the sum.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        style: Of the network; the shortcut never has a bias.
    """

    def __init__(self, c_in: int, c_out: int, style: Style) -> None:
        super().__init__()
        bias = style.bias or style.norm == "none"
        self.body = nn.Sequential(
            ConvBlock(c_in, c_out, style),
            make_conv(style.dims, c_out, c_out, bias=bias),
            make_norm(c_out, style),
        )
        self.shortcut = nn.Sequential(
            make_conv(style.dims, c_in, c_out, 1, bias=False), make_norm(c_out, style)
        )
        self.activation = make_activation(style)
        self.dropout = make_dropout(style)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *s"]:
        return self.dropout(self.activation(self.body(x) + self.shortcut(x)))


class MaxPool(nn.Module):
    """Keep the largest of every two neighbours along each axis.

    An odd side keeps its last voxel, so no image is too small for a network.

    Args:
        width: Feature maps, unused: the signature of every way down.
        style: Of the network.
    """

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.pool = MAX_POOL[style.dims](2, ceil_mode=True)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *t"]:
        return self.pool(x)


class ResizeUp(nn.Module):
    """Linear interpolation to the grid of the skip, then a convolution block.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        style: Of the network.
        kernel: Odd side of the kernel.
    """

    def __init__(self, c_in: int, c_out: int, style: Style, kernel: int = 1) -> None:
        super().__init__()
        self.block = ConvBlock(c_in, c_out, style, kernel)
        self.kernel = kernel

    def forward(self, x: Float[Tensor, " b c *s"], size: Sequence[int]) -> Float[Tensor, " b d *t"]:
        if self.kernel > 1:
            return self.block(enlarge(x, size))
        # A 1x1 convolution commutes with interpolation and costs 4 to 8 times less before it.
        return self.block.activation(self.block.norm(enlarge(self.block.conv(x), size)))


def make_transpose(c_in: int, c_out: int, scale: Sequence[int]) -> ConvTranspose:
    """A transposed convolution to a grid ``scale`` times finer, 4 wide where it doubles a side.

    In general each finer voxel is made of two coarser ones along an axis, or of three where the
    scale is odd, so that they lie about it alike.
    """
    margin = [(factor + 1) // 2 for factor in scale]
    kernel = tuple(factor + 2 * m for factor, m in zip(scale, margin, strict=True))
    return CONV_TRANSPOSE[len(scale)](
        c_in, c_out, kernel, stride=tuple(scale), padding=tuple(margin)
    )


class TransposeUp(nn.Module):
    """Transposed convolution that doubles every side (4 wide, step 2), then the activation.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        style: Of the network; no norm is applied.
    """

    def __init__(self, c_in: int, c_out: int, style: Style) -> None:
        super().__init__()
        self.conv = make_transpose(c_in, c_out, (2,) * style.dims)
        self.activation = make_activation(style)

    def forward(self, x: Float[Tensor, " b c *s"], size: Sequence[int]) -> Float[Tensor, " b d *t"]:
        return self.activation(crop_end(self.conv(x), size))


def resize(
    x: Float[Tensor, " b c *s"], size: Sequence[int], mode: Literal["linear", "nearest"] = "linear"
) -> Float[Tensor, " b c *t"]:
    """Interpolate to another grid of the same physical extent (edges coincide).

    Example:
        >>> resize(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).flatten()
        tensor([0., 1., 3., 4.])
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if mode == "nearest":
        return F.interpolate(x, tuple(size), mode="nearest-exact")
    return F.interpolate(x, tuple(size), mode=LINEAR[x.ndim - 2], align_corners=False)


def box_sum(x: Float[Tensor, " b c *s"], side: int) -> Float[Tensor, " b c *s"]:
    """Sum over the surroundings of each voxel, a channel at a time; zeros lie beyond the edges.

    Axis by axis, so the cost grows with the side, not with its power.

    Args:
        x: In float32, where long sums keep their digits.
        side: Odd side of the surroundings.

    Example:
        >>> box_sum(torch.tensor([[[1.0, 2.0, 4.0]]]), 3)
        tensor([[[3., 7., 6.]]])
    """
    for axis in range(2, x.ndim):
        around = [side // 2 if k == axis else 0 for k in reversed(range(2, x.ndim))]
        padded, size = F.pad(x, [n for n in around for _ in range(2)]), x.shape[axis]
        x = padded.narrow(axis, 0, size)
        for step in range(1, side):  # unfold says the same, but ONNX has no such thing
            x = x + padded.narrow(axis, step, size)
    return x


def average_cells(x: Float[Tensor, " b c *s"], grid: Sequence[int]) -> Float[Tensor, " b c *t"]:
    """Mean of each cell of a coarser grid over the same extent.

    Cells of two maps of one physical extent coincide, whatever their resolutions, where the
    sides are multiples of the grid.

    Example:
        >>> average_cells(torch.tensor([[[[0.0, 4.0, 1.0, 3.0]]]]), (1, 2)).flatten()
        tensor([2., 2.])
    """
    if tuple(x.shape[2:]) == tuple(grid):
        return x
    return AVERAGE_CELLS[x.ndim - 2](x, tuple(grid))


def count_cells(shape: Sequence[int], stride: int) -> list[int]:
    """Cells of ``stride`` voxels a side along each axis, at least one."""
    return [max(1, side // stride) for side in shape]


def crop_end(x: Float[Tensor, " b c *s"], size: Sequence[int]) -> Float[Tensor, " b c *t"]:
    """Cut what lies beyond ``size`` at the far end of each axis."""
    window: tuple[slice, ...] = tuple(slice(n) for n in size)
    return x[(slice(None), slice(None), *window)]


def enlarge(x: Float[Tensor, " b c *s"], size: Sequence[int]) -> Float[Tensor, " b c *t"]:
    """Undo a pooling: whole-number interpolation, then cut to the finer grid.

    Interpolating an odd grid directly would shift every voxel but the first.
    """
    whole = [n * math.ceil(fine / n) for n, fine in zip(x.shape[2:], size, strict=True)]
    return crop_end(resize(x, whole), size)
