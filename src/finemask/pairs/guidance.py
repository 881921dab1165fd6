"""Guidance: the part of the HR image that a method is shown as it is, and how it is found.

A patch-free network reads the whole image, but coarsened. A small window of the
HR image beside it keeps what fine structure looks like there. The *selective*
search takes the window richest in contrast: from the centre outwards on
spherical shells, by the variance of the window, until nothing better came for
a while. All variances come from two integral images (of the values and of their
squares), which are only kept on the planes where a candidate window begins or
ends, so that a candidate costs 16 look-ups a channel whatever its size.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

Window = tuple[slice, ...]
"""HR voxels along each axis."""
CropMode = Literal["selective", "exhaustive", "central", "random"]

PATIENCE = 10
"""Candidates without gain after which the selective search stops."""
SHELLS = 6
"""Radii L/6, 2L/6, ..., L, with L half of the image's diagonal."""
POLAR_STEPS, AZIMUTH_STEPS = 6, 6
"""Steps of pi/6 from 0 to pi and of pi/3 around; the paper's 2 pi is 0 once more."""


@runtime_checkable
class Guide(Protocol):
    """Chooses the window of an HR image that a method is shown as it is."""

    def __call__(self, image_hr: Float[ndarray, " c *s"]) -> Window: ...

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Sides of the window that is chosen from an HR image of this shape."""


def cut_guidance(
    guide: Guide | None,
    image_hr: Float[ndarray, " c *s"],
    window_lr: Sequence[int] = (),
    scale: Sequence[int] = (),
) -> Float[ndarray, " c *p"] | None:
    """What a guide chooses of an image that is predicted; ``None`` for a method without one.

    Args:
        guide: The method's own.
        image_hr: Prepared image on the HR grid.
        window_lr: LR sides of the windows of training. A smaller image is shown in the
            middle of one, and the guidance is cut from there, as it was in training.
        scale: HR voxels for each LR voxel along each axis.
    """
    if guide is None:
        return None
    window_hr = [n * f for n, f in zip(window_lr, scale, strict=True)] if window_lr else ()
    shown = framed(image_hr, window_hr, scale)
    return np.ascontiguousarray(shown[(slice(None), *guide(shown))])


def guidance_size(
    guide: Guide | None,
    sides_hr: Sequence[int],
    window_lr: Sequence[int] = (),
    scale: Sequence[int] = (),
) -> tuple[int, ...] | None:
    """Sides of what `cut_guidance` cuts, known before there is an image.

    Args:
        guide: The method's own.
        sides_hr: Of the image on the HR grid.
        window_lr: LR sides of the windows of training.
        scale: HR voxels for each LR voxel along each axis.

    Example:
        >>> guidance_size(CropGuide(), (8, 16, 64), (4, 12, 12), (2, 2, 2))
        (2, 6, 16)
    """
    if guide is None:
        return None
    if window_lr:
        framing = zip(sides_hr, window_lr, scale, strict=True)
        sides_hr = [max(side, n * factor) for side, n, factor in framing]
    return guide.size(sides_hr)


def framed(
    image: Float[ndarray, " c *s"], window: Sequence[int], step: Sequence[int] = ()
) -> Float[ndarray, " c *t"]:
    """The image in the middle of a window, where it is smaller, continued by its edge.

    Args:
        image: ``(C, *S)`` values.
        window: Sides of the window; empty for none.
        step: What is added in front is a multiple of it, so that an HR image is framed as
            its LR image is.

    Example:
        >>> framed(np.array([[5.0, 6.0]]), (5,)).tolist()
        [[5.0, 5.0, 6.0, 6.0, 6.0]]
    """
    sides = image.shape[1:]
    window, step = window or sides, step or (1,) * len(sides)
    margins = [max(0, w - s) for w, s in zip(window, sides, strict=True)]
    if not any(margins):
        return image
    before = [m // f // 2 * f for m, f in zip(margins, step, strict=True)]
    widths = [(0, 0), *((b, m - b) for b, m in zip(before, margins, strict=True))]
    return np.pad(image, widths, mode="edge")


@dataclass(frozen=True)
class CropGuide:
    """A window of ``1 / parts`` of every side of a volume.

    Args:
        mode: ``selective`` is the paper's search, which ends at the first candidate beyond
            the image or after ten without gain; ``exhaustive`` looks at all shells and leaves
            out what is beyond; ``central``; ``random`` depends on the image's values only, so
            the same image is always cut alike.
        parts: Of each side; 4 makes the window 1/64 of a volume.

    Example:
        >>> CropGuide("central")(np.zeros((1, 8, 16, 16), np.float32))
        (slice(3, 5, None), slice(6, 10, None), slice(6, 10, None))
    """

    mode: CropMode = "selective"
    parts: int = 4

    def __call__(self, image_hr: Float[ndarray, " c *s"]) -> Window:
        size = self.size(image_hr.shape[1:])
        start = _STARTS[self.mode](image_hr, size)
        return tuple(slice(b, b + s) for b, s in zip(start, size, strict=True))

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Sides of the window that is chosen from an HR image of this shape."""
        return tuple(max(1, side // self.parts) for side in shape)


def central_start(image: Float[ndarray, " c *s"], size: Sequence[int]) -> tuple[int, ...]:
    """First voxel of the window in the middle."""
    return tuple((n - s) // 2 for n, s in zip(image.shape[1:], size, strict=True))


def random_start(image: Float[ndarray, " c *s"], size: Sequence[int]) -> tuple[int, ...]:
    """First voxel of a window anywhere, drawn from the checksum of the image."""
    rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(image).data))
    return tuple(int(rng.integers(n - s + 1)) for n, s in zip(image.shape[1:], size, strict=True))


def selective_start(image: Float[ndarray, " c d h w"], size: Sequence[int]) -> tuple[int, ...]:
    """First voxel of the window that the paper's search stops with."""
    starts = candidate_starts(image.shape[1:], tuple(size))
    variances = window_variances(image, starts, size)
    best = misses = 0
    for number in range(1, len(starts)):
        if variances[number] > variances[best]:
            best, misses = number, 0
        elif (misses := misses + 1) == PATIENCE:
            break
    return tuple(starts[best].tolist())


def exhaustive_start(image: Float[ndarray, " c d h w"], size: Sequence[int]) -> tuple[int, ...]:
    """First voxel of the window of most variance on all shells."""
    starts = candidate_starts(image.shape[1:], tuple(size), exhaustive=True)
    return tuple(starts[int(np.argmax(window_variances(image, starts, size)))].tolist())


_STARTS: dict[str, Callable[..., tuple[int, ...]]] = {
    "selective": selective_start,
    "exhaustive": exhaustive_start,
    "central": central_start,
    "random": random_start,
}


def shell_centre(
    shape: Sequence[int], radius: float, polar: float, azimuth: float
) -> tuple[float, float, float]:
    """A point on a sphere about the middle of a volume, in voxels from its corner.

    Paper: pfseg Eq. (9)

    Args:
        shape: ``(D, H, W)``; the pole is the first axis.
        radius: r, in voxels.
        polar: Angle to the pole, in radians.
        azimuth: Angle around the pole, in radians.

    Returns:
        ``(z, y, x)``.

    Example:
        >>> shell_centre((128, 192, 192), 25.0, 0.0, 0.0)
        (89.0, 96.0, 96.0)
    """
    depth, height, width = shape
    across = radius * math.sin(polar)
    return (
        radius * math.cos(polar) + depth / 2,
        across * math.sin(azimuth) + height / 2,
        across * math.cos(azimuth) + width / 2,
    )


@lru_cache(maxsize=64)
def candidate_starts(
    shape: tuple[int, ...], size: tuple[int, ...], exhaustive: bool = False
) -> Int[ndarray, " k 3"]:
    """First voxels of the windows that a search looks at, in its order, each once.

    The middle comes first. The search ends before the first window that reaches
    beyond the image; an exhaustive one leaves such windows out and goes on.

    Example:
        >>> len(candidate_starts((128, 192, 192), (32, 48, 48)))  # the middle and one shell
        33
    """
    first = tuple((n - s) // 2 for n, s in zip(shape, size, strict=True))
    found = {first: None}
    longest = math.hypot(*(side / 2 for side in shape))
    for shell in range(1, SHELLS + 1):
        for k in range(POLAR_STEPS + 1):
            for m in range(AZIMUTH_STEPS):
                polar, azimuth = math.pi * k / POLAR_STEPS, 2 * math.pi * m / AZIMUTH_STEPS
                centre = shell_centre(shape, longest * shell / SHELLS, polar, azimuth)
                start = tuple(_nearest(c - s / 2) for c, s in zip(centre, size, strict=True))
                inside = all(0 <= b <= n - s for b, n, s in zip(start, shape, size, strict=True))
                if inside:
                    found[start] = None
                elif not exhaustive:
                    return np.array(list(found))
    return np.array(list(found))


def _nearest(place: float) -> int:
    """The nearest voxel; half-way, whatever the rounding of a cosine, the lower one."""
    return math.ceil(place - 0.5 - 1e-6)


def window_variances(
    image: Float[ndarray, " c *s"], starts: Int[ndarray, " k n"], size: Sequence[int]
) -> Float[ndarray, " k"]:
    """Variance of windows of an image, the sum over its channels.

    Args:
        image: ``(C, *S)`` values.
        starts: First voxel of each window; all windows lie within the image.
        size: Sides of the windows.

    Example:
        >>> image = np.array([[0.0, 2.0, 2.0, 6.0]], np.float32)
        >>> window_variances(image, np.array([[0], [1], [2]]), (2,)).tolist()
        [1.0, 0.0, 4.0]
    """
    ends = starts + np.array(size)
    planes = [np.unique(np.stack([b, e])) for b, e in zip(starts.T, ends.T, strict=True)]
    around = tuple(slice(p[0], p[-1]) for p in planes)
    part = image[(slice(None), *around)]
    middle = part.mean(axis=tuple(range(1, part.ndim)), keepdims=True, dtype=np.float64)
    part = part - middle.astype(np.float32)  # large offsets would cost the squares their digits
    places = [
        [np.searchsorted(p, edge) for edge in (b, e)]
        for p, b, e in zip(planes, starts.T, ends.T, strict=True)
    ]
    sums, squares = (
        _box_sums(_integral(values, planes), places) for values in (part, np.square(part))
    )
    count = math.prod(size)
    variances: Float[ndarray, " k"] = (squares / count - np.square(sums / count)).sum(0)
    return np.maximum(variances, 0)


def _integral(
    values: Float[ndarray, " c *s"], planes: Sequence[Int[ndarray, " _"]]
) -> Float[ndarray, " c *t"]:
    """Integral image on the given planes of each axis only, the first of them zero."""
    table = values
    for axis, plane in enumerate(planes, 1):
        parts = np.split(table, plane[1:-1] - plane[0], axis=axis)
        sums = [part.sum(axis, keepdims=True, dtype=np.float64) for part in parts]
        table = np.concatenate(sums, axis)
    for axis in range(1, values.ndim):
        table = np.cumsum(table, axis=axis)
    return np.pad(table, [(0, 0)] + [(1, 0)] * (values.ndim - 1))


def _box_sums(
    table: Float[ndarray, " c *t"], places: Sequence[Sequence[Int[ndarray, " k"]]]
) -> Float[ndarray, " c k"]:
    """Sums between two planes along each axis, by inclusion and exclusion of the corners."""
    total = np.zeros((len(table), len(places[0][0])))
    for corner in np.ndindex(*(2,) * len(places)):
        sign = (-1) ** (len(places) - sum(corner))
        index = tuple(pair[c] for pair, c in zip(places, corner, strict=True))
        total += sign * table[(slice(None), *index)]
    return total
