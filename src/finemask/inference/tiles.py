"""Windows that cover an image, and weights that join their results without a seam.

An image that does not fit the memory is predicted tile by tile. Neighbouring
tiles share ``overlap`` voxels. In that overlap a tile counts for nothing in
the quarter next to its own edge, where the network lacks context, and fades
in by a raised cosine over the next half::

    tile A  1111111111111\\.....
    tile B        .......\\1111111111
                   |ctx| ramp |ctx|

The weights of all tiles sum to one at every voxel, axis by axis, so no second
volume of weights is kept and nothing is divided at the end. Every start is a
multiple of the network's stride: pooling sees the same blocks as it does in
the whole image, and a network whose receptive field is within a quarter of
the overlap gives the same result tiled and whole. Instance normalisation sees
the statistics of its tile instead of the image's: there the two differ, the
more the smaller the tile, so the memory plan tiles only when it must and then
takes the largest tiles that fit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

SMALLEST = 16
"""Tiles have at least this many LR voxels a side (where the image has)."""

OVERLAP = 0.25
"""Share of a tile that it has in common with each neighbour,"""

LEAST_OVERLAP = 16
"""but at least this many LR voxels, up to half of the tile."""


@dataclass(frozen=True)
class TilePlan:
    """Which windows of a padded LR image are predicted.

    Args:
        shape: Padded LR image; every side a multiple of the stride.
        tile: LR window, the same for all tiles.
        overlap: LR voxels that neighbours share at least, along each axis; 0 where the
            tile spans the image.
        starts: First voxel of the tiles along each axis; the tiles are their product.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    overlap: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return math.prod(len(s) for s in self.starts)


def padded_shape(shape: Sequence[int], stride: int) -> tuple[int, ...]:
    """The smallest shape that a network of this stride takes.

    A picture below the stride gets two strides a side: one voxel at the
    bottleneck cannot be normalised.

    Example:
        >>> padded_shape((5, 17), 8), padded_shape((5, 3), 8)
        ((8, 24), (16, 16))
    """
    padded = tuple(-(-side // stride) * stride for side in shape)
    lonely = stride > 1 and all(side == stride for side in padded)
    return tuple(2 * side for side in padded) if lonely else padded


def plan_tiles(
    shape: Sequence[int], tile: Sequence[int], stride: int = 1, share: float = OVERLAP
) -> TilePlan:
    """Cover a padded image evenly with overlapping tiles.

    Args:
        shape: Padded LR image, multiples of ``stride``.
        tile: Largest window; cut to the image and to a multiple of ``stride``.
        stride: Every start and size is a multiple of it.
        share: Of a tile that it has in common with each neighbour at least.

    Example:
        >>> plan_tiles((160,), (64,), stride=4).starts
        ((0, 48, 96),)
    """
    sides = tuple(
        min(s, max(t // stride, 2) * stride) if t < s else s
        for s, t in zip(shape, tile, strict=True)
    )
    overlap = tuple(
        math.ceil(max(share * t, min(t / 2, LEAST_OVERLAP)) / stride) * stride if t < s else 0
        for s, t in zip(shape, sides, strict=True)
    )
    starts = tuple(_starts(s, t, o, stride) for s, t, o in zip(shape, sides, overlap, strict=True))
    return TilePlan(tuple(shape), sides, overlap, starts)


def _starts(side: int, tile: int, overlap: int, stride: int) -> tuple[int, ...]:
    if tile >= side:
        return (0,)
    steps = math.ceil((side - tile) / (tile - overlap))
    # Rounding down never parts two tiles by more than tile - overlap, itself a multiple.
    return tuple((side - tile) * i // (steps * stride) * stride for i in range(steps + 1))


def smaller_tile(tile: Sequence[int], stride: int) -> tuple[int, ...] | None:
    """Shorten the longest side by a quarter; ``None`` at the smallest tile.

    Example:
        >>> smaller_tile((32, 64), 8), smaller_tile((16, 16), 8)
        ((32, 48), None)
    """
    least = max(2 * stride, math.ceil(SMALLEST / stride) * stride)
    axis = int(np.argmax(tile))
    if tile[axis] <= least:
        return None
    shorter = max(least, tile[axis] * 3 // 4 // stride * stride)
    return (*tile[:axis], shorter, *tile[axis + 1 :])


def axis_weights(plan: TilePlan, axis: int, scale: int) -> tuple[Float[ndarray, " _"], ...]:
    """Weights of each tile along one axis, on HR voxels; together one everywhere.

    The outer edges of the image are no seams: there a tile keeps its full weight.
    """
    side, tile, overlap = plan.shape[axis], plan.tile[axis], plan.overlap[axis]
    starts = plan.starts[axis]
    if len(starts) == 1:
        return (np.ones(tile * scale, np.float32),)
    position = (np.arange(tile * scale) + 0.5) / scale
    total = np.zeros(side * scale)
    spans = [slice(start * scale, (start + tile) * scale) for start in starts]
    rows = []
    for start, span in zip(starts, spans, strict=True):
        depth = np.full(tile * scale, np.inf)
        if start > 0:
            depth = np.minimum(depth, position)
        if start + tile < side:
            depth = np.minimum(depth, tile - position)
        share = np.clip((depth - overlap / 4) / (overlap / 2), 0, 1)
        rows.append(0.5 - 0.5 * np.cos(np.pi * share))
        total[span] += rows[-1]
    return tuple(
        (row / total[span]).astype(np.float32) for row, span in zip(rows, spans, strict=True)
    )


def blend(
    image: Float[ndarray, " c *s"],
    forward: Callable[[Float[ndarray, " c *t"]], Float[ndarray, " f *hr"]],
    plan: TilePlan,
    scale: Sequence[int],
) -> Iterator[Float[ndarray, " f *slab"]]:
    """Predict tile by tile; hand out the HR result in slabs along the first axis.

    Only one layer of tiles is kept, so the memory does not grow with the
    depth of a volume. The image is padded to the plan by repeating its edge;
    the slabs, laid one after the other, are exactly ``scale`` times the image.

    Args:
        image: ``(C, *S)`` on the LR grid.
        forward: Maps a tile to its maps on the HR grid.
        plan: Windows of the padded image.
        scale: HR voxels for each LR voxel along each axis.

    Example:
        >>> plan = plan_tiles((32, 16), (16, 16))
        >>> image = np.ones((1, 32, 16), np.float32)
        >>> slabs = list(blend(image, lambda tile: 2 * tile, plan, (1, 1)))
        >>> [slab.shape for slab in slabs], float(np.concatenate(slabs, 1).max())
        ([(1, 8, 16), (1, 8, 16), (1, 16, 16)], 2.0)
    """
    margins = [(0, p - s) for p, s in zip(plan.shape, image.shape[1:], strict=True)]
    wanted = [s * f for s, f in zip(image.shape[1:], scale, strict=True)]
    inside = tuple(slice(0, w) for w in wanted[1:])
    if any(after for _, after in margins):
        image = np.pad(image, [(0, 0), *margins], mode="edge")
    if len(plan) == 1:
        yield forward(image)[(slice(None), slice(0, wanted[0]), *inside)]
        return
    weights = [axis_weights(plan, axis, f) for axis, f in enumerate(scale)]
    unfinished = None
    for number, start in enumerate(plan.starts[0]):
        layer = _layer(image, forward, plan, weights, number)
        if unfinished is not None:
            layer[:, : unfinished.shape[1]] += unfinished
        end = (*plan.starts[0][1:], plan.shape[0])[number]
        rows = (end - start) * scale[0]
        unfinished = layer[:, rows:].copy()
        stop = min(rows, wanted[0] - start * scale[0])
        yield layer[(slice(None), slice(0, stop), *inside)]
        del layer  # before the next one is made


def _layer(
    image: Float[ndarray, " c *s"],
    forward: Callable[[Float[ndarray, " c *t"]], Float[ndarray, " f *hr"]],
    plan: TilePlan,
    weights: Sequence[tuple[Float[ndarray, " _"], ...]],
    number: int,
) -> Float[ndarray, " f *hr"]:
    """Weighted sum of the tiles with one start along the first axis."""
    layer = None
    for place in itertools.product(*(range(len(s)) for s in plan.starts[1:])):
        index = (number, *place)
        corner = [s[i] for s, i in zip(plan.starts, index, strict=True)]
        window = tuple(slice(c, c + t) for c, t in zip(corner, plan.tile, strict=True))
        tile = forward(image[(slice(None), *window)])
        for axis, i in enumerate(index):
            tile = tile * weights[axis][i].reshape(-1, *(1,) * (len(index) - 1 - axis))
        scale = [n // t for n, t in zip(tile.shape[1:], plan.tile, strict=True)]
        if layer is None:
            sides = [s * f for s, f in zip((plan.tile[0], *plan.shape[1:]), scale, strict=True)]
            layer = np.zeros((len(tile), *sides), np.float32)
        spot = [slice(w.start * f, w.stop * f) for w, f in zip(window, scale, strict=True)]
        layer[(slice(None), slice(None), *spot[1:])] += tile
    assert layer is not None
    return layer
