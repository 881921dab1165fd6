"""Losses of a network that makes several maps of one mask, all of them supervised."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from finemask.losses.overlap import cross_entropy
from finemask.losses.structure import edge_weight, weighted_cross_entropy, weighted_iou_loss
from finemask.nn.outputs import foreground_probs


def side_map_losses(
    maps: Sequence[Tensor], target: Float[Tensor, " b f *s"], *, weighted_bce: bool = True
) -> list[Tensor]:
    """``L_wIoU + L_wBCE`` of every map; the target's weights, alike for all, are found once.

    Args:
        maps: Logits on the grid of the target.
        target: Foreground maps in [0, 1].
        weighted_bce: See ``structure_losses``.

    Returns:
        A mean over the batch for each map.

    Example:
        A lesion of one voxel, which weighs 5.995: a map that is sure of it, and one that is
        undecided, with ln 2 + 1 - (5.995 / 2 + 1) / (5.995 + 1).

        >>> import torch
        >>> maps = [torch.full((1, 1, 1, 1), value) for value in (200.0, 0.0)]
        >>> side_map_losses(maps, torch.ones(1, 1, 1, 1))
        [tensor(0.), tensor(1.1217)]
    """
    weight, losses = edge_weight(target), []
    for logits in maps:
        iou = weighted_iou_loss(foreground_probs(logits.float()), target, weight)
        bce = (
            weighted_cross_entropy(logits, target, weight)
            if weighted_bce
            else cross_entropy(logits, target)
        )
        losses.append(iou + bce)
    return losses
