"""DSRL: its equations against NumPy, and that the affinity really couples the branches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finemask.methods.dsrl import DSRL, Config
from finemask.methods.unet import Config as UNetConfig
from finemask.methods.unet import UNet
from finemask.nn.superres import ImageHead, MaskHead
from finemask.nn.unet import UNetDecoder
from finemask.pairs.batches import Batch
from finemask.recipe import Task

TINY = Config(width=4, depth=3, sr_width=6, fa_stride=4)


def batch_for(task: Task, *sides: int) -> Batch:
    torch.manual_seed(3)
    hr = [n * s for n, s in zip(sides, task.scale, strict=True)]
    target = (torch.rand(2, task.foreground, *hr) > 0.8).float()
    return Batch(torch.randn(2, task.channels, *sides), torch.randn(2, task.channels, *hr), target)


def affinity_in_numpy(a: Tensor, b: Tensor) -> float:
    """Eqs. (3) and (4) as printed: cosine of every pair of positions, mean absolute difference."""
    totals = []
    for x, y in zip(a.numpy().astype(float), b.numpy().astype(float), strict=True):
        s = []
        for f in (x.reshape(len(x), -1), y.reshape(len(y), -1)):
            f = f / np.sqrt((f**2).sum(0) + 1e-6)  # a place without features is like none
            s.append(f.T @ f)
        totals.append(np.abs(s[0] - s[1]).sum() / s[0].size)
    return float(np.mean(totals))


def test_equations_against_numpy() -> None:
    torch.manual_seed(0)
    task = Task(2, 1, 2, (2, 2))
    method = DSRL(task, TINY).eval()
    batch = batch_for(task, 8, 12)
    with torch.no_grad():
        parts = {name: float(part) for name, part in method.losses(batch).items()}
        image = method.super_resolve(batch.image_lr)
        logits = method.deploy()(batch.image_lr)
        shared = method.encoder(batch.image_lr)
        mask = method.feature_transform(method.sssr_decoder(shared))
        picture = method.sisr_head.features(method.sisr_decoder(shared))
    p, y = 1 / (1 + np.exp(-logits.double().numpy())), batch.target.numpy()
    assert parts["L_ce"] == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
    assert parts["L_mse"] == pytest.approx(np.mean((image - batch.image_hr).numpy() ** 2), rel=1e-5)
    # Cells of 4 HR voxels are 2 LR voxels.
    cells = F.avg_pool2d(mask, 2), F.avg_pool2d(picture, 4)
    assert parts["L_fa"] == pytest.approx(affinity_in_numpy(*cells), rel=1e-3)


def test_weights_are_the_papers() -> None:
    weights = DSRL(Task(), TINY).weights()
    assert (weights["L_mse"], weights["L_fa"]) == (0.1, 1.0)


def test_affinity_teaches_both_branches() -> None:
    task = Task(2, 1, 2, (2, 2))
    method = DSRL(task, TINY)
    method.losses(batch_for(task, 8, 12))["L_fa"].backward()
    for part in (method.encoder, method.sssr_decoder, method.sisr_decoder, method.sisr_head.unit):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert all(p.grad is None for p in method.sssr_head.parameters())


def test_restoration_does_not_touch_the_masks_decoder() -> None:
    task = Task(2, 1, 2, (2, 2))
    method = DSRL(task, TINY)
    method.losses(batch_for(task, 8, 12))["L_mse"].backward()
    assert all(p.grad is None for p in method.sssr_decoder.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())


@pytest.mark.parametrize("scale", [(2, 2), (3, 3), (1, 2, 2)])
def test_nothing_of_super_resolution_ships(scale: tuple[int, ...]) -> None:
    task = Task(len(scale), 2, 3, scale)
    method, plain = DSRL(task, TINY), UNet(task, UNetConfig(width=4, depth=3))
    shipped = method.deploy()
    assert {k: v.shape for k, v in shipped.state_dict().items()} == {
        k: v.shape for k, v in plain.deploy().state_dict().items()
    }
    left = [ImageHead, type(method.feature_transform)]
    kinds = [type(module) for module in shipped.modules()]
    assert not set(kinds) & set(left)
    assert (kinds.count(UNetDecoder), kinds.count(MaskHead)) == (1, 1)
    assert shipped.stride == plain.deploy().stride


def test_the_skip_carries_the_brightness_that_instance_norm_removes() -> None:
    """A brighter crop is restored brighter; without the skip the norm hides it."""
    task = Task(2, 1, 2, (2, 2))
    method = DSRL(task, TINY).eval()
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        gain = method.super_resolve(image + 3).mean() - method.super_resolve(image).mean()
    assert float(gain) == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("skip", [True, False])
def test_super_resolve_is_what_was_trained(skip: bool) -> None:
    task = Task(2, 3, 2, (2, 2))
    method = DSRL(task, Config(width=4, depth=2, sr_width=4, sr_skip=skip)).eval()
    batch = batch_for(task, 8, 8)
    with torch.no_grad():
        error = (method.super_resolve(batch.image_lr) - batch.image_hr).square().mean()
        torch.testing.assert_close(method.losses(batch)["L_mse"], error)
