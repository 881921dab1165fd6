"""Segmentation and super-resolution judged together, and where the truth was shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def fuse(
    image: Float[Tensor, " b c *s"], mask: Float[Tensor, " b f *s"]
) -> Float[Tensor, " b k *s"]:
    """The image where the mask is, one map for each pair of a class and a channel.

    Paper: pfseg Eq. (11), pfseg Eq. (12), pfseg Eq. (18)

    Args:
        image: Intensities, restored or true.
        mask: Foreground probabilities, or the target, in [0, 1].

    Returns:
        ``(B, F C, *S)`` in float32; the channels of the first class come first.

    Example:
        >>> fuse(torch.tensor([[[2.0, 3.0]]]), torch.tensor([[[1.0, 0.5]]]))
        tensor([[[2.0000, 1.5000]]])
    """
    return (mask.float().unsqueeze(2) * image.float().unsqueeze(1)).flatten(1, 2)


def window_mse(
    image: Float[Tensor, " b c *s"],
    truth: Float[Tensor, " b c *s"],
    start: Int[Tensor, " b n"],
    size: Sequence[int],
) -> Float[Tensor, ""]:
    """Squared error within a window of each sample, as a mean over *all* voxels.

    The sum is divided by the voxels of the image, not of the window: as the paper
    has it, the term is as small as the window.

    Paper: pfseg Eq. (10)

    Args:
        image: Restored intensities.
        truth: True intensities.
        start: First voxel of the window of each sample.
        size: Sides of the windows.

    Example:
        >>> image = torch.tensor([[[3.0, 3.0, 1.0, 1.0]]])
        >>> window_mse(image, torch.zeros(1, 1, 4), torch.tensor([[1]]), (2,))  # (9 + 1) / 4
        tensor(2.5000)
    """
    total = image.new_zeros((), dtype=torch.float32)
    for restored, true, first in zip(image, truth, start.tolist(), strict=True):
        sides = zip(first, size, strict=True)
        window = (slice(None), *(slice(b, b + s) for b, s in sides))
        total = total + (restored[window].float() - true[window].float()).square().sum()
    return total / image.numel()
