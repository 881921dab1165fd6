"""Which tiles of an image fit the memory.

What a network takes for a tile it says itself (`Network.activation_bytes`); here
is added what surrounds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from finemask.errors import DataError
from finemask.inference.model import Network
from finemask.inference.tiles import TilePlan, padded_shape, plan_tiles, smaller_tile

SHARE = 0.8
"""Share of the available memory that a prediction may take unasked."""

WORKSPACE = 1.5
"""Memory of the kernels (reordered copies, columns) on top of live tensors, as a factor."""

SMALL = 4096
"""Bytes for each HR voxel that no network here comes near (a U-Net takes 100 to 250).

Where even these fit, nothing is counted; where counting fails, these are assumed."""

LARGEST_TENSOR = 2**31 - 1
"""Elements that every kernel can index."""


def fit_tiles(
    network: Network,
    shape: Sequence[int],
    *,
    channels: int = 1,
    result_bytes: int = 0,
    extra: Sequence[Sequence[int]] = (),
    max_memory_bytes: int | None = None,
) -> TilePlan:
    """The whole image as one tile when it fits the memory, else the largest tiles that do.

    A network of patches gets its own windows, overlapping by half, whatever the memory.

    Args:
        network: What runs on each tile.
        shape: LR image before padding.
        channels: Channels of the image.
        result_bytes: What the caller keeps of the result, all in all.
        extra: Shapes of the further inputs of the network.
        max_memory_bytes: Bound on everything that the prediction adds; by default a share
            of what is available.

    Raises:
        DataError: When not even the smallest tile fits.
    """
    scale, stride = network.scale, network.stride
    whole = padded_shape(shape, stride)
    if network.patches and network.window:
        return plan_tiles(whole, network.window, stride, share=0.5)
    budget = max_memory_bytes or int(SHARE * network.available_bytes())

    def needed(plan: TilePlan) -> int:
        peak, largest = network.activation_bytes((1, channels, *plan.tile), *extra)
        if largest > LARGEST_TENSOR:
            return largest * 4 + budget
        return (
            int(WORKSPACE * peak) + result_bytes + _layer_bytes(plan, scale, channels, network.maps)
        )

    plan = plan_tiles(whole, whole, stride)
    if SMALL * math.prod(whole) * math.prod(scale) + result_bytes <= budget:
        return plan
    while (need := needed(plan)) > budget:
        tile = smaller_tile(plan.tile, stride)
        if tile is None:
            raise DataError(
                "memory",
                f"{budget / 2**20:.0f} MiB are allowed, the smallest tile of an image of"
                f" {'x'.join(map(str, shape))} voxels needs {need / 2**20:.0f} MiB",
                "raise --max-memory, or free memory",
            )
        plan = plan_tiles(whole, tile, stride)
    return plan


def _layer_bytes(plan: TilePlan, scale: Sequence[int], channels: int, maps: int) -> int:
    """What ``tiles.blend`` holds: the padded image, two layers of tiles, a weighted tile."""
    image = 4 * channels * math.prod(plan.shape)
    factor = 4 * maps * math.prod(scale)
    if len(plan) == 1:
        return image + factor * math.prod(plan.tile)
    layer = plan.tile[0] * math.prod(plan.shape[1:])
    return image + factor * (2 * layer + 2 * math.prod(plan.tile))
