"""Whether two feature maps find the same places of the image alike.

The affinity of a feature map with L positions is its L x L matrix of inner
products. Two maps are compared by the difference of their matrices, which are
never built: a 3-D volume's would fill terabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
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
    Paper: pfseg Eq. (15), pfseg Eq. (16)

    Args:
        a: Features of one branch.
        b: Features of the other: as many channels, and the same grid unless both are pooled.
        grid: Average both over this many cells first, see ``average_cells``.
        normalise: Scale the feature vector of every position to length 1, so that only its
            direction counts and S is a cosine.
        power: 2 for the mean square (time and memory linear in L), 1 for the mean absolute
            difference (memory linear in L, time quadratic: half a minute at L = 65 536).

    Returns:
        At least 0 (but for rounding); 0 when the matrices agree, as for ``b = -a`` or any
        rotation of channels.

    Example:
        Positions (1, 0) and (0, 1) are unlike in one map, alike in the other.

        >>> apart, alike = torch.eye(2)[None], torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
        >>> feature_affinity(apart, alike), feature_affinity(apart, alike, power=1)
        (tensor(0.5000), tensor(0.5000))
    """
    with torch.autocast(a.device.type, enabled=False):
        form = _SquaredGramDistance if power == 2 else _AbsoluteGramDistance
        value: Tensor = form.apply(*(_positions(x, grid, normalise) for x in (a, b)))
        return value.to(torch.float32)


def _positions(x: Tensor, grid: Sequence[int] | None, normalise: bool) -> Float[Tensor, " b c l"]:
    """Features by position, in float64 wherever like vectors would come to differ by rounding."""
    exact = normalise or grid is not None
    x = x.to(_wide(x) if exact else torch.promote_types(x.dtype, torch.float32))
    x = (x if grid is None else average_cells(x, grid)).flatten(2)
    return x * torch.rsqrt((x * x).sum(1, keepdim=True) + 1e-6) if normalise else x


def _wide(x: Tensor) -> torch.dtype:
    """The precision of long sums; Apple's GPUs have no float64."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _difference_and_sum(a: Tensor, b: Tensor) -> Float[Tensor, " b d l"]:
    """``A - B`` above ``A + B``, each rounded to float32 but once."""
    batch, channels, length = a.shape
    both = torch.empty(batch, 2 * channels, length, dtype=torch.float32, device=a.device)
    torch.sub(a, b, out=both[:, :channels])
    torch.add(a, b, out=both[:, channels:])
    return both


def _gradients(both: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of A and B from those of A - B and A + B."""
    difference, total = both.chunk(2, dim=1)
    return (total + difference).to(dtype), (total - difference).to(dtype)


class _SquaredGramDistance(torch.autograd.Function):
    """Batch mean of ``|A'A - B'B|_F^2 / L^2`` from C x C matrices alone.

    With U = A - B and V = A + B, ``A'A - B'B = (U'V + V'U) / 2``, and so its
    squared norm is ``(<UU', VV'> + <UV', VU'>) / 2``. The usual expansion
    into ``|AA'|^2 + |BB'|^2 - 2 |AB'|^2`` subtracts equal numbers when the maps
    agree and is wrong by more than its value late in training.

    All three products are blocks of one, W W' with W = [U; V], and the gradient
    is one more: ``[[VV', VU'], [UV', UU']] W / L^2``.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        both = _difference_and_sum(a, b)
        batch, _, length = both.shape
        products = sum_of_products(both)
        uu, uv, vu, vv = (
            block for half in products.chunk(2, dim=1) for block in half.chunk(2, dim=2)
        )
        cells = batch * length**2
        ctx.save_for_backward(both, torch.cat([torch.cat([vv, vu], 2), torch.cat([uv, uu], 2)], 1))
        ctx.cells, ctx.dtype = cells, a.dtype
        return ((uu * vv).sum() + (uv * vu).sum()) / (2 * cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        both, swapped = ctx.saved_tensors
        factor = (swapped * (upstream / ctx.cells)).to(both.dtype)
        return _gradients(factor @ both, ctx.dtype)


def sum_of_products(x: Float[Tensor, " b c l"]) -> Float[Tensor, " b c c"]:
    """``X X'``, summed over blocks of positions in float32 and over the blocks in float64."""
    total = torch.zeros(*x.shape[:2], x.shape[1], dtype=_wide(x), device=x.device)
    for block in x.split(BLOCK, dim=2):
        total += block @ block.transpose(1, 2)
    return total


class _AbsoluteGramDistance(torch.autograd.Function):
    """Batch mean of ``sum_ij |A'A - B'B|_ij / L^2``, a few rows of the matrix at a time.

    D = (U'V + V'U) / 2 = [U; V]'[V; U] / 2 is symmetric, so the gradient for [U; V] is
    ``[V; U] sign(D) / L^2``. It is formed beside the value: going back over the rows
    would cost the products again, keeping them the L x L memory.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        both = _difference_and_sum(a, b)
        swapped = torch.cat(both.chunk(2, dim=1)[::-1], 1)
        batch, _, length = both.shape
        rows, cells = max(1, ROW_ELEMENTS // (batch * length)), batch * length**2
        total = torch.zeros((), dtype=_wide(a), device=a.device)
        gradient = torch.empty_like(both)
        for start in range(0, length, rows):
            part = slice(start, start + rows)
            d = both[..., part].transpose(1, 2) @ swapped
            total += d.abs().sum(2).to(total.dtype).sum() / (2 * cells)
            gradient[..., part] = swapped @ d.sign_().transpose(1, 2) / cells
        ctx.save_for_backward(gradient)
        ctx.dtype = a.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = ctx.saved_tensors
        return _gradients(gradient * upstream.to(gradient.dtype), ctx.dtype)
