"""The product of mask and image, and the two losses of it, against a few lines of numpy."""

from __future__ import annotations

import numpy as np
import torch

from finemask.losses.affinity import feature_affinity
from finemask.losses.fidelity import mse
from finemask.losses.fusion import fuse, window_mse


def test_the_product_pairs_every_class_with_every_channel() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.random((2, 3, 4, 5, 6)), rng.random((2, 2, 4, 5, 6))
    made = fuse(torch.from_numpy(image), torch.from_numpy(mask)).numpy()
    for f in range(2):
        for c in range(3):
            np.testing.assert_allclose(made[:, 3 * f + c], mask[:, f] * image[:, c], rtol=1e-6)


def test_the_window_term_is_a_mean_over_the_whole_volume() -> None:
    rng = np.random.default_rng(1)
    image, truth = rng.random((2, 2, 6, 7, 8)), rng.random((2, 2, 6, 7, 8))
    signal = np.zeros_like(image)
    signal[0, :, 1:3, 2:5, 0:4] = 1
    signal[1, :, 4:6, 0:3, 3:7] = 1
    start = torch.tensor([[1, 2, 0], [4, 0, 3]])
    made = window_mse(torch.from_numpy(image), torch.from_numpy(truth), start, (2, 3, 4))
    np.testing.assert_allclose(made, (signal * (image - truth) ** 2).mean(), rtol=1e-6)


def naive(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Eq. 15 with its L x L matrices."""
    x, y = a.double().flatten(2), b.double().flatten(2)
    return (x.transpose(1, 2) @ x - y.transpose(1, 2) @ y).square().mean()


def test_the_spatial_similarity_is_equation_15_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    probs = torch.rand(1, 1, 5, 6, 7, requires_grad=True)
    image = torch.rand(1, 2, 5, 6, 7, requires_grad=True)
    truth = fuse(torch.rand(1, 2, 5, 6, 7), (torch.rand(1, 1, 5, 6, 7) > 0.7).float())
    for form in (feature_affinity, naive):
        form(fuse(image, probs), truth).backward()
        found = [probs.grad, image.grad]
        probs.grad = image.grad = None
        if form is feature_affinity:
            kept = found
    for ours, theirs in zip(kept, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-9)
    ours, theirs = (form(fuse(image, probs), truth) for form in (feature_affinity, naive))
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)


def test_near_a_perfect_answer_the_spatial_similarity_keeps_its_digits() -> None:
    torch.manual_seed(1)
    truth = fuse(torch.rand(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8))
    close = truth + 1e-4 * torch.rand_like(truth)
    torch.testing.assert_close(
        feature_affinity(close, truth).double(), naive(close, truth), rtol=1e-3, atol=0
    )
    assert float(feature_affinity(truth, truth)) == 0 == float(mse(truth, truth))
