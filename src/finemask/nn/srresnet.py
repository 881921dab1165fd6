"""SRResNet: from an LR image to the HR image, the generator of SRGAN.

C. Ledig et al., "Photo-realistic single image super-resolution using a generative
adversarial network", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import BATCH_NORM, make_conv, resize
from finemask.nn.superres import pixel_shuffle


class ResidualBlock(nn.Module):
    """Convolution, batch norm, PReLU, convolution, batch norm, beside a shortcut.

    Args:
        width: Feature maps.
        dims: 2 or 3.
    """

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            make_conv(dims, width, width, bias=False),
            BATCH_NORM[dims](width),
            nn.PReLU(),
            make_conv(dims, width, width, bias=False),
            BATCH_NORM[dims](width),
        )

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *s"]:
        return x + self.body(x)


class ShuffleUp(nn.Module):
    """A finer grid: convolution to the channels of all its voxels, their shuffle, PReLU.

    Args:
        width: Feature maps.
        step: Finer voxels for each voxel along each axis.
    """

    def __init__(self, width: int, step: Sequence[int]) -> None:
        super().__init__()
        self.step = tuple(step)
        self.conv = make_conv(len(step), width, width * prod(step))
        self.activation = nn.PReLU()

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *t"]:
        return self.activation(pixel_shuffle(self.conv(x), self.step))


class SRResNet(nn.Module):
    """LR image in, HR image out.

    Args:
        channels: Image channels.
        scale: HR voxels for each LR voxel along each axis.
        width: Feature maps, the same everywhere.
        blocks: Residual blocks.
        kernel: Of the first and the last convolution.
        skip: Learn what the HR image has beyond the interpolated LR image.
    """

    def __init__(
        self,
        channels: int,
        scale: Sequence[int],
        width: int = 64,
        blocks: int = 16,
        kernel: int = 9,
        skip: bool = False,
    ) -> None:
        super().__init__()
        dims = len(scale)
        self.skip = skip
        self.first = nn.Sequential(make_conv(dims, channels, width, kernel), nn.PReLU())
        self.blocks = nn.Sequential(*(ResidualBlock(width, dims) for _ in range(blocks)))
        self.merge = nn.Sequential(
            make_conv(dims, width, width, bias=False), BATCH_NORM[dims](width)
        )
        self.ups = nn.Sequential(*(ShuffleUp(width, step) for step in shuffle_steps(scale)))
        self.output = make_conv(dims, width, channels, kernel)

    def features(self, image_lr: Float[Tensor, " b c *s"]) -> Float[Tensor, " b w *hr"]:
        """What the image is made of on the HR grid: the maps before the last convolution."""
        shallow = self.first(image_lr)
        return self.ups(shallow + self.merge(self.blocks(shallow)))

    def restore(
        self, features: Float[Tensor, " b w *hr"], image_lr: Float[Tensor, " b c *s"]
    ) -> Float[Tensor, " b c *hr"]:
        """The HR image of its features."""
        image = self.output(features)
        return image + resize(image_lr, image.shape[2:]) if self.skip else image

    def forward(self, image_lr: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *hr"]:
        return self.restore(self.features(image_lr), image_lr)


def shuffle_steps(scale: Sequence[int]) -> list[tuple[int, ...]]:
    """The scale as a product of prime steps, smallest first; an axis that is done takes ones.

    Example:
        >>> shuffle_steps((4, 6)), shuffle_steps((1, 1))
        ([(2, 2), (2, 3)], [])
    """
    factors = [_primes(factor) for factor in scale]
    count = max(map(len, factors))
    padded = [primes + [1] * (count - len(primes)) for primes in factors]
    return list(zip(*padded, strict=True))


def _primes(number: int) -> list[int]:
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found
