"""Public weights mean here what they mean in the public code.

``encoders.json`` was made outside this package, with timm 1.0.31 and
torchvision 0.28: the names and shapes of their state dicts, as a digest, and
what their networks compute from the picture and the made-up weights below.
The names of torchvision and timm were found equal, and the features of all
seven encoders equal to the ones here in every bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from finemask.nn.encoders import ENCODERS, EncoderName, make_encoder
from finemask.nn.encoders.released import fill, public_names

PATH = Path(__file__).parent / "encoders.json"
GOLDEN = json.loads(PATH.read_text()) if PATH.exists() else {}
COMPUTED: tuple[EncoderName, ...] = ("resnet18", "resnet50", "res2net50", "vgg16")
"""One of each kind of block; the deeper ones repeat them."""


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    lines = sorted(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def made_up_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Numbers that depend on a weight's public name only."""
    weights = {}
    for name, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) == 4:
            values = draw.standard_normal(shape, np.float32) * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith(("weight", "running_var")):
            values = draw.uniform(0.5, 1.5, shape)
        else:
            values = 0.1 * draw.standard_normal(shape)
        weights[name] = torch.from_numpy(np.asarray(values, np.float32))
    return weights


def picture() -> Tensor:
    draw = np.random.default_rng(0)
    return torch.from_numpy(draw.standard_normal((1, 3, 32, 64), np.float32))


def summary(features: Tensor) -> list[float]:
    """Mean, root mean square, and a sum in which every place counts differently."""
    values = features.double().flatten()
    waves = torch.cos(0.37 * torch.arange(len(values), dtype=torch.float64))
    return [
        float(v) for v in (values.mean(), values.square().mean().sqrt(), (values * waves).sum())
    ]


def shapes_here(name: EncoderName) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        encoder = make_encoder(name, 3)
    names = public_names(encoder)
    return {names[key]: tuple(value.shape) for key, value in encoder.state_dict().items()}


@pytest.mark.parametrize("name", ENCODERS)
def test_names_and_shapes_are_those_of_public_files(name: EncoderName) -> None:
    shapes = shapes_here(name)
    assert len(shapes) == GOLDEN[name]["keys"]
    assert digest(shapes) == GOLDEN[name]["sha256"]


@pytest.mark.parametrize("name", COMPUTED)
def test_features_are_those_of_the_public_networks(name: EncoderName) -> None:
    encoder = make_encoder(name, 3).eval()
    fill(encoder, made_up_weights(shapes_here(name)), Path("made-up"))
    with torch.no_grad():
        found = [summary(features) for features in encoder(picture())]
    expected = GOLDEN[name]["features"]
    for here, there in zip(found, expected, strict=True):
        assert here == pytest.approx(there, rel=1e-4, abs=1e-3 * there[1])
