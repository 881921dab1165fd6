"""One case at two resolutions: how an LR image comes from an HR image, and the pair of both.

The LR and the HR grid of a pair always share one physical extent.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import NDArray

from finemask.case import Case
from finemask.errors import DataError, UsageError
from finemask.intensities import normalisation, normalised
from finemask.preparation import block_mean, subject, to_grid, weighted_stride
from finemask.recipe import PairSettings, PrepareSettings

Normalise = Literal["zscore", "minmax", "none"]

BLUR_REACH = 3.0
"""Standard deviations after which the Gaussian of ``blur`` is cut off."""

LEAST_SIDE = 4
"""Fewest LR voxels along a coarsened axis: fewer show no anatomy to learn from."""


def downsample(
    array: Float[ndarray, " c *s"],
    scale: Sequence[int],
    settings: PairSettings = PairSettings(),  # noqa: B008
    rng: Generator | None = None,
) -> Float[ndarray, " c *t"]:
    """The LR image that a coarser scanner would have made of an HR image.

    ``area``: each LR voxel is the mean of the HR voxels in it. ``blur``: the
    image is smoothed by a Gaussian and read off at the centres of the LR
    voxels, which for an even scale lie between HR voxels. Both keep the extent.

    Args:
        array: ``(C, *S)`` HR image; sides are multiples of ``scale``.
        scale: HR voxels for each LR voxel along each axis.
        settings: Of which ``degrade``, ``blur_sigma`` and ``noise`` are used.
        rng: Where the noise comes from; ``None`` for no noise.

    Returns:
        ``(C, *(S / scale))`` float32.

    Raises:
        ValueError: When a side is not a multiple of its scale.

    Example:
        >>> downsample(np.array([[[1.0, 3.0, 5.0, 7.0]]], np.float32), (1, 2)).tolist()
        [[[2.0, 6.0]]]
    """
    if any(s % f for s, f in zip(array.shape[1:], scale, strict=True)):
        raise ValueError(f"sides {array.shape[1:]} are not multiples of scale {tuple(scale)}")
    if settings.degrade == "blur":
        lr = np.asarray(array, np.float32)
        for axis, factor in enumerate(scale, 1):
            if factor > 1:
                lr = _blurred_stride(lr, axis, factor, settings.blur_sigma)
    else:
        lr = block_mean(array, scale)
    return lr if rng is None else noisy(lr, settings.noise, rng)


def noisy(image: Float[ndarray, " c *s"], noise: float, rng: Generator) -> Float[ndarray, " c *s"]:
    """The image with Gaussian noise of standard deviation ``noise``."""
    if not noise:
        return image
    return image + np.float32(noise) * rng.standard_normal(image.shape, np.float32)


def context(scale: Sequence[int], settings: PairSettings) -> tuple[int, ...]:
    """LR voxels around a window whose HR voxels its degradation looks at.

    Example:
        >>> context((1, 2), PairSettings(degrade="blur", blur_sigma=0.5))
        (0, 1)
    """
    if settings.degrade != "blur":
        return (0,) * len(scale)
    return tuple(-(-_blur_margin(f, settings.blur_sigma) // f) for f in scale)


def _blur_margin(factor: int, sigma: float) -> int:
    """HR voxels beyond each side of an LR voxel that its Gaussian reaches; sigma in LR voxels."""
    if factor == 1:
        return 0
    return max(0, int(np.ceil(BLUR_REACH * sigma * factor - factor / 2)))


def _blurred_stride(
    array: Float[ndarray, " c *s"], axis: int, factor: int, sigma: float
) -> Float[ndarray, " c *t"]:
    """A Gaussian, centred on each LR voxel, applied along one axis."""
    margin = _blur_margin(factor, sigma)
    length = factor + 2 * margin
    offsets = np.arange(length) - (length - 1) / 2
    # Relative to the nearest voxel, so that the narrowest Gaussian still has weight.
    power = (offsets**2 - (offsets**2).min()) / (2 * max(sigma * factor, 1e-6) ** 2)
    widths = [(0, 0)] * array.ndim
    widths[axis] = (margin, margin)
    return weighted_stride(np.pad(array, widths, mode="edge"), axis, np.exp(-power), factor)


@dataclass(frozen=True)
class Pair:
    """One case at two resolutions over one physical extent.

    Args:
        lr: The LR image, without labels: nobody drew on it.
        hr: The HR image with all that is known about it.
    """

    lr: Case
    hr: Case

    @property
    def scale(self) -> tuple[int, ...]:
        """HR voxels for each LR voxel along each axis."""
        sides = zip(self.hr.geometry.shape, self.lr.geometry.shape, strict=True)
        return tuple(high // low for high, low in sides)


def make_pair(
    case: Case,
    scale: Sequence[int],
    settings: PairSettings = PairSettings(),  # noqa: B008
    lr_case: Case | None = None,
    *,
    normalise: Normalise = "none",
) -> Pair:
    """The *matched* pair of a prepared case: the case is the HR side, the LR image is made.

    Where a side is not a multiple of the scale the image is continued at its
    far end by its own edge (labels by background), so that both grids cover
    the same extent; ``to_grid`` takes results back to ``case.geometry``.

    Args:
        case: The HR case.
        scale: HR voxels for each LR voxel along each axis.
        settings: How the LR image is made. Noise, if any, depends on the
            case's name only.
        lr_case: The data set's own LR image, for ``degrade="real"``.
        normalise: ``zscore`` or ``minmax`` normalise both images by the
            statistics of the LR image, which is all that a user's LR image
            will offer at prediction; ``none`` leaves the intensities alone.
            A real LR image and its HR image must come in the same units: two
            images that were each normalised alone differ by a constant contrast.

    Raises:
        DataError: When the real LR image is missing or covers another extent.
        UsageError: When the scale leaves too few LR voxels.

    Example:
        >>> from finemask.geometry import Geometry
        >>> picture = np.arange(14, dtype=np.float32).reshape(1, 2, 7)
        >>> pair = make_pair(Case("a", picture, Geometry.regular((2, 7))), (1, 2))
        >>> pair.lr.image[0, 0].tolist(), pair.hr.geometry.shape
        ([0.5, 2.5, 4.5, 6.0], (2, 8))
    """
    if settings.degrade == "real":
        return _real_pair(case, scale, lr_case, normalise)
    check_sides(case, scale)
    hr = _filled(case, scale)
    image_lr = downsample(hr.image, scale, settings)
    offset, gain = normalisation(image_lr, PrepareSettings(normalise=normalise))
    hr = replace(hr, image=normalised(hr.image, offset, gain))
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    image_lr = noisy(normalised(image_lr, offset, gain), settings.noise, rng)
    return Pair(lr=_lr_of(hr, image_lr, scale), hr=hr)


def lr_normalisation(
    case: Case,
    scale: Sequence[int],
    settings: PairSettings,
    normalise: Normalise,
    lr_case: Case | None = None,
) -> tuple[Float[ndarray, " c"], Float[ndarray, " c"]]:
    """Offset and gain that normalise the LR image of a case; `make_pair` applies them to both."""
    if settings.degrade == "real":
        image_lr = _own_lr(case, lr_case).image
    else:
        image_lr = downsample(_filled(case, scale).image, scale, settings)
    return normalisation(image_lr, PrepareSettings(normalise=normalise))


def native_pair(case: Case, scale: Sequence[int]) -> Pair:
    """The pair a user predicts on: the case is the LR side, the HR grid is finer than the data.

    The HR image is interpolated, for want of a real one, and nothing is known
    about it: labels drawn on the coarse grid are not resized.
    """
    geometry = case.geometry.refined(scale)
    image = to_grid(case.image, case.geometry, geometry)
    hr = replace(case, image=image, truth=None, soft=None, readers=None, geometry=geometry)
    return Pair(lr=replace(case, truth=None, soft=None, readers=None), hr=hr)


def _real_pair(
    case: Case, scale: Sequence[int], lr_case: Case | None, normalise: Normalise
) -> Pair:
    lr_case = _own_lr(case, lr_case)
    check_extents(case, scale, lr_case)
    check_sides(case, scale)
    offset, gain = normalisation(lr_case.image, PrepareSettings(normalise=normalise))
    hr = _extended(case, [n * f for n, f in zip(lr_case.geometry.shape, scale, strict=True)])
    hr = replace(hr, image=normalised(hr.image, offset, gain))
    return Pair(lr=_lr_of(hr, normalised(lr_case.image, offset, gain), scale), hr=hr)


def _own_lr(case: Case, lr_case: Case | None) -> Case:
    if lr_case is None:
        raise DataError(
            subject(case),
            f"case {case.name} has no LR image of its own, which pairs.degrade=real needs",
            "name one in the data set, or set pairs.degrade=area",
        )
    return lr_case


def check_sides(case: Case, scale: Sequence[int]) -> None:
    """Make sure that an LR image keeps `LEAST_SIDE` voxels along every axis it is coarser on.

    Raises:
        UsageError: Naming the case, its size and the scale.
    """
    shape = case.geometry.shape
    sides = tuple(-(-n // f) for n, f in zip(shape, scale, strict=True))
    if any(f > 1 and side < LEAST_SIDE for side, f in zip(sides, scale, strict=True)):
        raise UsageError(
            subject(case),
            f"case {case.name} of {_by(shape)} voxels would have an LR image of {_by(sides)} at "
            f"scale {_by(scale)}; a coarsened side needs at least {LEAST_SIDE}",
            "lower the scale, or leave the case out",
        )


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def check_extents(case: Case, scale: Sequence[int], lr_case: Case) -> None:
    """Make sure that a real LR image shows what the HR image shows, to half an LR voxel.

    Where either image is in pixels only its sides can be compared.

    Raises:
        DataError: Saying how far apart the two are.
    """
    hr, lr = case.geometry, lr_case.geometry
    if hr.ndim != lr.ndim or len(case.image) != len(lr_case.image):
        raise DataError(
            subject(lr_case),
            f"has {len(lr_case.image)} channels in {lr.ndim}-D, its HR image has "
            f"{len(case.image)} in {hr.ndim}-D",
            "give an LR image of the same kind",
        )
    apart = max(abs(h / f - n) for h, n, f in zip(hr.shape, lr.shape, scale, strict=True))
    if hr.unit == lr.unit == "mm":
        edges = np.abs(lr.to_index(hr.corners()) - lr.to_index(lr.corners()))
        apart = max(apart, float(edges.max()))
    if apart > 0.5:
        raise DataError(
            subject(lr_case),
            f"its edges are up to {apart:.2f} LR voxels from those of the HR image of case "
            f"{case.name} (LR {lr.shape} x scale {tuple(scale)}, HR {hr.shape}), "
            "at most 0.5 is allowed",
            "give images of the same field of view, or set pairs.degrade=area",
        )


def _filled(case: Case, scale: Sequence[int]) -> Case:
    """The case, continued at its far ends to multiples of the scale."""
    sides = zip(case.geometry.shape, scale, strict=True)
    return _extended(case, [-(-n // f) * f for n, f in sides])


def _extended(case: Case, shape: Sequence[int]) -> Case:
    if tuple(shape) == case.geometry.shape:
        return case
    return case.cropped((0,) * len(shape), shape)


def _lr_of(hr: Case, image_lr: NDArray[np.float32], scale: Sequence[int]) -> Case:
    return Case(
        name=hr.name,
        image=image_lr,
        geometry=hr.geometry.coarsened(scale),
        group=hr.group,
        source=hr.source,
    )
