"""Surfaces as small pieces between voxels, each with its area: a third definition of HD95.

Border voxels, as `finemask.metrics.surface` counts them, weigh the same whichever way the
surface runs through them. Here the surface is what separates the two masks of a marching
cube: every cell of 2 x 2 (x 2) neighbouring voxel centres that holds both values has a piece,
made of the middles of the cell's edges that are cut. Pieces weigh by their area in mm2 (or
length in mm), and distances are between the centres of cells. DeepMind's surface-distance
measures this way, and its users say NSD for the share within a tolerance.

Where a cell can be cut in several ways: voxels that touch by an edge or corner only are apart,
those of the mask where it holds half of the cell or less, else those of the background; and of
the ways to fold a piece along its diagonals, that of the largest area in a cube is taken. So
areas agree with DeepMind's table, which this module does not hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from scipy.spatial import cKDTree

from finemask.masks import Spacing, as_masks, as_spacing, bounding_box

Corner = tuple[int, ...]
Edge = frozenset[Corner]


@dataclass(frozen=True, eq=False)
class Side:
    """Pieces of one surface, ascending by distance.

    Args:
        distances: Of each piece's cell to the nearest cell of the other surface, in mm.
        areas: Of each piece, in mm2 (2-D: lengths in mm).
    """

    distances: Float[ndarray, " n"]
    areas: Float[ndarray, " n"]

    def percentile(self, percent: float | int) -> float:
        """Distance within which that share of the area lies, in mm; not interpolated."""
        share = np.cumsum(self.areas) / np.sum(self.areas)
        index = int(np.searchsorted(share, percent / 100))
        return float(self.distances[min(index, len(self.distances) - 1)])


@dataclass(frozen=True, eq=False)
class SurfaceElements:
    """Two surfaces measured against each other, piece by piece.

    Args:
        pred: Pieces of the prediction, their distances ``inf`` when the truth is empty.
        truth: Pieces of the truth.
    """

    pred: Side
    truth: Side

    @property
    def hd95(self) -> float:
        """Larger of the two directed distances within which 95 % of the area lies, in mm."""
        sides = self.pred, self.truth
        if all(side.areas.size for side in sides):
            return max(side.percentile(95) for side in sides)
        return float("inf") if any(side.areas.size for side in sides) else float("nan")

    def surface_dice(self, tolerance_mm: float | int) -> float:
        """Share of the area of both surfaces that is within the tolerance of the other.

        Both masks empty: NaN; one: 0.
        """
        sides = self.pred, self.truth
        total = sum(float(side.areas.sum()) for side in sides)
        near = sum(float(side.areas[side.distances <= tolerance_mm].sum()) for side in sides)
        return near / total if total else float("nan")


def surface_elements(
    pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."], spacing_mm: Spacing
) -> SurfaceElements:
    """Cut both masks into pieces of surface and find how far each is from the other surface.

    Args:
        pred: Boolean or integer mask, 2-D or 3-D; the image's edge is outside of it.
        truth: The same, on the same grid.
        spacing_mm: Voxel spacing along each *array* axis, or one number.

    Raises:
        ValueError: When the shapes differ, an array is no mask or the spacing is not positive.

    Example:
        >>> pred, truth = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
        >>> pred[2, 2] = truth[2, 5] = True
        >>> surface_elements(pred, truth, 1).hd95  # cells beside the voxels: 3 px apart
        3.0
    """
    pred, truth = as_masks(pred, truth)
    spacing = as_spacing(spacing_mm, pred.ndim)
    box = bounding_box(pred | truth)
    nowhere = np.zeros((0,) * pred.ndim, int)
    codes = [cell_codes(mask[box]) if box else nowhere for mask in (pred, truth)]
    cut = [(c > 0) & (c < 2**2**pred.ndim - 1) for c in codes]
    points = [np.argwhere(c) * np.array(spacing) for c in cut]
    areas = [piece_areas(spacing)[c[here]] for c, here in zip(codes, cut, strict=True)]
    sides = [_side(points[a], points[b], areas[a]) for a, b in ((0, 1), (1, 0))]
    return SurfaceElements(*sides)


def _side(
    points: Float[ndarray, " n d"], others: Float[ndarray, " m d"], areas: Float[ndarray, " n"]
) -> Side:
    if not (len(points) and len(others)):
        return Side(np.full(len(points), np.inf), areas)
    distances = cKDTree(others, balanced_tree=False, compact_nodes=False).query(points)[0]
    order = np.lexsort((areas, distances))
    return Side(distances[order], areas[order])


def hd95_deepmind(
    pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."], spacing_mm: Spacing
) -> float:
    """HD95 by area of surface, in mm, as DeepMind's surface-distance defines it.

    Both masks empty: NaN (there ``inf``); one: ``inf``.
    """
    return surface_elements(pred, truth, spacing_mm).hd95


def surface_dice_area(
    pred: Shaped[ndarray, "..."],
    truth: Shaped[ndarray, "..."],
    spacing_mm: Spacing,
    *,
    tolerance_mm: float | int,
) -> float:
    """Normalised surface Dice (NSD) by area, in [0, 1], as DeepMind's surface-distance has it.

    Both masks empty: NaN; one: 0.
    """
    return surface_elements(pred, truth, spacing_mm).surface_dice(tolerance_mm)


def cell_codes(mask: Bool[ndarray, " *s"]) -> Int[ndarray, " *t"]:
    """Which corners of every cell of neighbouring voxel centres are in the mask, as bits.

    The mask is surrounded by background, so there is one cell more along each axis.

    Example:
        >>> cell_codes(np.ones((1, 1), bool))
        array([[8, 4],
               [2, 1]])
    """
    padded = np.pad(mask, 1)
    codes = np.zeros([n + 1 for n in mask.shape], int)
    for bit, corner in enumerate(corners(mask.ndim)):
        window = tuple(slice(c, c + n + 1) for c, n in zip(corner, mask.shape, strict=True))
        codes |= padded[window].astype(int) << bit
    return codes


def corners(dims: int) -> list[Corner]:
    """Corners of a cell in the order of the bits."""
    return list(itertools.product((0, 1), repeat=dims))


@lru_cache(maxsize=64)
def piece_areas(spacing: tuple[float, ...]) -> Float[ndarray, " codes"]:
    """Area of the piece in a cell of each code, for cells of the spacing's sides.

    Example:
        >>> piece_areas((1.0, 1.0))[:4]  # none, one corner, its neighbour, both
        array([0.        , 0.70710678, 0.70710678, 1.        ])
    """
    dims = len(spacing)
    areas = np.zeros(2**2**dims)
    for code, shapes in enumerate(_pieces(dims)):
        areas[code] = sum(_size(shape, spacing) for shape in shapes)
    return areas


def _size(points: Float[ndarray, " n d"], spacing: Sequence[float]) -> float:
    """Length of a line of two points, area of a triangle of three."""
    sides = (points[1:] - points[0]) * np.array(spacing)
    return float(np.linalg.norm(sides[0] if len(sides) == 1 else np.cross(*sides) / 2))


@lru_cache(maxsize=2)
def _pieces(dims: int) -> list[list[Float[ndarray, " n d"]]]:
    """Lines or triangles that each code's piece is made of, in a cell of sides 1."""
    everywhere = corners(dims)
    pieces = []
    for code in range(2 ** len(everywhere)):
        mask = {c for bit, c in enumerate(everywhere) if code >> bit & 1}
        few = mask if len(mask) <= len(everywhere) / 2 else set(everywhere) - mask
        lines = [line for face in _faces(dims) for line in _lines(face, few)]
        if dims == 2:
            pieces.append([np.array([_middle(end) for end in line]) for line in lines])
        else:
            pieces.append([t for loop in _loops(lines) for t in _fold(loop)])
    return pieces


def _faces(dims: int) -> Iterator[list[Corner]]:
    """The sides of a cell, as corners; a square is its own."""
    if dims == 2:
        yield corners(2)
        return
    for axis, end in itertools.product(range(dims), (0, 1)):
        yield [c for c in corners(dims) if c[axis] == end]


def _lines(face: Sequence[Corner], few: set[Corner]) -> list[tuple[Edge, Edge]]:
    """How the surface crosses a face: lines between the edges that it cuts."""
    edges = [frozenset(pair) for pair in itertools.combinations(face, 2) if _near(*pair)]
    cut = [edge for edge in edges if len(edge & few) == 1]
    if len(cut) == 4:  # opposite corners, each cut off by itself
        around = [[edge for edge in cut if corner in edge] for corner in face if corner in few]
        return [(a, b) for a, b in around]
    return [(cut[0], cut[1])] if cut else []


def _near(a: Corner, b: Corner) -> bool:
    return sum(abs(i - j) for i, j in zip(a, b, strict=True)) == 1


def _middle(edge: Edge) -> Float[ndarray, " d"]:
    return np.mean([*edge], axis=0)


def _loops(lines: Sequence[tuple[Edge, Edge]]) -> Iterator[list[Float[ndarray, " 3"]]]:
    """The closed outlines that lines of all faces make; each point ends two of them."""
    left = list(lines)
    while left:
        first, last = left.pop()
        loop = [first, last]
        while loop[-1] != loop[0]:
            line = next(line for line in left if loop[-1] in line)
            left.remove(line)
            loop.append(line[line[0] == loop[-1]])
        yield [_middle(edge) for edge in loop[:-1]]


def _fold(loop: Sequence[Float[ndarray, " 3"]]) -> list[Float[ndarray, " 3 3"]]:
    """The triangles of largest area that have the loop as their outline."""
    if len(loop) < 3:
        return []
    ways = [
        [*_fold(loop[: k + 1]), np.array([loop[0], loop[k], loop[-1]]), *_fold(loop[k:])]
        for k in range(1, len(loop) - 1)
    ]
    return max(ways, key=lambda way: round(sum(_size(t, (1.0, 1.0, 1.0)) for t in way), 9))
