"""The memory plan: counted activations against what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from finemask.errors import DataError
from finemask.inference.activations import _LiveStorage, activation_bytes
from finemask.inference.memory import fit_tiles
from finemask.inference.model import Machine
from finemask.inference.resources import _container_bytes, available_bytes
from finemask.inference.torch_backend import TorchNetwork

MIB = 2**20


class Skip(nn.Module):
    """Keeps its first feature map alive until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(image)
        return torch.cat([first, self.second(first)], 1)


def test_a_chain_holds_two_neighbours_and_a_skip_is_counted() -> None:
    voxels = 4 * 10 * 10
    chain = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 1, 1))
    assert activation_bytes(chain, (1, 1, 10, 10))[0] == (1 + 8 + 2) * voxels
    assert activation_bytes(Skip(), (1, 1, 10, 10)) == ((1 + 8 + 8 + 16) * voxels, 16 * 100)


def test_the_count_equals_that_of_a_real_pass() -> None:
    network = nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.InstanceNorm3d(6), nn.ReLU(), Enlarge()
    )
    image = torch.zeros(1, 1, 8, 8, 8)
    with torch.no_grad(), _LiveStorage() as count:
        network(image)
    own = image.numel() * 4  # made before counting began
    counted = activation_bytes(network, (1, 1, 8, 8, 8))[0]
    assert counted == pytest.approx(count.peak + own, rel=0.02)


class Enlarge(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.interpolate(features, scale_factor=2, mode="trilinear")


def test_counting_does_not_touch_the_network() -> None:
    network = Skip()
    before = [p.data_ptr() for p in network.parameters()]
    activation_bytes(network, (1, 1, 512, 512))
    assert [p.data_ptr() for p in network.parameters()] == before
    assert all(p.device.type == "cpu" for p in network.parameters())


def at_scale_one(module: nn.Module, maps: int = 16) -> TorchNetwork:
    return TorchNetwork(module, Machine(), (1, 1), maps)


def test_whole_when_it_fits_tiles_when_not_error_when_nothing_does() -> None:
    shape = (512, 512)
    assert len(fit_tiles(at_scale_one(Skip()), shape)) == 1
    plan = fit_tiles(at_scale_one(Skip()), shape, max_memory_bytes=12 * MIB)
    assert len(plan) > 1
    assert 1.5 * activation_bytes(Skip(), (1, 1, *plan.tile))[0] < 12 * MIB
    with pytest.raises(DataError, match="smallest tile of an image of 512x512 voxels needs"):
        fit_tiles(at_scale_one(Skip()), shape, max_memory_bytes=1 * MIB)


def test_the_result_counts_too() -> None:
    tight = 40 * MIB
    assert len(fit_tiles(at_scale_one(Skip()), (256, 256), max_memory_bytes=tight)) == 1
    held = fit_tiles(
        at_scale_one(Skip()), (256, 256), max_memory_bytes=tight, result_bytes=34 * MIB
    )
    assert len(held) > 1


def test_a_network_that_cannot_be_counted_is_taken_for_large() -> None:
    class Counting(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image * image.sum().item()

    assert len(fit_tiles(at_scale_one(Counting()), (64, 64))) == 1
    assert len(fit_tiles(at_scale_one(Counting()), (64, 64), max_memory_bytes=8 * MIB)) > 1


def test_memory_of_this_machine_is_positive() -> None:
    assert available_bytes() > 0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1000", "memory.current": "400", "memory.stat": "inactive_file 100"}, 700),
        ({"memory.max": "max", "memory.current": "400", "memory.stat": ""}, None),
        ({"memory.max": "100", "memory.current": "400", "memory.stat": "anon 1"}, 0),
        ({}, None),
    ],
)
def test_the_limit_of_a_container(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert _container_bytes(tmp_path) == expected
