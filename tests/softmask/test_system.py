from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from finemask.softmask import system
from finemask.softmask.system import narrow_order, solve
from finemask.softmask.windows import Windows, gather_windows

MARGIN = 2


def system_of(
    shape: tuple[int, ...], channels: int, seed: int
) -> tuple[Windows, np.ndarray, np.ndarray]:
    """Windows, unknown voxels and known shares on a grid with a margin of nothing."""
    rng = np.random.default_rng(seed)
    grid = tuple(2 * (n // 2 + 3) for n in shape)
    frame = tuple(slice(MARGIN, MARGIN + n) for n in shape)
    inside, unknown = np.zeros(grid, bool), np.zeros(grid, bool)
    inside[frame] = True
    unknown[frame] = rng.random(shape) < 0.6
    image = np.zeros((channels, *grid))
    image[(slice(None), *frame)] = rng.random((channels, *shape))
    known = np.zeros(grid)
    known[frame] = rng.integers(0, 2, shape)
    known[unknown] = 0
    steps = (1.5,) + (1.0,) * (len(shape) - 1)
    return gather_windows(image, inside, 1e-3, 1, steps, inside), unknown, known


def solve_densely(windows: Windows, unknown: np.ndarray, known: np.ndarray) -> np.ndarray:
    matrix = np.zeros((unknown.size, unknown.size))
    for k in range(len(windows.centres)):
        members, vectors = windows.members[:, k], windows.vectors[:, :, k]
        matrix[np.ix_(members, members)] += np.diag(windows.weights[:, k]) - vectors.T @ vectors
    u, alpha = unknown.ravel(), known.ravel().copy()
    alpha[u] = np.linalg.solve(matrix[np.ix_(u, u)], -matrix[np.ix_(u, ~u)] @ alpha[~u])
    return alpha.reshape(known.shape)


@pytest.mark.parametrize("shape", [(9,), (8, 11), (5, 4, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_solvers_agree_with_the_dense_system(shape, channels: int, monkeypatch) -> None:
    windows, unknown, known = system_of(shape, channels, seed=len(shape))
    expected = solve_densely(windows, unknown, known)
    for bandwidth, tolerance in ((10_000, 1e-10), (0, 1e-5)):
        monkeypatch.setattr(system, "DIRECT_BANDWIDTH", bandwidth)
        np.testing.assert_allclose(
            solve(windows, unknown, known, 1), expected, atol=tolerance, rtol=0
        )


@given(hnp.arrays(bool, (8, 12)), st.sampled_from([2, 4]))
@settings(max_examples=30)
def test_every_unknown_voxel_has_one_place_in_the_order(unknown, cell: int) -> None:
    if unknown.any():
        unknown = np.pad(unknown, cell)
        order = narrow_order(unknown, cell)
        np.testing.assert_array_equal(np.sort(order), np.flatnonzero(unknown))


def bandwidth_of(order: np.ndarray, shape: tuple[int, int]) -> int:
    rank = np.full(shape, -1)
    rank.ravel()[order] = np.arange(len(order))
    width = 0
    for row, column in ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 2)):
        one, other = rank[: shape[0] - row, : shape[1] - column], rank[row:, column:]
        both = (one >= 0) & (other >= 0)
        width = max(width, int(np.abs(one - other)[both].max()))
    return width


def test_a_ring_is_as_narrow_as_its_two_sides() -> None:
    y, x = np.mgrid[:128, :128] - 63.7
    ring = np.abs(np.hypot(y, x) - 40) < 4
    assert bandwidth_of(narrow_order(ring, 2), ring.shape) < 70
    assert bandwidth_of(np.flatnonzero(ring), ring.shape) > 80


@pytest.mark.parametrize("bandwidth", [10_000, 0])
def test_a_singular_system_is_an_error(bandwidth: int, monkeypatch) -> None:
    monkeypatch.setattr(system, "DIRECT_BANDWIDTH", bandwidth)
    monkeypatch.setattr(system, "ITERATIONS", 3)
    windows, unknown, known = system_of((8, 8), 1, seed=0)
    windows.vectors[...] *= 1.2
    with pytest.raises(ArithmeticError):
        solve(windows, unknown, known, 1)


def test_linear_algebra_has_one_thread_meanwhile() -> None:
    def threads() -> set[int]:
        found = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in found if pool["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with system._one_thread():
            assert threads() == {1}
        assert threads() == {2}
