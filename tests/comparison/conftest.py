"""Comparisons that are made up: masks of a known quality, no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from finemask.comparison.plan import DONE, Cell, Choices, Plan, make_rows, make_splits
from finemask.datasets import load_dataset
from finemask.evaluation.cohort import evaluate
from finemask.io import write_json, write_labels

Draw = Callable[[Cell, str, np.ndarray], np.ndarray]
"""Makes the mask of a cell and case from the truth."""

COST = {
    "parameters_training": 2_000_000, "parameters_inference": 1_000_000,
    "macs_training": 3 * 10**9, "macs_inference": 10**9, "macs_input": [32, 32],
    "seconds_training": 60.0, "seconds_a_case": 0.05, "memory_training_bytes": 2**29,
    "memory_inference_bytes": 2**24, "threads": 1, "device": "cpu",
}  # fmt: skip


MakePlan = Callable[..., Plan]
MakeUp = Callable[..., None]


def plan_of(data: Path, *methods: str, seeds: int = 2, settings: tuple[str, ...] = ()) -> Plan:
    dataset = load_dataset(data)
    tiny = ("width=4", "config.depth=2", "crop=32x32", "batch_size=2", "steps=4", *settings)
    return Plan(
        rows=make_rows(dataset, Choices(methods=methods, settings=tiny)),
        seeds=tuple(range(seeds)),
        splits=make_splits(dataset),
        data=data.name,
        fingerprint=dataset.fingerprint(),
        protocol_version=2,
    )


def made_up(
    plan: Plan, data: Path, out: Path, draw: Draw, cost: Mapping[str, object] = COST
) -> None:
    plan.save(out)
    dataset = load_dataset(data)
    for cell in plan.cells:
        folder = out / "cells" / cell.name
        test = plan.splits[cell.fold - 1].test
        for name in test:
            case = dataset.read(dataset.entry(name))
            assert case.truth is not None
            mask = draw(cell, name, case.truth > 0).astype(np.uint8)
            write_labels(folder / "masks" / f"{name}.png", mask, case.geometry, overwrite=True)
        evaluation = evaluate(folder / "masks", data, folder / "scores", cases=test, overwrite=True)
        about = {"finemask": "0", "code_sha256": "0", "recipe_sha256": cell.fingerprint,
                 "step_best": 4, "failed": [f.case for f in evaluation.failures],
                 "cost": dict(cost)}  # fmt: skip
        write_json(folder / DONE, about, overwrite=True)


def grown(truth: np.ndarray, by: int) -> np.ndarray:
    """A mask that is ``by`` voxels too large, or too small."""
    if not by:
        return truth
    change = ndimage.binary_dilation if by > 0 else ndimage.binary_erosion
    return np.asarray(change(truth, iterations=abs(by)))


@pytest.fixture(scope="session")
def make_plan() -> MakePlan:
    """A plan of tiny networks: ``make_plan(data, *methods, seeds=2, settings=())``."""
    return plan_of


@pytest.fixture(scope="session")
def make_up() -> MakeUp:
    """Write the cells of a plan with masks that ``draw`` makes of the truth."""
    return made_up


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures with lesions."""
    from finemask.datasets import make_phantoms

    folder = tmp_path_factory.mktemp("comparison") / "data"
    return make_phantoms(folder, kind="ultrasound", cases=20, seed=1, size=(64, 64))
