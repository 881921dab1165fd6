"""The memory plan from the header: the tiles that are used later, or an error before reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finemask.case import Case
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.inference.cohort import predict
from finemask.inference.memory import SMALL
from finemask.inference.model import Machine, Model, Network
from finemask.inference.plan import plan_from_header
from finemask.io import Header, read_header, write_image
from finemask.preparation import prepare, prepared_shape
from finemask.recipe import PrepareSettings, Recipe, Task

GIB, MIB = 2**30, 2**20


class Plain(Network):
    """Says that it takes 1000 bytes for each LR voxel; keeps the shapes that it is shown."""

    def __init__(self, dims: int) -> None:
        super().__init__((2,) * dims, 1, stride=8)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, tile: Any, guidance: Any = None) -> Any:
        self.seen.append(tile.shape[1:])
        return np.zeros((1, *(2 * n for n in tile.shape[1:])), np.float32)

    def activation_bytes(self, *shapes: Any) -> tuple[int, int]:
        return 1000 * int(np.prod(shapes[0][2:])), 1


class PlainModel(Model):
    """A model around it."""

    def __init__(self, dims: int = 3, **prepare: Any) -> None:
        self.path, self.threshold, self.meta = (
            Path("plain"),
            0.5,
            {"lr_spacing_mm": [], "window_lr": []},
        )
        self.recipe = Recipe(task=Task(dims, scale=(2,)), prepare=PrepareSettings(**prepare))
        self.runs = Plain(dims)

    def find_device(self, name: str) -> str:
        return "cpu"

    def choose(self, machine: Machine) -> Machine:
        return machine

    def network(self, machine: Machine) -> Network:
        return self.runs

    def sha256(self, whole: bool = False) -> str:
        return "0" * 64


def header(*shape: int) -> Header:
    return Header(Path("ct.nii.gz"), "NIfTI", Geometry.regular(shape), 1, np.dtype(np.int16))


def test_a_ct_fits_a_machine_that_could_not_hold_it_in_float(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """600 x 512 x 512 at scale 2: the maps alone would be 5 GiB, the activations 146."""
    model = PlainModel()
    monkeypatch.setattr(Plain, "available_bytes", lambda _: 20 * GIB)
    plan = plan_from_header(model, model.runs, header(600, 512, 512))
    assert len(plan) > 1
    assert 2 * GIB < 1000 * np.prod(plan.tile) * 1.5 < 16 * GIB
    monkeypatch.setattr(Plain, "available_bytes", lambda _: 3 * GIB)
    with pytest.raises(DataError, match="smallest tile of an image of 512x512x600 voxels needs"):
        plan_from_header(model, model.runs, header(600, 512, 512))


@pytest.mark.parametrize("mode", ["native", "matched"])
def test_the_planned_tiles_are_those_that_run(tmp_path: Path, mode: Any) -> None:
    model = PlainModel()
    volume = np.random.default_rng(0).normal(size=(1, 60, 70, 50)).astype(np.float32)
    path = tmp_path / "ct.nii.gz"
    affine = np.diag([1.0, 1.0, 3.0, 1.0])[[2, 0, 1, 3]]
    write_image(path, volume, Geometry.from_affine((60, 70, 50), affine))
    bound = 60 * MIB if mode == "native" else 20 * MIB
    plan = plan_from_header(model, model.runs, read_header(path), mode=mode, max_memory_bytes=bound)
    assert predict(model, path, tmp_path / "out", mode=mode, max_memory_bytes=bound).done == 1
    assert len(plan) > 1
    assert model.runs.seen == [plan.tile] * len(plan)


def test_what_cannot_fit_is_told_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.png", np.zeros((200, 300), np.uint8), Geometry.regular((200, 300)))
    monkeypatch.setattr("finemask.inference.inputs.read_case", lambda *_, **__: pytest.fail("read"))
    small = SMALL * 16
    outcome = predict(PlainModel(2), tmp_path / "a.png", tmp_path / "out", max_memory_bytes=small)
    assert outcome.exit_code == 3
    assert "a.png: memory" in str(outcome.failures[0])


@pytest.mark.parametrize("settings", [{}, {"spacing_mm": (1.5,)}, {"orient": False}])
def test_the_prepared_shape_is_known_beforehand(settings: dict[str, Any]) -> None:
    affine = np.array([[0.0, 0.8, 0, 3], [-0.7, 0, 0, 5], [0, 0, 2.0, 7], [0, 0, 0, 1]])
    case = Case(
        "a", np.random.default_rng(0).random((1, 5, 9, 7), np.float32),
        Geometry.from_affine((5, 9, 7), affine),
    )  # fmt: skip
    chosen = PrepareSettings(**settings)
    assert prepared_shape(case.geometry, chosen) == prepare(case, chosen).geometry.shape
