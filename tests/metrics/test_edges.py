from __future__ import annotations

import numpy as np
import pytest

from finemask.metrics import edge_rows, med_column, med_nearest_sym


def layer(tops: list[int], bottoms: list[int], depth: int = 20) -> np.ndarray:
    """A mask from first to last row, column by column; 0 to -1 leaves a column empty."""
    rows = np.arange(depth)[:, None]
    return (rows >= np.array(tops)) & (rows <= np.array(bottoms))


FLAT = layer([4] * 6, [9] * 6)


def test_the_same_layer_is_at_no_distance() -> None:
    assert med_column(FLAT, FLAT) == med_nearest_sym(FLAT, FLAT) == 0


def test_edges_of_flat_layers_differ_by_their_depths_in_mm() -> None:
    moved = layer([5] * 6, [12] * 6)  # by 1 and by 3
    for spacing, expected in ((1, 2.0), ((0.5, 7.0), 1.0)):
        assert med_column(moved, FLAT, spacing) == pytest.approx(expected)
        assert med_nearest_sym(moved, FLAT, spacing) == pytest.approx(expected)


def test_the_nearest_point_of_a_slope_is_closer_than_that_in_the_column() -> None:
    down = layer(list(range(0, 12, 2)), list(range(5, 17, 2)))
    lower = np.roll(down, 2, axis=0)
    assert med_column(lower, down) == pytest.approx(2)
    # One column on, the edge is as deep: all but one of six points have one at distance 1.
    assert med_nearest_sym(lower, down) == pytest.approx((5 * 1 + 2) / 6)


def test_both_directions_count() -> None:
    short = FLAT.copy()
    short[:, 2:] = False
    assert med_column(short, FLAT) == 0
    # Of the truth's columns, four lie 1 to 4 columns from the two that were found.
    assert med_nearest_sym(short, FLAT) == pytest.approx((0 + 10 / 6) / 2)
    assert med_nearest_sym(FLAT, short) == med_nearest_sym(short, FLAT)


def test_missing_columns_are_counted_and_a_missing_edge_is_undefined() -> None:
    partly = FLAT.copy()
    partly[:, :2] = False
    found = edge_rows(partly, FLAT)
    assert found.missing == pytest.approx(2 / 6)
    nothing = edge_rows(0 * FLAT, FLAT)
    assert nothing.missing == 1
    assert np.isnan([nothing.med_column, nothing.med_nearest_sym]).all()
    neither = edge_rows(0 * FLAT, 0 * FLAT)
    assert np.isnan([neither.med_column, neither.med_nearest_sym, neither.missing]).all()


def test_layers_are_found_in_pictures_only() -> None:
    with pytest.raises(ValueError, match="found in pictures"):
        med_column(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool))
