"""Fidelity losses against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finemask.losses.fidelity import mae, mse


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
