"""How much the neighbourhoods of a mask tell about those of its target.

S. Zhao, Y. Wang, Z. Yang and D. Cai, "Region mutual information loss for semantic
segmentation", NeurIPS 2019.

A voxel and its neighbours are one vector, of the mask and of the target. The less of
the target's vectors is left once they have been predicted linearly from the mask's, the
more the two have in common. The structure of an outline counts, not each voxel alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from finemask.nn.outputs import with_background

REACH, SIDE = 2, 3
"""Largest distance within a region of 3 x 3 pixels along an axis, and its side."""

RIDGE, FLOOR, LIFT = 5e-4, 1e-8, 1e-6
"""Added to covariances, to a factor's diagonal before the logarithm, and to probabilities."""

BLOCK, ROWS = 16, 4096
"""Pixels of a row of the table that products are taken of, and rows summed in float32."""


def rmi_loss(
    logits: Float[Tensor, " b l h w"],
    target: Float[Tensor, " b f h w"],
    *,
    pool: int = 3,
    w_bce: float = 0.5,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of every map, and what regions of the target keep to themselves.

    ``w_bce BCE + (1 - w_bce) RMI``; the RMI of a class is ``log det(M + a I) / 18`` with
    ``M = S_yy - S_yp (S_pp + a I)^-1 S_py``, sums over regions about their mean, averaged
    over the batch and summed over the maps. It is no distance: it is negative where little
    is left, and grows with the logarithm of the image's size.

    Each map is a sigmoid of its own, also where the network's answer is a softmax.

    Args:
        logits: One map, or one a class with the background first.
        target: Foreground maps in [0, 1], to which no gradient flows.
        pool: Pixels a side whose means are compared: 1 for all pixels, 2 for half the
            resolution; the released code takes 3.
        w_bce: Share of the cross-entropy.

    Example:
        Without structure on either side only the ridge is left: ln(a) / 2.

        >>> logits, target = torch.zeros(1, 1, 9, 9), torch.zeros(1, 1, 9, 9)
        >>> rmi_loss(logits, target, w_bce=0.0), rmi_loss(logits, target, w_bce=1.0)
        (tensor(-3.8005), tensor(0.6847))
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, truth = logits.float(), target.detach().float()
        if logits.shape[1] > 1:
            truth = with_background(truth)
        pixels = truth[:, 0].numel()
        bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / (pixels + 1)
        rmi = region_information(truth, torch.sigmoid(logits) + LIFT, pool)
        return w_bce * bce + (1 - w_bce) * rmi


def region_information(
    truth: Float[Tensor, " b k h w"], probs: Float[Tensor, " b k h w"], pool: int = 1
) -> Float[Tensor, ""]:
    """The RMI of probability maps, see ``rmi_loss``; 0 where an image is smaller than a region."""
    if pool > 1:
        truth, probs = (F.avg_pool2d(x, pool, pool, pool // 2) for x in (truth, probs))
    if min(truth.shape[2:]) < SIDE:
        return probs.sum() * 0.0
    regions = (truth.shape[2] - REACH) * (truth.shape[3] - REACH)
    y, p = (x.flatten(0, 1) for x in (truth, probs))
    # Covariances do not change; squares of a large mean would cost digits.
    y, p = (x - x.mean((1, 2), keepdim=True) for x in (y, p))
    gram, sums = region_moments(y, p)
    covariance = gram - sums[:, :, None] * sums[:, None, :] / regions
    n = SIDE**2
    yy, yp, pp = covariance[:, :n, :n], covariance[:, :n, n:], covariance[:, n:, n:]
    told = torch.linalg.solve_triangular(_factor(pp), yp.mT, upper=False)
    left = _factor(yy - told.mT @ told)
    log_det = 2 * torch.log(left.diagonal(dim1=1, dim2=2) + FLOOR).sum(1)
    per_map = log_det.reshape(truth.shape[:2]) / (2 * n)
    return per_map.mean(0).sum().to(probs.dtype)


def _factor(matrix: Float[Tensor, " n k k"]) -> Float[Tensor, " n k k"]:
    """Cholesky factor with the ridge, a larger one where rounding left too little."""
    identity, ridge = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device), RIDGE
    while True:
        factor, failed = torch.linalg.cholesky_ex(matrix + ridge * identity)
        if not failed.any() or not matrix.isfinite().all():
            return factor
        ridge *= 10


def region_moments(
    y: Float[Tensor, " n h w"], p: Float[Tensor, " n h w"]
) -> tuple[Float[Tensor, " n 18 18"], Float[Tensor, " n 18"]]:
    """Products and sums of the 9 pixels of y and the 9 of p, over all regions, in float64.

    A product of two pixels of a region depends on their distance alone, but for regions at
    the border: 25 sums for each pair of maps replace 81. The regions that a border of
    zeros would add are taken away again.
    """
    half = _LagSums.apply(y, p)
    # Those of negative distance, by exchanging the two.
    mirrored = half.transpose(1, 2)[:, :, :, 1:].flip(3, 4)
    lags = torch.cat([mirrored, half], 3)
    place = torch.arange(SIDE**2, device=y.device)
    row, column = place // SIDE, place % SIDE
    gram = lags[..., row - row[:, None] + REACH, column - column[:, None] + REACH]
    gram = gram.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    maps = F.pad(torch.stack([y, p], 1), (REACH,) * 4)
    middle = maps[:, :, REACH:-REACH]
    strips = (maps[:, :, :4], maps[:, :, -4:], middle[..., :4], middle[..., -4:])
    border = torch.cat([F.unfold(strip, SIDE) for strip in strips], 2).to(lags.dtype)
    sums = torch.stack([y, p], 1).sum((2, 3), dtype=lags.dtype).repeat_interleave(SIDE**2, 1)
    return gram - border @ border.mT, sums - border.sum(2)


class _LagSums(torch.autograd.Function):
    """``sum_q u(q) v(q + d)`` of two maps, d from 0 to 2 rows and -2 to 2 columns.

    Pixels in rows of 16 with 2 more at either side make a table; a product of two of its
    columns, summed over the rows, belongs to one distance. So one product of thin matrices
    gives all, and another the gradient of ``p``. Rows of the image are shifts of the table.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, p: Tensor) -> Tensor:
        table, line = _table(y, p)
        count = y.shape[1] * line
        inner = table[:, REACH * line :, :, REACH : REACH + BLOCK]
        wide = torch.float32 if y.device.type == "mps" else torch.float64
        lags = torch.empty(len(y), 2, 2, REACH + 1, 2 * REACH + 1, dtype=wide, device=y.device)
        for down in range(REACH + 1):
            first = (REACH + down) * line
            total = lags.new_zeros(len(y), 2, BLOCK, 2, table.shape[3])
            for start in range(0, count, ROWS):
                rows = slice(start, min(start + ROWS, count))
                left = inner[:, rows].permute(0, 2, 3, 1)
                right = table[:, first:][:, rows].flatten(2)
                total += (left @ right[:, None]).unflatten(3, (2, -1))
            for across in range(2 * REACH + 1):
                lags[..., down, across] = total.diagonal(across, 2, 4).sum(3)
        ctx.save_for_backward(table)
        ctx.line, ctx.shape = line, y.shape
        return lags

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor]:
        (table,) = ctx.saved_tensors
        line, (n, height, width) = ctx.line, ctx.shape
        kernel = upstream.new_zeros(n, 2, 2 * REACH + 1, 2 * REACH + 1)
        kernel[:, :, REACH:] += upstream[:, 1]
        kernel[:, :, : REACH + 1] += upstream[:, :, 1].flip(2, 3)
        band = table.new_zeros(n, 2 * REACH + 1, 2, BLOCK + 2 * REACH, BLOCK)
        for across in range(2 * REACH + 1):
            band.diagonal(-across, 3, 4).copy_(kernel[..., across].mT[..., None])
        rows = table.flatten(2)
        gradient = rows[:, : height * line] @ band[:, 0].flatten(1, 2)
        for down in range(1, 2 * REACH + 1):
            shifted = rows[:, down * line : (down + height) * line]
            gradient = gradient.baddbmm_(shifted, band[:, down].flatten(1, 2))
        return None, gradient.reshape(n, height, -1)[..., :width]


def _table(y: Tensor, p: Tensor) -> tuple[Float[Tensor, " n r 2 t"], int]:
    """Blocks of both maps with their margins, in the order of the image, and blocks a line."""
    width = y.shape[2]
    line = -(-(width + REACH) // BLOCK)  # zeros between lines keep their ends apart
    pixels = F.pad(torch.stack([y, p], 1), (0, line * BLOCK - width, REACH, REACH)).flatten(2)
    blocks = F.pad(pixels, (REACH, REACH)).unfold(2, BLOCK + 2 * REACH, BLOCK)
    return blocks.transpose(1, 2).contiguous(), line
