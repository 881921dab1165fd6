"""LossNet: its equations against NumPy, its weights, and what learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from finemask.errors import DataError
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names
from finemask.nn.lossnet import MEAN, SD, LossNet, feature_distance


def maps(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(*shape, generator=generator)
    return probs, (torch.rand(*shape, generator=generator) > 0.6).float()


def seen_by_vgg(lossnet: LossNet, mask: Tensor) -> list[np.ndarray]:
    """The released pipeline: three equal channels, ImageNet's statistics, slices of VGG-16."""
    x = mask.repeat(1, 3, 1, 1)
    x = F.interpolate(x, (lossnet.size, lossnet.size), mode="bilinear", align_corners=False)
    x = (x - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(SD).reshape(3, 1, 1)
    weights = dict(lossnet.vgg.named_buffers())
    out = []
    for stage, count in enumerate((2, 2, 3, 3)):
        if stage:
            x = F.max_pool2d(x, 2)
        for k in range(count):
            name = f"stages.{stage}.{k}.conv"
            x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).relu()
        out.append(x.double().numpy())
    return out


def test_equations_against_numpy() -> None:
    lossnet = LossNet(size=32, width=2)
    probs, target = maps(2, 1, 20, 24)
    found, true = seen_by_vgg(lossnet, probs), seen_by_vgg(lossnet, target)
    distances = [((a - b) ** 2).mean() for a, b in zip(found, true, strict=True)]
    assert [x.shape[1] for x in found] == [2, 4, 8, 16]
    assert float(lossnet(probs, target)) == pytest.approx(sum(distances), rel=1e-4)
    a, b = (torch.from_numpy(x[0]) for x in (found, true))
    assert float(feature_distance(a, b)) == pytest.approx(distances[0])


def test_only_the_prediction_learns() -> None:
    lossnet = LossNet(size=16, width=2)
    probs, target = (x.requires_grad_() for x in maps(1, 1, 16, 16))
    lossnet(probs, target).backward()
    assert float(probs.grad.abs().sum()) > 0
    assert target.grad is None
    assert not list(lossnet.parameters())


def test_the_target_itself_is_perfect() -> None:
    _, target = maps(1, 2, 16, 16)
    assert float(LossNet(size=0, width=2)(target, target)) == 0


def test_classes_are_pictures_of_their_own() -> None:
    lossnet = LossNet(size=0, width=2)
    probs, target = maps(1, 2, 16, 16)
    apart = [float(lossnet(probs[:, k : k + 1], target[:, k : k + 1])) for k in range(2)]
    assert float(lossnet(probs, target)) == pytest.approx(np.mean(apart), rel=1e-5)


def test_nothing_of_it_is_saved() -> None:
    assert not LossNet(width=2).state_dict()


def test_its_random_weights_are_the_same_everywhere() -> None:
    """Neither the caller's seed nor the machine has a say; He's bound of the first layer."""
    torch.manual_seed(1)
    first = LossNet(width=2).vgg.stages[0][0].conv.weight
    torch.manual_seed(2)
    again = LossNet(width=2).vgg.stages[0][0].conv.weight
    assert torch.equal(first, again)
    bound = np.sqrt(6 / 27)
    expected = bound * (2 * np.random.default_rng(0).random((2, 3, 3, 3)) - 1)
    np.testing.assert_allclose(first.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_random_features_grow_neither_nor_fade() -> None:
    _, target = maps(1, 1, 64, 64)
    power = [float(x.square().mean()) for x in LossNet(size=0, width=16).features(target)]
    assert max(power) < 10 * min(power)


def test_public_weights_come_from_a_file(tmp_path: Path) -> None:
    encoder = make_encoder("vgg16", 3, width=2, levels=4)
    own = encoder.state_dict()
    file = tmp_path / "vgg16.safetensors"
    save_file({theirs: own[ours] for ours, theirs in public_names(encoder).items()}, file)
    lossnet = LossNet(file, width=2)
    for name, value in lossnet.vgg.named_buffers():
        assert torch.equal(value, own[name])
    with pytest.raises(DataError, match=r"missing\.pth"):
        LossNet(tmp_path / "missing.pth")


def test_half_precision_is_left() -> None:
    lossnet = LossNet(size=0, width=2)
    probs, target = maps(1, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        half = lossnet(probs, target)
    assert half.dtype == torch.float32
    assert float(half) == float(lossnet(probs, target))
