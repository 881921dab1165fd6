"""No probability is better than the soft target itself, for every loss that meets one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

import finemask.losses
from finemask.losses.deep_supervision import side_map_losses
from finemask.losses.fidelity import lesion_weighted_mse, mae, mse
from finemask.losses.fusion import window_mse
from finemask.losses.overlap import cross_entropy, dice_loss, generalised_dice_loss, iou_loss
from finemask.losses.similarity import ssim_loss
from finemask.losses.structure import (
    edge_weight,
    structure_losses,
    weighted_cross_entropy,
    weighted_iou_loss,
)
from finemask.nn.lossnet import LossNet
from finemask.nn.outputs import foreground_probs

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of logits, one map or one a class with the background first, and a target."""


def of_probs(loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    return lambda logits, target: loss(foreground_probs(logits), target)


LOSSES: dict[str, Loss] = {
    "dice_loss": of_probs(dice_loss),
    "iou_loss": of_probs(iou_loss),
    "generalised_dice_loss": of_probs(generalised_dice_loss),
    "cross_entropy": cross_entropy,
    "ssim_loss": of_probs(lambda p, y: ssim_loss(p, y, 1.0)),
    "mse": of_probs(mse),
    "window_mse": of_probs(lambda p, y: window_mse(p, y, torch.ones(len(p), 2).long(), (7, 7))),
    "mae": of_probs(mae),
    "lesion_weighted_mse": of_probs(lambda p, y: lesion_weighted_mse(p, y, y)),
    "weighted_iou_loss": of_probs(lambda p, y: weighted_iou_loss(p, y, edge_weight(y, 3))),
    "weighted_cross_entropy": lambda z, y: weighted_cross_entropy(z, y, edge_weight(y, 3)),
    "structure_losses": lambda z, y: torch.stack(structure_losses(z, y, window=3)).sum(),
    "side_map_losses": lambda z, y: torch.stack(side_map_losses([z, z], y)).sum(),
    "LossNet": of_probs(LossNet(size=0, width=4)),
}
KINKED = ("mae", "weighted_iou_loss", "structure_losses", "side_map_losses")
"""Sums of absolute differences: no gradient at the target, but a slope upwards all around."""
COMPARE_NO_TARGET = {
    "edge_weight": "weights of a loss, from the target alone",
    "feature_affinity": "compares features of two branches",
    "rmi_loss": "knows covariances, which a map of other contrast shares: see its own tests",
    "region_information": "as rmi_loss",
}


def usual_dice(p: Tensor, y: Tensor, eps: float = 1e-6) -> Tensor:
    return 1 - (2 * (p * y).sum() + eps) / (p.sum() + y.sum() + eps)


def usual_iou(p: Tensor, y: Tensor, eps: float = 1e-6) -> Tensor:
    return 1 - ((p * y).sum() + eps) / ((p + y - p * y).sum() + eps)


def logits_of(probs: Tensor) -> Tensor:
    """Logits of foreground probabilities inside of (0, 1), those of several classes by softmax."""
    if probs.shape[1] == 1:
        return torch.logit(probs)
    return torch.cat([1 - probs.sum(1, keepdim=True), probs], 1).log()


def shares(classes: int) -> st.SearchStrategy[Tensor]:
    """Foreground maps in (0, 1), which leave something to the background."""

    def normalised(raw: np.ndarray) -> Tensor:
        whole = raw / raw.sum(1, keepdims=True)
        return torch.from_numpy(whole[:, 1:])

    raw = arrays(np.float64, (2, classes, 8, 8), elements=st.floats(1 / 64, 1, width=16))
    return raw.map(normalised)


pairs = st.sampled_from([2, 3]).flatmap(lambda k: st.tuples(shares(k), shares(k)))


def public_functions() -> dict[str, Callable]:
    modules = [
        importlib.import_module(f"finemask.losses.{m.name}")
        for m in pkgutil.iter_modules(finemask.losses.__path__)
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_no_loss_with_a_target_is_missing_here() -> None:
    compared = {"target", "truth"}
    meeting = {
        name
        for name, function in public_functions().items()
        if compared & set(inspect.signature(function).parameters)
    }
    assert meeting - set(COMPARE_NO_TARGET) == set(LOSSES) - {"LossNet"}


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=15, deadline=None)
@given(pair=pairs)
def test_no_prediction_is_better_than_the_target(name: str, pair: tuple[Tensor, Tensor]) -> None:
    other, target = pair
    least = float(LOSSES[name](logits_of(target), target))
    assert float(LOSSES[name](logits_of(other), target)) >= least - 1e-6
    # Nor is what lies on the way to it, or what makes it harder.
    for step in (0.03, 0.5):
        near = target + step * (other - target)
        assert float(LOSSES[name](logits_of(near), target)) >= least - 1e-6
    harder = target**2 / (target**2 + (1 - target) ** 2) / target.shape[1]
    assert float(LOSSES[name](logits_of(harder), target)) >= least - 1e-6


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_the_minimum_at_the_target_is_the_only_one(name: str, classes: int) -> None:
    target, other = (sample(classes, seed) for seed in (0, 1))
    least = LOSSES[name](logits_of(target), target)
    for step in (0.05, 0.3, 1.0):
        near = target + step * (other - target)
        assert float(LOSSES[name](logits_of(near), target)) > float(least)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", [n for n in LOSSES if n not in KINKED])
def test_the_gradient_vanishes_at_the_target(name: str, classes: int) -> None:
    def gradient(logits: Tensor) -> Tensor:
        logits = logits.detach().requires_grad_()
        return torch.autograd.grad(LOSSES[name](logits, target), logits)[0]

    target, other = (sample(classes, seed) for seed in (2, 3))
    elsewhere = float(gradient(logits_of(other)).norm())
    assert float(gradient(logits_of(target)).norm()) < 1e-4 * elsewhere


@pytest.mark.parametrize("name", KINKED)
def test_every_single_voxel_is_best_at_its_target(name: str) -> None:
    target = sample(2, seed=4)
    least = float(LOSSES[name](logits_of(target), target))
    for voxel in range(0, target.numel(), 7):
        for step in (-0.02, 0.02):
            moved = target.clone()
            moved.view(-1)[voxel] += step
            assert float(LOSSES[name](logits_of(moved), target)) > least


@pytest.mark.parametrize("usual", [usual_dice, usual_iou])
def test_the_usual_forms_prefer_a_hard_mask_to_a_soft_target(usual: Loss) -> None:
    """The counterexample: the same checks fail for the forms without squares."""
    target = torch.tensor([[[0.9, 0.6, 0.3, 0.05]]])
    hard = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    assert float(usual(hard, target)) < float(usual(target, target)) - 0.09
    probs = target.clone().requires_grad_()
    assert float(torch.autograd.grad(usual(probs, target), probs)[0].norm()) > 0.1
    for fitting in (dice_loss, iou_loss):
        assert float(fitting(hard, target)) > float(fitting(target, target)) + 0.01


def test_the_usual_dice_pulls_a_voxel_to_one_where_it_exceeds_half_of_the_dice_reached() -> None:
    target = torch.linspace(0.02, 0.98, 25).double()
    probs = torch.full((25,), 0.5).double().requires_grad_()
    loss = usual_dice(probs, target, eps=0.0)
    (slope,) = torch.autograd.grad(loss, probs)
    assert torch.equal(slope < 0, target > (1 - loss.detach()) / 2)


def sample(classes: int, seed: int) -> Tensor:
    """Random foreground maps as `shares` draws them."""
    raw = torch.rand(2, classes, 8, 8, generator=torch.Generator().manual_seed(seed)) + 0.05
    return (raw / raw.sum(1, keepdim=True))[:, 1:].double()
