"""What every encoder with public weights is: an image in, features at five levels out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A classification network without its classifier.

    Args:
        widths: Feature maps of each level, finest first.
        strides: Image pixels for each feature along an axis, level by level.

    Any image size works: a level has the side of the image over its stride,
    rounded up.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.widths, self.strides = tuple(widths), tuple(strides)

    @abstractmethod
    def forward(self, image: Float[Tensor, " b c h w"]) -> list[Tensor]:
        """Features of each level, finest first."""


def initialise(encoder: nn.Module) -> None:
    """He's initial weights: signals neither grow nor fade behind rectifiers.

    K. He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    for module in encoder.modules():
        # Where only sizes are counted there is nothing to draw (and PyTorch would load Dynamo).
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
