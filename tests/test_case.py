"""Cases: every array of a case moves together."""

from __future__ import annotations

import numpy as np
import pytest

from finemask.case import Case
from finemask.geometry import Geometry


def make_case(shape: tuple[int, ...] = (3, 4, 5)) -> Case:
    voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Case(
        name="one",
        image=np.stack([voxels, -voxels]),
        geometry=Geometry.regular(shape, (3.0, 2.0, 1.0)[: len(shape)]),
        truth=(voxels > 5).astype(np.uint8),
        soft=(voxels / voxels.max())[None],
        readers=np.stack([(voxels > 4), (voxels > 6)]).astype(np.uint8),
    )


@pytest.mark.parametrize("field", ["image", "truth", "soft", "readers"])
def test_arrays_off_the_grid_are_refused(field: str) -> None:
    case = make_case()
    arrays = {f: getattr(case, f) for f in ("image", "truth", "soft", "readers")}
    arrays[field] = arrays[field][..., :-1]
    with pytest.raises(ValueError, match=field):
        Case(name="one", geometry=case.geometry, **arrays)


def test_turning_moves_everything_alike() -> None:
    case = make_case()
    turned = case.turned((2, 0, 1), flips=(1,))
    assert turned.geometry.shape == (5, 3, 4)
    assert turned.truth is not None
    assert turned.soft is not None
    assert turned.readers is not None
    np.testing.assert_array_equal(turned.truth, turned.image[0] > 5)
    np.testing.assert_array_equal(turned.readers[1], turned.image[0] > 6)
    np.testing.assert_allclose(turned.soft[0], turned.image[0] / case.image.max())
    assert turned.geometry.spacing == (1.0, 3.0, 2.0)
    np.testing.assert_array_equal(case.image, make_case().image)


def test_a_window_inside_is_the_window() -> None:
    part = make_case().cropped((1, 1, 2), (2, 2, 3))
    np.testing.assert_array_equal(part.image, make_case().image[:, 1:3, 1:3, 2:5])
    assert part.geometry.origin == (3.0, 2.0, 2.0)


def test_a_window_over_the_edge_repeats_the_image_and_pads_background() -> None:
    part = make_case((3, 4)).cropped((-1, 2), (5, 4))
    assert part.truth is not None
    np.testing.assert_array_equal(part.image[0][:, 0], [2, 2, 6, 10, 10])
    np.testing.assert_array_equal(part.truth[:, 0], [0, 0, 1, 1, 0])
    np.testing.assert_array_equal(part.truth[:, 2:], 0)


def test_a_window_that_misses_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="misses"):
        make_case((3, 4)).cropped((3, 0), (2, 2))
    with pytest.raises(ValueError, match="misses"):
        make_case((3, 4)).cropped((-4, 0), (2, 2))
