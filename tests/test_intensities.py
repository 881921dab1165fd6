"""Intensities: windows that become [0, 1], and the statistics of public weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finemask.case import Case
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.inference.view import view_case
from finemask.intensities import normalisation
from finemask.pairs.degradation import make_pair
from finemask.preparation import prepare
from finemask.recipe import PrepareSettings, Recipe, Task

IMAGENET = PrepareSettings(normalise="imagenet")


def case_of(*values: float, channels: int = 3) -> Case:
    picture = np.array([values] * channels, np.float32).reshape(channels, 1, -1)
    return Case("a", picture, Geometry.regular((1, len(values))), source=Path("a.png"))


def test_an_8_bit_picture_has_the_units_of_the_public_weights() -> None:
    """Black is (0 - 0.485) / 0.229 in red, white is (1 - 0.406) / 0.225 in blue."""
    image = prepare(case_of(0, 255), IMAGENET).image
    np.testing.assert_allclose(image[:, 0, 0], [-2.1179, -2.0357, -1.8044], atol=1e-4)
    np.testing.assert_allclose(image[:, 0, 1], [2.2489, 2.4286, 2.6400], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_take_the_mean_of_the_colours(channels: int) -> None:
    image = prepare(case_of(0, 255, channels=channels), IMAGENET).image
    np.testing.assert_allclose(image[:, 0], [[-1.9867, 2.4381]] * channels, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_symmetric_is_from_black_to_white_whatever_the_picture_shows(channels: int) -> None:
    symmetric = PrepareSettings(normalise="symmetric")
    image = prepare(case_of(0, 51, 255, channels=channels), symmetric).image
    np.testing.assert_allclose(image[:, 0], [[-1, -0.6, 1]] * channels, atol=1e-6)
    dark = prepare(case_of(0, 51, 102), symmetric).image
    np.testing.assert_allclose(dark[0, 0], [-1, -0.6, -0.2], atol=1e-6)
    scan = PrepareSettings(window_hu=(0.0, 10.0), window_to_unit=True, normalise="symmetric")
    np.testing.assert_allclose(prepare(case_of(-5, 5, 10), scan).image[0, 0], [-1, 0, 1])
    assert symmetric.by_image == "none"
    with pytest.raises(DataError, match="normalise=symmetric needs"):
        prepare(case_of(-1000, 400), symmetric)


def test_a_window_says_what_is_black_and_white() -> None:
    settings = PrepareSettings(
        window_hu=(-1000.0, 400.0), window_to_unit=True, normalise="imagenet"
    )
    scan = prepare(case_of(-2000, -1000, -300, 400, 3000), settings).image
    picture = prepare(case_of(0, 0, 127.5, 255, 255), IMAGENET).image
    np.testing.assert_allclose(scan, picture, atol=1e-6)


@pytest.mark.parametrize("values", [(-1000, 400), (0, 4095), (0, 0.7), (0.2, 256)])
def test_unknown_ranges_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(DataError, match=r"a\.png: has intensities from .*; set prepare\.window_hu"):
        prepare(case_of(*values), IMAGENET)


@pytest.mark.parametrize("values", [(0, 0), (3, 3), (0, 255)])
def test_a_dark_or_flat_picture_keeps_its_brightness(values: tuple[float, float]) -> None:
    case = case_of(*values)
    image = prepare(case, IMAGENET).image
    offset, gain = normalisation(case.image, IMAGENET)
    np.testing.assert_allclose(image[:, 0].T / gain + offset, case.image[:, 0].T, atol=1e-4)


def test_a_pair_is_not_normalised_a_second_time() -> None:
    """Neither in training nor in prediction: both sides are the prepared image and its mean."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (3, 16, 16)).astype(np.float32)
    case = Case("a", picture, Geometry.regular((16, 16)))
    hr = prepare(case, IMAGENET)
    pair = make_pair(hr, (2, 2), normalise=IMAGENET.by_image)
    np.testing.assert_allclose(pair.hr.image, hr.image)
    seen = view_case(Recipe(task=Task(channels=3), prepare=IMAGENET), case, mode="matched")
    np.testing.assert_allclose(seen.lr.image, pair.lr.image, rtol=1e-6)
    np.testing.assert_allclose(
        seen.to_source_intensities(seen.hr.image), picture, rtol=1e-4, atol=1e-2
    )


def test_settings_know_what_depends_on_the_image() -> None:
    assert IMAGENET.fixed is IMAGENET
    assert PrepareSettings(spacing_mm=(1.0,)).fixed == PrepareSettings(
        spacing_mm=(1.0,), normalise="none"
    )
    assert PrepareSettings().by_image == "zscore"
