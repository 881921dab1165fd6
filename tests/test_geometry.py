"""Geometry: a voxel stays where it is in the patient, whatever is done to its grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from finemask.geometry import Geometry


@st.composite
def grids(draw: st.DrawFn, ndim: int | None = None) -> Geometry:
    """Oblique, flipped, anisotropic grids far from the origin."""
    n = ndim or draw(st.sampled_from([2, 3]))
    shape = draw(st.tuples(*[st.integers(1, 12)] * n))
    spacing = draw(st.tuples(*[st.floats(0.1, 8.0)] * n))
    origin = draw(st.tuples(*[st.floats(-500.0, 500.0)] * n))
    angles = draw(st.tuples(*[st.floats(-3.1, 3.1)] * 3))
    turn = Rotation.from_euler("xyz", angles).as_matrix() if n == 3 else _turn(angles[0])
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * n))
    affine = np.eye(n + 1)
    affine[:n, :n] = turn * np.array(signs) * np.array(spacing)
    affine[:n, n] = origin
    return Geometry.from_affine(shape, affine)


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def scales(geometry: Geometry) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(1, 4)] * geometry.ndim)


@given(st.data(), grids())
def test_hr_and_lr_share_their_corners(data: st.DataObject, lr: Geometry) -> None:
    hr = lr.refined(data.draw(scales(lr)))
    np.testing.assert_allclose(hr.corners(), lr.corners(), atol=1e-6)
    np.testing.assert_allclose(hr.extent, lr.extent)


@given(st.data(), grids())
def test_refined_grid_follows_the_voxel_centre_rule(data: st.DataObject, lr: Geometry) -> None:
    """Affine of HR is A times [diag(1/s), (1/s - 1)/2], as written in the field's own terms."""
    scale = data.draw(scales(lr))
    inverse = 1 / np.array(scale)
    rule = np.eye(lr.ndim + 1)
    rule[:-1, :-1] = np.diag(inverse)
    rule[:-1, -1] = (inverse - 1) / 2
    np.testing.assert_allclose(lr.refined(scale).affine, lr.affine @ rule, atol=1e-9)


@given(st.data(), grids())
def test_coarsening_undoes_refining(data: st.DataObject, lr: Geometry) -> None:
    scale = data.draw(scales(lr))
    assert lr.distance_voxels(lr.refined(scale).coarsened(scale)) < 1e-6


@given(grids())
def test_world_and_index_are_inverse(grid: Geometry) -> None:
    index = np.array(list(itertools.product(*[(0, s - 1) for s in grid.shape])), dtype=float)
    np.testing.assert_allclose(grid.to_index(grid.to_world(index)), index, atol=1e-6)


@given(grids())
def test_affine_round_trip(grid: Geometry) -> None:
    assert grid.distance_voxels(Geometry.from_affine(grid.shape, grid.affine)) < 1e-6


@given(st.data(), grids())
def test_flips_and_permutations_keep_every_voxel_in_place(
    data: st.DataObject, grid: Geometry
) -> None:
    order = data.draw(st.permutations(range(grid.ndim)))
    flips = data.draw(st.sets(st.integers(0, grid.ndim - 1)))
    turned = grid.permuted(order)
    for axis in flips:
        turned = turned.flipped(axis)
    array = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    moved = np.flip(array.transpose(order), tuple(flips))
    for index in itertools.product(*[{0, s - 1} for s in moved.shape]):
        before = np.unravel_index(int(moved[index]), grid.shape)
        world = grid.to_world(np.array(before, dtype=float))
        np.testing.assert_allclose(turned.to_world(np.array(index, dtype=float)), world, atol=1e-6)


@settings(max_examples=50)
@given(st.data(), grids(ndim=3))
def test_a_lossless_way_between_turned_grids_is_found(data: st.DataObject, grid: Geometry) -> None:
    order = data.draw(st.permutations(range(3)))
    target = grid.permuted(order).flipped(data.draw(st.integers(0, 2)))
    found = grid.axes_to(target)
    assert found is not None
    turned = grid.permuted(found[0])
    for axis in found[1]:
        turned = turned.flipped(axis)
    assert turned.matches(target)


def test_no_lossless_way_to_a_shifted_grid() -> None:
    grid = Geometry.regular((4, 5, 6), (1.0, 2.0, 3.0))
    assert grid.axes_to(grid.cropped((0, 0, 1), grid.shape)) is None
    assert grid.axes_to(Geometry.regular((4, 5), (1.0, 2.0))) is None


@given(grids(ndim=3))
def test_canonical_axes_point_to_superior_anterior_right(grid: Geometry) -> None:
    order, flips = grid.axes_to_canonical()
    turned = grid.permuted(order)
    for axis in flips:
        turned = turned.flipped(axis)
    aligned = np.array(turned.direction)[::-1]
    assert (np.diag(aligned) >= 0).all()
    best = max(
        sum(abs(aligned[a, b]) for a, b in enumerate(p)) for p in itertools.permutations(range(3))
    )
    assert np.trace(np.abs(aligned)) == pytest.approx(best)


def test_cropping_moves_the_origin_and_may_pad() -> None:
    grid = Geometry.regular((4, 4), (2.0, 1.0), origin=(10.0, 20.0))
    assert grid.cropped((1, 2), (2, 2)).origin == (12.0, 22.0)
    assert grid.cropped((-1, 0), (6, 4)).origin == (8.0, 20.0)


@pytest.mark.fault("F31", "F32")
def test_header_noise_is_forgiven_and_a_shift_is_not() -> None:
    grid = Geometry.regular((10, 10, 10), (1.0, 1.0, 1.0))
    noisy = np.eye(4) + np.random.default_rng(0).normal(0, 1e-8, (4, 4)) * np.eye(4, 4)
    assert grid.matches(Geometry.from_affine(grid.shape, noisy))
    assert not grid.matches(Geometry.regular((10, 10, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.01)))


@pytest.mark.parametrize(
    "fault",
    [
        {"shape": (0, 4)},
        {"spacing": (0.0, 1.0)},
        {"spacing": (float("nan"), 1.0)},
        {"origin": (float("inf"), 0.0)},
        {"direction": ((1.0, 1.0), (1.0, 1.0))},
        {"origin": (0.0, 0.0, 0.0)},
    ],
)
def test_impossible_grids_are_refused(fault: dict[str, tuple[float, ...]]) -> None:
    sound = {
        "shape": (4, 4),
        "spacing": (1.0, 1.0),
        "origin": (0.0, 0.0),
        "direction": ((1.0, 0.0), (0.0, 1.0)),
    }
    with pytest.raises(ValueError, match=r"geometry|axis|spacing|singular"):
        Geometry(**{**sound, **fault})  # type: ignore[arg-type]


def test_a_sheared_grid_is_kept_as_it_is() -> None:
    affine = np.array([[1, 0.3, 0, 5], [0, 1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(Geometry.from_affine((2, 2, 2), affine).affine, affine)


def test_unknown_spacing_is_in_pixels() -> None:
    assert Geometry.regular((3, 3)).unit == "px"
    assert Geometry.regular((3, 3), (1.0, 1.0)).unit == "mm"
    assert Geometry.regular((3, 3), (0.5, 2.0)).voxel_volume == 1.0
