from __future__ import annotations

import numpy as np
import pytest

from finemask.metrics import components, equivalent_diameter_mm


@pytest.mark.parametrize("spacing", [1.0, 0.7, 3.0])
def test_a_ball_has_its_own_diameter(spacing) -> None:
    grid = np.ogrid[:41, :41, :41]
    ball = sum((g - 20) ** 2 for g in grid) <= 15**2
    assert equivalent_diameter_mm(ball, spacing) == pytest.approx(30 * spacing, rel=0.01)
    assert equivalent_diameter_mm(ball[20], spacing) == pytest.approx(30 * spacing, rel=0.02)


def test_anisotropic_voxels_count_by_their_volume() -> None:
    one = np.zeros((3, 3, 3), bool)
    one[1, 1, 1] = True
    assert equivalent_diameter_mm(one, (4, 1, 0.5)) == pytest.approx((12 / np.pi) ** (1 / 3))


def test_an_empty_mask_has_no_size_and_no_lesion() -> None:
    assert equivalent_diameter_mm(np.zeros((4, 4), bool), 1) == 0
    assert components(np.zeros((4, 4), bool))[1] == 0


def test_corners_join_and_gaps_part() -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[4, 4, 4] = True
    labels, count = components(mask)
    assert count == 2
    assert labels[0, 0, 0] == labels[1, 1, 1] != labels[4, 4, 4]
