"""Comparisons that are made up: masks of a known quality, no training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from finemask.comparison.plan import DONE, Cell, Choices, Plan, Row, make_rows, make_splits
from finemask.comparison.results import CellScores, Results, tabulate
from finemask.datasets import Split, load_dataset
from finemask.evaluation.cohort import evaluate
from finemask.io import write_json, write_labels, write_text
from finemask.metrics.overlap import Confusion
from finemask.metrics.scores import Score
from finemask.recipe import Recipe, TrainSettings
from finemask.report.tables import cases_table

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
        evaluation = evaluate(folder / "masks", data, cases=test)
        table = cases_table(evaluation.scores, list(evaluation.summary["scores"]))
        write_text(folder / "scores" / "cases.csv", table, overwrite=True)
        about = {"finemask": "0", "code_sha256": "0", "recipe": cell.recipe.to_dict(),
                 "step_best": 4, "failed": [f.case for f in evaluation.failures],
                 "cost": dict(cost)}  # fmt: skip
        write_json(folder / DONE, about, overwrite=True)


def tabulated(
    values: Mapping[str, Mapping[int, Mapping[str, float]]],
    *,
    metric: str = "dice",
    sizes: Mapping[str, float] | None = None,
    groups: Mapping[str, str] | None = None,
    size_edges: tuple[float, ...] = (),
) -> Results:
    """Results of ``[row][seed][case]`` values of one metric, without any file."""
    cases = list(dict.fromkeys(c for seeds in values.values() for v in seeds.values() for c in v))
    rows = tuple(Row(label, Recipe(train=TrainSettings(steps=7))) for label in values)
    split = Split(train=("t",), val=("v",), test=tuple(cases))
    seeds = tuple(dict.fromkeys(s for found in values.values() for s in found))
    plan = Plan(rows, seeds, (split,), "made-up", "0", size_edges=size_edges, protocol_version=2)
    about = {"finemask": "0", "code_sha256": "0", "step_best": 4, "failed": [], "cost": COST}
    cells = [
        CellScores(
            cell,
            tuple(
                Score(case, (groups or {}).get(case, case), "lesion", (sizes or {}).get(case, 5.0),
                      "mm", {metric: value}, Confusion(1, 1, 1, 1),
                      "prediction empty" if math.isinf(value) else "")
                for case, value in values[cell.row.label][cell.seed].items()
            ),
            about,
        )
        for cell in plan.cells
        if cell.seed in values[cell.row.label]
    ]  # fmt: skip
    return tabulate(plan, cells, {})


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
def tabulate_values() -> Callable[..., Results]:
    """Results of ``[row][seed][case]`` values of one metric, without any file."""
    return tabulated


@pytest.fixture(scope="session")
def grow() -> Callable[..., np.ndarray]:
    """A mask that is some voxels too large, or too small."""
    return grown


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures with lesions."""
    from finemask.datasets import make_phantoms

    folder = tmp_path_factory.mktemp("comparison") / "data"
    return make_phantoms(folder, kind="ultrasound", cases=20, seed=1, size=(64, 64))
