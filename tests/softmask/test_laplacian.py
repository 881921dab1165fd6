from __future__ import annotations

import numpy as np
import pytest

from finemask import soft_mask
from finemask.softmask.laplacian import local_models, matting_cost, matting_laplacian

RNG = np.random.default_rng(0)
CASES = [(1, (4, 5)), (3, (4, 5)), (1, (3, 4, 4)), (2, (3, 4, 4))]


def windows_of(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Flat indices of each window that lies wholly within the image."""
    index = np.arange(np.prod(shape)).reshape(shape)
    corners = np.ndindex(*[n - 2 for n in shape])
    return [index[tuple(slice(c, c + 3) for c in corner)].ravel() for corner in corners]


@pytest.mark.parametrize(("channels", "shape"), CASES)
def test_local_models_are_the_ridge_regression_of_eq_5_and_6(channels, shape) -> None:
    alpha, image = RNG.random(shape), RNG.random((channels, *shape))
    a, b = local_models(alpha, image, epsilon=0.01)
    cost = 0.0
    for k, w in enumerate(windows_of(shape)):
        # The penalty as further rows of an ordinary regression.
        design = np.block(
            [
                [image.reshape(channels, -1)[:, w].T, np.ones((w.size, 1))],
                [0.1 * np.eye(channels), np.zeros((channels, 1))],
            ]
        )
        goal = np.append(alpha.ravel()[w], np.zeros(channels))
        found, left, _, _ = np.linalg.lstsq(design, goal)
        np.testing.assert_allclose(np.append(a[k], b[k]), found, atol=1e-10)
        cost += left[0]
    assert matting_cost(alpha, image, epsilon=0.01) == pytest.approx(cost)


def test_eq_5_gives_the_intensities_of_lesion_and_background() -> None:
    lesion, background = 0.7, 0.2
    alpha = RNG.random((5, 5))
    image = alpha * lesion + (1 - alpha) * background
    a, b = local_models(alpha, image[None], epsilon=1e-14)
    np.testing.assert_allclose(a, 1 / (lesion - background), rtol=1e-6)
    np.testing.assert_allclose(b, -background / (lesion - background), rtol=1e-6)


@pytest.mark.parametrize(("channels", "shape"), CASES)
def test_the_laplacian_is_the_matrix_of_the_cost_of_eq_7(channels, shape) -> None:
    alpha, image = RNG.random(shape), RNG.random((channels, *shape))
    matrix = matting_laplacian(image, epsilon=0.01)
    quadratic = alpha.ravel() @ (matrix @ alpha.ravel())
    assert quadratic == pytest.approx(matting_cost(alpha, image, epsilon=0.01))
    np.testing.assert_allclose(matrix @ np.ones(alpha.size), 0, atol=1e-12)
    assert np.linalg.eigvalsh(matrix.toarray()).min() > -1e-12


def test_the_laplacian_has_the_entries_of_eq_8() -> None:
    image, epsilon = RNG.random((4, 5)), 0.02
    expected = np.zeros((20, 20))
    for w in windows_of(image.shape):
        values = image.ravel()[w]
        for p, i in enumerate(w):
            for q, j in enumerate(w):
                product = (values[p] - values.mean()) * (values[q] - values.mean())
                expected[i, j] += (i == j) - (1 + product / (epsilon / 9 + values.var())) / 9
    ours = matting_laplacian(image[None], epsilon).toarray()
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_a_soft_mask_costs_less_than_its_neighbours() -> None:
    image = RNG.random((9, 9))
    trimap = np.full((9, 9), 0.5)
    trimap[:2], trimap[-2:] = 1, 0
    alpha = soft_mask(image, trimap, epsilon=1e-3)
    least = matting_cost(alpha, image[None], epsilon=1e-3)
    inner = (alpha > 0.01) & (alpha < 0.99) & (trimap == 0.5)
    assert inner.sum() > 20
    for _ in range(10):
        other = alpha + 0.01 * inner * RNG.standard_normal(alpha.shape)
        assert matting_cost(other, image[None], epsilon=1e-3) > least
