"""From logits to class probabilities, for one sigmoid map or a softmax."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def foreground_probs(logits: Float[Tensor, " b l *s"]) -> Float[Tensor, " b f *s"]:
    """Probability of each foreground class.

    Args:
        logits: One map (binary, sigmoid) or one map a class with the background first (softmax).

    Returns:
        Values in [0, 1] on the grid of ``logits``; one map a foreground class.

    Example:
        >>> foreground_probs(torch.zeros(1, 3, 1, 1)).shape
        torch.Size([1, 2, 1, 1])
    """
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, 1)[:, 1:]


def with_background(target: Float[Tensor, " b f *s"]) -> Float[Tensor, " b k *s"]:
    """Put the background, one minus the foreground classes, in front of a target.

    Example:
        >>> with_background(torch.full((1, 2, 1, 1), 0.25)).flatten()
        tensor([0.5000, 0.2500, 0.2500])
    """
    return torch.cat([1 - target.sum(1, keepdim=True), target], 1)


def log_odds(logits: Float[Tensor, " b l *s"]) -> Float[Tensor, " b f *s"]:
    """Logarithm of the odds of each foreground class: what a sigmoid makes its probability of.

    Args:
        logits: As `foreground_probs`.

    Returns:
        ``z`` itself for one map; for several the logit of a class less the logarithm of the
        summed exponentials of all others.

    Example:
        >>> log_odds(torch.zeros(1, 3, 1, 1)).flatten()  # one against two: -log 2
        tensor([-0.6931, -0.6931])
    """
    if logits.shape[1] == 1:
        return logits
    others = [
        torch.cat([logits[:, :k], logits[:, k + 1 :]], 1).logsumexp(1)
        for k in range(1, logits.shape[1])
    ]
    return logits[:, 1:] - torch.stack(others, 1)
