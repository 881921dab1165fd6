"""The comparison models of PFSeg: their sizes, what they read and how they are shown it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from finemask.case import Case
from finemask.datasets import make_phantoms
from finemask.geometry import Geometry
from finemask.inference.model import Machine
from finemask.inference.network import image_of, predict_case
from finemask.inference.view import view_case
from finemask.methods import METHODS, create, default_recipe
from finemask.methods.baselines3d import Baseline, CubicEnlarge
from finemask.methods.describe import describe
from finemask.recipe import Task
from finemask.training.loop import train

NAMES = [name for name, method in METHODS.items() if issubclass(method, Baseline)]
TASK = Task(3, scale=(2, 2, 2))


def test_their_sizes() -> None:
    counts = {
        name: describe(name, default_recipe(name, TASK), (32, 48, 48)).parameters_inference
        for name in NAMES
    }
    assert 1.5e6 < counts["san"] < 1.56e6  # the paper: about 1.534 M,
    assert counts["san"] < counts["unet3d"] / 5  # less than a fifth of the 3-D U-Net
    assert counts["resunet3d"] == counts["resunet3d_up"]
    assert counts["vnet"] > 40e6


@pytest.mark.parametrize("name", NAMES)
def test_what_they_read(name: str) -> None:
    recipe = default_recipe(name, TASK)
    with torch.device("meta"):
        segmenter = create(recipe).deploy()
    lr = name == "resunet3d_up"
    assert segmenter.task.scale == ((2, 2, 2) if lr else (1, 1, 1))
    assert segmenter.patches == (name in ("vnet", "unet3d", "resunet3d"))
    assert recipe.pairs.whole != segmenter.patches
    assert recipe.pairs.crop == ((64, 96, 96) if segmenter.patches else ())
    assert segmenter.on_its_grid((32, 48, 48), (2, 2, 2)) == ((32, 48, 48) if lr else (64, 96, 96))


def test_cubic_enlargement_is_smooth_and_keeps_the_extent() -> None:
    ramp = torch.arange(8.0).reshape(1, 1, 8, 1, 1).expand(1, 2, 8, 6, 5)
    fine = CubicEnlarge((2, 1, 3))(ramp)
    assert fine.shape == (1, 2, 16, 6, 15)
    exact = (torch.arange(5.0, 11.0) + 0.5) / 2 - 0.5
    assert float((fine[0, 0, 5:11, 3, 7] - exact).abs().max()) < 0.05  # torch's cubic, a = -0.75
    bump = F.pad(torch.ones(1, 1, 2, 2, 2), (3,) * 6)
    torch.testing.assert_close(CubicEnlarge((2, 2, 2))(bump).sum(), 8 * bump.sum())


def test_a_patch_network_is_trained_and_shown_windows_of_the_hr_image(tmp_path: Path) -> None:
    data = make_phantoms(tmp_path / "data", kind="nodules", cases=5, size=(16, 32, 32))
    small = [
        "steps=2",
        "config.width=4",
        "config.depth=3",
        "pairs.crop=16x16x16",
        "validate_cases=1",
    ]
    run = train(data, tmp_path / "run", method="resunet3d", scale=(2,), settings=small)
    assert run.reads_hr
    assert run.meta["window_lr"] == [8, 8, 8]
    assert run.segmenter.window == (16, 16, 16)
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((1, 20, 34, 29)), (0, 1, 1, 1))
    case = Case("a", image.astype(np.float32), Geometry.regular((20, 34, 29)))
    seen: list[tuple[int, ...]] = []
    run.segmenter.network.register_forward_hook(
        lambda _m, x, _o: seen.append(tuple(x[0].shape[2:]))
    )
    found = predict_case(run, case, mode="matched").probs
    assert found.shape == (1, 20, 34, 29)
    assert set(seen) == {(16, 16, 16)}
    assert len(seen) == 2 * 4 * 3  # 24, 40 and 32 voxels in halves of 16: the padded sides
    view = view_case(run.recipe, case, mode="matched")
    assert image_of(run, view) is view.hr.image
    native = view_case(run.recipe, case, mode="native")
    assert image_of(run, native).shape[1:] == native.lr.geometry.refined((2, 2, 2)).shape


def test_patches_overlap_by_half_and_agree_with_the_whole_where_nothing_is_normalised() -> None:
    from finemask.inference.network import run_whole
    from finemask.inference.torch_backend import TorchNetwork

    network = TorchNetwork(torch.nn.Identity(), Machine(), (1, 1, 1), 1, 8, (16, 16, 16), True)
    image = np.random.default_rng(1).random((1, 40, 24, 33)).astype(np.float32)
    np.testing.assert_allclose(run_whole(network, image), image, atol=1e-6)
    seen = []
    network.module.register_forward_hook(lambda _m, x, _o: seen.append(tuple(x[0].shape[2:])))
    run_whole(network, image, max_memory_bytes=10**12)
    assert len(seen) == 4 * 2 * 4


def test_options_are_checked() -> None:
    recipe = default_recipe("san", TASK)
    assert recipe.config["width"] == 6
    with pytest.raises(Exception, match=r"config\.depth"):
        create(replace(recipe, config={**recipe.config, "depth": 1}))
