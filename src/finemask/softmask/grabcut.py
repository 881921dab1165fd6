"""GrabCut: a rough mask from a few pixels that are known, by colour models and a minimum cut.

Rother, Kolmogorov and Blake, "GrabCut: Interactive Foreground Extraction using
Iterated Graph Cuts", ACM Transactions on Graphics 23(3), 2004. Two mixtures of
Gaussians say how well a pixel's intensity fits the lesion and its surroundings,
neighbouring pixels of like intensity want one label, and the labels of least
energy are a minimum cut. Labels and mixtures are improved in turn.

A radiologist's RECIST axes are what is known here: they lie in the lesion, and
nothing far outside their box does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from finemask.softmask.recist import Mark, ellipse, near_axes, within_reach

COMPONENTS = 5
"""Gaussians of a mixture; fewer where a region has few pixels for each."""
PIXELS_A_COMPONENT = 50
GREY_LEVELS = 255.0
"""Intensities in [0, 1] are scaled to this range, which the constants are made for."""
LEAST_VARIANCE = 1.0
"""Of a Gaussian, in grey levels squared: no intensity is known better than to one level."""
SMOOTHNESS = 50.0
"""What separating two equal neighbours costs, in units of log-likelihood (the paper's gamma)."""
SURROUNDINGS = 0.5
"""Margin round the box of the axes in long axes; it shows what the background looks like."""
AXIS_WIDTH = 1.5
LEAST_AREA, MOST_AREA = 0.2, 3.0
"""A mask outside this range, as a share of the ellipse's area, has missed or leaked."""


@dataclass(frozen=True, eq=False)
class RoughMask:
    """A lesion as it was cut out.

    Args:
        mask: ``(H, W)`` pixels of the lesion.
        fallback: Whether the cut failed, so that the mask is the ellipse of the axes.
    """

    mask: Bool[ndarray, " h w"]
    fallback: bool


def rough_mask(
    image: Float[ndarray, " c h w"],
    mark: Mark,
    spacing: Sequence[float] = (1.0, 1.0),
    iterations: int = 5,
) -> RoughMask:
    """Cut a lesion out round its RECIST axes.

    The axes are lesion for certain, the ellipse through their ends is lesion
    to begin with, and what the lesion cannot reach by its diameters is
    background for certain. Of the result the part that touches the axes is
    kept and its holes are filled. Where it is far smaller or larger than the
    ellipse, the ellipse is taken instead.

    Args:
        image: Intensities in [0, 1], one channel or colour.
        mark: In pixels of the image.
        spacing: Pixel size along rows and columns.
        iterations: Rounds of mixtures and cut, at most.

    Example:
        >>> image = np.zeros((1, 24, 24)); image[:, 8:15, 6:17] = 1
        >>> found = rough_mask(image, Mark.from_xy(6, 11, 16, 11, 11, 8, 11, 14))
        >>> bool((found.mask == (image[0] > 0)).all()), found.fallback
        (True, False)
    """
    window = surroundings(mark, image.shape[1:])
    mark = mark.on_grid([s.start for s in window])
    part = np.asarray(image[(slice(None), *window)], dtype=np.float64)
    shape = part.shape[1:]
    axes, expected = near_axes(mark, shape, AXIS_WIDTH), ellipse(mark, shape)
    certain = axes | ~within_reach(mark, shape, spacing)
    cut = grab_cut(part, axes | expected, certain, iterations)
    kept = ndimage.binary_fill_holes(_touching(cut, axes))
    fallback = not LEAST_AREA <= kept.sum() / expected.sum() <= MOST_AREA
    mask = np.zeros(image.shape[1:], bool)
    mask[window] = expected if fallback else kept
    return RoughMask(mask, fallback)


def surroundings(mark: Mark, shape: Sequence[int]) -> tuple[slice, slice]:
    """The part of an image round the axes that is looked at."""
    reach = SURROUNDINGS * max(mark.lengths()) + 2
    low = np.floor(mark.points.min(axis=0) - reach).clip(0).astype(int)
    high = np.minimum(np.ceil(mark.points.max(axis=0) + reach).astype(int) + 1, shape)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _touching(mask: Bool[ndarray, " h w"], axes: Bool[ndarray, " h w"]) -> Bool[ndarray, " h w"]:
    parts, count = ndimage.label(mask)
    touched = np.zeros(count + 1, bool)
    touched[parts[axes & mask]] = True
    touched[0] = False
    return touched[parts]


def grab_cut(
    image: Float[ndarray, " c h w"],
    foreground: Bool[ndarray, " h w"],
    certain: Bool[ndarray, " h w"],
    iterations: int = 5,
) -> Bool[ndarray, " h w"]:
    """Find the foreground of an image from a first guess, parts of which are certain.

    Args:
        image: Intensities in [0, 1]; equal channels count as one.
        foreground: The guess.
        certain: Pixels whose label in ``foreground`` stays.
        iterations: At most; it ends when no label changes.

    Returns:
        The foreground; the guess itself where it leaves nothing to decide.
    """
    if len(image) > 1 and (image == image[:1]).all():
        image = image[:1]
    pixels = image.reshape(len(image), -1).T * GREY_LEVELS
    labels = foreground.ravel().copy()
    graph = _Graph(pixels, foreground.shape, certain.ravel())
    if not graph.free.size or labels.all() or not labels.any():
        return foreground.copy()
    mixtures = [_Mixture.start(pixels[labels == side]) for side in (False, True)]
    for _ in range(iterations):
        mixtures = [
            mixture.refined(pixels[labels == side])
            for side, mixture in zip((False, True), mixtures, strict=True)
        ]
        outside, inside = (m.log_density(pixels[graph.free]) for m in mixtures)
        decided = graph.cut(inside - outside, labels)
        if (decided == labels).all():
            break
        labels = decided
    return labels.reshape(foreground.shape)


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Gaussians over intensities, with full covariances.

    Args:
        weights: ``(K)``, sum 1.
        means: ``(K, C)``.
        covariances: ``(K, C, C)``.
    """

    weights: Float[ndarray, " k"]
    means: Float[ndarray, " k c"]
    covariances: Float[ndarray, " k c c"]

    @classmethod
    def start(cls, pixels: Float[ndarray, " n c"]) -> _Mixture:
        """Components of equally many pixels along the direction in which they differ most."""
        centred = pixels - pixels.mean(axis=0)
        main = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        components = int(np.clip(len(pixels) // PIXELS_A_COMPONENT, 1, COMPONENTS))
        rank = np.argsort(np.argsort(centred @ main, kind="stable"), kind="stable")
        return cls._fitted(pixels, rank * components // len(pixels))

    @classmethod
    def _fitted(cls, pixels: Float[ndarray, " n c"], owner: NDArray[np.int64]) -> _Mixture:
        """Weight, mean and covariance of the pixels of each component that has any."""
        counts = np.bincount(owner)
        parts = [pixels[owner == k] for k in np.flatnonzero(counts)]
        means = np.array([part.mean(axis=0) for part in parts])
        floor = LEAST_VARIANCE * np.eye(pixels.shape[1])
        spreads = [
            (part - mean).T @ (part - mean) / len(part) + floor
            for part, mean in zip(parts, means, strict=True)
        ]
        return cls(counts[counts > 0] / len(pixels), means, np.array(spreads))

    def refined(self, pixels: Float[ndarray, " n c"]) -> _Mixture:
        """Fitted again, each pixel to the component that it most likely belongs to."""
        return self._fitted(pixels, self._log_parts(pixels).argmax(axis=0))

    def log_density(self, pixels: Float[ndarray, " n c"]) -> Float[ndarray, " n"]:
        """Logarithm of the density of each pixel."""
        parts = self._log_parts(pixels)
        top = parts.max(axis=0)
        return top + np.log(np.exp(parts - top).sum(axis=0))

    def _log_parts(self, pixels: Float[ndarray, " n c"]) -> Float[ndarray, " k n"]:
        offset = pixels - self.means[:, None]
        distance = np.einsum(
            "knc,kcd,knd->kn", offset, np.linalg.inv(self.covariances), offset, optimize=True
        )
        scale = np.log(self.weights) - np.linalg.slogdet(2 * np.pi * self.covariances)[1] / 2
        return scale[:, None] - distance / 2


class _Graph:
    """The pixels to decide on, and what it costs to give neighbours different labels.

    Pixels whose label is certain are no nodes: their links end at the terminals.
    """

    def __init__(
        self, pixels: Float[ndarray, " n c"], shape: tuple[int, ...], certain: Bool[ndarray, " n"]
    ) -> None:
        first, second, distance = _neighbours(shape)
        differ = ((pixels[first] - pixels[second]) ** 2).sum(axis=1)
        contrast = float(differ.mean())
        links = SMOOTHNESS / distance * np.exp(-differ / (2 * max(contrast, 1e-9)))
        self.free = np.flatnonzero(~certain)
        number = np.full(len(pixels), -1)
        number[self.free] = np.arange(len(self.free))
        a, b = number[first], number[second]
        both = (a >= 0) & (b >= 0)
        self._inner = a[both], b[both], links[both]
        to, one = (a >= 0) & (b < 0), (b >= 0) & (a < 0)
        self._border = np.concatenate([a[to], b[one]])
        self._beyond = np.concatenate([second[to], first[one]])
        self._pull = np.concatenate([links[to], links[one]])

    def cut(self, gain: Float[ndarray, " m"], labels: Bool[ndarray, " n"]) -> Bool[ndarray, " n"]:
        """Labels of least energy.

        Args:
            gain: How much likelier each free pixel is as foreground, in log units.
            labels: Of which those of the certain pixels count.
        """
        n = len(self.free)
        a, b, links = self._inner
        pull = np.where(labels[self._beyond], self._pull, -self._pull)
        gain = gain + np.bincount(self._border, pull, n)
        nodes, source, sink = np.arange(n), np.full(n, n), np.full(n, n + 1)
        capacity = np.concatenate([links, links, gain.clip(0), (-gain).clip(0)])
        # Whole numbers as fine as fit: no flow may exceed 32 bits.
        unit = min(1e3, 2**30 / max(float(np.abs(gain).sum()), 1.0))
        graph = csr_matrix(
            (
                np.rint(capacity * unit).astype(np.int32),
                (np.concatenate([a, b, source, nodes]), np.concatenate([b, a, nodes, sink])),
            ),
            shape=(n + 2, n + 2),
        )
        rest = graph - maximum_flow(graph, n, n + 1).flow
        rest.eliminate_zeros()
        reached = breadth_first_order(rest, n, return_predecessors=False)
        decided = labels.copy()
        decided[self.free] = False
        decided[self.free[reached[reached < n]]] = True
        return decided


def _neighbours(
    shape: tuple[int, ...],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of pixels that touch, corners included: their numbers and their distance."""
    number = np.arange(math.prod(shape)).reshape(shape)
    pairs = (
        (number[:, :-1], number[:, 1:], 1.0),
        (number[:-1], number[1:], 1.0),
        (number[:-1, :-1], number[1:, 1:], math.sqrt(2)),
        (number[:-1, 1:], number[1:, :-1], math.sqrt(2)),
    )
    first = np.concatenate([a.ravel() for a, _, _ in pairs])
    second = np.concatenate([b.ravel() for _, b, _ in pairs])
    return first, second, np.concatenate([np.full(a.size, d) for a, _, d in pairs])
