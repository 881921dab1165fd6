"""Cross-entropy and overlap that heed outlines most: the loss of F3Net and PraNet.

A voxel weighs the more, the less its surroundings are like it: up to six times
as much at a straight outline or in a thin structure. Targets may be soft, and
the minimum of both parts lies at the target. Everything is computed in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from finemask.losses.overlap import cross_entropy
from finemask.nn.blocks import box_sum
from finemask.nn.outputs import foreground_probs, with_background

WINDOW = 31
"""Side of the surroundings in HR voxels; the papers' images have 352 a side."""


def edge_weight(
    target: Float[Tensor, " b f *s"], window: int = WINDOW, gain: float = 5.0
) -> Float[Tensor, " b f *s"]:
    """How much each voxel counts: ``1 + gain |mean of its surroundings - y|``.

    Beyond the image everything is 0, as in the released code of the papers: a lesion that is
    cut by the image's edge weighs more there.

    Args:
        target: In [0, 1].
        window: Odd side of the surroundings.
        gain: Largest weight over 1.

    Returns:
        From 1 to ``1 + gain``.

    Example:
        >>> edge_weight(torch.tensor([[[0.0, 0.0, 0.0, 1.0]]]), window=3, gain=3.0)
        tensor([[[1., 1., 2., 3.]]])
    """
    y = target.float()
    mean = box_sum(y, window) / window ** (y.ndim - 2)
    return 1 + gain * (mean - y).abs()


def weighted_cross_entropy(
    logits: Float[Tensor, " b l *s"],
    target: Float[Tensor, " b f *s"],
    weight: Float[Tensor, " b f *s"],
) -> Float[Tensor, ""]:
    """Cross-entropy averaged by weight over each sample, then over the batch.

    Args:
        logits: One map (sigmoid), or one map a class with the background first (softmax).
        target: Foreground maps in [0, 1].
        weight: At least 0; the softmax of several classes has one loss a voxel, and takes the
            largest weight of its classes.

    Example:
        >>> y = torch.tensor([[[0.0, 1.0]]])
        >>> weighted_cross_entropy(torch.zeros(1, 1, 2), y, torch.tensor([[[1.0, 3.0]]]))
        tensor(0.6931)
    """
    z, y = logits.float(), target.float()
    if z.shape[1] == 1:
        entropy = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    else:
        entropy = -(with_background(y) * torch.log_softmax(z, 1)).sum(1, keepdim=True)
    w = weight.float().amax(1, keepdim=True)
    return ((w * entropy).flatten(1).sum(1) / w.flatten(1).sum(1)).mean()


def weighted_iou_loss(
    probs: Float[Tensor, " b f *s"],
    target: Float[Tensor, " b f *s"],
    weight: Float[Tensor, " b f *s"],
    eps: float = 1.0,
) -> Float[Tensor, ""]:
    """One minus the weighted intersection over union, of each sample and class, averaged.

    ``1 - (sum(w min(p, y)) + eps) / (sum(w max(p, y)) + eps)``. For targets of 0 and 1,
    ``min(p, y) = p y`` and ``max(p, y) = p + y - p y``: the papers' formula to the digit,
    whatever p. For soft targets theirs is least where p is 0 or 1; this one at ``p = y``.

    Args:
        probs: Foreground probabilities in [0, 1].
        target: In [0, 1].
        weight: At least 0.
        eps: In voxels.

    Returns:
        In [0, 1].

    Example:
        >>> p, y = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1.0, 0.0]]])
        >>> weighted_iou_loss(p, y, torch.tensor([[[3.0, 2.0]]]), eps=0.0)
        tensor(0.6250)
    """
    p, y, w = (x.float().flatten(2) for x in (probs, target, weight))
    intersection, union = (w * torch.minimum(p, y)).sum(2), (w * torch.maximum(p, y)).sum(2)
    return (1 - (intersection + eps) / (union + eps)).mean()


def structure_losses(
    logits: Float[Tensor, " b l *s"],
    target: Float[Tensor, " b f *s"],
    *,
    weighted_bce: bool = True,
    window: int = WINDOW,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Weighted IoU loss and weighted cross-entropy of one map of logits.

    Args:
        logits: One map (sigmoid), or one map a class with the background first (softmax).
        target: Foreground maps in [0, 1].
        weighted_bce: Weigh the cross-entropy too. The released trainers of PraNet and MSNet
            average it before they weigh it, so that the weights cancel; their printed scores
            come from that, and ``False`` repeats it.
        window: See ``edge_weight``.

    Returns:
        ``(L_wIoU, L_wBCE)``, each a mean over the batch.
    """
    weight = edge_weight(target, window)
    iou = weighted_iou_loss(foreground_probs(logits.float()), target, weight)
    if not weighted_bce:
        return iou, cross_entropy(logits, target)
    return iou, weighted_cross_entropy(logits, target, weight)
