"""Region mutual information against the definition in float64, region by region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finemask.losses.region import region_moments, rmi_loss


def regions(image: Tensor) -> Tensor:
    """The 9 pixels of every region inside the image, ``(B, K, 9, n)`` in float64."""
    h, w = image.shape[2:]
    shifts = [(i, j) for i in range(3) for j in range(3)]
    parts = [image[:, :, i : h - 2 + i, j : w - 2 + j].flatten(2) for i, j in shifts]
    return torch.stack(parts, 2).double()


def written_out(logits: Tensor, truth: Tensor, pool: int) -> Tensor:
    """The published loss, step by step."""
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
    p, y = torch.sigmoid(logits) + 1e-6, truth
    if pool > 1:
        p, y = (F.avg_pool2d(x, pool, pool, pool // 2) for x in (p, y))
    p, y = (r - r.mean(3, keepdim=True) for r in (regions(p), regions(y)))
    ridge = 5e-4 * torch.eye(9, dtype=torch.float64)
    left = y @ y.mT - y @ p.mT @ torch.linalg.inv(p @ p.mT + ridge) @ p @ y.mT
    log_det = torch.logdet(left + ridge)
    return 0.5 * bce / (truth[:, 0].numel() + 1) + 0.5 * (log_det / 18).mean(0).sum()


def blocky(*shape: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(*shape[:2], 6, 7, generator=torch.Generator().manual_seed(seed)) > 0.6
    return F.interpolate(coarse.float(), shape[2:])


@pytest.mark.parametrize("pool", [1, 2, 3])
@pytest.mark.parametrize(("classes", "sides"), [(1, (40, 53)), (3, (33, 18))])
def test_value_and_gradient_are_those_of_the_definition(
    classes: int, sides: tuple[int, int], pool: int
) -> None:
    torch.manual_seed(1)
    target = blocky(2, max(1, classes - 1), *sides) / max(1, classes - 1)
    truth = target if classes == 1 else torch.cat([1 - target.sum(1, True), target], 1)
    logits = (3 * truth - 1 + torch.randn(truth.shape)).requires_grad_()
    ours, theirs = rmi_loss(logits, target, pool=pool), written_out(logits, truth, pool)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4)
    (mine,), (wanted,) = (torch.autograd.grad(value, logits) for value in (ours, theirs))
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("sides", [(3, 3), (3, 40), (17, 4), (5, 16)])
def test_moments_of_every_region_and_no_other(sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    y, p = torch.randn(2, *sides), torch.randn(2, *sides, requires_grad=True)
    gram, sums = region_moments(y, p)
    both = regions(torch.stack([y, p], 1)).flatten(1, 2)
    torch.testing.assert_close(gram, both @ both.mT, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sums, both.sum(2), atol=1e-4, rtol=1e-5)
    weight = torch.randn_like(gram)
    mine, wanted = (torch.autograd.grad((weight * g).sum(), p)[0] for g in (gram, both @ both.mT))
    torch.testing.assert_close(mine, wanted, atol=1e-3, rtol=1e-4)


def test_what_a_mask_tells_lowers_it() -> None:
    target = blocky(1, 1, 48, 48)
    guess, hint, sure = (torch.zeros_like(target), 2 * target - 1, 12 * target - 6)
    guess = guess + 0.1 * torch.randn(guess.shape, generator=torch.Generator().manual_seed(0))
    values = [float(rmi_loss(x, target, w_bce=0.0)) for x in (guess, hint, sure)]
    assert values[0] > values[1] + 1
    assert values[1] > values[2] - 1e-6


@pytest.mark.parametrize("kind", ["equal", "empty", "full"])
def test_singular_covariances_stay_finite(kind: str) -> None:
    target = {"equal": blocky(2, 1, 60, 60), "empty": torch.zeros(2, 1, 60, 60)}.get(
        kind, torch.ones(2, 1, 60, 60)
    )
    logits = (40 * target - 20).requires_grad_()
    for pool in (1, 3):
        loss = rmi_loss(logits, target, pool=pool)
        loss.backward()
        assert bool(loss.isfinite())
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_an_image_smaller_than_a_region_has_the_cross_entropy_alone() -> None:
    logits, target = torch.zeros(1, 1, 2, 9, requires_grad=True), torch.zeros(1, 1, 2, 9)
    loss = rmi_loss(logits, target, pool=1)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * 18 * np.log(2) / 19)


def test_half_precision_is_left_for_it() -> None:
    target = blocky(1, 1, 30, 30)
    logits = 4 * target - 2
    with torch.autocast("cpu", torch.bfloat16):
        inside = rmi_loss(logits, target)
    assert inside.item() == pytest.approx(rmi_loss(logits, target).item(), abs=1e-6)
