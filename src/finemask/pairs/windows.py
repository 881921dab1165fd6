"""Where a training sample is cut: window sizes, lesions, and the cut itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import NDArray

from finemask.errors import UsageError

USUAL_SIDE = {2: 192, 3: 64}
VOXELS_A_LESION = 256


@dataclass(frozen=True)
class Lesions:
    """The connected components of a case, each by some of its voxels.

    Args:
        voxels: For each component of any class, up to ``VOXELS_A_LESION``
            array indices ``(K, n)``, evenly spread over it.
    """

    voxels: tuple[NDArray[np.int64], ...]

    def __len__(self) -> int:
        return len(self.voxels)

    def pick(self, rng: Generator) -> Int[ndarray, " n"]:
        """A voxel of a lesion, every lesion as likely as any other whatever its size."""
        voxels = self.voxels[rng.integers(len(self.voxels))]
        return voxels[rng.integers(len(voxels))]


def find_lesions(masks: Iterable[Bool[ndarray, " *s"]]) -> Lesions:
    """Connected components (corners touch) of every mask.

    Example:
        >>> lesions = find_lesions([np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], bool)])
        >>> [v.tolist() for v in lesions.voxels]
        [[[0, 0], [0, 1]], [[2, 2]]]
    """
    from scipy import ndimage

    voxels: list[NDArray[Any]] = []
    for mask in masks:
        components, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
        places = np.flatnonzero(components)
        labels = components.ravel()[places]
        if not len(places):
            continue
        places = places[np.argsort(labels, kind="stable")]
        for component in np.split(places, np.cumsum(np.bincount(labels)[1:-1])):
            few = component[:: -(-len(component) // VOXELS_A_LESION)]
            voxels.append(np.stack(np.unravel_index(few, mask.shape), 1))
    return Lesions(tuple(voxels))


def default_crop(
    dims: int, scale: Sequence[int], stride: int = 1, largest: Sequence[int] = ()
) -> tuple[int, ...]:
    """HR window of a training sample: about 192 a side in 2-D and 64 in 3-D.

    Args:
        dims: 2 or 3.
        scale: Upscaling for each axis.
        stride: LR sides must be multiples of this.
        largest: HR sides of the largest case; a window needs to be no larger.

    Returns:
        Sides that are multiples of ``scale * stride``.

    Example:
        >>> default_crop(3, (2, 2, 2), stride=8, largest=(35, 50, 35))
        (48, 64, 48)
    """
    usual = (USUAL_SIDE[dims],) * dims
    wanted = [min(u, n) for u, n in zip(usual, largest or usual, strict=True)]
    return fitting_crop(wanted, scale, stride)


def fitting_crop(crop: Sequence[int], scale: Sequence[int], stride: int = 1) -> tuple[int, ...]:
    """The smallest window of at least ``crop`` whose LR sides are multiples of ``stride``.

    Raises:
        UsageError: When the crop has another number of axes than the scale.

    Example:
        >>> fitting_crop((100,), (1, 2), stride=8)
        (104, 112)
    """
    sides = tuple(crop) * (len(scale) if len(crop) == 1 else 1)
    if len(sides) != len(scale) or min(sides) < 1:
        raise UsageError(
            "pairs.crop",
            f"is {tuple(crop)}, needs 1 or {len(scale)} positive whole numbers",
            "give the HR window for each axis, slice first, for example 64x64x64",
        )
    return tuple(-(-s // (f * stride)) * f * stride for s, f in zip(sides, scale, strict=True))


def choose_start(
    rng: Generator,
    shape: Sequence[int],
    size: Sequence[int],
    around: Int[ndarray, " n"] | None = None,
    align: Sequence[int] = (),
) -> tuple[int, ...]:
    """First voxel of a random window.

    Args:
        rng: Source of the randomness.
        shape: Sides of the image.
        size: Sides of the window; where it is longer, the image lies in its middle.
        around: A voxel that must fall into the middle half of the window, as
            far as the border of the image lets it; ``None`` for anywhere.
        align: The start is a multiple of this on each axis.
    """
    start = []
    for axis, (n, s) in enumerate(zip(shape, size, strict=True)):
        if n <= s:
            first = -((s - n) // 2)
        elif around is None:
            first = int(rng.integers(n - s + 1))
        else:
            first = int(around[axis]) - int(rng.integers(s // 4, max(s // 4 + 1, s - s // 4)))
            first = min(max(first, 0), n - s)
        step = align[axis] if align else 1
        start.append(first // step * step)
    return tuple(start)


def cut(
    array: NDArray[Any], start: Sequence[int], size: Sequence[int], *, repeat_edge: bool
) -> NDArray[Any]:
    """A copy of a window of the last axes; beyond the array its edge is repeated, or 0.

    Example:
        >>> cut(np.array([[5, 6, 7]]), (-1,), (3,), repeat_edge=True).tolist()
        [[5, 5, 6]]
    """
    lead = array.ndim - len(size)
    inside, margins, padded = [slice(None)] * lead, [(0, 0)] * lead, False
    for n, b, s in zip(array.shape[lead:], start, size, strict=True):
        low, high = max(b, 0), min(b + s, n)
        inside.append(slice(low, high))
        margins.append((low - b, b + s - high))
        padded = padded or low > b or high < b + s
    part = array[tuple(inside)]
    if not padded:
        return np.array(part)
    return np.pad(np.asarray(part), margins, mode="edge" if repeat_edge else "constant")


def inner(array: NDArray[Any], margin: Sequence[int]) -> NDArray[Any]:
    """The array without ``margin`` voxels on each side of its last axes.

    Example:
        >>> inner(np.array([[1, 2, 3, 4]]), (0, 1)).tolist()
        [[2, 3]]
    """
    sides = zip(array.shape[array.ndim - len(margin) :], margin, strict=True)
    window: tuple[Any, ...] = (..., *(slice(m, n - m) for n, m in sides))
    return array[window]
