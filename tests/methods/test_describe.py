"""Costs: weights and multiplications counted by hand, and without memory."""

from __future__ import annotations

import json
import tomllib
import tracemalloc
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import finemask.methods
from finemask.errors import UsageError
from finemask.methods import METHODS, Segmenter, default_recipe
from finemask.methods.describe import describe, describe_methods
from finemask.methods.unet import UNet
from finemask.pairs.guidance import CropGuide
from finemask.recipe import Recipe, Task


def recipe(name: str, **config: object) -> Recipe:
    made = default_recipe(name, Task(2, 1, 2, (2, 2)))
    return replace(made, config={**made.config, **config})


def test_a_small_network_counted_by_hand() -> None:
    """Width 2, two levels: every convolution of the figure once."""
    facts = describe("unet", recipe("unet", width=2, depth=2, head="interpolate"), (8, 8))
    fine = 9 * (1 * 2 + 2 * 2) + 9 * (4 * 2 + 2 * 2) + 2  # encoder, decoder, head: a fine voxel
    coarse = 9 * (2 * 4 + 4 * 4) + 4 * 2  # bottleneck, 1x1 way up: a coarse voxel
    norms = 2 * (2 + 2 + 4 + 4 + 2 + 2 + 2)
    assert facts.macs_inference == 64 * fine + 16 * coarse
    assert facts.parameters_inference == facts.parameters_training == fine + coarse + norms + 1


def test_costs_grow_with_the_image_only() -> None:
    small, large = (describe("unet", recipe("unet"), (n, 2 * n)) for n in (32, 64))
    assert large.macs_inference == 4 * small.macs_inference
    assert large.parameters_inference == small.parameters_inference


@pytest.mark.parametrize("dims", [2, 3])
def test_dsrl_ships_what_the_unet_ships(dims: int) -> None:
    task = Task(dims, 3, 4, (2,))
    unet, dsrl = (describe(n, default_recipe(n, task), (32,) * dims) for n in ("unet", "dsrl"))
    assert dsrl.parameters_inference == unet.parameters_inference == unet.parameters_training
    assert dsrl.macs_inference == unet.macs_inference
    assert dsrl.parameters_training > 1.2 * dsrl.parameters_inference
    assert "SISR" in dsrl.dropped


@pytest.mark.parametrize("name", METHODS)
def test_counting_a_huge_volume_takes_no_memory(name: str) -> None:
    if 3 not in METHODS[name].dims:
        pytest.skip("no volumes")
    made = default_recipe(name, Task(3, scale=(2,)))
    tracemalloc.start()
    facts = describe(name, made, (4096, 4096, 4096))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert facts.macs_inference > 1e15
    assert peak < 50e6


class GuidedUNet(UNet):
    """Takes a part of the HR image, and multiplies by its mean."""

    guide = CropGuide(parts=8)

    def deploy(self) -> Segmenter:
        return Segmenter(Guided(super().deploy().network), self.task)


class Guided(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_lr: Tensor, guidance: Tensor) -> Tensor:
        assert guidance.shape == (1, 1, 4, 4)
        return self.network(image_lr) * guidance.mean()


def test_guidance_is_cut_for_methods_that_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(finemask.methods.METHODS, "guided", GuidedUNet)
    facts = describe("guided", recipe("unet"), (16, 16))
    assert facts.macs_inference == describe("unet", recipe("unet"), (16, 16)).macs_inference


def test_sizes_must_have_the_images_dimension() -> None:
    with pytest.raises(UsageError, match="size: is 8x8x8, a 2-D input has 2 sides"):
        describe("unet", recipe("unet"), (8, 8, 8))


def test_the_table_names_every_method() -> None:
    text = describe_methods(size=(64, 64), scale=(2,))
    assert all((f"\n{name} " in text) == (2 in method.dims) for name, method in METHODS.items())
    assert "64x64" in text


def test_one_method_shows_its_options_and_recipe() -> None:
    text = describe_methods("dsrl", channels=3, scale=(4,), settings=["width=8", "steps=7"])
    assert "parameters_inference" in text
    assert "w_fa: w2, weight of the feature affinity" in text
    made = Recipe.from_dict(tomllib.loads(text[text.index("method = ") :]))
    assert (made.config["width"], made.train.steps, made.task.scale) == (8, 7, (4, 4))


def test_json_is_complete() -> None:
    one = json.loads(describe_methods("dsrl", size=(16, 32, 32), classes=3, as_json=True))
    assert one["size"] == [16, 32, 32]
    assert one["parameters_training"] > one["parameters_inference"]
    assert one["recipe"]["task"]["classes"] == 3
    several = json.loads(describe_methods(dims=3, as_json=True))
    assert [entry["name"] for entry in several] == [n for n, m in METHODS.items() if 3 in m.dims]


def test_the_defaults_device_is_left_alone() -> None:
    describe_methods("unet", size=(16, 16))
    assert torch.empty(1).device.type == "cpu"
