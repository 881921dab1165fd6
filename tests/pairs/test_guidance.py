"""The guidance window against searches written out, voxel by voxel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from finemask.pairs.guidance import (
    PATIENCE,
    CropGuide,
    candidate_starts,
    cut_guidance,
    shell_centre,
    window_variances,
)


def equation_9(
    shape: tuple[int, int, int], size: tuple[int, int, int]
) -> list[list[tuple[int, ...]]]:
    """Starts of every evaluation of the paper's triple loop, a list a shell, repeats and all."""
    d, h, w = shape
    length = math.sqrt((w / 2) ** 2 + (h / 2) ** 2 + (d / 2) ** 2)
    shells = []
    for r in (length * k / 6 for k in range(1, 7)):
        shell = []
        for theta in np.arange(7) * math.pi / 6:
            for phi in np.arange(7) * math.pi / 3:
                x = r * math.sin(theta) * math.cos(phi) + w / 2
                y = r * math.sin(theta) * math.sin(phi) + h / 2
                z = r * math.cos(theta) + d / 2
                places = [c - s / 2 for c, s in zip((z, y, x), size, strict=True)]
                shell.append(tuple(math.ceil(p - 0.5 - 1e-6) for p in places))
        shells.append(shell)
    return shells


def search(image: np.ndarray, size: tuple[int, int, int]) -> tuple[int, ...]:
    """Algorithm 1 with Eq. 9's places, numpy's variance and no window looked at twice."""

    def variance(start: tuple[int, ...]) -> float:
        window = tuple(slice(b, b + s) for b, s in zip(start, size, strict=True))
        return float(image[(slice(None), *window)].reshape(len(image), -1).var(1).sum())

    shape = image.shape[1:]
    best = tuple((n - s) // 2 for n, s in zip(shape, size, strict=True))
    seen, count = {best}, 0
    for start in (s for shell in equation_9(shape, size) for s in shell):
        if start in seen:
            continue
        seen.add(start)
        if any(b < 0 or b + s > n for b, s, n in zip(start, size, shape, strict=True)):
            return best
        if variance(start) > variance(best):
            best, count = start, 0
        else:
            count += 1
        if count == PATIENCE:
            return best
    return best


def noise(shape: tuple[int, ...], seed: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ground = rng.standard_normal((channels, *shape))
    ramp = np.linspace(0, rng.uniform(1, 4), shape[-1])  # contrast grows along an axis
    return (5 + ground * ramp).astype(np.float32)


def test_the_papers_volume_has_a_centre_and_one_shell_of_32() -> None:
    shape, size = (128, 192, 192), (32, 48, 48)
    starts = candidate_starts(shape, size)
    first = equation_9(shape, size)[0]
    assert len(first) == 49
    assert len(set(first)) == 32
    assert {tuple(s) for s in starts.tolist()} == {(48, 72, 72), *first}
    assert len(starts) == 33


@budget(max_examples=25)
@given(
    st.tuples(st.integers(8, 40), st.integers(8, 40), st.integers(8, 40)),
    st.integers(0, 10**6),
    st.integers(1, 3),
)
def test_the_search_is_algorithm_1(shape: tuple[int, int, int], seed: int, channels: int) -> None:
    image = noise(shape, seed, channels)
    guide = CropGuide()
    window = guide(image)
    assert tuple(side.start for side in window) == search(
        image.astype(np.float64), guide.size(shape)
    )


@budget(max_examples=25)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30)),
    st.sampled_from(["selective", "exhaustive", "central", "random"]),
)
def test_a_window_lies_within_any_volume(shape: tuple[int, int, int], mode: str) -> None:
    image = noise(shape, 3)
    guide = CropGuide(mode)
    window = guide(image)
    assert all(0 <= s.start < s.stop <= n for s, n in zip(window, shape, strict=True))
    assert cut_guidance(guide, image).shape == (1, *guide.size(shape))
    assert guide(image.copy()) == window


def test_an_exhaustive_search_sees_more_and_never_less() -> None:
    image = noise((48, 64, 64), 0)
    image[:, 2:10, 2:14, 30:46] *= 9  # far from the first shell
    size = CropGuide().size((48, 64, 64))
    found = {}
    for mode in ("central", "selective", "exhaustive"):
        starts = np.array([[side.start for side in CropGuide(mode)(image)]])
        found[mode] = float(window_variances(image, starts, size)[0])
    assert found["central"] <= found["selective"] < found["exhaustive"]


def test_variances_are_those_of_the_windows() -> None:
    image = 1000 + noise((20, 24, 28), 1, channels=2)
    size = (5, 6, 7)
    starts = candidate_starts((20, 24, 28), size, exhaustive=True)
    expected = [
        image[:, a : a + 5, b : b + 6, c : c + 7].reshape(2, -1).astype(float).var(1).sum()
        for a, b, c in starts
    ]
    np.testing.assert_allclose(window_variances(image, starts, size), expected, rtol=1e-5)


def test_a_constant_image_keeps_the_centre() -> None:
    image = np.full((1, 16, 32, 32), 0.1, np.float32)
    assert CropGuide()(image) == CropGuide("central")(image) == CropGuide("exhaustive")(image)


def test_the_search_prefers_contrast_to_the_centre() -> None:
    image = np.zeros((1, 64, 96, 96), np.float32)
    image[0, 30:40, 40:50, 62:72] = 1
    start = [side.start for side in CropGuide()(image)]
    assert start[2] > 36  # the window's start when central


@pytest.mark.parametrize("polar", [0.0, 0.7, math.pi])
def test_places_lie_on_a_sphere(polar: float) -> None:
    centre = np.array(shell_centre((10, 20, 30), 4.0, polar, 1.1)) - (5, 10, 15)
    assert np.linalg.norm(centre) == pytest.approx(4.0)
    assert centre[0] == pytest.approx(4 * math.cos(polar))


def test_random_windows_differ_between_images() -> None:
    windows = [CropGuide("random")(noise((32, 32, 32), seed)) for seed in range(6)]
    assert len(set(map(str, windows))) > 3
