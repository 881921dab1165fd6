"""What one case holds: grid, intensities, classes and the size of every lesion."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from numpy.typing import NDArray

from finemask.case import Case
from finemask.datasets.content import pixel_hash
from finemask.geometry import Geometry, Unit

TINY_VOXELS = 4
"""Lesions of at most this many voxels are more often slips of the pen than lesions."""
CONSTANT_SHARE = 0.999
"""An image of which more than this share has one value shows nothing."""


@dataclass(frozen=True)
class Lesion:
    """One connected component: its size and the diameter of the disc or ball of that size."""

    voxels: int
    diameter: float


@dataclass(frozen=True)
class CaseFacts:
    """What was found in one case.

    Args:
        name: Case.
        group: Patient.
        shape: Voxels along each axis.
        spacing: Voxel spacing in ``unit``.
        unit: ``mm`` or ``px``.
        intensities: Smallest and largest value.
        class_voxels: Voxels of each foreground class; ``None`` without any label.
        lesions: Components of the foreground of each class.
        readers: Number of readers.
        flaws: Oddities that a user should look at, in words.
        pixels: Hash of the decoded intensities.
    """

    name: str
    group: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: Unit
    intensities: tuple[float, float]
    class_voxels: tuple[int, ...] | None
    lesions: tuple[tuple[Lesion, ...], ...]
    readers: int
    flaws: tuple[str, ...]
    pixels: str

    @property
    def empty(self) -> bool:
        """Labelled, and no voxel is foreground."""
        return self.class_voxels is not None and not any(self.class_voxels)


def measure(case: Case, classes: int) -> CaseFacts:
    """Describe a case; ``classes`` counts the foreground classes."""
    masks = foreground(case, classes)
    lesions = tuple(tuple(find_lesions(mask, case.geometry)) for mask in masks or ())
    return CaseFacts(
        name=case.name,
        group=case.group or case.name,
        shape=case.geometry.shape,
        spacing=case.geometry.spacing,
        unit=case.geometry.unit,
        intensities=(float(case.image.min()), float(case.image.max())),
        class_voxels=None if masks is None else tuple(int(mask.sum()) for mask in masks),
        lesions=lesions,
        readers=0 if case.readers is None else len(case.readers),
        flaws=tuple(_flaws(case, masks, lesions)),
        pixels=pixel_hash(case.image),
    )


def foreground(case: Case, classes: int) -> list[Bool[ndarray, " *s"]] | None:
    """The mask of each class: truth, else what half of the readers marked, else soft above half."""
    values = range(1, classes + 1)
    if case.truth is not None:
        return [case.truth == value for value in values]
    if case.readers is not None and len(case.readers):
        return [2 * (case.readers == value).sum(axis=0) >= len(case.readers) for value in values]
    if case.soft is not None:
        return [soft >= 0.5 for soft in case.soft]
    return None


def find_lesions(mask: Bool[ndarray, " *s"], geometry: Geometry) -> list[Lesion]:
    """Connected components (touching corners connect), largest first.

    Example:
        >>> mask = np.eye(3, dtype=bool)
        >>> [lesion.voxels for lesion in find_lesions(mask, Geometry.regular((3, 3)))]
        [3]
    """
    from scipy import ndimage

    components, _ = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    sizes = np.sort(np.bincount(components.ravel())[1:])[::-1].tolist()
    return [Lesion(n, equivalent_diameter(n * geometry.voxel_volume, geometry.ndim)) for n in sizes]


def equivalent_diameter(volume: float, ndim: int) -> float:
    """Diameter of the disc of an area, or the ball of a volume.

    Args:
        volume: Area in 2-D, volume in 3-D.
        ndim: 2 or 3.

    Example:
        >>> equivalent_diameter(math.pi, 2)
        2.0
        >>> round(equivalent_diameter(math.pi / 6, 3), 12)
        1.0
    """
    if ndim == 2:
        return 2 * math.sqrt(volume / math.pi)
    return (6 * volume / math.pi) ** (1 / 3)


def _flaws(
    case: Case, masks: Sequence[NDArray[np.bool_]] | None, lesions: Sequence[Sequence[Lesion]]
) -> list[str]:
    flaws = []
    for channel, image in enumerate(case.image):
        typical = np.median(image)
        if np.mean(np.abs(image - typical) <= 1e-6 * abs(typical)) > CONSTANT_SHARE:
            flaws.append(f"channel {channel} is nearly constant")
    if masks and masks[0].all():
        flaws.append("the mask covers the whole image")
    if masks and (slices := skipped_slices(np.any(masks, axis=0))):
        flaws.append(f"{slices} slices without a label between labelled ones that fit together")
    if tiny := sum(lesion.voxels <= TINY_VOXELS for group in lesions for lesion in group):
        flaws.append(f"{tiny} lesions of at most {TINY_VOXELS} voxels")
    if case.readers is not None and _repeats(case.readers):
        flaws.append("two readers drew exactly the same")
    return flaws


def skipped_slices(mask: Bool[ndarray, " *s"]) -> int:
    """Empty slices of a volume between two that hold one lesion, along any axis.

    The neighbours count as one lesion where they share more than half of the
    smaller one: somebody marked every second slice, or masks of two versions
    were mixed. Lesions that lie apart are not counted.

    Example:
        >>> ball = np.ones((5, 4, 4), bool)
        >>> ball[2] = False
        >>> skipped_slices(ball)
        1
    """
    if mask.ndim != 3:
        return 0
    found = 0
    for axis in range(3):
        slices = np.moveaxis(mask, axis, 0)
        marked = np.flatnonzero(slices.any(axis=(1, 2)))
        for lower, upper in itertools.pairwise(marked):
            if upper - lower > 1:
                smaller = min(slices[lower].sum(), slices[upper].sum())
                shared = (slices[lower] & slices[upper]).sum()
                found += int(upper - lower - 1) if 2 * shared > smaller else 0
    return found


def _repeats(readers: NDArray[np.generic]) -> bool:
    """Whether two readers agree in every voxel of a mask that is not empty."""
    drawn = [reader.tobytes() for reader in readers if reader.any()]
    return len(set(drawn)) < len(drawn)
