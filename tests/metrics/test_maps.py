from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from finemask.metrics.maps import as_map_and_mask, grey_levels, minmax, sixteen_bit

files = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5))
)


@given(files)
def test_levels_are_those_of_the_integers_in_the_file(stored) -> None:
    largest = np.iinfo(stored.dtype).max
    read = stored / np.float32(largest)  # as probabilities are read, with rounding
    assert read.dtype == np.float32
    assert np.array_equal(grey_levels(sixteen_bit(read)), 255 * stored.astype(int) // largest)
    low, high = int(stored.min()), int(stored.max())
    if high > low:
        exact = 255 * (stored.astype(int) - low) // (high - low)
        assert np.array_equal(grey_levels(minmax(read)), exact)


def test_a_threshold_is_reached_where_rounded_quotients_miss_it() -> None:
    missed = 0
    for high in range(1, 256):
        stored = np.arange(high + 1).astype(np.uint8)
        exact = 255 * stored.astype(int) // high
        read = stored / np.float32(255)
        assert np.array_equal(grey_levels(minmax(read)), exact)
        as_public_code = (read / read.max() * 255).astype(np.uint8)
        missed += np.count_nonzero(as_public_code != exact)
    assert missed > 100
    every = np.arange(65536)
    assert np.array_equal(grey_levels(sixteen_bit(every / np.float32(65535))), every // 257)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_is_not_stretched(value) -> None:
    assert minmax(np.full((3, 3), value)) == pytest.approx(value, abs=1e-5)


def test_a_weak_map_is_made_certain() -> None:
    assert minmax(np.array([0.0, 0.1, 0.3])).tolist() == pytest.approx([0, 1 / 3, 1], abs=1e-4)


@pytest.mark.parametrize(
    ("probs", "truth", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 3), bool), "one grid"),
        (np.full((2, 2), 1.5), np.zeros((2, 2), bool), "must lie in"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), bool), "must lie in"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "threshold it first"),
    ],
)
def test_refuses_what_is_no_map_or_no_mask(probs, truth, message) -> None:
    with pytest.raises(ValueError, match=message):
        as_map_and_mask(probs, truth)
