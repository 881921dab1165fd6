"""Whether two feature maps find the same places of the image alike.

The affinity of a feature map with L positions is its L x L matrix of inner
products. Two maps are compared by the difference of their matrices, which are
never built: a 3-D volume's would fill terabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from finemask.nn.blocks import average_cells

BLOCK = 4096
"""Positions summed in float32 before a partial sum is widened to float64."""
ROW_ELEMENTS = 2**22
"""Matrix elements that the absolute form holds at a time (16 MiB)."""


def feature_affinity(
    a: Float[Tensor, " b c *s"],
    b: Float[Tensor, " b c *t"],
    *,
    grid: Sequence[int] | None = None,
    normalise: bool = False,
    power: Literal[1, 2] = 2,
) -> Float[Tensor, ""]:
    """Mean difference of the self-similarity matrices of two feature maps.

    ``1/L^2 sum_ij |S^a_ij - S^b_ij|^power`` with ``S_ij = f_i . f_j``, averaged
    over the batch. Gradients flow into both maps.

    Paper: dsrl Eq. (3), dsrl Eq. (4), sasrnet Eq. (5), sasrnet Eq. (7)

    Args:
        a: Features of one branch.
        b: Features of the other: as many channels, and the same grid unless both are pooled.
        grid: Average both over this many cells first, see ``average_cells``.
        normalise: Scale the feature vector of every position to length 1, so that only its
            direction counts and S is a cosine.
        power: 2 for the mean square (time and memory linear in L), 1 for the mean absolute
            difference (memory linear in L, time quadratic).

    Returns:
        At least 0; 0 when the matrices agree, as for ``b = -a`` or any rotation of channels.

    Example:
        Positions (1, 0) and (0, 1) are unlike in one map, alike in the other.

        >>> apart, alike = torch.eye(2)[None], torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
        >>> feature_affinity(apart, alike), feature_affinity(apart, alike, power=1)
        (tensor(0.5000), tensor(0.5000))
    """
    with torch.autocast(a.device.type, enabled=False):
        u, v = _difference_and_sum(a, b, grid, normalise)
        if power == 2:
            return squared_gram_distance(u, v).mean().to(torch.float32)
        value: Tensor = _AbsoluteGramDistance.apply(u, v)
        return value.to(torch.float32)


def squared_gram_distance(
    u: Float[Tensor, " b c l"], v: Float[Tensor, " b c l"]
) -> Float[Tensor, " b"]:
    """``|A'A - B'B|_F^2 / L^2`` of each sample from C x C matrices alone.

    With U = A - B and V = A + B, ``A'A - B'B = (U'V + V'U) / 2``, and so its
    squared norm is ``(<UU', VV'> + <UV', (UV')'>) / 2``. The usual expansion
    into ``|AA'|^2 + |BB'|^2 - 2 |AB'|^2`` subtracts equal numbers when the maps
    agree and is wrong by more than its value late in training.

    Args:
        u: A - B.
        v: A + B.
    """
    uu, vv, uv = _gram(u, u), _gram(v, v), _gram(u, v)
    twice = (uu * vv).sum((1, 2)) + (uv * uv.transpose(1, 2)).sum((1, 2))
    return twice / (2.0 * u.shape[2] ** 2)


def _difference_and_sum(
    a: Tensor, b: Tensor, grid: Sequence[int] | None, normalise: bool
) -> tuple[Tensor, Tensor]:
    """``A - B`` and ``A + B`` by position, in float32 but with the digits of float64.

    Scaled to length 1 in float32, two like vectors would differ by rounding.
    """
    a, b = (_positions(x.to(_wide(x)), grid) for x in (a, b))
    if normalise:
        a, b = (x * torch.rsqrt((x * x).sum(1, keepdim=True) + 1e-6) for x in (a, b))
    return (a - b).float(), (a + b).float()


def _positions(x: Tensor, grid: Sequence[int] | None) -> Tensor:
    return (x if grid is None else average_cells(x, grid)).flatten(2)


def _wide(x: Tensor) -> torch.dtype:
    """The precision of long sums; Apple's GPUs have no float64."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _gram(x: Float[Tensor, " b c l"], y: Float[Tensor, " b c l"]) -> Float[Tensor, " b c c"]:
    """``X Y'``, summed over blocks of positions in float32 and over the blocks in float64."""
    batch, channels, length = x.shape
    blocks = -(-length // BLOCK)
    if blocks > 1:
        padding = (0, blocks * BLOCK - length)
        x, y = (
            F.pad(z, padding).reshape(batch, channels, blocks, BLOCK).transpose(1, 2)
            for z in (x, y)
        )
    else:
        x, y = x[:, None], y[:, None]
    return (x @ y.transpose(2, 3)).to(_wide(x)).sum(1)


class _AbsoluteGramDistance(torch.autograd.Function):
    """Batch mean of ``sum_ij |A'A - B'B|_ij / L^2``, a few rows of the matrix at a time.

    D = (U'V + V'U) / 2 is symmetric, so the gradients are ``V sign(D) / L^2`` for
    U and ``U sign(D) / L^2`` for V. They are formed beside the value: going back
    over the rows would cost the products again, keeping them the L x L memory.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor) -> Tensor:
        batch, _, length = u.shape
        rows = max(1, ROW_ELEMENTS // (batch * length))
        cells = batch * length**2
        total = torch.zeros((), dtype=_wide(u), device=u.device)
        du, dv = torch.empty_like(u), torch.empty_like(v)
        for start in range(0, length, rows):
            part = slice(start, start + rows)
            d = u[..., part].transpose(1, 2) @ v + v[..., part].transpose(1, 2) @ u
            total += d.abs().sum(2).to(total.dtype).sum() / (2 * cells)
            sign = d.sign_().transpose(1, 2)
            du[..., part] = v @ sign / cells
            dv[..., part] = u @ sign / cells
        ctx.save_for_backward(du, dv)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        du, dv = ctx.saved_tensors
        return du * upstream.to(du.dtype), dv * upstream.to(dv.dtype)
