"""Subtraction in place of addition or concatenation: what two levels do not have in common.

The parts of MSNet and M2SNet, from a unit that compares two neighbouring levels
to the decoder. Features are listed coarsest first throughout, as the pyramid
is built from the bottom of the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock, Style, box_sum, enlarge, make_conv

Ones = Literal["dense_bn", "dense_in", "depthwise"]
Mode = Literal["subtract", "add"]
Context = Literal["none", "ones", "aspp", "dense_aspp"]

STYLE = Style(dims=2, norm="batch", bias=True)
LEVELS = 5
ASPP_RATES = (6, 12, 18, 24)
DENSE_ASPP_RATES = (3, 6, 12, 18, 24)


class OnesFilter(nn.Module):
    """A convolution whose weights are all one, with nothing to store and little to compute.

    Dense, every output channel is the same map, the box sum of the sum of the channels. It is
    computed once, where the released code convolves, and is then batch-normalised with a gain
    and an offset a channel, and rectified, as there: mean and variance are the one map's. All
    units share gains and offsets, but each place where the filter is used has running statistics
    of its own. ``dense_in`` normalises each image by its own mean and variance, in learning and
    prediction alike. Depthwise, each channel is summed by itself and keeps its meaning.

    Args:
        width: Feature maps.
        side: Odd side of the filter.
        ones: Of the three.
        places: Inputs that the filter is used on in one pass.
    """

    momentum, eps = 0.1, 1e-5
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, side: int, ones: Ones = "dense_bn", places: int = 1) -> None:
        super().__init__()
        self.side, self.ones = side, ones
        if ones != "depthwise":
            self.weight = nn.Parameter(torch.ones(width))
            self.bias = nn.Parameter(torch.zeros(width))
        if ones == "dense_bn":
            self.register_buffer("running_mean", torch.zeros(places))
            self.register_buffer("running_var", torch.ones(places))

    def forward(self, x: Float[Tensor, " b c h w"], place: int = 0) -> Float[Tensor, " b c h w"]:
        # None of these steps is one that autocast would bring back to half precision.
        if self.ones == "depthwise":
            return box_sum(x.float(), self.side).to(x.dtype)
        total = box_sum(x.float().sum(1, keepdim=True), self.side)
        if self.ones == "dense_in":
            variance, mean = torch.var_mean(total, (1, 2, 3), correction=0, keepdim=True)
        else:
            mean, variance = self.statistics(total, place)
        gain = self.weight[:, None, None] * torch.rsqrt(variance + self.eps)
        offset = self.bias[:, None, None] - mean * gain
        spread = torch.addcmul(offset, total, gain)
        return F.relu(spread, inplace=True).to(x.dtype)

    def statistics(
        self, total: Float[Tensor, " b 1 h w"], place: int
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean and variance to normalise by: those of the batch while learning.

        A single value has no variance; it is normalised as in prediction.
        """
        kept_mean, kept_var = self.running_mean[place], self.running_var[place]
        count = total.numel()
        if not self.training or count == 1:
            return kept_mean.clone(), kept_var.clone()
        variance, mean = torch.var_mean(total, correction=0)
        with torch.no_grad():
            kept_mean.lerp_(mean, self.momentum)
            kept_var.lerp_(variance * count / (count - 1), self.momentum)
        return mean, variance


class ASPP(nn.Module):
    """Four dilated convolutions side by side, summed: as DeepLab, on one unit's difference.

    L.-C. Chen et al., "DeepLab", IEEE TPAMI 40(4), 2018.

    Args:
        width: Feature maps, before and behind.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            ConvBlock(width, width, STYLE, dilation=rate) for rate in ASPP_RATES
        )

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h w"]:
        first, *others = self.branches
        return sum((branch(x) for branch in others), start=first(x))


class DenseASPP(nn.Module):
    """Dilated convolutions in a row, each of all that came before, then joined.

    M. Yang et al., "DenseASPP for semantic segmentation in street scenes", CVPR 2018.

    Args:
        width: Feature maps, before, behind, and added by each convolution.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                ConvBlock(width * (1 + number), width, STYLE, kernel=1),
                ConvBlock(width, width, STYLE, dilation=rate),
            )
            for number, rate in enumerate(DENSE_ASPP_RATES)
        )
        self.join = ConvBlock(width * (1 + len(DENSE_ASPP_RATES)), width, STYLE, kernel=1)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h w"]:
        for branch in self.branches:
            x = torch.cat([x, branch(x)], 1)
        return self.join(x)


class SubtractionUnit(nn.Module):
    """SU, or MSU when given filters: what two levels do not have in common, convolved.

    Args:
        width: Feature maps of both levels.
        mode: ``add`` is the ablation's addition unit.
        context: ``aspp`` or ``dense_aspp`` put that in front of the convolution.
        number: Of the unit among those that share filters.
    """

    def __init__(
        self, width: int, mode: Mode = "subtract", context: Context = "none", number: int = 0
    ) -> None:
        super().__init__()
        self.mode, self.places = mode, (2 * number, 2 * number + 1)
        wide = {"aspp": ASPP, "dense_aspp": DenseASPP}.get(context)
        self.context = nn.Identity() if wide is None else wide(width)
        self.block = ConvBlock(width, width, STYLE)

    def forward(
        self,
        deeper: Float[Tensor, " b c i j"],
        shallower: Float[Tensor, " b c h w"],
        filters: Iterable[nn.Module] = (),
    ) -> Float[Tensor, " b c h w"]:
        """``Conv(|A - B| + sum_n |Filter_n(A) - Filter_n(B)|)``; without filters, Eq. (1).

        Paper: m2snet Eq. (1), m2snet Eq. (2)

        Args:
            deeper: A, enlarged to the grid of B.
            shallower: B.
            filters: Shared by all units of a network; the 1x1 filter of Eq. (2) is implied.
        """
        a, b = enlarge(deeper, shallower.shape[2:]), shallower
        difference = self.compare(a, b)
        for ones in filters:
            sums = (ones(x, place) for x, place in zip((a, b), self.places, strict=True))
            difference += self.compare(*sums)
        return self.block(self.context(difference))

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs() if self.mode == "subtract" else a + b


class SubtractionPyramid(nn.Module):
    """MMSM: units over pairs of levels, then over pairs of their results, ten at order 4.

    Args:
        width: Feature maps of every level.
        order: Rows of units, 0 to 4; each spans one level more than the row before.
        own: Add a level's own feature to its sum.
        mode: See ``SubtractionUnit``.
        context: See ``SubtractionUnit``; ``ones`` compares through filters of ones as well.
        sides: Of those filters.
        ones: See ``OnesFilter``.
    """

    def __init__(
        self,
        width: int,
        order: int = 4,
        *,
        own: bool = True,
        mode: Mode = "subtract",
        context: Context = "ones",
        sides: Sequence[int] = (3, 5),
        ones: Ones = "dense_bn",
    ) -> None:
        super().__init__()
        self.order, self.own = order, own
        count = sum(LEVELS - 1 - row for row in range(order))
        self.units = nn.ModuleList(
            SubtractionUnit(width, mode, context, number) for number in range(count)
        )
        shared = sides if context == "ones" and order else ()
        self.filters = nn.ModuleList(OnesFilter(width, side, ones, 2 * count) for side in shared)
        # Released code only: what enters the last unit from below is convolved once more.
        self.bridge = ConvBlock(width, width, STYLE) if order == LEVELS - 1 else None
        self.enhance_blocks = nn.ModuleList(
            ConvBlock(width, width, STYLE) if order and level > 1 else nn.Identity()
            for level in range(LEVELS)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """CE4 to CE1, the complementarity enhanced features above the coarsest level.

        Args:
            features: Of the five levels, coarsest first.
        """
        rows = self.rows(features)
        return [self.enhance(rows, level) for level in range(1, LEVELS)]

    def rows(self, features: Sequence[Tensor]) -> list[list[Tensor]]:
        """MS_1 (the features themselves), MS_2, ... : each row is one unit shorter."""
        rows, units = [list(features)], iter(self.units)
        for _ in range(self.order):
            deeper, shallower = rows[-1][:-1], rows[-1][1:]
            if len(deeper) == 1 and self.bridge is not None:
                deeper = [self.bridge(deeper[0])]
            pairs = zip(deeper, shallower, strict=True)
            rows.append([next(units)(a, b, self.filters) for a, b in pairs])
        return rows

    def enhance(self, rows: Sequence[Sequence[Tensor]], level: int) -> Tensor:
        """``CE_i = Conv(sum_n MS_n^i)``: all that is known on one level's grid.

        Paper: m2snet Eq. (3)

        Args:
            rows: From ``rows``.
            level: Counted from the coarsest, 0. The level above that is not convolved, as in
                the released code; nor is any level when there are no units.
        """
        first = 0 if self.own or not self.order else 1
        terms = [rows[n][level - n] for n in range(first, min(level, self.order) + 1)]
        return self.enhance_blocks[level](sum(terms[1:], start=terms[0]))


class AdditiveDecoder(nn.Module):
    """From the coarsest feature to logits: enlarge, add the next level's, convolve.

    Args:
        width: Feature maps of every level.
        maps: Logit maps.
    """

    def __init__(self, width: int, maps: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvBlock(width, width, STYLE) for _ in range(LEVELS - 2))
        self.output = make_conv(2, width, maps)

    def forward(self, features: Sequence[Tensor]) -> Float[Tensor, " b l h w"]:
        """Logits on the finest level's grid.

        Args:
            features: CE5 to CE1, coarsest first.
        """
        x, *skips = features
        for convolve, skip in zip([*self.blocks, self.output], skips, strict=True):
            x = convolve(enlarge(x, skip.shape[2:]) + skip)
        return x
