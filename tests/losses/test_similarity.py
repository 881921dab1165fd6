"""SSIM as a loss against the metric, which is SciPy's filters, and its gradient by differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finemask.losses.similarity import smooth, spread_out, ssim_loss
from finemask.metrics import ssim


@pytest.mark.parametrize("shape", [(2, 3, 40, 29), (1, 1, 12, 11), (1, 2, 13, 17, 12)])
@pytest.mark.parametrize("data_range", [None, 4.0])
def test_the_metric_is_met(shape: tuple[int, ...], data_range: float | None) -> None:
    torch.manual_seed(0)
    image, truth = torch.randn(shape), 2 * torch.rand(shape)
    wanted = []
    for x, y in zip(image.numpy(), truth.numpy(), strict=True):
        spread = data_range or float(np.ptp(y))
        wanted += [ssim(a, b, data_range=spread) for a, b in zip(x, y, strict=True)]
    assert ssim_loss(image, truth, data_range).item() == pytest.approx(
        1 - np.mean(wanted), abs=1e-5
    )


@pytest.mark.parametrize("sides", [(24, 19), (4, 16), (1, 12)])
def test_gradient_by_differences(sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image, truth = torch.randn(2, 2, *sides, requires_grad=True), torch.randn(2, 2, *sides)
    (gradient,) = torch.autograd.grad(ssim_loss(image, truth), image)
    way = torch.randn_like(image)
    step = 2e-3
    ends = [ssim_loss((image + s * way).detach(), truth).item() for s in (step, -step)]
    assert (gradient * way).sum().item() == pytest.approx(
        (ends[0] - ends[1]) / (2 * step), rel=0.02
    )


def test_spreading_is_the_adjoint_of_smoothing() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 40, 20).double(), torch.randn(2, 30, 14).double()
    there, back = (smooth(x, (11, 7)) * y).sum(), (x * spread_out(y, (11, 7))).sum()
    torch.testing.assert_close(there, back)


def test_equal_images_differ_by_nothing_whatever_they_show() -> None:
    for truth in (torch.zeros(1, 1, 16, 16), 100 + torch.rand(1, 3, 20, 20)):
        image = truth.clone().requires_grad_()
        loss = ssim_loss(image, truth)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-5)
        assert image.grad is not None
        assert bool(image.grad.isfinite().all())


def test_the_range_is_that_of_the_true_image() -> None:
    torch.manual_seed(0)
    image, truth = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    truth[1] *= 10
    image[1] *= 10
    alone = [ssim_loss(image[k : k + 1], truth[k : k + 1]).item() for k in range(2)]
    assert ssim_loss(image, truth).item() == pytest.approx(np.mean(alone), abs=1e-6)
