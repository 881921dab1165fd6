"""How far a mask is from its target, whether the target is 0/1 or soft.

A loss fits a soft target y where no probability p is better than ``p = y``. The usual Dice,
``1 - 2 sum(p y) / (sum(p) + sum(y))``, does not: each p meets it as a quotient of
linear terms, so that the best p is 0 or 1, and 1 wherever y exceeds half of the Dice reached. A
voxel of 0.6 is driven to 1 for a perfect score of the others. The usual IoU does the same. All
losses of this library but one fit, each for a reason that can be read off it:

=========================  ============================================================
``dice_loss``              equals ``sum (p - y)^2 / (sum(p^2) + sum(y^2) + eps)``
``iou_loss``               equals ``sum (p - y)^2 / (sum(p^2) + sum(y^2) - sum(p y) + eps)``
``generalised_dice_loss``  equals ``sum w (p - y)^2 / sum w (p^2 + y^2)``
``cross_entropy``          is the entropy of y, which no p can change, and what p adds to it
``weighted_iou_loss``      equals ``sum w |p - y| / (sum w max(p, y) + eps)``
``mse``, ``mae``           are distances, weighted or not
``ssim_loss``              is 0 for equal images and more for others
=========================  ============================================================

The region mutual information (``losses.region``) does not: it knows how maps vary together,
not how far they are apart, and needs the cross-entropy beside it.

They are 0 at ``p = y``, but for the cross-entropy, whose value there is the entropy. With
targets of 0 and 1 the forms with and without squares differ in between only.

Everything is computed in float32, whatever the network's precision: sums over
a volume overflow or lose their digits in half precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from finemask.nn.outputs import with_background


def dice_loss(
    probs: Float[Tensor, " b f *s"], target: Float[Tensor, " b f *s"], eps: float = 1.0
) -> Float[Tensor, ""]:
    """One minus the Dice overlap with squared denominators.

    ``1 - (2 sum(p y) + eps) / (sum(p^2) + sum(y^2) + eps)``, for each sample and
    class, then averaged. Zero at ``p = y`` and only there, for soft targets too:
    the form without squares pulls a target of 0.5 to 0 or 1.

    Paper: sasrnet Eq. (1), dsnet Eq. (15), pfseg Eq. (4)

    Args:
        probs: Foreground probabilities in [0, 1].
        target: In [0, 1].
        eps: In voxels; decides how fast a false alarm in an empty sample is punished.

    Returns:
        In [0, 1].

    Example:
        >>> dice_loss(torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[0.5, 1.0]]]))
        tensor(0.)
        >>> dice_loss(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]]), eps=0.0)
        tensor(0.3333)
    """
    overlap, squares = _overlap(probs, target)
    return (1 - (2 * overlap + eps) / (squares + eps)).mean()


def iou_loss(
    probs: Float[Tensor, " b f *s"], target: Float[Tensor, " b f *s"], eps: float = 1.0
) -> Float[Tensor, ""]:
    """One minus the intersection over the union, with squares as in ``dice_loss``.

    ``1 - (sum(p y) + eps) / (sum(p^2) + sum(y^2) - sum(p y) + eps)``; zero at
    ``p = y`` and only there, for soft targets too.

    Args:
        probs: Foreground probabilities in [0, 1].
        target: In [0, 1].
        eps: In voxels.

    Returns:
        In [0, 1].

    Example:
        >>> iou_loss(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]]), eps=0.0)
        tensor(0.5000)
    """
    overlap, squares = _overlap(probs, target)
    return (1 - (overlap + eps) / (squares - overlap + eps)).mean()


def generalised_dice_loss(
    probs: Float[Tensor, " b f *s"], target: Float[Tensor, " b f *s"]
) -> Float[Tensor, ""]:
    """One minus the Dice overlap of all classes together, the background too, rare ones up.

    ``1 - 2 sum_k w_k sum(p y) / sum_k w_k sum(p^2 + y^2)`` for each sample, then averaged, with
    ``w_k = 1 / (sum(y) + 1)^2``: a class weighs by the inverse of its squared volume.

    C. H. Sudre et al., "Generalised Dice overlap as a deep learning loss function for
    highly unbalanced segmentations", DLMIA 2017; with squares, as in ``dice_loss``.

    Args:
        probs: Foreground probabilities in [0, 1].
        target: In [0, 1].

    Returns:
        In [0, 1].

    Example:
        The background's three voxels weigh 1/16 each, the lesion's one 1/4.

        >>> target = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
        >>> generalised_dice_loss(torch.zeros(1, 1, 4), target)  # 1 - (6 / 16) / (7 / 16 + 1 / 4)
        tensor(0.4545)
    """
    p, y = (with_background(x.float()).flatten(2) for x in (probs, target))
    weight = (y.sum(2) + 1) ** -2
    overlap, squares = (p * y).sum(2), (p * p).sum(2) + (y * y).sum(2)
    return (1 - 2 * (weight * overlap).sum(1) / (weight * squares).sum(1)).mean()


def cross_entropy(
    logits: Float[Tensor, " b l *s"], target: Float[Tensor, " b f *s"]
) -> Float[Tensor, ""]:
    """Cross-entropy of every voxel, averaged; the target may be soft.

    Paper: dsrl Eq. (1), pfseg Eq. (3), ds2f Eq. (15)

    Args:
        logits: One map (sigmoid), or one map a class with the background first (softmax).
        target: Foreground maps in [0, 1]; the background is what they leave of one.

    Returns:
        In nats a voxel.

    Example:
        >>> cross_entropy(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 1.0]]]))
        tensor(0.6931)
    """
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits.float(), target.float())
    truth = with_background(target.float())
    return -(truth * torch.log_softmax(logits.float(), 1)).sum(1).mean()


def _overlap(probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """``sum(p y)`` and ``sum(p^2) + sum(y^2)`` of each sample and class."""
    p, y = probs.float().flatten(2), target.float().flatten(2)
    return (p * y).sum(2), (p * p).sum(2) + (y * y).sum(2)
