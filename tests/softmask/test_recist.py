"""RECIST marks: what is accepted, and the shapes that follow from four points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finemask.errors import DataError
from finemask.io import DataWarning
from finemask.softmask.recist import (
    Mark,
    check_mark,
    ellipse,
    near_axes,
    nearest_points,
    quadrilateral,
    within_reach,
)

GOOD = (10, 20, 40, 20, 24, 12, 24, 30)
places = st.floats(-20, 20, allow_nan=False)


def test_a_good_mark_stays_as_it_is() -> None:
    mark = Mark.from_xy(*GOOD)
    assert check_mark(mark, (64, 64), "row") is mark
    assert mark.lengths() == (30.0, 18.0)
    assert mark.lengths((2.0, 0.5)) == (15.0, 36.0)
    assert mark.crossing == (20.0, 24.0)


@pytest.mark.parametrize(
    ("xy", "said"),
    [
        ((math.nan, 20, 40, 20, 24, 12, 24, 30), "end point of the long axis that is no number"),
        ((10, 20, 40, 20, 24, math.inf, 24, 30), "end point of the short axis that is no number"),
        ((10, 20, 10.4, 20, 10, 19, 10, 21), "long axis of 0.4 px"),
        ((10, 20, 40, 20, 24, 20, 24, 20.3), "short axis of 0.3 px"),
        ((-1, 20, 40, 20, 24, 12, 24, 30), "long axis from .20, -1. to .20, 40."),
        ((10, 20, 64, 20, 24, 12, 24, 30), "outside the slice of 48 x 64"),
        ((10, 20, 40, 20, 24, 12, 24, 47.6), "short axis from .* outside"),
        ((10, 20, 40, 20, 24, 22, 24, 30), "misses the long axis by 2 px"),
        ((10, 20, 40, 20, 15, 19.5, 35, 20.5), "at 3 degrees to the long axis"),
    ],
)
def test_a_bad_mark_names_the_axis_and_what_is_wrong(xy: tuple[float, ...], said: str) -> None:
    with pytest.raises(DataError, match=f"marks.csv row 7: has .*{said}"):
        check_mark(Mark.from_xy(*xy), (48, 64), "marks.csv row 7")


def test_the_edge_of_the_first_and_last_pixel_is_inside() -> None:
    mark = Mark.from_xy(-0.5, 20, 63.5, 20, 24, -0.5, 24, 47.5)
    assert check_mark(mark, (48, 64), "row") == mark


def test_axes_that_just_miss_each_other_are_one_lesion() -> None:
    mark = Mark.from_xy(10, 20, 40, 20, 24, 20.8, 24, 30)
    assert check_mark(mark, (64, 64), "row") is mark
    assert mark.crossing == (20.4, 24.0)
    with pytest.raises(DataError, match="misses"):
        check_mark(mark, (64, 64), "row", gap_px=0.5)


def test_exchanged_axes_are_exchanged_with_a_warning() -> None:
    mark = Mark.from_xy(*GOOD)
    with pytest.warns(DataWarning, match=r"row: its short axis \(30\) is longer"):
        assert check_mark(Mark(mark.short, mark.long), (64, 64), "row") == mark
    # Which is longer is a matter of millimetres, not of pixels.
    with pytest.warns(DataWarning, match="exchanged"):
        assert check_mark(mark, (64, 64), "row", spacing=(2.0, 0.5)).long == mark.short


@given(st.lists(places, min_size=8, max_size=8))
def test_nearest_points_are_the_nearest(xy: list[float]) -> None:
    first, second = Mark.from_xy(*xy).long, Mark.from_xy(*xy).short
    share = np.linspace(0, 1, 41)[:, None]
    a, b = ((1 - share) * np.array(s[0]) + share * np.array(s[1]) for s in (first, second))
    sampled = np.linalg.norm(a[:, None] - b[None], axis=-1).min()
    found = math.dist(*nearest_points(first, second))
    longest = max(math.dist(*first), math.dist(*second))
    assert found <= sampled + 1e-6
    assert found >= sampled - longest / 20 - 1e-6


@given(st.lists(places, min_size=8, max_size=8), st.sampled_from([1, 2, 4]))
def test_a_finer_window_keeps_places_and_lengths(xy: list[float], factor: int) -> None:
    mark = Mark.from_xy(*xy)
    fine = mark.on_grid((3, -2), factor)
    np.testing.assert_allclose(fine.lengths(), np.array(mark.lengths()) * factor, atol=1e-9)
    # The corner of pixel (3, -2) is the corner of the window.
    back = (fine.points + 0.5) / factor - 0.5 + np.array([3, -2])
    np.testing.assert_allclose(back, mark.points, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 30.0, 77.0])
def test_the_ellipse_has_its_area_and_touches_its_ends(angle: float) -> None:
    long, short, turn = 80, 44, math.radians(angle)
    ahead = np.array([math.sin(turn), math.cos(turn)])
    aside = np.array([ahead[1], -ahead[0]])
    centre = np.array([64.0, 64.0])
    # The short axis crosses off the middle, as readers draw it.
    across = centre + 0.1 * long * ahead
    ends = [centre - long / 2 * ahead, centre + long / 2 * ahead]
    ends += [across - 0.4 * short * aside, across + 0.6 * short * aside]
    mark = Mark.from_xy(*np.array(ends)[:, ::-1].ravel().tolist())
    inside = ellipse(mark, (128, 128))
    assert inside.sum() == pytest.approx(math.pi / 4 * long * short, rel=0.01)
    assert quadrilateral(mark, (128, 128)).sum() == pytest.approx(long * short / 2, rel=0.02)
    assert not (quadrilateral(mark, (128, 128)) & ~inside).any()
    for end in ends:
        within, beyond = (tuple(np.rint(end + k * (centre - end)).astype(int)) for k in (0.1, -0.1))
        assert inside[within]
        assert not inside[beyond]


def test_a_lesion_smaller_than_a_pixel_has_one() -> None:
    mark = Mark.from_xy(4.2, 6.3, 4.8, 6.3, 4.5, 6.0, 4.5, 6.6)
    assert ellipse(mark, (12, 12)).sum() == 1
    assert near_axes(mark, (12, 12), 0.01).any()


def test_nothing_reaches_farther_than_its_diameters_allow() -> None:
    mark = Mark.from_xy(20, 30, 50, 30, 35, 22, 35, 38)
    reach = within_reach(mark, (64, 80))
    assert reach[ellipse(mark, (64, 80))].all()
    assert not reach[30, [14, 56]].any()  # beyond the ends by more than a tenth
    assert reach[30, [17, 53]].all()
    assert not reach[[15, 45], 35].any()  # beyond the short axis by more than a quarter
    assert reach[[18, 42], 35].all()
    # The same in millimetres on pixels twice as high.
    flat = Mark.from_xy(20, 15, 50, 15, 35, 11, 35, 19)
    assert not within_reach(flat, (32, 80), (2.0, 1.0))[[7, 23], 35].any()
    assert within_reach(flat, (32, 80), (2.0, 1.0))[[9, 21], 35].all()
