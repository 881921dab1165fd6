"""PraNet's parts: from the three coarsest levels of an encoder to one mask, found in four steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import (
    Block,
    ConvBlock,
    Sides,
    Style,
    crop_end,
    enlarge,
    make_conv,
    resize,
)
from finemask.nn.encoders import Encoder
from finemask.nn.outputs import foreground_probs
from finemask.nn.superres import enlarge_by, mask_channels, prior_logits

REACHES = (3, 5, 7)
"""Widest kernels of the branches of a receptive field block."""
MAP_LEVELS = (-3, -1, -2, -3)
"""On whose level's grid the decoder's maps S_g, S_5, S_4 and S_3 lie."""


def linear(style: Style) -> Style:
    """The same style without activations: most of PraNet's convolutions have none."""
    return replace(style, activation="none")


class ReceptiveField(nn.Module):
    """The receptive field block: branches of growing reach, joined beside a 1x1 shortcut.

    One branch is a 1x1 convolution. The others go on with 1xk, kx1 and 3x3 dilated
    by k. Everything is normalised, and only the sum at the end is activated.

    Args:
        c_in: Input feature maps.
        c_out: Feature maps of each branch and of the result.
        style: Of the network.
    """

    def __init__(self, c_in: int, c_out: int, style: Style) -> None:
        super().__init__()
        plain = linear(style)
        self.branches = nn.ModuleList([ConvBlock(c_in, c_out, plain, 1)])
        for k in REACHES:
            sides: list[Sides] = [(1, k), (k, 1)]
            self.branches.append(
                nn.Sequential(
                    ConvBlock(c_in, c_out, plain, 1),
                    *(ConvBlock(c_out, c_out, plain, kernel) for kernel in sides),
                    ConvBlock(c_out, c_out, plain, dilation=k),
                )
            )
        self.join = ConvBlock(len(self.branches) * c_out, c_out, plain)
        self.shortcut = ConvBlock(c_in, c_out, plain, 1)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b d h w"]:
        joined = self.join(torch.cat([branch(x) for branch in self.branches], 1))
        return F.relu(joined + self.shortcut(x))


class PartialDecoder(nn.Module):
    """The global map: features of three levels, the finer ones weighed by the coarser ones.

    Products keep what the levels agree on; beside them the coarser features are
    passed on as they are. The fine levels take no part: they cost most.

    Args:
        channel: Feature maps of each level.
        classes: Of the task, background included.
        style: Of the network.
    """

    def __init__(self, channel: int, classes: int, style: Style) -> None:
        super().__init__()
        block = partial(ConvBlock, style=linear(style))
        self.weigh_4_by_5 = block(channel, channel)
        self.weigh_3_by_5 = block(channel, channel)
        self.weigh_3_by_4 = block(channel, channel)
        self.pass_5 = block(channel, channel)
        self.join_4 = block(2 * channel, 2 * channel)
        self.pass_4 = block(2 * channel, 2 * channel)
        self.join_3 = block(3 * channel, 3 * channel)
        self.last = block(3 * channel, 3 * channel)
        self.output = make_conv(style.dims, 3 * channel, mask_channels(classes), 1)
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.bias.copy_(prior_logits(classes))

    def forward(
        self,
        f3: Float[Tensor, " b c h w"],
        f4: Float[Tensor, " b c i j"],
        f5: Float[Tensor, " b c k l"],
    ) -> Float[Tensor, " b m h w"]:
        """Logits on the grid of ``f3``, the finest of the three levels."""
        grid_3, grid_4 = f3.shape[2:], f4.shape[2:]
        f5_on_4, f4_on_3 = enlarge(f5, grid_4), enlarge(f4, grid_3)
        f5_on_3 = enlarge(f5_on_4, grid_3)
        f4_agreed = self.weigh_4_by_5(f5_on_4) * f4
        f3_agreed = self.weigh_3_by_5(f5_on_3) * self.weigh_3_by_4(f4_on_3) * f3
        f4_joined = self.join_4(torch.cat([f4_agreed, self.pass_5(f5_on_4)], 1))
        passed = self.pass_4(enlarge(f4_joined, grid_3))
        return self.output(self.last(self.join_3(torch.cat([f3_agreed, passed], 1))))


def reverse_attention(logits: Float[Tensor, " b m h w"]) -> Float[Tensor, " b 1 h w"]:
    """Where nothing has been found yet: ``A = 1 - sigmoid(S)``.

    With several classes ``A`` is the probability of the background, one map for
    all features: what is known to be of any class is erased.

    Paper: pranet Eq. (2)

    Args:
        logits: One map (sigmoid) or one map a class with the background first (softmax).

    Returns:
        In [0, 1].

    Example:
        >>> reverse_attention(torch.zeros(1, 1, 1, 1)).item()
        0.5
    """
    return 1 - foreground_probs(logits).sum(1, keepdim=True)


class ReverseAttention(nn.Module):
    """Correct a coarser map where it sees background: at outlines, and where it missed a lesion.

    Args:
        c_in: Feature maps of the encoder's level.
        width: Feature maps within.
        classes: Of the task, background included.
        style: Of the network.
        kernels: Odd sides of the convolutions behind the first, 1x1 one; the last makes logits.
        first: Makes the first of these; a convolution block by default.
    """

    def __init__(
        self,
        c_in: int,
        width: int,
        classes: int,
        style: Style,
        kernels: Sequence[int] = (3, 3, 3),
        first: Block | None = None,
    ) -> None:
        super().__init__()
        self.reduce = ConvBlock(c_in, width, linear(style), 1)
        self.first = (first or partial(ConvBlock, kernel=kernels[0]))(width, width, style)
        self.rest = nn.Sequential(*(ConvBlock(width, width, style, k) for k in kernels[1:-1]))
        self.output = ConvBlock(width, mask_channels(classes), linear(style), kernels[-1])

    def forward(
        self, feature: Float[Tensor, " b c h w"], guide: Float[Tensor, " b m h w"]
    ) -> Float[Tensor, " b m h w"]:
        """Better logits: ``S_i = P(S_(i+1)) + conv(R_i)``.

        Args:
            feature: f_i, of the encoder's level.
            guide: P(S_(i+1)), the logits of the stage before on the same grid.
        """
        return guide + self.output(self.rest(self.first(self.erase(feature, guide))))

    def erase(
        self, feature: Float[Tensor, " b c h w"], guide: Float[Tensor, " b m h w"]
    ) -> Float[Tensor, " b d h w"]:
        """``R_i = f_i A_i``, brought to fewer feature maps.

        Paper: pranet Eq. (1)
        """
        return self.reduce(feature * reverse_attention(guide))


class PraNetDecoder(nn.Module):
    """The global map, and three stages of reverse attention from the coarsest level up.

    Args:
        widths: Feature maps of an encoder's levels, finest first; the last three are used.
        classes: Of the task, background included.
        style: Of the network.
        channel: Feature maps behind the receptive field blocks; the stages have eight times as
            many at the coarsest level and twice as many at the others.
        first: See ``ReverseAttention``.
    """

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        style: Style,
        channel: int = 32,
        first: Block | None = None,
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths[-3:]
        stage = partial(ReverseAttention, classes=classes, style=style, first=first)
        self.fields = nn.ModuleList(ReceptiveField(w, channel, style) for w in widths[-3:])
        self.partial_decoder = PartialDecoder(channel, classes, style)
        self.ra_5 = stage(coarse, 8 * channel, kernels=(5, 5, 5, 1))
        self.ra_4 = stage(middle, 2 * channel)
        self.ra_3 = stage(fine, 2 * channel)

    @property
    def stages(self) -> tuple[ReverseAttention, ...]:
        """Of reverse attention, coarsest first."""
        return self.ra_5, self.ra_4, self.ra_3

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The global map S_g and the better ones S_5, S_4 and S_3, each on the grid of its level.

        Args:
            features: Of each level, finest first.
        """
        levels = features[-3:]
        maps = [self.global_map(levels)]
        for stage, feature in zip(self.stages, reversed(levels), strict=True):
            maps.append(stage(feature, to_grid(maps[-1], feature.shape[2:])))
        return maps

    def global_map(self, levels: Sequence[Tensor]) -> Float[Tensor, " b m h w"]:
        """S_g, on the grid of the finest of the three levels."""
        return self.partial_decoder(
            *(field(level) for field, level in zip(self.fields, levels, strict=True))
        )


def to_grid(x: Float[Tensor, " b c *s"], size: Sequence[int]) -> Float[Tensor, " b c *t"]:
    """P(.): interpolate to the grid of another level, finer or coarser by a whole number.

    The edge is repeated as far as the last voxel of a coarser grid reaches.

    Example:
        >>> to_grid(torch.tensor([[[0.0, 2.0, 4.0]]]), (2,))
        tensor([[[1., 4.]]])
    """
    if all(n >= side for n, side in zip(size, x.shape[2:], strict=True)):
        return enlarge(x, size)
    whole = [n * math.ceil(side / n) for n, side in zip(size, x.shape[2:], strict=True)]
    beyond = [n for w, side in zip(whole, x.shape[2:], strict=True) for n in (w - side, 0)]
    return resize(F.pad(x, beyond[::-1], mode="replicate"), size)


class ToHighResolution(nn.Module):
    """Interpolation of the map of one level to the HR grid.

    Args:
        step: HR voxels for each voxel of the level, along each axis.
    """

    def __init__(self, step: Sequence[int]) -> None:
        super().__init__()
        self.step = tuple(step)

    def forward(
        self, logits: Float[Tensor, " b m h w"], size: Sequence[int]
    ) -> Float[Tensor, " b m i j"]:
        """Logits of ``size``; the last voxels of a level may reach beyond it."""
        return crop_end(enlarge_by(logits, self.step), size)


class PraNetwork(nn.Module):
    """PraNet behind any encoder: LR image in, logits of the best map on the HR grid out.

    Args:
        encoder: From the image to features of several levels.
        decoder: From these to maps of logits.
        scale: HR voxels for each LR voxel along each axis.
    """

    def __init__(self, encoder: Encoder, decoder: PraNetDecoder, scale: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.decoder, self.scale = encoder, decoder, tuple(scale)
        self.to_hr = nn.ModuleList(
            ToHighResolution([encoder.strides[level] * s for s in scale]) for level in MAP_LEVELS
        )

    def forward(self, image_lr: Float[Tensor, " b c h w"]) -> Float[Tensor, " b m i j"]:
        best = self.decoder(self.encoder(image_lr))[-1]
        return self.on_hr_grid([best], image_lr)[0]

    def on_hr_grid(
        self, maps: Sequence[Tensor], image_lr: Float[Tensor, " b c h w"]
    ) -> list[Tensor]:
        """The decoder's maps, or the last of them, on the HR grid of an image."""
        size = [n * s for n, s in zip(image_lr.shape[2:], self.scale, strict=True)]
        return [to_hr(m, size) for to_hr, m in zip(self.to_hr[-len(maps) :], maps, strict=True)]
