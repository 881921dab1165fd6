"""Lung CT: Hounsfield units, several nodules over two decades of volume, real geometry."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from finemask.datasets.phantoms import make_phantom
from finemask.datasets.phantoms.nodules import nodules, quantum_noise


def test_volumes_cover_two_decades_and_most_nodules_are_whole() -> None:
    volumes = []
    for number in range(4):
        scene = nodules(np.random.default_rng(number), (48, 80, 80), number * 0.618 % 1)
        volumes += np.bincount(scene.lesions.ravel())[1:].tolist()
        pieces, _ = label(scene.truth, structure=np.ones((3, 3, 3)))
        assert np.sum(np.bincount(pieces.ravel())[1:] > 8) == scene.lesions.max()
    assert len(volumes) >= 8
    assert 30 < max(volumes) / min(volumes) < 300


def test_tissues_have_their_hounsfield_units() -> None:
    case = make_phantom("nodules", 0, seed=1, size=(32, 64, 64)).case
    image = case.image[0]
    assert -960 < np.median(image[image < -500]) < -780
    assert image.max() > 300, "ribs"
    assert ((image > -20) & (image < 110)).mean() > 0.03, "chest wall"
    assert case.truth is not None
    assert image[case.truth > 0].mean() > -700


def test_noise_is_correlated_within_a_slice_only() -> None:
    noise = quantum_noise((24, 64, 64), np.random.default_rng(0))
    assert noise.std() == pytest.approx(1.0, abs=1e-3)
    within = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    between = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert within > 0.3
    assert abs(between) < 0.03


def test_slices_lie_along_the_patient() -> None:
    geometry = make_phantom("nodules", 0, size=(16, 24, 24)).case.geometry
    assert geometry.spacing == pytest.approx((1.25, 0.7, 0.7))
    np.testing.assert_allclose(
        np.array(geometry.direction), [[0, 0, -1], [0, -1, 0], [1, 0, 0]], atol=1e-12
    )
