from __future__ import annotations

import numpy as np
import pytest

from finemask.geometry import Geometry
from finemask.report.panels import (
    lesion_slice,
    lesion_window,
    outline,
    overlay,
    round_length,
    to_picture,
    view,
)


def block(shape: tuple[int, ...], *ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*r) for r in ranges)] = 1
    return mask


def test_grey_colour_and_many_channels_become_rgb() -> None:
    ramp = np.linspace(-1000, 3000, 400).reshape(20, 20)
    grey = to_picture(ramp)
    assert grey.shape == (20, 20, 3)
    assert (grey.min(), grey.max()) == (0, 255)
    assert (grey[..., 0] == grey[..., 2]).all()
    colour = to_picture(np.stack([ramp, ramp[::-1], ramp]))
    assert (colour[..., 0] != colour[..., 1]).any()
    assert to_picture(np.stack([ramp] * 4)).shape == (20, 20, 3)
    assert len(np.unique(to_picture(np.full((5, 5), 7.0)))) == 1
    assert to_picture(None, (4, 6)).shape == (4, 6, 3)


def test_one_bright_spot_does_not_darken_the_picture() -> None:
    image = np.tile(np.linspace(0, 100, 100), (100, 1))
    image[0, 0] = 1e6
    assert to_picture(image)[50].max() == 255


def test_shows_the_slice_with_the_largest_lesion() -> None:
    truth = block((9, 20, 20), (2, 8), (3, 6), (3, 6)) | block(
        (9, 20, 20), (5, 6), (3, 12), (3, 12)
    )
    assert lesion_slice(truth) == 5
    assert lesion_slice(np.zeros((9, 4, 4)), truth) == 5
    assert lesion_slice(np.zeros((9, 4, 4))) == 4


@pytest.mark.parametrize("place", [((2, 6), (3, 7)), ((90, 99), (50, 80)), ((97, 100), (198, 200))])
def test_the_window_holds_the_lesion_and_stays_inside(place) -> None:
    (top, bottom), (left, right) = place
    window = lesion_window(block((100, 200), *place))
    assert window is not None
    assert 0 <= window[0] <= top
    assert bottom <= window[1] <= 100
    assert 0 <= window[2] <= left
    assert right <= window[3] <= 200
    height, width = window[1] - window[0], window[3] - window[2]
    assert width / height == pytest.approx(2)


def test_without_a_lesion_or_with_a_large_one_everything_is_shown() -> None:
    assert lesion_window(np.zeros((50, 50))) is None
    assert lesion_window(block((50, 50), (5, 45), (5, 45))) is None


def test_outline_follows_pixel_edges_and_parts_classes() -> None:
    assert len(outline(block((5, 5), (1, 4), (1, 4)))) == 12
    full = outline(np.ones((3, 4), int))
    assert len(full) == 14
    assert (full.min(), full.max()) == (0, 4)
    assert len(outline(np.array([[1, 2]]))) == 7


def test_a_volume_is_seen_as_radiologists_do() -> None:
    """Anterior up and the patient's right on the left, however the file is stored."""
    marker = np.zeros((6, 8, 10), np.uint8)  # (S, A, R) with growing index
    marker[3, 6, 9] = 1  # anterior, far right
    geometry = Geometry.regular((6, 8, 10), (1.0, 1.0, 1.0))
    # RAS+: world x grows to the right, and array axis 2 is world x.
    ras = Geometry(geometry.shape, geometry.spacing, (0.0, 0.0, 0.0),
                   ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))  # fmt: skip
    shown, spacing, marks = view(marker, ras)
    assert marks == ("R", "A")
    assert spacing == (1, 1, 1)
    assert np.argwhere(shown).tolist() == [[3, 1, 0]]
    stored = np.flip(marker, (0, 2)).transpose(2, 0, 1)
    again, _, _ = view(stored, ras.flipped(0).flipped(2).permuted((2, 0, 1)))
    np.testing.assert_array_equal(again, shown)


def test_thick_slices_are_shown_as_acquired() -> None:
    coronal = Geometry((6, 8, 10), (1.0, 5.0, 1.0), (0.0, 0.0, 0.0),
                       ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))  # fmt: skip
    shown, spacing, marks = view(np.zeros((6, 8, 10)), coronal)
    assert shown.shape == (8, 6, 10)
    assert spacing == (5, 1, 1)
    assert marks == ("R", "S")


def test_an_overlay_knows_its_scale() -> None:
    truth = block((30, 40), (10, 14), (10, 16))
    panel = overlay(None, truth, truth, geometry=Geometry.regular((30, 40), (0.5, 0.25)))
    assert (panel.unit, panel.spacing, panel.shape_mm) == ("mm", (0.5, 0.25), (15.0, 10.0))


@pytest.mark.parametrize("length", [0.013, 0.9, 1.0, 3.0, 47.0, 99.9, 1000.0])
def test_scale_bars_are_round_and_fit(length) -> None:
    bar = round_length(length)
    assert length / 2.5 < bar <= length * 1.000001
    assert f"{bar:e}"[0] in "125"
