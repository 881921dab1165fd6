"""Whether an image can be predicted at all, told from its header before anything is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from finemask.inference.memory import fit_tiles
from finemask.inference.model import Model, Network
from finemask.inference.tiles import TilePlan
from finemask.inference.view import Mode
from finemask.io import Header
from finemask.pairs.guidance import guidance_size
from finemask.preparation import for_lr, prepared_shape


def plan_from_header(
    model: Model,
    network: Network,
    header: Header,
    *,
    mode: Mode = "native",
    probs: bool = False,
    max_memory_bytes: int | None = None,
) -> TilePlan:
    """The tiles that an image will be predicted in, from what its file says of its size.

    Counted are the image as it is read and as it is prepared, in float32, the labels on the HR
    grid (as bytes, once turned), probabilities where they are wanted, one layer of tiles and
    what the network holds for a tile: never all HR maps at once unless they are written.

    Args:
        model: Prepares the image.
        network: Runs on the tiles.
        header: Of the image.
        mode: ``native`` or ``matched``.
        probs: All probabilities are kept.
        max_memory_bytes: Bound on what the prediction adds to the image; by default a share of
            what is free, for both together.

    Raises:
        DataError: When not even the smallest tile fits.
    """
    task, settings, grid = model.recipe.task, model.recipe.prepare, header.geometry
    prepared = prepared_shape(grid, for_lr(settings, task.scale) if mode == "native" else settings)
    lr: Sequence[int] = prepared
    if mode == "matched":
        lr = [-(-side // factor) for side, factor in zip(prepared, task.scale, strict=True)]
    hr = [side * factor for side, factor in zip(lr, task.scale, strict=True)]
    hr_voxels, channels = math.prod(hr), max(header.channels, task.channels)
    on_hr = model.reads_hr or model.guide is not None
    shown = math.prod(lr) + (hr_voxels if on_hr or mode == "matched" else 0)
    image_bytes = 4 * channels * (math.prod(header.shape) + shown)
    result_bytes = 2 * hr_voxels * (4 * task.foreground if probs else 1)
    cut = guidance_size(model.guide, hr, model.window_lr, task.scale)
    return fit_tiles(
        network,
        hr if model.reads_hr else lr,
        channels=task.channels,
        result_bytes=result_bytes + (0 if max_memory_bytes else image_bytes),
        extra=[] if cut is None else [(1, task.channels, *cut)],
        max_memory_bytes=max_memory_bytes,
    )
