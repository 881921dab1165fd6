"""Runs with fresh weights on disk, and one of them exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from finemask.datasets import Split, make_phantoms
from finemask.deploy import export as exporting
from finemask.deploy import graph
from finemask.deploy.export import export
from finemask.io.files import write_text
from finemask.methods import create, default_recipe
from finemask.recipe import Task
from finemask.training.checkpoint import save_checkpoint

TINY = {"width": 4, "depth": 3}


def _make_run(folder: Path, name: str = "unet", window: int = 8, **task: Any) -> Path:
    """A run as training leaves it, but for the training.

    A fresh head says 0.1 everywhere, give or take. That is the threshold, or is undone for
    several classes: so masks have holes.
    """
    torch.manual_seed(0)
    recipe = default_recipe(name, Task(**task))
    config = {key: TINY.get(key, value) for key, value in recipe.config.items()}
    recipe = replace(recipe, config=config)
    meta = {
        "method": name,
        "step": 7,
        "score": None,
        "metric": "dice",
        "threshold": 0.1,
        "window_lr": [window] * recipe.task.dims,
        "lr_spacing_mm": [],
        "versions": {"torch": torch.__version__},
        "data_fingerprint": "ab" * 32,
    }
    weights = create(recipe).state_dict()
    if recipe.task.foreground > 1:
        weights["head.conv.bias"].zero_()
    save_checkpoint(folder / "checkpoints" / "best", weights, meta)
    write_text(folder / "recipe.toml", recipe.to_toml())
    return folder


@pytest.fixture(autouse=True, scope="session")
def traced_sizes_are_tensors() -> Iterator[None]:
    """While a network is traced its sizes are tensors, which the checks of annotations refuse."""
    trace = graph._trace

    def unchecked(*arguments: Any) -> None:
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            trace(*arguments)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    graph._trace = unchecked
    yield
    graph._trace = trace


@pytest.fixture(autouse=True, scope="session")
def small_phantoms() -> Iterator[None]:
    """Networks this small are compared on images as small."""
    sides = dict(exporting.PHANTOM_SIDE)
    exporting.PHANTOM_SIDE.update({2: 64, 3: 32})
    yield
    exporting.PHANTOM_SIDE.update(sides)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Makes a run of any method."""
    return _make_run


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A run for pictures or for volumes, made once."""
    made: dict[int, Path] = {}

    def run(dims: int) -> Path:
        if dims not in made:
            folder = tmp_path_factory.mktemp(f"run{dims}") / "run"
            classes = 2 if dims == 2 else 3
            made[dims] = _make_run(folder, dims=dims, classes=classes, scale=(2,))
        return made[dims]

    return run


@pytest.fixture(scope="session")
def exported_of(
    run_of: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, Any], Path]:
    """The same, exported; made once for each kind."""
    made: dict[tuple[int, str], Path] = {}

    def folder(dims: int, kind: Any) -> Path:
        if (dims, kind) not in made:
            out = tmp_path_factory.mktemp(f"{kind}{dims}") / "exported"
            made[dims, kind] = export(run_of(dims), out, kind).path
        return made[dims, kind]

    return folder


@pytest.fixture(scope="session")
def data(run_of: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, with a split of the run for pictures."""
    folder = tmp_path_factory.mktemp("data") / "data"
    make_phantoms(folder, "ultrasound", 6, size=64)
    names = [f"phantom_ultrasound_{k:03}" for k in range(6)]
    split = Split(train=tuple(names[:3]), val=tuple(names[3:5]), test=tuple(names[5:]))
    split.save(run_of(2) / "splits.json")
    return folder
