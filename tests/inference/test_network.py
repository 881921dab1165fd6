"""One image through a network: whole or tiled, any size, any precision, true geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from finemask.errors import DataError, UsageError
from finemask.inference.activations import activation_bytes
from finemask.inference.model import Machine
from finemask.inference.network import run_whole, to_labels
from finemask.inference.torch_backend import resolving, segmenting
from finemask.methods.base import Method, Segmenter
from finemask.recipe import Task

MIB = 2**20


def local_network(dims: int, scale: int, outputs: int = 1) -> nn.Sequential:
    """Two 3-wide convolutions with a pool between: a receptive field of four voxels each way."""
    conv, pool = (nn.Conv2d, nn.MaxPool2d) if dims == 2 else (nn.Conv3d, nn.MaxPool3d)
    torch.manual_seed(0)
    return nn.Sequential(
        conv(1, 16, 3, padding=1),
        nn.ReLU(),
        pool(2),
        conv(16, outputs, 3, padding=1),
        nn.Upsample(scale_factor=2 * scale, mode="nearest"),
    )


def segmenter(dims: int = 2, scale: int = 2, classes: int = 2, stride: int = 4) -> Segmenter:
    task = Task(dims=dims, classes=classes, scale=(scale,) * dims)
    return Segmenter(local_network(dims, scale, 1 if classes <= 2 else classes), task, stride)


def predict_probs(
    segmenter: Segmenter,
    image: NDArray[np.float32],
    guidance: NDArray[np.float32] | None = None,
    **machine: Any,
) -> NDArray[np.float32]:
    network = segmenting(segmenter, Machine(**machine))
    return run_whole(network, image, guidance, network.machine.max_memory_bytes)


@pytest.mark.parametrize(
    ("dims", "shape", "classes", "memory"), [(2, (190, 133), 2, 4), (3, (50, 41, 37), 4, 44)]
)
def test_tiled_equals_whole(dims: int, shape: tuple[int, ...], classes: int, memory: int) -> None:
    network = segmenter(dims, classes=classes)
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    whole = predict_probs(network, image)
    devices = []
    network.network.register_forward_hook(lambda *parts: devices.append(parts[2].device.type))
    tiled = predict_probs(network, image, max_memory_bytes=memory * MIB)
    assert devices.count("cpu") > 3
    assert whole.shape == tiled.shape == (max(1, classes - 1), *(2 * side for side in shape))
    np.testing.assert_allclose(tiled, whole, atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (15, 16), (17, 1), (33, 50)])
@pytest.mark.fault("F75")
def test_every_size_comes_back_exactly_scaled(shape: tuple[int, int]) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 16, stride=16),
        nn.InstanceNorm2d(4),
        nn.Conv2d(4, 1, 1),
        nn.Upsample(scale_factor=48),
    )
    probs = predict_probs(
        Segmenter(network, Task(scale=(3, 3)), stride=16), np.ones((1, *shape), np.float32)
    )
    assert probs.shape == (1, 3 * shape[0], 3 * shape[1])
    assert np.isfinite(probs).all()


def test_a_network_in_training_is_left_as_it_was() -> None:
    network = segmenter().train()
    network.network[0].eval()
    modes = [part.training for part in network.modules()]
    seen = []
    network.network.register_forward_hook(lambda part, *_: seen.append(part.training))
    predict_probs(network, np.zeros((1, 8, 8), np.float32))
    assert seen == [False]
    assert [part.training for part in network.modules()] == modes


def test_bf16_is_close_and_float32_comes_back() -> None:
    image = np.random.default_rng(0).normal(size=(1, 24, 24)).astype(np.float32)
    exact = predict_probs(segmenter(), image)
    rough = predict_probs(segmenter(), image, precision="bf16-mixed")
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.02


@pytest.mark.parametrize("settings", [{"precision": "fp4"}, {"max_memory_bytes": 0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Machine(**settings)  # type: ignore[arg-type]  # on purpose


def test_a_network_that_went_wrong_is_named() -> None:
    network = segmenter()
    nn.init.constant_(network.network[0].weight, float("nan"))
    with pytest.raises(DataError, match="not finite"):
        predict_probs(network, np.zeros((1, 8, 8), np.float32))


class Guided(nn.Module):
    def forward(self, image: Tensor, guidance: Tensor) -> Tensor:
        return nn.functional.interpolate(image, scale_factor=2) + guidance.mean()


def test_guidance_reaches_every_tile() -> None:
    network = Segmenter(Guided(), Task())
    image = np.zeros((1, 256, 256), np.float32)
    guidance = np.full((1, 4, 4), 2, np.float32)
    probs = predict_probs(network, image, guidance=guidance, max_memory_bytes=4 * MIB)
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-2)), rtol=1e-6)


class Doubling(Method):
    """Enlarges the image; its network needs even sides."""

    def __init__(self) -> None:
        super().__init__(Task(), None)

    def losses(self, batch: object, player: str = "network") -> dict[str, Tensor]:
        return {}

    def weights(self) -> dict[str, float]:
        return {}

    def deploy(self) -> Segmenter:
        return segmenter()

    def super_resolve(self, image_lr: Tensor) -> Tensor:
        assert all(side % 4 == 0 for side in image_lr.shape[2:])
        return nn.functional.interpolate(image_lr, scale_factor=2)


def test_super_resolved_images_are_padded_tiled_and_cropped_too() -> None:
    image = np.random.default_rng(0).normal(size=(1, 250, 131)).astype(np.float32)
    network = resolving(Doubling(), Machine(), stride=4)
    resolved = run_whole(network, image, max_memory_bytes=3 * MIB)
    np.testing.assert_allclose(resolved, image.repeat(2, 1).repeat(2, 2), atol=1e-6)


def test_the_threshold_itself_is_foreground() -> None:
    probs = np.array([[0.29, 0.3, 0.31]], np.float32)
    assert to_labels(probs, float(np.float32(0.3))).tolist() == [0, 1, 1]


def test_classes_compete_with_the_background() -> None:
    rng = np.random.default_rng(0)
    shares: NDArray[np.float64] = rng.dirichlet(np.ones(4), size=(5, 6)).transpose(2, 0, 1)
    expected = shares.argmax(0)
    assert (to_labels(shares[1:].astype(np.float32)) == expected).all()


def test_the_plan_is_kept() -> None:
    """A tile's live activations stay below the bound that was given."""
    network = segmenter(dims=2)
    shapes = set()
    network.network.register_forward_pre_hook(
        lambda _, inputs: None if inputs[0].is_meta else shapes.add(tuple(inputs[0].shape))
    )
    predict_probs(network, np.zeros((1, 400, 400), np.float32), max_memory_bytes=8 * MIB)
    (shape,) = shapes
    assert (
        activation_bytes(network, shape)[0]
        < 8 * MIB
        < activation_bytes(network, (1, 1, 400, 400))[0]
    )


@pytest.mark.parametrize("shape", [(5, 9), (7, 3), (12, 12), (5, 20)])
def test_a_small_image_is_shown_in_the_middle_of_a_window(shape: tuple[int, int]) -> None:
    """What the network sees, and that its answer comes back to the right place."""
    seen = []

    class Looking(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(image.shape[2:]))
            return functional.interpolate(image, scale_factor=2, mode="nearest")

    segmenter = Segmenter(Looking(), Task(scale=(2, 2)))
    segmenter.window = (8, 12)
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    probs = predict_probs(segmenter, image)
    assert seen[-1] == (max(8, shape[0]), max(12, shape[1]))
    expected = 1 / (1 + np.exp(-image.repeat(2, 1).repeat(2, 2)))
    np.testing.assert_allclose(probs, expected, rtol=1e-5)
