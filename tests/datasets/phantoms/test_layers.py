"""OCT: three layers in anatomical order in every column, and vessels' shadows below them."""

from __future__ import annotations

import numpy as np

from finemask.datasets.phantoms import make_phantom
from finemask.datasets.phantoms.layers import depths, share_between


def test_every_column_has_the_layers_in_order() -> None:
    for number in range(6):
        truth = make_phantom("layers", number, seed=3, size=(128, 96)).case.truth
        assert truth is not None
        for column in truth.T:
            found = column[np.sort(np.unique(column, return_index=True)[1])]
            assert [n for n in found if n] in ([1, 2, 3], [2, 3])
            for layer in np.unique(column[column > 0]):
                rows = np.flatnonzero(column == layer)
                assert len(rows) == rows[-1] - rows[0] + 1, "a layer has no hole"


def test_shares_of_a_column_add_up_to_the_thickness() -> None:
    rng = np.random.default_rng(0)
    top = rng.uniform(2, 6, 8)
    bottom = top + rng.uniform(0, 5, 8)
    share = share_between(top, bottom, rows=16)
    np.testing.assert_allclose(share.sum(0), bottom - top)
    assert 0 <= share.min() <= share.max() <= 1


def test_nerve_fibres_thin_as_the_quantile_grows() -> None:
    def thickness(quantile: float) -> float:
        border = depths(np.random.default_rng(1), (200, 64), quantile)
        assert (np.diff(border, axis=0) > 0).all()
        return float((border[1] - border[0]).mean())

    assert thickness(0.0) > 2 * thickness(0.9)


def test_nerve_fibres_are_brighter_than_ganglion_cells() -> None:
    for number in range(4):
        case = make_phantom("layers", number, seed=3, size=128).case
        assert case.truth is not None
        means = [float(case.image[0][case.truth == k].mean()) for k in (1, 2)]
        assert means[0] > means[1] + 20
