"""GrabCut: least energy by enumeration, densities by scipy, rough masks on phantoms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from finemask.datasets.phantoms import make_phantom
from finemask.metrics import dice
from finemask.softmask import grabcut
from finemask.softmask.grabcut import grab_cut, rough_mask
from finemask.softmask.recist import Mark, ellipse, near_axes


@pytest.mark.parametrize("seed", range(4))
def test_the_cut_has_the_least_energy_of_all_labellings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (4, 4)
    pixels = rng.uniform(0, 255, (16, 1))
    certain = rng.random(16) < 0.4
    labels = rng.random(16) < 0.5
    graph = grabcut._Graph(pixels, shape, certain)
    gain = rng.normal(0, 60, (~certain).sum())
    first, second, distance = grabcut._neighbours(shape)
    assert len(first) == 2 * 12 + 2 * 9
    np.testing.assert_allclose(
        distance, np.hypot(first // 4 - second // 4, first % 4 - second % 4), rtol=1e-12
    )
    differ = ((pixels[first] - pixels[second]) ** 2).sum(1)
    links = 50 / distance * np.exp(-differ / (2 * differ.mean()))

    def energy(guess: np.ndarray) -> float:
        return float(links[guess[first] != guess[second]].sum() - gain[guess[~certain]].sum())

    guesses = []
    for free in itertools.product([False, True], repeat=int((~certain).sum())):
        guess = labels.copy()
        guess[~certain] = free
        guesses.append(guess)
    found = graph.cut(gain, labels)
    assert (found[certain] == labels[certain]).all()
    assert energy(found) == pytest.approx(min(map(energy, guesses)), abs=0.05)


def test_a_mixture_is_what_scipy_says() -> None:
    rng = np.random.default_rng(0)
    pixels = np.concatenate([rng.normal(50, 9, (300, 3)), rng.normal(180, 20, (500, 3))])
    mixture = grabcut._Mixture.start(pixels).refined(pixels)
    assert len(mixture.weights) == 5
    assert mixture.weights.sum() == pytest.approx(1)
    parts = [
        w * multivariate_normal(m, c).pdf(pixels)
        for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    ]
    np.testing.assert_allclose(mixture.log_density(pixels), np.log(sum(parts)), rtol=1e-9)


def test_few_or_equal_pixels_make_a_sound_mixture() -> None:
    for pixels in (np.full((1, 1), 7.0), np.full((400, 3), 7.0)):
        mixture = grabcut._Mixture.start(pixels).refined(pixels)
        assert np.isfinite(mixture.log_density(pixels)).all()


def test_certain_pixels_stay_and_equal_channels_count_once() -> None:
    rng = np.random.default_rng(1)
    grey = rng.random((1, 20, 20))
    guess = np.zeros((20, 20), bool)
    guess[6:14, 6:14] = True
    certain = rng.random((20, 20)) < 0.3
    found = grab_cut(grey, guess, certain)
    assert (found[certain] == guess[certain]).all()
    assert (grab_cut(np.repeat(grey, 3, 0), guess, certain) == found).all()
    everything = np.ones((20, 20), bool)
    assert (grab_cut(grey, guess, everything) == guess).all()
    assert grab_cut(grey, everything, ~everything).all()


def mark_of(recist: object) -> Mark:
    names = [f"{axis}_{xy}{end}" for axis in ("long", "short") for end in (1, 2) for xy in "xy"]
    return Mark.from_xy(*(getattr(recist, name) for name in names))


@pytest.mark.parametrize(("kind", "least"), [("skin", 0.85), ("ultrasound", 0.7)])
def test_phantoms_are_cut_out(kind: str, least: float) -> None:
    scores = []
    for number in range(5):
        phantom = make_phantom(kind, number, seed=5, size=96)
        mark = mark_of(phantom.recist[0])
        found = rough_mask(phantom.case.image / 255, mark)
        assert not found.fallback
        assert found.mask[near_axes(mark, (96, 96))].all()
        scores.append(dice(found.mask, phantom.case.truth == 1))
    assert np.median(scores) > 0.88
    assert min(scores) > least


def test_one_part_without_holes() -> None:
    image = np.zeros((1, 48, 48))
    image[:, 14:34, 10:38] = 1
    image[:, 18:20, 14:16] = 0  # a hole
    image[:, 9:11, 20:28] = 1  # a neighbour within reach, which the cut finds, too
    mark = Mark.from_xy(10, 24, 37, 24, 24, 14, 24, 33)
    mask = rough_mask(image, mark).mask
    expected = np.zeros((48, 48), bool)
    expected[14:34, 10:38] = True
    assert (mask == expected).all()


@pytest.mark.parametrize("everything", [False, True])
def test_what_leaks_or_vanishes_is_replaced_by_the_ellipse(
    monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    mark = Mark.from_xy(20, 32, 44, 32, 32, 29, 32, 35)
    monkeypatch.setattr(
        grabcut, "grab_cut", lambda part, guess, *_: np.full(guess.shape, everything)
    )
    found = rough_mask(np.zeros((1, 64, 64)), mark)
    assert found.fallback
    assert (found.mask == ellipse(mark, (64, 64))).all()


def test_a_sub_pixel_lesion_has_a_pixel() -> None:
    image = np.random.default_rng(0).random((1, 16, 16))
    mark = Mark.from_xy(7.2, 8.3, 7.8, 8.3, 7.5, 8.0, 7.5, 8.6)
    assert rough_mask(image, mark).mask.any()
