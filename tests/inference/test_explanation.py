"""Explanations lie on the mask's grid, whatever the grid and the turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finemask.case import Case
from finemask.errors import UsageError
from finemask.geometry import Geometry
from finemask.inference.cohort import predict
from finemask.inference.explanation import explained
from finemask.inference.model import Machine
from finemask.inference.view import view_case
from finemask.io import read_image, read_probs, write_image
from finemask.methods import create
from finemask.recipe import Recipe, Task
from finemask.runs import Run

MAPS = ("reach1", "reach3", "reach5", "reach11")


def make_run(dims: int, **config: Any) -> Run:
    """A network that has learnt nothing: its gates differ from voxel to voxel all the same."""
    torch.manual_seed(0)
    config = {"width": 4, "depth": 3, "sr_width": 4} | config
    recipe = Recipe("sasrnet", Task(dims, scale=(2,)), config=config)
    method = create(recipe).eval()
    meta = {"step": 1, "score": None, "metric": "dice", "lr_spacing_mm": [], "window_lr": []}
    return Run(Path("run"), recipe, method, method.deploy().eval(), 0.5, meta)


def scene(dims: int) -> Case:
    shape = (12, 16, 24)[-dims:]  # multiples of the stride, so that nothing is padded
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32).cumsum(-1)
    return Case("a", image, Geometry.regular(shape, spacing=(3.0, 1.0, 0.5)[-dims:]))


@pytest.mark.parametrize("grid", ["hr", "source"])
@pytest.mark.parametrize("dims", [2, 3])
def test_maps_and_figure_are_written_beside_the_mask(dims: int, grid: Any, tmp_path: Path) -> None:
    run, case, suffix = make_run(dims), scene(dims), ".png" if dims == 2 else ".nii.gz"
    write_image(tmp_path / f"a{'.tif' if dims == 2 else suffix}", case.image, case.geometry)
    image, out = next(tmp_path.iterdir()), tmp_path / "out"
    assert predict(run, image, out, grid=grid, explain=True).done == 1
    _, geometry = read_image(out / f"a{suffix}")
    assert geometry.shape == tuple((2 if grid == "hr" else 1) * n for n in case.geometry.shape)
    for name in MAPS:
        values, where = read_probs(out / f"a_{name}{suffix}")
        assert where.matches(geometry)
        assert 0 <= values.min() < values.max() <= 1
    with Image.open(out / "a_explained.png") as figure:
        assert figure.size[0] > 2 * figure.size[1]
    assert predict(run, image, out, grid=grid, explain=True, resume=True).skipped == 1


def test_maps_are_the_networks_wherever_the_image_is_turned_to() -> None:
    run, straight = make_run(3, norm="batch"), scene(3)
    turned = straight.turned((2, 0, 1), (1,))
    view, other = (view_case(run.recipe, case) for case in (straight, turned))
    with torch.inference_mode():
        gates = run.segmenter.explain(torch.from_numpy(view.lr.image)[None])
    found, there = (explained(run, v, Machine()) for v in (view, other))
    order, flips = view.written.axes_to(other.written)
    for name, gate in gates.items():
        fine = torch.nn.functional.interpolate(gate, scale_factor=2, mode="trilinear")[0, 0]
        axes, mirrored = view.lr.geometry.refined((2, 2, 2)).axes_to(view.written)
        expected = np.flip(np.transpose(fine.numpy(), axes), mirrored)
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
        np.testing.assert_allclose(
            there[name], np.flip(np.transpose(found[name], order), flips), atol=1e-6
        )


def test_a_network_without_maps_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", scene(2).image, scene(2).geometry)
    plain = make_run(2, sdc=False, sa=False)
    with pytest.raises(UsageError, match="--explain: asks for maps that the method sasrnet"):
        predict(plain, tmp_path / "a.tif", tmp_path / "out", explain=True)
    assert not (tmp_path / "out").exists()
