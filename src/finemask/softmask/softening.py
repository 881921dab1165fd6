"""Soft Masks from what readers left: one mask, several, or the two axes of a RECIST mark.

The same functions make the label-softening baselines that Soft Masks are
compared with. Arrays in, arrays out; the finer grid splits each voxel of the
image ``scale`` times, so that voxel edges coincide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped
from numpy import ndarray
from numpy.typing import NDArray

from finemask.masks import bounding_box
from finemask.preparation import block_mean
from finemask.softmask.baselines import RING_PROBABILITY, dilation_ring, resampled
from finemask.softmask.grabcut import rough_mask, surroundings
from finemask.softmask.grids import finer, finer_mask, neighbourhood, to_unit
from finemask.softmask.matting import EPSILON, soft_mask
from finemask.softmask.recist import Mark, ellipse
from finemask.softmask.trimap import (
    LESION,
    UNKNOWN,
    lesion_radius,
    trimap_from_mask,
    trimap_from_readers,
)

Method = Literal["matting", "dilation", "resampling", "mean"]
METHODS = ("matting", "dilation", "resampling", "mean")
CUT_LENGTH_PX = 48
"""GrabCut works on a grid on which the long axis has at most so many pixels, and small lesions
about as many: more make the cut slower and no better, fewer teach it little about intensities."""
RING = 2.0
"""Width of the ring of ``dilation`` in voxels of the image; nobody says how wide it was."""
BOX_MARGIN = 8
"""Voxels round the lesions that interpolation and matting look at, and more."""


@dataclass(frozen=True)
class Softening:
    """How Soft Masks are made.

    Args:
        method: ``matting``; ``dilation`` (a ring of probability 0.5) or ``resampling`` (linear
            interpolation), as in earlier work; ``mean`` of the readers.
        scale: How often each voxel is split along each axis, or one number for all.
        radius: Half width of the unknown band, or width of the ring, in voxels of the grid
            that is written. If not given: by the size of each lesion; the ring, 2 of the image.
        epsilon: Of the matting, see ``soft_mask``.
        window: Intensities that become 0 and 1; empty takes them from round the lesions.
    """

    method: Method = "matting"
    scale: tuple[int, ...] = (1,)
    radius: float | None = None
    epsilon: float = EPSILON
    window: tuple[float, ...] = ()

    def factors(self, ndim: int) -> tuple[int, ...]:
        """The scale along each of ``ndim`` axes.

        Raises:
            ValueError: When there are more or fewer numbers than axes.
        """
        factors = self.scale * ndim if len(self.scale) == 1 else self.scale
        if len(factors) != ndim or min(factors) < 1:
            raise ValueError(f"scale {self.scale} does not fit {ndim} axes")
        return factors


@dataclass(frozen=True, eq=False)
class Softened:
    """What came of one case.

    Args:
        soft: ``(*T)`` Soft Mask in [0, 1].
        trimap: ``(*T)``; ``None`` for methods without one.
        reference: ``(*T)`` the hard mask that it should resemble: the input, what at least
            half of the readers marked, or the ellipse of the axes.
        flags: What a reader of the results should know.
        threshold: Share from which a voxel belongs to the binary mask. It is 0.5 but for
            ``dilation``, whose ring was not part of the mask.
    """

    soft: Float32[ndarray, " *t"]
    trimap: Float32[ndarray, " *t"] | None
    reference: Bool[ndarray, " *t"]
    flags: tuple[str, ...] = ()
    threshold: float = 0.5

    @property
    def hard(self) -> Bool[ndarray, " *t"]:
        """The Soft Mask cut at its threshold; a lesion that is nowhere sure keeps one voxel.

        Example:
            >>> soft = np.array([[0.0, 0.2, 0.4]], np.float32)
            >>> Softened(soft, None, soft > 0).hard.astype(int)
            array([[0, 0, 1]])
        """
        hard = self.soft >= self.threshold
        if self.reference.any() and not hard.any() and self.soft.any():
            hard.flat[self.soft.argmax()] = True
        return hard


def soften_mask(
    image: Shaped[ndarray, " c *s"],
    mask: Bool[ndarray, " *s"],
    settings: Softening = Softening(),  # frozen
    spacing: Sequence[float] | None = None,
) -> Softened:
    """Make the Soft Mask of a binary mask.

    Args:
        image: Intensities in any unit.
        mask: Of any number of lesions.
        settings: Method, scale, ...
        spacing: Voxel spacing along each array axis; by default all axes are alike.
    """
    factors, flags = settings.factors(mask.ndim), () if mask.any() else ("empty",)
    steps = [s / f for s, f in zip(spacing or (1.0,) * mask.ndim, factors, strict=True)]
    fine = finer_mask(mask, factors)
    if settings.method != "matting":
        return _baseline(mask, fine, settings, steps, flags)
    trimap = trimap_from_mask(fine, settings.radius, steps)
    return Softened(_matted(image, mask, trimap, settings, steps), trimap, fine, flags)


def soften_readers(
    image: Shaped[ndarray, " c *s"],
    masks: Bool[ndarray, " r *s"],
    settings: Softening = Softening(),  # frozen
    spacing: Sequence[float] | None = None,
) -> Softened:
    """Make the Soft Mask of several readers' masks; an empty one is a vote.

    The reference is what at least half of the readers marked. ``dilation`` and
    ``resampling`` start from it, ``mean`` is the share of the readers.

    Args:
        image: Intensities in any unit.
        masks: One mask a reader who was asked.
        settings: Method, scale, ...
        spacing: Voxel spacing along each array axis; by default all axes are alike.
    """
    factors, votes = settings.factors(masks.ndim - 1), masks.sum(0)
    steps = [s / f for s, f in zip(spacing or (1.0,) * votes.ndim, factors, strict=True)]
    consensus = 2 * votes >= len(masks)
    fine = finer_mask(consensus, factors)
    flags = _votes_flags(masks, votes)
    if settings.method == "mean":
        share = finer((votes / len(masks)).astype(np.float32), factors, order=1)
        return Softened(share.clip(0, 1), None, fine, flags)
    if settings.method != "matting":
        return _baseline(consensus, fine, settings, steps, flags)
    trimap = trimap_from_readers(np.stack([finer_mask(m, factors) for m in masks]), steps)
    return Softened(_matted(image, votes > 0, trimap, settings, steps), trimap, fine, flags)


def _votes_flags(masks: Bool[ndarray, " r *s"], votes: NDArray[Any]) -> tuple[str, ...]:
    readers, drawn = len(masks), [mask.tobytes() for mask in masks if mask.any()]
    found = {
        "empty": not drawn,
        "empty_readers": 0 < len(drawn) < readers,
        "no_consensus": bool(drawn) and not (2 * votes >= readers).any(),
        "no_common_core": bool(drawn) and votes.max() < readers,
        "identical_readers": len(set(drawn)) < len(drawn),
    }
    return tuple(name for name, is_so in found.items() if is_so)


def soften_mark(
    image: Shaped[ndarray, " c h w"],
    mark: Mark,
    settings: Softening = Softening(),  # frozen
    spacing: Sequence[float] = (1.0, 1.0),
) -> tuple[tuple[slice, slice], Softened]:
    """Make the Soft Mask of a RECIST mark: a rough mask by GrabCut, then as of any mask.

    Small lesions are worked on at up to four times the resolution, and the
    shares on the wanted grid are means over its pixels.

    Args:
        image: Intensities in any unit.
        mark: In pixels of the image, checked.
        settings: Method, scale, ...
        spacing: Pixel size along rows and columns.

    Returns:
        The part of the image that was worked on, in pixels of the image, and
        what came of it, on the finer grid of that part.
    """
    scale = _one_scale(settings)
    window = surroundings(mark, image.shape[1:])
    mark = mark.on_grid([s.start for s in window])
    unit = to_unit(image[(slice(None), *window)], settings.window)
    zoom = cut_zoom(mark.lengths()[0])
    work = scale * max(1, math.ceil(zoom / scale))
    rough, fallback = _cut_out(unit, mark, zoom, work, spacing)
    expected = ellipse(mark.on_grid(factor=scale), [n * scale for n in unit.shape[1:]])
    flags = ("fallback_ellipse",) if fallback else ()
    steps = [s / work for s in spacing]
    if settings.method != "matting":
        coarse = block_mean(rough, (work, work)) >= 0.5
        coarse = coarse if coarse.any() else ellipse(mark, unit.shape[1:])
        fine = finer_mask(coarse, (scale, scale))
        made = _baseline(coarse, fine, settings, steps, flags)
        return window, replace(made, reference=expected)
    times = work // scale
    if settings.radius is None:  # the band covers what the grid of the cut leaves open, too
        radius = float(max(lesion_radius(rough, (1.0, 1.0)), 1 + round(work / zoom / 2)))
    else:
        radius = settings.radius * times
    trimap = trimap_from_mask(rough, radius, steps)
    soft = soft_mask(finer(unit, (work, work)), trimap, settings.epsilon, steps)
    soft, shares = block_mean(soft, (times, times)), block_mean(trimap, (times, times))
    trimap = np.where(np.isin(shares, (0, LESION)), shares, UNKNOWN).astype(np.float32)
    return window, Softened(soft, trimap, expected, flags)


def _one_scale(settings: Softening) -> int:
    first, second = settings.factors(2)
    if first != second:
        raise ValueError(f"a mark is worked on at one scale, got {settings.scale}")
    return first


def cut_zoom(length_px: float) -> float:
    """Pixels of the grid that GrabCut works on for each pixel of the image: 4, 2, 1, 1/2, 1/4 ...

    Example:
        >>> [cut_zoom(length) for length in (3.0, 11.0, 20.0, 30.0, 60.0, 400.0)]
        [4.0, 4.0, 2.0, 1.0, 0.5, 0.0625]
    """
    zoom = 4.0
    while length_px * zoom > CUT_LENGTH_PX:
        zoom /= 2
    return zoom


def _cut_out(
    image: Float[ndarray, " c h w"], mark: Mark, zoom: float, work: int, spacing: Sequence[float]
) -> tuple[Bool[ndarray, " y x"], bool]:
    """The rough mask on a grid ``work`` times finer than the image, cut on one ``zoom`` times."""
    shape = image.shape[1:]
    if zoom >= 1:
        image, merged = finer(image, (int(zoom), int(zoom))), 1
    else:
        merged = round(1 / zoom)
        pads = [(0, -n % merged) for n in shape]
        image = block_mean(np.pad(image, [(0, 0), *pads], mode="edge"), (merged, merged))
    found = rough_mask(image, mark.on_grid(factor=zoom), spacing)
    if found.fallback:
        return ellipse(mark.on_grid(factor=work), [n * work for n in shape]), True
    mask = finer(found.mask, [round(work / zoom)] * 2, order=1)[
        : shape[0] * work, : shape[1] * work
    ]
    return mask >= 0.5, False


def _matted(
    image: Shaped[ndarray, " c *s"],
    lesions: Bool[ndarray, " *s"],
    trimap: Float32[ndarray, " *t"],
    settings: Softening,
    steps: Sequence[float],
) -> Float32[ndarray, " *t"]:
    """Matting of the part of the image that holds lesions, on the grid of the trimap."""
    factors = settings.factors(lesions.ndim)
    box = _box_around(trimap > 0, factors)
    if box is None:
        return trimap
    unit = to_unit(image, settings.window, neighbourhood(lesions))[(slice(None), *box)]
    fine_box = tuple(slice(s.start * f, s.stop * f) for s, f in zip(box, factors, strict=True))
    soft = trimap.copy()
    soft[fine_box] = soft_mask(
        finer(unit, factors), np.ascontiguousarray(trimap[fine_box]), settings.epsilon, steps
    )
    return soft


def _box_around(mask: Bool[ndarray, " *t"], factors: Sequence[int]) -> tuple[slice, ...] | None:
    """Voxels of the coarse grid with everything of a mask on the fine one, and a margin."""
    box = bounding_box(mask)
    if box is None:
        return None
    return tuple(
        slice(max(s.start // f - BOX_MARGIN, 0), min(-(-s.stop // f) + BOX_MARGIN, n // f))
        for s, f, n in zip(box, factors, mask.shape, strict=True)
    )


def _baseline(
    mask: Bool[ndarray, " *s"],
    fine: Bool[ndarray, " *t"],
    settings: Softening,
    steps: Sequence[float],
    flags: tuple[str, ...],
) -> Softened:
    """What the methods that do not look at the image make of a mask."""
    factors = settings.factors(mask.ndim)
    if settings.method == "dilation":
        width = RING * max(factors) if settings.radius is None else settings.radius
        soft, threshold = dilation_ring(fine, width, steps), (1 + RING_PROBABILITY) / 2
    elif settings.method == "resampling":
        soft, threshold = resampled(mask, factors), 0.5
    else:
        raise ValueError(f"method {settings.method!r} needs several readers")
    return Softened(soft, None, fine, flags, threshold)
