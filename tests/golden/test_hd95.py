"""The golden table of surface distances: pairs whose values were computed outside this package."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finemask.metrics import (
    hd95,
    hd95_deepmind,
    hd95_max,
    hd95_medpy,
    hd100,
    surface_distances,
    surface_elements,
)  # fmt: skip


def box(shape: tuple[int, ...], *ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def ball(centre: tuple[int, ...], radius: int) -> np.ndarray:
    grid = np.ogrid[tuple(slice(40) for _ in centre)]
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


CUBE_10 = box((40, 40, 40), *[(10, 20)] * 3)
CUBE_10_FP = CUBE_10 | box((40, 40, 40), *[(30, 34)] * 3)
SQUARE = box((64, 64), (10, 30), (10, 30))
SQUARE_FP = SQUARE | box((64, 64), (50, 54), (50, 54))
CUBE_8 = box((24, 24, 24), *[(6, 14)] * 3)
CUBE_8_LONG = box((24, 24, 24), (6, 14), (6, 14), (6, 17))
CUBE_8_STRAY = CUBE_8 | box((24, 24, 24), *[(20, 21)] * 3)
SPHERES = ball((20, 23, 20), 10), ball((20, 20, 20), 9)

GOLDEN = {
    "cube and a far false positive": (
        (CUBE_10_FP, CUBE_10, (1, 1, 1)),
        (19.906472, 21.920637, 21.470911, 24.248711),
    ),
    "spheres": ((*SPHERES, (1, 1, 1)), (3.605551, 3.741657, 3.316625, 4.123106)),
    "spheres, thick slices": ((*SPHERES, (0.7, 0.7, 3)), (2.886174, 3.159114, 2.8, 3.661967)),
    "square and a far false positive": (
        (SQUARE_FP, SQUARE, (1, 1)),
        (31.035171, 32.324120, 32.557641, 33.941125),
    ),
    "three slices too long": ((CUBE_8_LONG, CUBE_8, (0.7, 0.7, 5)), (15.0, 15.0, 15.0, 15.0)),
    "three slices too long, axes reversed": (
        (CUBE_8_LONG, CUBE_8, (5, 0.7, 0.7)),
        (2.1, 2.1, 2.1, 2.1),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.fault("F94")
def test_golden_values(name: str) -> None:
    (pred, truth, spacing), (medpy, directed, by_area, hundred) = GOLDEN[name]
    assert hd95_medpy(pred, truth, spacing) == pytest.approx(medpy, abs=1e-6)
    assert hd95_max(pred, truth, spacing) == pytest.approx(directed, abs=1e-6)
    assert hd95_deepmind(pred, truth, spacing) == pytest.approx(by_area, abs=1e-6)
    assert hd100(pred, truth, spacing) == pytest.approx(hundred, abs=1e-6)


def test_one_stray_voxel_is_forgiven_by_percentiles_only() -> None:
    distances = surface_distances(CUBE_8_STRAY, CUBE_8, 1)
    assert (distances.hd95_medpy, distances.hd95_max) == (0, 0)
    assert distances.hd100 == pytest.approx(12.124356, abs=1e-6)
    assert surface_elements(CUBE_8_STRAY, CUBE_8, 1).hd95 == 0


def test_empty_masks() -> None:
    empty = np.zeros_like(SQUARE)
    for pred, truth in ((empty, SQUARE), (SQUARE, empty)):
        distances = surface_distances(pred, truth, (1, 1))
        values = (distances.hd95_max, distances.hd95_medpy, distances.hd100, distances.assd)
        assert values == (math.inf,) * 4
    distances = surface_distances(empty, empty, (1, 1))
    values = (distances.hd95_max, distances.hd95_medpy, distances.hd100, distances.assd)
    assert all(math.isnan(v) for v in values)


@pytest.mark.fault("F94")
def test_the_default_is_the_larger_directed_percentile() -> None:
    assert hd95(SQUARE_FP, SQUARE, spacing_mm=(1, 1)) == pytest.approx(32.324120, abs=1e-6)
