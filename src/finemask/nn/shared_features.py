"""What two decoders have in common: modules that re-weight both by their features together.

All take the features of the super-resolution and of the segmentation decoder on one grid and
return both re-weighted. One that is left out after training costs nothing later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock, Style, average_cells, make_conv, make_norm, resize
from finemask.nn.deeplab import AtrousPyramid

STYLE = Style(norm="batch", activation="gelu", bias=True)
"""Two-dimensional; there is a bias in front of each norm, as in the released modules."""

HIDDEN, REDUCTION, GROUPS = 32, 4, 4

Features = tuple[Tensor, Tensor]
"""Of the super-resolution and of the segmentation decoder, on one grid."""

Sfem = Literal["mscg", "conv", "se", "fim", "maf"]
Attention = Literal["mrcab", "mrcab_pooled", "rcab", "none"]
Scales = Literal["ms_conv", "aspp", "self_attention", "none"]


@dataclass(frozen=True)
class MscgParts:
    """What an MSCG is made of; the defaults are the paper's, the others its ablations.

    Args:
        attention: ``mrcab``; with global average pooling (``mrcab_pooled``); the original
            ``rcab`` (dense convolutions, an activation between, pooling).
        scales: ``ms_conv``, or a module in its place.
        point: First group of MS-Conv: a 1x1 convolution, else a depthwise 3x3 one.
        image_pool: Last group of MS-Conv: the image's mean, else a depthwise 3x3 convolution.
        depthwise: Convolve each map of MS-Conv on its own.
    """

    attention: Attention = "mrcab"
    scales: Scales = "ms_conv"
    point: bool = True
    image_pool: bool = True
    depthwise: bool = True


class ChannelAttention(nn.Module):
    """MRCAB: local patterns, each weighed by what all maps say at its place.

    Args:
        width: Feature maps.
        kind: See ``MscgParts``.
    """

    def __init__(self, width: int, kind: Attention = "mrcab") -> None:
        super().__init__()
        dense, inner = kind == "rcab", max(1, width // REDUCTION)
        groups = 1 if dense else width
        self.pooled = kind != "mrcab"
        self.first = make_conv(2, width, width, groups=groups)
        self.between: nn.Module = nn.LeakyReLU() if dense else nn.Identity()
        self.second = make_conv(2, width, width, groups=groups)
        self.squeeze, self.expand = make_conv(2, width, inner, 1), make_conv(2, inner, width, 1)
        self.activation = nn.LeakyReLU()

    def patterns(self, x: Float[Tensor, " b w h v"]) -> Float[Tensor, " b w h v"]:
        """``z``: two depthwise convolutions in a row.

        Paper: ds2f Eq. (9)
        """
        return self.second(self.between(self.first(x)))

    def attend(self, z: Float[Tensor, " b w h v"]) -> Float[Tensor, " b w h v"]:
        """``F_CA = sigmoid(W LeakyReLU(W z)) * z``, at each pixel.

        Paper: ds2f Eq. (10)
        """
        seen = average_cells(z, (1, 1)) if self.pooled else z
        return torch.sigmoid(self.expand(self.activation(self.squeeze(seen)))) * z

    def forward(self, x: Float[Tensor, " b w h v"]) -> Float[Tensor, " b w h v"]:
        """``F_MRCAB = F_fu + F_CA``.

        Paper: ds2f Eq. (11)
        """
        return x + self.attend(self.patterns(x))


class ImagePool(nn.Module):
    """The mean of each map over the image, mixed by a 1x1 convolution, everywhere."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = make_conv(2, width, width, 1)

    def forward(self, x: Float[Tensor, " b w h v"]) -> Float[Tensor, " b w h v"]:
        return self.conv(average_cells(x, (1, 1))).expand_as(x)


class MultiScaleConv(nn.Module):
    """MS-Conv: four groups of maps that see one pixel, two surroundings and the whole image.

    Args:
        width: Feature maps, a multiple of 4.
        parts: Of an MSCG.
    """

    def __init__(self, width: int, parts: MscgParts) -> None:
        super().__init__()
        group = width // GROUPS

        def spatial(dilation: int) -> nn.Module:
            groups = group if parts.depthwise else 1
            return make_conv(2, group, group, dilation=dilation, groups=groups)

        first = make_conv(2, group, group, 1) if parts.point else spatial(1)
        last = ImagePool(group) if parts.image_pool else spatial(GROUPS - 1)
        self.branches = nn.ModuleList([first, spatial(1), spatial(2), last])
        self.norm, self.activation = make_norm(width, STYLE), nn.GELU()

    def forward(self, x: Float[Tensor, " b w h v"]) -> Float[Tensor, " b w h v"]:
        """``F_MS = GELU(BN([W_1 S_1, W_2 S_2, W_3 S_3, IP S_4]))``.

        Paper: ds2f Eq. (12)
        """
        groups = x.chunk(GROUPS, 1)
        made = [branch(part) for branch, part in zip(self.branches, groups, strict=True)]
        return self.activation(self.norm(torch.cat(made, 1)))


class SelfAttention(nn.Module):
    """Self-attention over cells in the place of MS-Conv: every cell looks at all others.

    Args:
        width: Feature maps.
        cells: Largest number of cells along an axis.
    """

    def __init__(self, width: int, cells: int = 32) -> None:
        super().__init__()
        self.qkv, self.project = make_conv(2, width, 3 * width, 1), make_conv(2, width, width, 1)
        self.cells = cells

    def forward(self, x: Float[Tensor, " b w h v"]) -> Float[Tensor, " b w h v"]:
        grid = [min(n, self.cells) for n in x.shape[2:]]
        q, k, v = self.qkv(average_cells(x, grid)).flatten(2).mT.chunk(3, 2)
        seen = nn.functional.scaled_dot_product_attention(q, k, v).mT.unflatten(2, grid)
        return x + resize(self.project(seen), x.shape[2:])


class MultiScaleCrossGate(nn.Module):
    """MSCG: both decoders' features in one, what matters in it, and a gate for each.

    Args:
        sr_width: Feature maps of the super-resolution decoder.
        seg_width: Feature maps of the segmentation decoder.
        parts: See ``MscgParts``.
        hidden: Feature maps within, a multiple of 4.
    """

    def __init__(
        self,
        sr_width: int,
        seg_width: int,
        parts: MscgParts = MscgParts(),
        hidden: int = HIDDEN,
    ) -> None:
        super().__init__()
        self.join = ConvBlock(sr_width + seg_width, hidden, STYLE, kernel=1)
        self.attention: nn.Module = nn.Identity()
        if parts.attention != "none":
            self.attention = ChannelAttention(hidden, parts.attention)
        makers: dict[Scales, Callable[[], nn.Module]] = {
            "ms_conv": lambda: MultiScaleConv(hidden, parts),
            "aspp": lambda: AtrousPyramid(hidden, hidden, STYLE),
            "self_attention": lambda: SelfAttention(hidden),
            "none": nn.Identity,
        }
        self.scales = makers[parts.scales]()
        self.to_sr, self.to_seg = (make_conv(2, hidden, w, 1) for w in (sr_width, seg_width))
        self.gate_sr, self.gate_seg = (make_conv(2, w, w, 1) for w in (sr_width, seg_width))
        self.activation = nn.GELU()

    def fuse(
        self, f_sr: Float[Tensor, " b w h v"], f_seg: Float[Tensor, " b u h v"]
    ) -> Float[Tensor, " b d h v"]:
        """``F_fu = W [F_sr, F_seg]``, the features of all tasks together.

        Paper: ds2f Eq. (6), ds2f Eq. (8)
        """
        return self.join(torch.cat([f_sr, f_seg], 1))

    def forward(
        self, f_sr: Float[Tensor, " b w h v"], f_seg: Float[Tensor, " b u h v"]
    ) -> Features:
        fused = self.fuse(f_sr, f_seg)
        shared = self.scales(self.attention(fused)) + fused
        return self.reweigh_sr(shared, f_sr), self.reweigh_seg(shared, f_seg)

    def reweigh_seg(
        self, shared: Float[Tensor, " b d h v"], f_seg: Float[Tensor, " b u h v"]
    ) -> Float[Tensor, " b u h v"]:
        """``W_2 (GELU(W_1 F_MS) * F_seg) + F_seg``, for the segmentation head.

        Paper: ds2f Eq. (13)
        """
        return self.gate_seg(self.activation(self.to_seg(shared)) * f_seg) + f_seg

    def reweigh_sr(
        self, shared: Float[Tensor, " b d h v"], f_sr: Float[Tensor, " b w h v"]
    ) -> Float[Tensor, " b w h v"]:
        """``W_2 (GELU(W_1 F_MS) * F_sr) + F_sr``, for the super-resolution head.

        Paper: ds2f Eq. (14)
        """
        return self.gate_sr(self.activation(self.to_sr(shared)) * f_sr) + f_sr


class Attend(nn.Module):
    """Weights in [0, 1] for each map of both, which are added to what they weigh.

    Args:
        body: From both features to ``hidden`` maps; with one pixel, as in squeeze and
            excitation, the weights are the same everywhere.
        hidden: Maps of ``body``.
        sr_width: Feature maps of the super-resolution decoder.
        seg_width: Feature maps of the segmentation decoder.
    """

    def __init__(self, body: nn.Module, hidden: int, sr_width: int, seg_width: int) -> None:
        super().__init__()
        self.body = body
        self.to_sr, self.to_seg = (make_conv(2, hidden, w, 1) for w in (sr_width, seg_width))

    def forward(
        self, f_sr: Float[Tensor, " b w h v"], f_seg: Float[Tensor, " b u h v"]
    ) -> Features:
        seen = self.body(torch.cat([f_sr, f_seg], 1))
        sr, seg = torch.sigmoid(self.to_sr(seen)), torch.sigmoid(self.to_seg(seen))
        return sr * f_sr + f_sr, seg * f_seg + f_seg


class Squeeze(nn.Module):
    """The mean of each map over the image, through a narrow layer (squeeze and excitation)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv, self.activation = make_conv(2, c_in, c_out, 1), nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, " b c h v"]) -> Float[Tensor, " b d 1 1"]:
        return self.activation(self.conv(average_cells(x, (1, 1))))


class SpatialScales(nn.Module):
    """SSC of SS-MAF: four groups of maps convolved at growing distances, beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        group = width // GROUPS
        self.branches = nn.ModuleList(
            [
                make_conv(2, group, group, 1),
                *(make_conv(2, group, group, dilation=d, bias=False) for d in range(1, GROUPS)),
            ]
        )
        self.norm, self.activation = make_norm(width, STYLE), nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, " b w h v"]) -> Float[Tensor, " b w h v"]:
        groups = x.chunk(GROUPS, 1)
        made = [branch(part) for branch, part in zip(self.branches, groups, strict=True)]
        return self.activation(self.norm(torch.cat(made, 1)) + x)


class FeatureInteraction(nn.Module):
    """FIM of SuperVessel: one map of attention from both.

    Args:
        sr_width: Maps of the super-resolution branch.
        seg_width: Maps of the segmentation branch.
        hidden: Maps of each of three groups, whose taps are 1, 2 and 4 apart.
    """

    def __init__(self, sr_width: int, seg_width: int, hidden: int = 8) -> None:
        super().__init__()
        self.join = make_conv(2, sr_width + seg_width, 3 * hidden, 1)
        self.branches = nn.ModuleList(
            make_conv(2, hidden, hidden, dilation=d, groups=hidden) for d in (1, 2, 4)
        )
        self.shuffle = nn.ChannelShuffle(3)
        self.narrow, self.output = make_conv(2, 3 * hidden, hidden, 1), make_conv(2, hidden, 1, 1)

    def attention(
        self, sr: Float[Tensor, " b w h v"], seg: Float[Tensor, " b u h v"]
    ) -> Float[Tensor, " b 1 h v"]:
        """Where both agree that something is, in [0, 1]."""
        groups = torch.relu(self.join(torch.cat([sr, seg], 1))).chunk(3, 1)
        made = [branch(part) for branch, part in zip(self.branches, groups, strict=True)]
        x = torch.relu(self.narrow(self.shuffle(torch.cat(made, 1))))
        return torch.sigmoid(self.output(x))

    def forward(
        self, f_sr: Float[Tensor, " b w h v"], f_seg: Float[Tensor, " b u h v"]
    ) -> Features:
        weight = self.attention(f_sr, f_seg)
        return weight * f_sr + f_sr, weight * f_seg + f_seg


def make_sfem(
    name: Sfem,
    width: int,
    parts: MscgParts = MscgParts(),
    hidden: int = HIDDEN,
) -> nn.Module:
    """A module that shares features between two decoders of one width.

    Args:
        name: ``mscg``; a single 1x1 convolution (``conv``); squeeze and excitation (``se``);
            SuperVessel's (``fim``) or SS-MAF's (``maf``).
        width: Feature maps of each decoder.
        parts: Of ``mscg``.
        hidden: Maps within ``mscg``, ``se`` and ``maf``.
    """
    both = 2 * width
    if name == "mscg":
        return MultiScaleCrossGate(width, width, parts, hidden)
    if name == "fim":
        return FeatureInteraction(width, width)
    if name == "conv":
        return Attend(nn.Identity(), both, width, width)
    if name == "se":
        return Attend(Squeeze(both, max(1, both // REDUCTION)), max(1, both // REDUCTION),
                      width, width)  # fmt: skip
    body = nn.Sequential(make_conv(2, both, hidden, 1), SpatialScales(hidden))
    return Attend(body, hidden, width, width)
