"""Tiles cover an image, agree with the whole and leave no seam."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from finemask.inference.tiles import (
    TilePlan,
    axis_weights,
    blend,
    padded_shape,
    plan_tiles,
    smaller_tile,
)

Network = Callable[[NDArray[Any]], NDArray[Any]]


@st.composite
def plans(draw: st.DrawFn) -> tuple[TilePlan, int]:
    stride = draw(st.integers(1, 5))
    shape = tuple(stride * draw(st.integers(1, 24)) for _ in range(draw(st.integers(1, 3))))
    tile = tuple(draw(st.integers(1, 80)) for _ in shape)
    return plan_tiles(shape, tile, stride), stride


@given(plans())
def test_tiles_cover_the_image_and_start_on_the_stride(planned: tuple[TilePlan, int]) -> None:
    plan, stride = planned
    for side, tile, overlap, starts in zip(
        plan.shape, plan.tile, plan.overlap, plan.starts, strict=True
    ):
        assert starts[0] == 0
        assert starts[-1] + tile == side
        assert all(start % stride == 0 for start in (*starts, tile))
        assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))
        assert all(b > a for a, b in itertools.pairwise(starts))


@given(plans(), st.integers(1, 4))
def test_weights_are_one_together_and_zero_at_the_seams(
    planned: tuple[TilePlan, int], scale: int
) -> None:
    plan, _ = planned
    for axis, (side, tile, starts) in enumerate(
        zip(plan.shape, plan.tile, plan.starts, strict=True)
    ):
        total = np.zeros(side * scale)
        for start, weights in zip(starts, axis_weights(plan, axis, scale), strict=True):
            total[start * scale : (start + tile) * scale] += weights
            assert weights.min() >= 0
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_tile_counts_for_nothing_next_to_its_inner_edges_only() -> None:
    plan = plan_tiles((64,), (32,))
    first, *_, last = axis_weights(plan, 0, 2)
    context = plan.overlap[0] // 4 * 2
    assert first[0] == 1
    assert (first[-context:] == 0).all()
    assert (last[:context] == 0).all()
    assert last[-1] == 1


def smooth_and_enlarge(radius: int, scale: tuple[int, ...]) -> Network:
    """A network with a receptive field of ``radius`` LR voxels: a box mean, then enlargement."""

    def forward(tile: NDArray[Any]) -> NDArray[Any]:
        smooth = ndimage.uniform_filter(tile, (1, *[2 * radius + 1] * len(scale)), mode="nearest")
        for axis, factor in enumerate(scale, 1):
            smooth = np.repeat(smooth, factor, axis)
        return np.concatenate([smooth, 1 - smooth]).astype(np.float32)

    return forward


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 70), min_size=2, max_size=3),
    stride=st.sampled_from([1, 4, 8]),
    scale=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_tiled_equals_whole_where_the_context_suffices(
    shape: list[int], stride: int, scale: int, seed: int
) -> None:
    image = np.random.default_rng(seed).random((1, *shape), np.float32)
    factors = (scale,) * len(shape)
    padded = padded_shape(shape, stride)
    forward = smooth_and_enlarge(1, factors)
    whole = np.concatenate(
        list(blend(image, forward, plan_tiles(padded, padded, stride), factors)), 1
    )
    plan = plan_tiles(padded, (24,) * len(shape), stride)
    tiled = np.concatenate(list(blend(image, forward, plan, factors)), 1)
    assert tiled.shape == whole.shape == (2, *(side * scale for side in shape))
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_too_little_context_shows() -> None:
    """The test above can fail: a receptive field beyond the context changes the result."""
    image = np.random.default_rng(0).random((1, 64, 64), np.float32)
    forward = smooth_and_enlarge(8, (1, 1))
    (whole,) = blend(image, forward, plan_tiles((64, 64), (64, 64)), (1, 1))
    tiled = np.concatenate(list(blend(image, forward, plan_tiles((64, 64), (24, 24)), (1, 1))), 1)
    assert np.abs(tiled - whole).max() > 1e-3


def test_tiles_that_disagree_leave_no_seam() -> None:
    """Each tile answers with another constant; the joint still changes gradually."""
    answers = itertools.cycle([0.0, 1.0])

    def forward(tile: NDArray[Any]) -> NDArray[Any]:
        return np.full(tile.shape, next(answers), np.float32)

    plan = plan_tiles((128,), (64,))
    (joined,) = np.concatenate(list(blend(np.zeros((1, 128), np.float32), forward, plan, (1,))), 1)
    ramp = plan.overlap[0] / 2
    assert joined.min() == 0
    assert joined.max() == 1
    assert np.abs(np.diff(joined)).max() < 2.5 / ramp


def test_padding_repeats_the_edge() -> None:
    image = np.full((1, 5, 9), 3, np.float32)

    def forward(tile: NDArray[Any]) -> NDArray[Any]:
        assert (tile == 3).all()
        return tile

    (slab,) = blend(image, forward, plan_tiles((8, 16), (8, 16), 8), (1, 1))
    assert slab.shape == (1, 5, 9)


def test_slabs_come_before_the_last_tile_is_predicted() -> None:
    calls = []

    def forward(tile: NDArray[Any]) -> NDArray[Any]:
        calls.append(1)
        return tile

    plan = plan_tiles((64, 16), (16, 16))
    first = next(blend(np.zeros((1, 64, 16), np.float32), forward, plan, (1, 1)))
    assert first.shape[1] < 64
    assert len(calls) < len(plan)


@pytest.mark.parametrize(
    ("shape", "stride", "expected"),
    [
        ((7, 33), 16, (16, 48)),
        ((7, 3), 16, (32, 32)),
        ((7, 3), 1, (7, 3)),
        ((16,) * 3, 16, (32,) * 3),
    ],
)
def test_padding_never_leaves_a_single_voxel_at_the_bottleneck(
    shape: tuple[int, ...], stride: int, expected: tuple[int, ...]
) -> None:
    assert padded_shape(shape, stride) == expected


def test_shrinking_ends_at_the_smallest_tile() -> None:
    tile: tuple[int, ...] | None = (100, 40)
    seen = []
    while tile is not None:
        seen.append(tile)
        tile = smaller_tile(tile, 4)
    assert seen[-1] == (16, 16)
    assert all(side % 4 == 0 for shape in seen for side in shape)
