"""Encoders that have public ImageNet weights, by name; two-dimensional, written here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from finemask.nn.encoders.base import Encoder
from finemask.nn.encoders.res2net import Res2Net
from finemask.nn.encoders.resnet import BasicBlock, Bottleneck, ResNet
from finemask.nn.encoders.vgg import VGG16

EncoderName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "res2net50", "res2net101", "vgg16"
]

ENCODERS: dict[EncoderName, Callable[..., Encoder]] = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "res2net50": partial(Res2Net, (3, 4, 6, 3)),
    "res2net101": partial(Res2Net, (3, 4, 23, 3)),
    "vgg16": VGG16,
}

__all__ = ["ENCODERS", "Encoder", "EncoderName", "make_encoder"]


def make_encoder(name: EncoderName, channels: int, **options: Any) -> Encoder:
    """Build an encoder with fresh weights.

    Args:
        name: In ``ENCODERS``.
        channels: Image channels.
        options: ``width`` (feature maps of the finest level, 64 in public weights) and
            ``levels`` of any; ``finest`` of the residual ones; ``output_stride`` and
            ``multi_grid`` of ResNets.

    Example:
        >>> encoder = make_encoder("resnet18", channels=1, width=4)
        >>> encoder.widths, encoder.strides
        ((4, 4, 8, 16, 32), (2, 4, 8, 16, 32))
    """
    return ENCODERS[name](channels, **options)
