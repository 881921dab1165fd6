"""The small windows of closed-form matting, within which lesion and background are even.

In a window of M voxels with weights ``g`` (sum G) and colours ``I``, the best
affine function of the colours leaves of a mask ``alpha`` a cost that is a
quadratic form in its values there, with the matrix

    diag(g) - v_0 v_0' - ... - v_C v_C',    v_0 = g / sqrt(G),  v_c = g e_c / sqrt(G)

where ``e`` are the deviations from the window's mean colour, made uncorrelated
and of unit variance. With g = 1 it is the window's part of the matting Laplacian.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class Windows:
    """K windows of M voxels each on one grid.

    Args:
        centres: Flat index of each window's centre.
        offsets: Step in the flat index from a centre to each voxel of its window.
        weights: ``g``, 0 for a voxel outside of the image; one column when all windows are alike.
        vectors: ``v_0`` to ``v_C``.
    """

    centres: Int[ndarray, " k"]
    offsets: Int[ndarray, " m"]
    weights: Float64[ndarray, " m _"]
    vectors: Float64[ndarray, " v m k"]

    @property
    def members(self) -> Int[ndarray, " m k"]:
        """Flat index of each voxel of each window."""
        return self.offsets[:, None] + self.centres


@cache
def window_steps(radius: int, ndim: int) -> Int[ndarray, " m n"]:
    """Voxels from the centre of a window to each of its members along each axis."""
    return np.array(list(itertools.product(range(-radius, radius + 1), repeat=ndim)))


def flat_steps(steps: Int[ndarray, " m n"], array: Shaped[ndarray, "..."]) -> Int[ndarray, " m"]:
    """Steps along the axes of an array as steps in its flat index."""
    return steps @ (np.array(array.strides) // array.itemsize)


def window_weights(radius: int, steps: Sequence[float]) -> Float64[ndarray, " m"]:
    """How much each voxel of a window counts where spacings differ.

    With equal weights a window reaches far along a coarse axis, farther than
    lesion and background are even. So weights fall along that axis, as
    ``q^(o^2)`` at o voxels from the centre, with q such that the window's second
    moment in millimetres is that of the finest axis. In an even image alpha
    then spreads equally in every direction; slices far apart are matted each
    by itself.

    Args:
        radius: In voxels.
        steps: Voxel spacing along each axis over that of the finest axis.

    Example:
        For radius 1, q = 1 / (3 step^2 - 2).

        >>> window_weights(1, (2.0, 1.0)).reshape(3, 3).round(3)
        array([[0.1, 0.1, 0.1],
               [1. , 1. , 1. ],
               [0.1, 0.1, 0.1]])
    """
    squares = np.arange(-radius, radius + 1) ** 2
    weights = np.ones(1)
    for step in steps:
        weights = np.outer(weights, _falloff(radius, float(step)) ** squares).ravel()
    return weights


@cache
def _falloff(radius: int, step: float) -> float:
    """q of `window_weights`, by bisection."""
    squares = np.arange(-radius, radius + 1) ** 2
    wanted = squares.mean() / step**2
    low, high = 0.0, 1.0
    while step > 1 and high - low > 1e-12 * high:
        q = (low + high) / 2
        weights = q**squares
        if (squares * weights).sum() < wanted * weights.sum():
            low = q
        else:
            high = q
    return high


def gather_windows(
    image: Float64[ndarray, " c *s"],
    centres: Bool[ndarray, " *s"],
    epsilon: float,
    radius: int,
    steps: Sequence[float],
    inside: Bool[ndarray, " *s"] | None = None,
) -> Windows:
    """Cut windows out of an image.

    Args:
        image: On a grid where every window has room.
        centres: Where windows are centred.
        epsilon: Added to the sum of squared deviations of a window's colours.
        radius: Of the windows, in voxels.
        steps: Voxel spacing along each axis over that of the finest axis.
        inside: Which part of the grid is the image; by default all that windows reach.
    """
    offsets = flat_steps(window_steps(radius, centres.ndim), centres)
    places = np.flatnonzero(centres)
    members = offsets[:, None] + places
    weights = window_weights(radius, steps)[:, None]
    if inside is not None:
        weights = weights * inside.ravel()[members]
    total = weights.sum(0)
    deviations = image.reshape(len(image), -1)[:, members]
    deviations -= np.einsum("cmk,mk->ck", deviations, weights / total)[:, None]
    vectors = np.empty((1 + len(image), *members.shape))
    vectors[0] = 1.0
    vectors[1:] = deviations
    _decorrelate(vectors[1:], weights / total, epsilon / total)
    vectors *= weights / np.sqrt(total)
    return Windows(places, offsets, weights, vectors)


def _decorrelate(
    deviations: Float64[ndarray, " c m k"],
    weights: Float64[ndarray, " m _"],
    floor: Float64[ndarray, " _"],
) -> None:
    """Apply the inverse Cholesky factor of ``covariance + floor`` to each window, in place.

    Written out by channels, because these are few and windows are many.
    """
    channels, _, count = deviations.shape
    covariance = np.einsum("cmk,dmk,mk->cdk", deviations, deviations, weights)
    factor = np.zeros((channels, channels, count))
    for c in range(channels):
        for d in range(c):
            inner = (factor[c, :d] * factor[d, :d]).sum(0)
            factor[c, d] = (covariance[c, d] - inner) / factor[d, d]
            deviations[c] -= factor[c, d] * deviations[d]
        factor[c, c] = np.sqrt(covariance[c, c] + floor - (factor[c, :c] ** 2).sum(0))
        deviations[c] /= factor[c, c]
