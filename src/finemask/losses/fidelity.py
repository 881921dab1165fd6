"""How far a restored image is from the true one."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def mse(
    image: Float[Tensor, " b c *s"],
    truth: Float[Tensor, " b c *s"],
    weight: Float[Tensor, " b d *s"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error over every voxel and channel.

    Paper: dsrl Eq. (2)

    Args:
        image: Restored intensities.
        truth: True intensities.
        weight: Of each voxel, with one channel or as many as the image. The sum is divided
            by the number of voxels, not by the weights.

    Example:
        >>> import torch
        >>> mse(torch.tensor([[[1.0, 3.0]]]), torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.2]]]))
        tensor(1.4000)
    """
    error = (image.float() - truth.float()).square()
    return (error if weight is None else error * weight).mean()


def mae(image: Float[Tensor, " b c *s"], truth: Float[Tensor, " b c *s"]) -> Float[Tensor, ""]:
    """Mean absolute error over every voxel and channel.

    Example:
        >>> import torch
        >>> mae(torch.tensor([[[1.0, -3.0]]]), torch.zeros(1, 1, 2))
        tensor(2.)
    """
    return (image.float() - truth.float()).abs().mean()
