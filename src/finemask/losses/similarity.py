"""Structural similarity as a loss: what the eye compares, not voxel by voxel.

Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, "Image quality assessment:
from error visibility to structural similarity", IEEE TIP 13(4), 2004.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

SIGMA, WINDOW, K1, K2 = 1.5, 11, 0.01, 0.03
BLOCK = 16
"""Voxels along an axis that one row of a matrix product filters."""


def ssim_loss(
    image: Float[Tensor, " b c *s"],
    truth: Float[Tensor, " b c *s"],
    data_range: float | None = None,
) -> Float[Tensor, ""]:
    """One minus the mean structural similarity of two images.

    Gaussian window of 11 voxels a side and sigma 1.5, K1 = 0.01, K2 = 0.03, windows inside
    the image only, a mean over channels, as the metric ``finemask.metrics.ssim``. Along an axis
    shorter than a window the window has the largest odd side that fits.

    Args:
        image: Restored intensities.
        truth: True intensities, to which no gradient flows.
        data_range: Largest less smallest possible intensity; without it that of each true
            image, all channels together (1 for a flat one).

    Returns:
        From 0, for equal images, to 2.

    Example:
        Two flat images differ in luminance only: 1 - (2 * 1 * 2 + C1) / (1 + 4 + C1).

        >>> ssim_loss(torch.full((1, 1, 16, 16), 1.0), torch.full((1, 1, 16, 16), 2.0), 1.0)
        tensor(0.2000)
    """
    with torch.autocast(image.device.type, enabled=False):
        x, y = image.float(), truth.detach().float()
        if data_range is None:
            flat = y.flatten(1)
            spread = flat.amax(1) - flat.amin(1)
            spread = torch.where(spread > 0, spread, 1.0)
        else:
            spread = y.new_full((len(y),), data_range)
        spread = spread.repeat_interleave(y.shape[1])
        value: Tensor = _Dissimilarity.apply(x.flatten(0, 1), y.flatten(0, 1), spread)
        return value


class _Dissimilarity(torch.autograd.Function):
    """``1 - mean S`` with ``S = A1 A2 / (B1 B2)``, and its gradient, from seven filterings.

    With E the window's weighted mean, ``A1 = 2 Ex Ey + C1``, ``A2 = 2 (Exy - Ex Ey) + C2``,
    ``B1 = Ex^2 + Ey^2 + C1`` and ``B2 = E(x^2 + y^2) - Ex^2 - Ey^2 + C2``. S is differentiated
    by Exy, E(x^2) and Ex, and each is taken back by the adjoint of the filter. Automatic
    differentiation would keep and pass a dozen maps of the image's size. A2 and B2 are of
    values about the true image's mean, whose square would cost digits.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, spread: Tensor) -> Tensor:
        sides, shape = _sides(x.shape[1:]), (-1, *[1] * (x.ndim - 1))
        c1, c2 = (((k * spread) ** 2).reshape(shape) for k in (K1, K2))
        middle = y.flatten(1).mean(1).reshape(shape)
        x, y = x - middle, y - middle
        ex, ey, exy = (smooth(maps, sides) for maps in (x, y, x * y))
        squares = smooth(x * x + y * y, sides)
        a2, b2 = 2 * (exy - ex * ey) + c2, squares - ex * ex - ey * ey + c2
        mean_x, mean_y = ex + middle, ey + middle
        a1, b1 = 2 * mean_x * mean_y + c1, mean_x * mean_x + mean_y * mean_y + c1
        inverse = 1 / (b1 * b2)
        s = a1 * a2 * inverse
        if ctx.needs_input_grad[0]:
            by_mean = 2 * ((mean_y * a2 - ey * a1) * inverse + s * (ex / b2 - mean_x / b1))
            gradient = spread_out(by_mean, sides)
            gradient.addcmul_(x, spread_out(s / b2, sides), value=-2)
            gradient.addcmul_(y, spread_out(a1 * inverse, sides), value=2)
            ctx.save_for_backward(gradient.mul_(-1 / s.numel()))
        return 1 - s.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


def _sides(shape: Sequence[int]) -> list[int]:
    """Odd sides of the window."""
    return [min(WINDOW, n - 1 + n % 2) for n in shape]


def smooth(x: Float[Tensor, " n *s"], sides: Sequence[int]) -> Float[Tensor, " n *t"]:
    """Weighted mean of every window inside the image; each axis loses ``side - 1`` voxels."""
    for axis, side in enumerate(sides, start=1):
        x = _filtered(x, axis, side)
    return x


def spread_out(x: Float[Tensor, " n *t"], sides: Sequence[int]) -> Float[Tensor, " n *s"]:
    """The adjoint of ``smooth``: the value of each window goes to its voxels by their weights."""
    margins = [side - 1 for side in reversed(sides) for _ in range(2)]
    return smooth(F.pad(x, margins), sides)


def _filtered(x: Tensor, axis: int, side: int) -> Tensor:
    """Gaussian mean along one axis, as a product with a band matrix, block by block.

    A convolution of one channel leaves a CPU's vector units idle; this took a tenth of its time.
    """
    if side == 1:
        return x
    shape, n = list(x.shape), x.shape[axis] - side + 1
    lines = x.reshape(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    shape[axis] = n
    out, band = x.new_empty(len(lines), n, lines.shape[2]), _band(side, x)
    for start in range(0, n, BLOCK):
        rows = min(BLOCK, n - start)
        reach = rows + side - 1
        seen, weights = lines[:, start : start + reach], band[:reach, :rows]
        if lines.shape[2] == 1:
            out[:, start : start + rows, 0] = seen[..., 0] @ weights
        else:
            wide = weights.T.contiguous().expand(len(lines), -1, -1)
            out[:, start : start + rows] = torch.bmm(wide, seen)
    return out.reshape(shape)


def _band(side: int, like: Tensor) -> Float[Tensor, " w m"]:
    """Columns of Gaussian weights, each a voxel below the one before."""
    rows, columns = (torch.arange(n, device=like.device) for n in (BLOCK + side - 1, BLOCK))
    apart = rows[:, None] - columns - side // 2
    gauss = torch.exp(-0.5 * (apart.to(like.dtype) / SIGMA) ** 2) * (apart.abs() <= side // 2)
    return gauss / gauss.sum(0)
