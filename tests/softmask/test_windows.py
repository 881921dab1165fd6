from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from finemask.softmask.windows import gather_windows, window_steps, window_weights

spacings = st.lists(st.floats(1, 20), min_size=1, max_size=3)


@given(spacings, st.integers(1, 3))
@settings(max_examples=30)
def test_windows_reach_equally_far_in_millimetres(steps, radius) -> None:
    steps[0] = 1.0
    weights = window_weights(radius, steps)
    places = window_steps(radius, len(steps)) * steps
    moments = (weights[:, None] * places**2).sum(0) / weights.sum()
    np.testing.assert_allclose(moments, moments[0], rtol=1e-6)
    assert weights.max() == 1
    assert weights.min() > 0


def test_equal_spacings_weigh_equally() -> None:
    assert (window_weights(2, (1.0, 1.0, 1.0)) == 1).all()


def ridge(colours: np.ndarray, weights: np.ndarray, epsilon: float) -> np.ndarray:
    """Matrix of the cost that the best affine function of the colours leaves of a mask."""
    design = np.column_stack([colours, np.ones(len(colours))])
    penalty = epsilon * np.diag([1.0] * colours.shape[1] + [0.0])
    g = np.diag(weights)
    fit = np.linalg.solve(design.T @ g @ design + penalty, design.T @ g)
    return g - g @ design @ fit


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_vectors_make_the_matrix_of_a_ridge_regression(channels: int, ndim: int) -> None:
    rng = np.random.default_rng(channels)
    shape, steps, epsilon = (5,) * ndim, (2.0,) + (1.0,) * (ndim - 1), 0.01
    image = rng.random((channels, *shape))
    inside = rng.random(shape) < 0.8
    centres = np.zeros(shape, bool)
    centres[(slice(1, -1),) * ndim] = True
    centres &= inside
    windows = gather_windows(image, centres, epsilon, 1, steps, inside)
    for k in range(len(windows.centres)):
        members = windows.members[:, k]
        weights = window_weights(1, steps) * inside.ravel()[members]
        vectors = windows.vectors[:, :, k]
        ours = np.diag(windows.weights[:, k]) - vectors.T @ vectors
        theirs = ridge(image.reshape(channels, -1)[:, members].T, weights, epsilon)
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
