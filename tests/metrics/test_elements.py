"""Surfaces as pieces with an area: the table of pieces, and values of DeepMind's package."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finemask.metrics import hd95_deepmind, surface_dice_area, surface_elements
from finemask.metrics.elements import cell_codes, piece_areas


def wavy(dims: int, shift: float) -> np.ndarray:
    grid = np.ogrid[tuple(slice(n) for n in {2: (40, 40), 3: (20, 20, 20)}[dims])]
    if dims == 2:
        y, x = grid
        return np.sin(0.7 * y + shift) + np.cos(0.5 * x - shift) + 0.02 * (y - 20) > 0.4
    z, y, x = grid
    return np.sin(0.9 * z + shift) + np.cos(0.8 * y - shift) + np.sin(0.6 * x + 0.3 * z) > 0.8


# HD95, surface Dice at 1 and 2 mm, and both surfaces, by surface-distance-based-measures 0.1.
VALUES = {
    (1.0, 1.0): (1.4142135623730951, 0.9367296180550024, 1.0,
                 430.2741699796953, 430.2741699796953),
    (0.5, 2.0): (2.0, 0.9408630160372987, 0.9843032777270404,
                 617.8484500494128, 629.8484500494128),
    (1.0, 1.0, 1.0): (1.0, 0.9965667395719455, 1.0, 2776.172229070169, 2730.9791272926122),
    (3.0, 0.7, 0.7): (0.7, 0.9959122105589937, 0.9983593492644792, 4457.632633141523,
                      4469.0913132371825),
}  # fmt: skip


@pytest.mark.parametrize("spacing", VALUES)
def test_values_of_the_reference_package(spacing: tuple[float, ...]) -> None:
    pred, truth = wavy(len(spacing), 0.5), wavy(len(spacing), 0.0)
    found = surface_elements(pred, truth, spacing)
    values = (
        hd95_deepmind(pred, truth, spacing),
        *(surface_dice_area(pred, truth, spacing, tolerance_mm=mm) for mm in (1, 2)),
        found.pred.areas.sum(),
        found.truth.areas.sum(),
    )
    assert values == pytest.approx(VALUES[spacing], rel=1e-9)


def test_pieces_of_a_cell() -> None:
    areas = piece_areas((1.0, 1.0, 1.0))
    assert areas[[0, 255]].tolist() == [0, 0]
    assert areas[1] == pytest.approx(math.sqrt(3) / 8)  # one corner cut off
    assert areas[0b11] == pytest.approx(math.sqrt(0.5))  # an edge: a slanted rectangle
    assert areas[0b1111] == pytest.approx(1)  # a face: a square parallel to it
    assert areas[0b10000001] == pytest.approx(math.sqrt(3) / 4)  # opposite corners, apart
    assert np.allclose(areas, areas[::-1])  # mask and background may change places
    assert piece_areas((2.0, 3.0, 5.0))[0b1111] == pytest.approx(15)
    assert piece_areas((2.0, 3.0))[[1, 0b11, 0b101]] == pytest.approx([math.sqrt(13) / 2, 3, 2])


def test_every_cell_around_a_voxel_is_found() -> None:
    codes = cell_codes(np.ones((1, 1, 1), bool))
    assert sorted(codes.ravel()) == [1, 2, 4, 8, 16, 32, 64, 128]


def test_a_small_lesion_that_is_missed_weighs_by_its_surface() -> None:
    truth = np.zeros((30, 30, 30), bool)
    truth[4:14, 4:14, 4:14] = truth[24:27, 24:27, 24:27] = True
    pred = truth.copy()
    pred[20:] = False
    assert surface_elements(pred, truth, 1).hd95 > 15  # 7 % of the surface, the rest matches
    truth[25:] = False
    assert surface_elements(pred, truth, 1).hd95 == 0  # less than 5 %


def test_empty_masks() -> None:
    empty, full = np.zeros((5, 6), bool), np.ones((5, 6), bool)
    for pair in ((empty, full), (full, empty)):
        assert hd95_deepmind(*pair, 1) == math.inf
        assert surface_dice_area(*pair, 1, tolerance_mm=2) == 0
    assert math.isnan(hd95_deepmind(empty, empty, 1))
    assert math.isnan(surface_dice_area(empty, empty, 1, tolerance_mm=2))
