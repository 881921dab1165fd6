"""Fundus: dark thin vessels inside a disc of light, down to one pixel."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from finemask.datasets.phantoms import make_phantom


def test_vessels_are_dark_in_green_and_inside_the_field() -> None:
    case = make_phantom("vessels", 0, seed=3).case
    assert case.truth is not None
    vessel = case.truth > 0
    y, x = np.indices(vessel.shape)
    distance = np.hypot(y - 127.5, x - 127.5)
    assert not vessel[distance > 0.476 * 256].any()
    assert not case.image[:, distance > 0.49 * 256].any()
    wide = distance_transform_edt(vessel) >= 2
    near = (distance_transform_edt(~vessel) > 3) & (distance_transform_edt(~vessel) < 6)
    assert case.image[1][wide].mean() < 0.8 * case.image[1][near & (distance < 110)].mean()


def test_calibres_run_from_several_pixels_down_to_one() -> None:
    case = make_phantom("vessels", 1, seed=3).case
    assert case.truth is not None
    vessel = case.truth > 0
    depth = distance_transform_edt(vessel)
    assert depth.max() >= 2
    interior = depth > 1
    assert interior.mean() < 0.6 * vessel.mean(), "many vessels are only a pixel or two wide"
    assert 0.05 < vessel.mean() < 0.2
    pieces, count = label(vessel, structure=np.ones((3, 3)))
    largest = np.bincount(pieces.ravel())[1:].max()
    assert largest > 0.6 * vessel.sum(), f"one tree, found {count} pieces"
