"""The last step to the HR grid: heads for masks and for images, at any whole-number scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.aligned import align
from finemask.nn.blocks import CONV_TRANSPOSE, make_conv, resize

Head = Literal["interpolate", "shuffle"]

PRIOR = 0.1
"""Foreground probability of an untrained mask head: lesions are rare, and a network that
starts at 0.5 spends its first steps on the background."""


def pixel_shuffle(x: Float[Tensor, " b c *s"], scale: Sequence[int]) -> Float[Tensor, " b d *hr"]:
    """Spread groups of ``prod(scale)`` channels over the finer voxels of each coarse one.

    Args:
        x: ``(B, C * prod(scale), *S)``; within a group the last axis varies fastest.
        scale: Finer voxels for each voxel along each axis; may differ between axes.

    Returns:
        ``(B, C, *S * scale)``; in 2-D with one scale equal to PyTorch's ``pixel_shuffle``.

    Example:
        >>> pixel_shuffle(torch.arange(4.0).reshape(1, 4, 1, 1), (2, 2)).squeeze()
        tensor([[0., 1.],
                [2., 3.]])
    """
    n, (batch, channels, *shape) = len(scale), x.shape
    x = x.reshape(batch, channels // math.prod(scale), *scale, *shape)
    order = [axis for k in range(n) for axis in (2 + n + k, 2 + k)]
    fine = [s * f for s, f in zip(shape, scale, strict=True)]
    return x.permute(0, 1, *order).reshape(batch, -1, *fine)


def pixel_unshuffle(x: Float[Tensor, " b c *s"], scale: Sequence[int]) -> Float[Tensor, " b d *lr"]:
    """Gather the finer voxels of each coarse one into channels: undoes ``pixel_shuffle``."""
    n, (batch, channels, *shape) = len(scale), x.shape
    coarse = [s // f for s, f in zip(shape, scale, strict=True)]
    split = [side for pair in zip(coarse, scale, strict=True) for side in pair]
    x = x.reshape(batch, channels, *split)
    order = [*(3 + 2 * k for k in range(n)), *(2 + 2 * k for k in range(n))]
    return x.permute(0, 1, *order).reshape(batch, channels * math.prod(scale), *coarse)


def enlarge_by(x: Float[Tensor, " b c *s"], scale: Sequence[int]) -> Float[Tensor, " b c *hr"]:
    """Interpolate to a grid that is finer by a whole number along each axis."""
    return resize(x, [side * factor for side, factor in zip(x.shape[2:], scale, strict=True)])


def mask_channels(classes: int) -> int:
    """Logit maps of a task: one (sigmoid) when there is one foreground class, else one a class."""
    return classes if classes > 2 else 1


class MaskHead(nn.Module):
    """From LR features to logits on the HR grid.

    ``interpolate`` classifies each LR voxel and interpolates the logits: smooth
    outlines, placed between voxels by their confidence. ``shuffle`` predicts
    every HR voxel of an LR voxel from its 3-wide neighbourhood, so it can learn
    shapes finer than the LR grid; it starts as nearest-neighbour enlargement.

    Args:
        width: Feature maps.
        classes: Of the task, background included.
        scale: HR voxels for each LR voxel along each axis.
        kind: Of the two.
        softmax: Give the background a map of its own also beside one foreground class.
        aligned: Interpolate between the centres of corner voxels, see ``AlignedUp``.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        scale: Sequence[int],
        kind: Head = "shuffle",
        softmax: bool = False,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.scale, self.kind, self.aligned = tuple(scale), kind, aligned
        start = prior_logits(classes, softmax=softmax)
        self.maps = maps = len(start)
        copies = math.prod(scale) if kind == "shuffle" else 1
        kernel = 3 if kind == "shuffle" else 1
        self.conv = make_conv(len(scale), width, maps * copies, kernel)
        with torch.no_grad():
            first = self.conv.weight[::copies]
            self.conv.weight.copy_(first.repeat_interleave(copies, 0))
            assert self.conv.bias is not None
            self.conv.bias.copy_(start.repeat_interleave(copies, 0))

    def forward(self, features: Float[Tensor, " b w *s"]) -> Float[Tensor, " b l *hr"]:
        logits = self.conv(features)
        if self.kind == "shuffle":
            return pixel_shuffle(logits, self.scale)
        if self.aligned:
            fine = [n * f for n, f in zip(logits.shape[2:], self.scale, strict=True)]
            return align(logits, fine)
        return enlarge_by(logits, self.scale)


class Enlarge(nn.Module):
    """Interpolate logits to the HR grid, for a network that answers on the LR grid.

    Args:
        scale: HR voxels for each LR voxel along each axis.
    """

    def __init__(self, scale: Sequence[int]) -> None:
        super().__init__()
        self.scale = tuple(scale)

    def forward(self, logits: Float[Tensor, " b l *s"]) -> Float[Tensor, " b l *hr"]:
        return enlarge_by(logits, self.scale)


def prior_logits(classes: int, prior: float = PRIOR, softmax: bool = False) -> Float[Tensor, " l"]:
    """Logits at which the foreground classes together have probability ``prior``.

    Args:
        classes: Of the task, background included.
        prior: In (0, 1).
        softmax: A map for the background also beside one foreground class.

    Example:
        >>> torch.sigmoid(prior_logits(2)), torch.softmax(prior_logits(3), 0)
        (tensor([0.1000]), tensor([0.9000, 0.0500, 0.0500]))
    """
    odds = prior / (1 - prior)
    if mask_channels(classes) == 1 and not softmax:
        return torch.tensor([math.log(odds)])
    foreground = max(1, classes - 1)
    return torch.tensor([0.0] + [math.log(odds / foreground)] * foreground)


class EdsrUnit(nn.Module):
    """EDSR's residual unit: convolution, ReLU, convolution, no norm, beside a shortcut.

    Args:
        c_in: Input feature maps.
        c_out: Output feature maps.
        dims: 2 or 3.
        project: Put a 1x1 convolution in the shortcut even where the widths agree, as the
            networks that descend from DSRL's unofficial port do.
    """

    def __init__(self, c_in: int, c_out: int, dims: int, project: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            make_conv(dims, c_in, c_out), nn.ReLU(inplace=True), make_conv(dims, c_out, c_out)
        )
        self.shortcut: nn.Module = nn.Identity()
        if project or c_in != c_out:
            self.shortcut = make_conv(dims, c_in, c_out, 1, bias=False)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *s"]:
        return self.body(x) + self.shortcut(x)


class ImageHead(nn.Module):
    """From LR features to the HR image: learnt upsampling, an EDSR unit, a linear 1x1 output.

    Args:
        width: LR feature maps.
        channels: Image channels.
        scale: HR voxels for each LR voxel along each axis.
        inner: Feature maps on the HR grid; as many as ``width`` by default.
        project: See ``EdsrUnit``.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        scale: Sequence[int],
        inner: int | None = None,
        project: bool = False,
    ) -> None:
        super().__init__()
        dims, inner, scale = len(scale), inner or width, tuple(scale)
        self.up = CONV_TRANSPOSE[dims](width, inner, scale, stride=scale)
        self.unit = EdsrUnit(inner, inner, dims, project)
        self.output = make_conv(dims, inner, channels, 1)

    def features(self, x: Float[Tensor, " b w *s"]) -> Float[Tensor, " b i *hr"]:
        """Features on the HR grid, the last before the image."""
        return self.unit(self.up(x))

    def forward(self, x: Float[Tensor, " b w *s"]) -> Float[Tensor, " b c *hr"]:
        return self.output(self.features(x))


class SubPixelHead(nn.Module):
    """From LR features to the HR image, all convolutions on the LR grid (ESPCN).

    W. Shi et al., "Real-time single image and video super-resolution using an efficient
    sub-pixel convolutional neural network", CVPR 2016. Widths 5, 3, 3; tanh between; no bias.

    Args:
        width: LR feature maps.
        channels: Image channels.
        scale: HR voxels for each LR voxel along each axis.
        inner: Feature maps behind the first convolution; half as many behind the second.
    """

    def __init__(self, width: int, channels: int, scale: Sequence[int], inner: int) -> None:
        super().__init__()
        dims, half, copies = len(scale), max(1, inner // 2), math.prod(scale)
        self.scale = tuple(scale)
        self.first = make_conv(dims, width, inner, 5, bias=False)
        self.second = make_conv(dims, inner, half, 3, bias=False)
        self.third = make_conv(dims, half, channels * copies, 3, bias=False)

    def forward(self, x: Float[Tensor, " b w *s"]) -> Float[Tensor, " b c *hr"]:
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        return pixel_shuffle(self.third(x), self.scale)
