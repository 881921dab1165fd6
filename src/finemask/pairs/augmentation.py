"""Random changes that keep a training sample plausible.

One geometry moves the image and everything known about it, so that no label
can slip; intensities change in the image alone, by the same amount on the LR
and the HR grid. Only fresh copies are ever changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from finemask.recipe import PairSettings


@dataclass(frozen=True, eq=False)
class Warp:
    """In-plane rotation and zoom about the centre of a window.

    Args:
        matrix: From a voxel's offset from the centre to the offset whose value
            it takes, in voxels.
        through: The axis across the plane of rotation; ``None`` in 2-D.
    """

    matrix: Float[ndarray, " n n"]
    through: int | None

    def margin(self, size: Sequence[int]) -> tuple[int, ...]:
        """Voxels beyond each side of a window that the warped window reaches into.

        Example:
            >>> turned_by(math.pi / 4, 1.0, (1.0, 1.0)).margin((10, 10))
            (4, 4)
        """
        half = np.array(size) / 2
        reach = np.ceil(np.abs(self.matrix) @ half - half).astype(int) + 1
        return tuple(max(0, int(r)) for r in reach)

    def coarsened(self, scale: Sequence[int]) -> Warp:
        """The same movement for the LR window of the same extent."""
        factors = np.array(scale, dtype=np.float64)
        return Warp(self.matrix * factors / factors[:, None], self.through)


def turned_by(angle: float, zoom: float, spacing: Sequence[float]) -> Warp:
    """Rotation by ``angle`` (radians) in the plane of the two finest axes, true to millimetres.

    Example:
        >>> turned_by(math.pi / 2, 1.0, (2.0, 1.0)).matrix.round(6).tolist()
        [[0.0, -0.5], [2.0, 0.0]]
    """
    n = len(spacing)
    through = axis_through(spacing)
    first, second = (axis for axis in range(n) if axis != through)
    turn = np.eye(n)
    turn[first, first] = turn[second, second] = math.cos(angle)
    turn[second, first] = math.sin(angle)
    turn[first, second] = -turn[second, first]
    millimetres = np.array(spacing, dtype=np.float64)
    return Warp(turn * millimetres / millimetres[:, None] / zoom, through)


def axis_through(spacing: Sequence[float]) -> int | None:
    """The axis across the plane of the two finest ones; ``None`` in 2-D.

    Example:
        >>> axis_through((5.0, 1.0, 1.0)), axis_through((1.0, 1.0))
        (0, None)
    """
    return int(np.argmax(np.round(spacing, 6))) if len(spacing) == 3 else None


def draw_shift(
    rng: Generator, settings: PairSettings, size: Sequence[int], spacing: Sequence[float]
) -> tuple[int, ...]:
    """A random in-plane displacement in voxels, for ``warp_probability`` of the samples."""
    if not settings.shift or rng.random() >= settings.warp_probability:
        return (0,) * len(size)
    most = [
        0 if axis == axis_through(spacing) else settings.shift * s for axis, s in enumerate(size)
    ]
    return tuple(int(rng.integers(-int(m), int(m) + 1)) for m in most)


def draw_warp(rng: Generator, settings: PairSettings, spacing: Sequence[float]) -> Warp | None:
    """A random rotation and zoom, for ``warp_probability`` of the samples."""
    if not (settings.rotation_deg or settings.zoom) or rng.random() >= settings.warp_probability:
        return None
    angle = math.radians(rng.uniform(-settings.rotation_deg, settings.rotation_deg))
    return turned_by(angle, 1 + rng.uniform(-settings.zoom, settings.zoom), spacing)


def draw_flips(rng: Generator, settings: PairSettings, ndim: int) -> tuple[int, ...]:
    """The axes to mirror, each with probability one half; counted from the last, -1."""
    if not settings.flip:
        return ()
    return tuple(int(axis) - ndim for axis in np.flatnonzero(rng.random(ndim) < 0.5))


def draw_intensity(rng: Generator, settings: PairSettings) -> tuple[float, float]:
    """Random ``(contrast, brightness)``: a factor about 1 and a shift about 0."""
    contrast, brightness = rng.uniform(-settings.intensity, settings.intensity, 2)
    return 1 + float(contrast), float(brightness)


def rescale(
    image: Float[ndarray, " c *s"], gain: Float[ndarray, " c"], shift: Float[ndarray, " c"]
) -> None:
    """Multiply each channel by ``gain``, then add ``shift``, in place."""
    per_channel = (slice(None), *(None,) * (image.ndim - 1))
    image *= gain[per_channel].astype(np.float32)
    image += shift[per_channel].astype(np.float32)


def warped(maps: Float[ndarray, " c *s"], warp: Warp, size: Sequence[int]) -> ndarray:
    """Linear interpolation of the window of ``size`` in the middle of ``maps``, moved by ``warp``.

    A volume turns about one axis only, so its slices are sampled as the
    channels of one picture and then blended along that axis: ten times faster
    than sampling in 3-D, with the same weights.

    Args:
        maps: ``(C, *S)`` values with enough margin (`Warp.margin`); beyond it
            the edge is repeated.
        warp: The movement.
        size: Sides of the result.

    Returns:
        ``(C, *size)`` float32 values, a new array.
    """
    values = torch.from_numpy(maps)
    if warp.through is None:
        return _sampled_plane(values, warp.matrix, size).numpy()
    axis = warp.through
    plane = [a for a in range(3) if a != axis]
    stack = values.movedim(1 + axis, 1)
    channels, thickness = stack.shape[:2]
    slices = stack.reshape(channels * thickness, *stack.shape[2:])
    sides = [size[a] for a in plane]
    turned = _sampled_plane(slices, warp.matrix[np.ix_(plane, plane)], sides)
    turned = turned.reshape(channels, thickness, *sides)
    blended = _sampled_line(turned, float(warp.matrix[axis, axis]), size[axis])
    return blended.movedim(1, 1 + axis).contiguous().numpy()


def _sampled_plane(maps: Tensor, matrix: Float[ndarray, " 2 2"], size: Sequence[int]) -> Tensor:
    half_in, half_out = np.array(maps.shape[1:]) / 2, np.array(size) / 2
    # torch counts from -1 to 1 between outer edges and names the last axis first.
    unit = (matrix * half_out / half_in[:, None])[::-1, ::-1]
    theta = torch.zeros(1, 2, 3)
    theta[0, :, :2] = torch.from_numpy(unit.astype(np.float32))
    grid = functional.affine_grid(theta, [1, 1, *size], align_corners=False)
    return functional.grid_sample(
        maps[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def _sampled_line(stack: Tensor, step: float, size: int) -> Tensor:
    """Linear interpolation along axis 1 at ``size`` places, ``step`` apart about its middle."""
    last = stack.shape[1] - 1
    place = (last / 2 + step * (torch.arange(size) - (size - 1) / 2)).clamp(0, last)
    low = place.floor().long()
    share = (place - low).reshape(-1, 1, 1)
    if not share.any():
        return stack[:, low]
    return torch.lerp(stack[:, low], stack[:, (low + 1).clamp(max=last)], share)


def hardened(maps: Float[ndarray, " f *s"]) -> Float[ndarray, " f *s"]:
    """Interpolated class maps back to 0 and 1: the likeliest class of each voxel.

    Example:
        >>> hardened(np.array([[0.5, 0.4], [0.2, 0.1]], np.float32)).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    if len(maps) == 1:
        return (maps >= 0.5).astype(np.float32)
    foreground = maps.max(0) >= 1 - maps.sum(0)
    best = np.where(foreground, maps.argmax(0), -1)
    return (best == np.arange(len(maps)).reshape(-1, *(1,) * best.ndim)).astype(np.float32)
