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

    Paper: dsrl Eq. (2), pfseg Eq. (1), pfseg Eq. (14), ds2f Eq. (16)

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


def lesion_weighted_mse(
    image: Float[Tensor, " b c *s"],
    truth: Float[Tensor, " b c *s"],
    target: Float[Tensor, " b f *s"],
    w_lesion: float = 0.8,
    w_background: float = 0.2,
) -> Float[Tensor, ""]:
    """Mean squared error with weights for the lesion and for what is around it.

    ``1/N (w_lesion sum_lesion |q - x|^2 + w_background sum_background |q - x|^2)``:
    the plain mean is ruled by the background, and a lesion restored well or badly
    hardly changes it. A voxel of a soft mask belongs to both by its share.

    Paper: sasrnet Eq. (2)

    Args:
        image: Restored intensities q.
        truth: True intensities x.
        target: Foreground maps in [0, 1]; together they are the lesion region.
        w_lesion: Weight lambda_1.
        w_background: Weight lambda_2.

    Example:
        >>> import torch
        >>> image, target = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[1.0, 0.0]]])
        >>> lesion_weighted_mse(image, torch.zeros(1, 1, 2), target)  # (0.8 * 1 + 0.2 * 9) / 2
        tensor(1.3000)
    """
    lesion = target.float().sum(1, keepdim=True)
    return mse(image, truth, w_background + (w_lesion - w_background) * lesion)


def mae(image: Float[Tensor, " b c *s"], truth: Float[Tensor, " b c *s"]) -> Float[Tensor, ""]:
    """Mean absolute error over every voxel and channel.

    Paper: dsnet Eq. (16)

    Example:
        >>> import torch
        >>> mae(torch.tensor([[[1.0, -3.0]]]), torch.zeros(1, 1, 2))
        tensor(2.)
    """
    return (image.float() - truth.float()).abs().mean()
