"""Fidelity losses against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finemask.losses.fidelity import lesion_weighted_mse, mae, mse


def test_against_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b, w = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4)), rng.random((2, 1, 4))
    x, y, v = map(torch.from_numpy, (a, b, w))
    assert float(mse(x, y)) == pytest.approx(((a - b) ** 2).mean())
    assert float(mae(x, y)) == pytest.approx(np.abs(a - b).mean())
    assert float(mse(x, y, v)) == pytest.approx((w * (a - b) ** 2).sum() / a.size)


def test_half_precision_sums_in_single() -> None:
    x = torch.full((1, 1, 70_000), 300.0, dtype=torch.float16)
    assert float(mse(x, torch.zeros_like(x))) == pytest.approx(90_000)


@pytest.mark.parametrize("classes", [1, 2])
def test_lesions_weigh_more_against_numpy(classes: int) -> None:
    """sasrnet Eq. (2); the lesion region is the union of the classes."""
    rng = np.random.default_rng(1)
    q, x = rng.normal(size=(2, 2, 3, 6, 5))
    labels = rng.integers(0, classes + 1, (2, 6, 5))
    target = np.stack([labels == k for k in range(1, classes + 1)], 1).astype(np.float64)
    wrong = (q - x) ** 2
    lesion = np.broadcast_to(labels[:, None] > 0, wrong.shape)
    expected = (0.7 * wrong[lesion].sum() + 0.1 * wrong[~lesion].sum()) / wrong.size
    got = lesion_weighted_mse(*map(torch.from_numpy, (q, x, target)), 0.7, 0.1)
    assert float(got) == pytest.approx(expected)


def test_a_voxel_of_a_soft_mask_is_lesion_by_its_share() -> None:
    image, truth = torch.ones(1, 1, 4), torch.zeros(1, 1, 4)
    half = lesion_weighted_mse(image, truth, torch.full((1, 1, 4), 0.5))
    assert float(half) == pytest.approx(0.5)
