"""Public ImageNet weights: whose names for what, and how they are brought in.

The files of torchvision, of timm and of the Res2Net authors agree on the names
within one architecture, so each has one map here. Their classifiers are left
out; every other weight must be met on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from finemask.errors import DataError
from finemask.nn.encoders.base import Encoder
from finemask.nn.encoders.resnet import ResNet
from finemask.nn.encoders.vgg import COUNTS
from finemask.nn.weights import read_weights

CLASSIFIERS = ("fc.", "classifier.", "head.", "pre_logits.")
COUNTER = "num_batches_tracked"
"""Counts training steps; older files lack it, and nothing here reads it."""

STEMS = ("conv1.weight", "conv1.0.weight", "features.0.weight")
"""The first convolutions, which see the image."""

LAYERS = {"first": 1, "second": 2, "reduce": 1, "spatial": 2, "expand": 3}
"""Numbers of the layers of a residual block."""


def load_released(encoder: Encoder, path: Path) -> None:
    """Fill an encoder from a public file.

    Where the image has not three channels, the first convolution is adapted,
    see ``fit_channels``. An encoder of fewer levels takes what it needs.

    Args:
        encoder: From ``make_encoder``, at its default width.
        path: ``.safetensors`` or ``.pth``, see ``read_weights``.

    Raises:
        DataError: When the file cannot be read, or names and shapes do not fit.
    """
    fill(encoder, read_weights(path), path)


def fill(encoder: Encoder, given: Mapping[str, Tensor], subject: Path) -> None:
    """``load_released`` from named tensors; ``subject`` is what an error is about."""
    own = encoder.state_dict()
    wanted = {name: key for key, name in public_names(encoder).items()}
    left_out = (*CLASSIFIERS, *_unbuilt(encoder))
    missing = [name for name in wanted if name not in given and COUNTER not in name]
    unexpected = [
        name
        for name in given
        if name not in wanted and COUNTER not in name and not name.startswith(left_out)
    ]
    wrong = [f"{name} missing" for name in missing] + [f"{name} unexpected" for name in unexpected]
    found: dict[str, Tensor] = {}
    for name in wanted.keys() & given.keys():
        value, shape = given[name], own[wanted[name]].shape
        if name in STEMS and value.shape[1:2] == (3,):
            value = fit_channels(value, shape[1])
        if value.shape != shape:
            wrong.append(f"{name} is {tuple(value.shape)}, needs {tuple(shape)}")
        elif not value.isfinite().all():
            wrong.append(f"{name} is not finite")
        found[wanted[name]] = value
    if wrong:
        raise DataError(
            subject,
            f"does not fit the encoder ({'; '.join(wrong[:3])}; {len(wrong)} in all)",
            "give a public file of the same architecture; docs/guide.md names them",
        )
    encoder.load_state_dict(own | found)


def fit_channels(weight: Float[Tensor, " o 3 k l"], channels: int) -> Float[Tensor, " o c k l"]:
    """RGB filters for an image of other channels.

    Their sum over RGB answers to a grey image as the public network does to the
    same image in all three channels. It is that sum for one channel, and its
    equal share for each of several, none of which is red, green or blue.

    Example:
        >>> fit_channels(Tensor([1, 2, 3]).reshape(1, 3, 1, 1), 2).flatten()
        tensor([3., 3.])
    """
    if channels == 3:
        return weight
    return (weight.sum(1, keepdim=True) / channels).repeat(1, channels, 1, 1)


def public_names(encoder: Encoder) -> dict[str, str]:
    """Names of an encoder's weights in public files, by their names here.

    Example:
        >>> from finemask.nn.encoders import make_encoder
        >>> public_names(make_encoder("res2net50", 3, width=4))["stages.1.0.parts.2.norm.bias"]
        'layer2.0.bns.2.bias'
    """
    layers = _resnet_layers(encoder) if isinstance(encoder, ResNet) else _vgg_layers(encoder)
    names = {}
    for key in encoder.state_dict():
        layer, _, leaf = key.rpartition(".")
        names[key] = f"{layers[layer]}.{leaf}"
    return names


def _resnet_layers(encoder: ResNet) -> dict[str, str]:
    names = _layer("stem", "conv1", "bn1")
    for k in range(3):
        names |= _layer(f"stem.{k}", f"conv1.{3 * k}", f"conv1.{3 * k + 1}" if k < 2 else "bn1")
    for i, stage in enumerate(encoder.stages):
        for j, _ in enumerate(stage.children()):
            here, there = f"stages.{i}.{j}", f"layer{i + 1}.{j}"
            for layer, n in LAYERS.items():
                names |= _layer(f"{here}.{layer}", f"{there}.conv{n}", f"{there}.bn{n}")
            for n in range(3):
                names |= _layer(f"{here}.parts.{n}", f"{there}.convs.{n}", f"{there}.bns.{n}")
            shortcut = f"{there}.downsample"
            names |= _layer(f"{here}.shortcut", f"{shortcut}.0", f"{shortcut}.1")
            names |= _layer(f"{here}.shortcut.1", f"{shortcut}.1", f"{shortcut}.2")
    return names


def _layer(here: str, conv: str, norm: str) -> dict[str, str]:
    return {f"{here}.conv": conv, f"{here}.norm": norm}


def _vgg_layers(encoder: Encoder) -> dict[str, str]:
    """Public files number convolutions, activations and poolings in one row."""
    starts = _vgg_starts()
    return {
        f"stages.{i}.{j}.conv": f"features.{starts[i] + 2 * j}"
        for i in range(len(encoder.widths))
        for j in range(COUNTS[i])
    }


def _vgg_starts() -> list[int]:
    return [sum(2 * count + 1 for count in COUNTS[:i]) for i in range(len(COUNTS) + 1)]


def _unbuilt(encoder: Encoder) -> tuple[str, ...]:
    """How the public names of levels begin that this encoder does not have."""
    built = len(encoder.widths)
    if isinstance(encoder, ResNet):
        return tuple(f"layer{n}." for n in range(built, 5))
    starts = _vgg_starts()
    return tuple(f"features.{n}." for n in range(starts[built], starts[-1]))
