"""Batches of changing size: what a network learns from several sizes of the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from finemask.nn.blocks import resize
from finemask.pairs.batches import Batch, guided
from finemask.pairs.guidance import Guide

SIZE = 2
"""Key of this random stream, beside ``ORDER`` and ``SAMPLE`` of the batches."""


def resized_batches(
    batches: Iterable[Batch],
    factors: Sequence[float],
    scale: Sequence[int],
    *,
    seed: int,
    first: int = 0,
    stride: int = 1,
    guide: Guide | None = None,
) -> Iterator[Batch]:
    """Resize each batch by a factor drawn for its number, the same in every process.

    Args:
        batches: In order, without end.
        factors: To draw from; with none the batches pass as they are.
        scale: HR voxels for each LR voxel along each axis.
        seed: Of the run; with the number of a batch it decides the factor.
        first: Number of the first batch, more than 0 where a run goes on.
        stride: LR sides become multiples of this.
        guide: The method's own; guidance is cut anew from the resized HR image.
    """
    for number, batch in enumerate(batches, start=first):
        if factors:
            factor = np.random.default_rng([seed, SIZE, number]).choice(factors)
            batch = resized(batch, float(factor), scale, stride, guide)
        yield batch


def resized(
    batch: Batch,
    factor: float,
    scale: Sequence[int],
    stride: int = 1,
    guide: Guide | None = None,
) -> Batch:
    """A batch on grids of the same extent with other sides, HR still ``scale`` times LR.

    The new LR sides are the old ones times the factor, rounded to a multiple of the stride, at
    least one; the HR sides follow. Everything is interpolated linearly, and targets stay soft.

    Args:
        batch: On LR and HR grids of one extent.
        factor: Of the sides.
        scale: HR voxels for each LR voxel along each axis.
        stride: LR sides become multiples of this.
        guide: As in ``resized_batches``.

    Example:
        >>> import torch
        >>> lr, hr = torch.zeros(1, 1, 32, 48), torch.zeros(1, 1, 64, 48)
        >>> half = resized(Batch(lr, hr, hr), 0.5, scale=(2, 1), stride=16)
        >>> half.image_lr.shape[2:], half.target.shape[2:]
        (torch.Size([16, 32]), torch.Size([32, 32]))
    """
    lr = [max(1, round(n * factor / stride)) * stride for n in batch.image_lr.shape[2:]]
    hr = [n * f for n, f in zip(lr, scale, strict=True)]
    target, mask = batch.target, batch.mask
    changed = Batch(
        image_lr=resize(batch.image_lr, lr),
        image_hr=resize(batch.image_hr, hr),
        target=resize(target, hr) if target.numel() else target.new_empty((*target.shape[:2], *hr)),
        mask=None if mask is None else (resize(mask, hr) >= 0.5).float(),
        names=batch.names,
    )
    if guide is None:
        return changed
    return guided(changed, [guide(image.numpy()) for image in changed.image_hr])
