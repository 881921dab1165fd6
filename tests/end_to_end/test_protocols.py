"""The two ways of testing a network of a finer grid: "paper" (native) and matched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from finemask.datasets import load_dataset, make_phantoms
from finemask.evaluation.cohort import evaluate
from finemask.inference.cohort import predict
from finemask.io import read_labels, read_probs
from finemask.methods import create
from finemask.recipe import Recipe, Task
from finemask.runs import Run


@pytest.fixture(scope="module", params=[2, 3])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, size = ("skin", (48, 64)) if request.param == 2 else ("nodules", (16, 24, 32))
    folder = tmp_path_factory.mktemp("protocols")
    return make_phantoms(folder / "data", kind=kind, cases=3, size=size)


def untrained(data: Path) -> Run:
    """Where masks lie does not depend on what was learnt; a low threshold gives some."""
    dataset = load_dataset(data)
    torch.manual_seed(0)
    task = Task(dataset.dims, dataset.channels, scale=(2,))
    recipe = Recipe("sasrnet", task, config={"width": 4, "depth": 2, "sr_width": 4})
    method = create(recipe).eval()
    meta = {"step": 1, "score": None, "metric": "dice", "lr_spacing_mm": [], "window_lr": []}
    return Run(Path("run"), recipe, method, method.deploy().eval(), 0.08, meta)


def blocks(probs: np.ndarray, scale: int = 2) -> np.ndarray:
    for axis in range(probs.ndim):
        shape = (*probs.shape[:axis], -1, scale, *probs.shape[axis + 1 :])
        probs = probs.reshape(shape).mean(axis + 1)
    return probs


def test_paper_reduces_the_fine_mask_to_the_grid_that_was_read(place: Path, tmp_path: Path) -> None:
    """Each voxel is decided by the mean probability of the finer voxels within it."""
    run, suffix = untrained(place), ".png" if load_dataset(place).dims == 2 else ".nii.gz"
    predict(run, place, tmp_path / "fine", mode="native", grid="hr", probs=True)
    predict(run, place, tmp_path / "back", mode="native", grid="source")
    for entry in load_dataset(place).entries:
        truth = load_dataset(place).read(entry)
        probs, _ = read_probs(tmp_path / "fine" / f"{entry.name}_probs{suffix}")
        mask, geometry = read_labels(tmp_path / "back" / f"{entry.name}{suffix}")
        assert geometry.matches(truth.geometry)
        assert probs[0].shape == tuple(2 * n for n in mask.shape)
        mean = blocks(probs[0])
        sure = np.abs(mean - run.threshold) > 1e-4  # files round probabilities
        np.testing.assert_array_equal((mean >= run.threshold)[sure], mask[sure] == 1)
        assert 0 < mask.mean() < 1


def test_matched_answers_on_the_grid_that_was_reduced(place: Path, tmp_path: Path) -> None:
    run = untrained(place)
    predict(run, place, tmp_path / "masks", mode="matched")
    case = load_dataset(place).read(load_dataset(place).entries[0])
    (file,) = (tmp_path / "masks").glob(f"{case.name}.*")
    assert read_labels(file)[1].matches(case.geometry)


def test_size_groups_say_their_unit_and_edges(place: Path, tmp_path: Path) -> None:
    """Millimetres where the spacing is known (4 mm of the nodules), pixels where not (100 px)."""
    flat = load_dataset(place).dims == 2
    edge = 8.0 if flat else 4.0
    predict(untrained(place), place, tmp_path / "masks", grid="source")
    evaluate(tmp_path / "masks", place, tmp_path / "scores", size_edges=(edge,))
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    groups = summary["size_groups"]
    assert groups["measure"] == "equivalent diameter of the true lesion"
    assert groups["unit"] == ("px" if flat else "mm")
    assert all(edges == [edge] for edges in groups["edges"].values())
    assert summary["cases"]["scored"] == 3
    page = (tmp_path / "scores" / "report.html").read_text()
    assert f"{edge:g} {groups['unit']}" in page
