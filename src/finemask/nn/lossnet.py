"""LossNet: a frozen classification network that sees a mask as a picture, and compares two."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import resize
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import load_released

LEVELS = 4
"""relu1_2, relu2_2, relu3_3 and relu4_3 of VGG-16."""
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, channel by channel."""


class LossNet(nn.Module):
    """How differently VGG-16 sees a predicted and a true mask, from outlines to place.

    Its weights are buffers that no optimiser steps and no checkpoint holds. Without a public
    file they are random, the same on every machine: convolutions and rectifiers of He's
    variance keep the distances between masks by and large.

    Args:
        weights: File with VGG-16's ImageNet weights.
        size: Side that masks are interpolated to; 0 leaves them as they are.
        width: Feature maps of the first level; 64 in the public weights.
        levels: How many are looked at, from relu1_2 up to relu5_3.
    """

    mean: Tensor
    sd: Tensor

    def __init__(
        self, weights: Path | None = None, size: int = 224, width: int = 64, levels: int = LEVELS
    ) -> None:
        super().__init__()
        self.size = size
        self.vgg = make_encoder("vgg16", 3, width=width, levels=levels)
        if weights is None:
            randomise(self.vgg)
        else:
            load_released(self.vgg, weights)
        freeze(self.vgg)
        for name, values in (("mean", MEAN), ("sd", SD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(
        self, probs: Float[Tensor, " b f h w"], target: Float[Tensor, " b f h w"]
    ) -> Float[Tensor, ""]:
        """``L_f = l_f^1 + l_f^2 + l_f^3 + l_f^4``, each class a picture of its own.

        Paper: m2snet Eq. (5)

        Args:
            probs: Foreground probabilities in [0, 1].
            target: In [0, 1]; no gradient flows into it.
        """
        with torch.autocast(probs.device.type, enabled=False):
            found = self.features(probs.float())
            with torch.no_grad():
                true = self.features(target.float())
            levels = [feature_distance(a, b) for a, b in zip(found, true, strict=True)]
            return torch.stack(levels).sum()

    def features(self, maps: Float[Tensor, " b f h w"]) -> list[Tensor]:
        """What VGG-16 sees in each map at each level, finest first."""
        pictures = maps.flatten(0, 1)[:, None]
        if self.size:
            pictures = resize(pictures, (self.size, self.size))
        return self.vgg((pictures - self.mean) / self.sd)


def feature_distance(
    found: Float[Tensor, " b c h w"], true: Float[Tensor, " b c h w"]
) -> Float[Tensor, ""]:
    """``l_f^i``, the squared Euclidean distance of one level's features, a mean over all.

    Paper: m2snet Eq. (6)

    Example:
        >>> feature_distance(torch.tensor([[[[1.0, 3.0]]]]), torch.zeros(1, 1, 1, 2))
        tensor(5.)
    """
    return (found - true).square().mean()


@torch.no_grad()
def randomise(network: nn.Module, seed: int = 0) -> None:
    """He's uniform weights and no offsets, to the bit the same on every machine."""
    rng = np.random.default_rng(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            bound = math.sqrt(6 / module.weight[0].numel())
            weights = rng.uniform(-bound, bound, module.weight.shape)
            module.weight.copy_(torch.from_numpy(weights))
            if module.bias is not None:
                module.bias.zero_()


def freeze(network: nn.Module) -> None:
    """Turn parameters into buffers that are not saved."""
    for module in network.modules():
        for name, weights in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, weights.detach(), persistent=False)
