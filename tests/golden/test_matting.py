"""Closed-form matting against PyMatting's, stored by ``make_matting.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finemask import soft_mask
from finemask.softmask import system

GOLDEN = np.load(Path(__file__).with_name("matting.npz"))
NAMES = sorted({name.partition("_")[0] for name in GOLDEN.files})


@pytest.mark.parametrize("solver", ["direct", "iterative"])
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_pymatting(name: str, solver: str, monkeypatch) -> None:
    monkeypatch.setattr(system, "DIRECT_BANDWIDTH", 10_000 if solver == "direct" else 0)
    epsilon, radius = GOLDEN[f"{name}_settings"]
    image = np.moveaxis(GOLDEN[f"{name}_image"], 2, 0) / 255
    trimap = GOLDEN[f"{name}_trimap"] / 2
    alpha = soft_mask(image, trimap, epsilon=float(epsilon), radius=int(radius))
    np.testing.assert_allclose(alpha[trimap == 0.5], GOLDEN[f"{name}_alpha"], atol=2e-6)
    np.testing.assert_array_equal(alpha[trimap != 0.5], trimap[trimap != 0.5])


def test_covers_bands_of_many_widths_and_shares() -> None:
    assert len(NAMES) == 8
    touching = GOLDEN["border_trimap"] == 1
    assert touching[-1].any()
    assert all(np.ptp(GOLDEN[f"{name}_alpha"]) > 0.5 for name in NAMES)
