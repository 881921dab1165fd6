"""Dermoscopy: pigment is darker and browner than skin, with a soft border."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from finemask.datasets.phantoms import make_phantom


def test_pigment_absorbs_blue_more_than_red() -> None:
    for number in range(4):
        case = make_phantom("skin", number, seed=2, size=128).case
        assert case.truth is not None
        lesion = case.truth > 0
        around = binary_dilation(lesion, iterations=12) & ~binary_dilation(lesion, iterations=5)
        ratio = np.median(case.image[:, lesion], axis=1) / np.median(case.image[:, around], axis=1)
        assert (ratio < 0.9).all()
        assert ratio[2] < ratio[0]


def test_the_border_fades_over_more_than_a_pixel() -> None:
    case = make_phantom("skin", 2, seed=2, size=256).case
    assert case.truth is not None
    lesion = case.truth > 0
    ring_in = lesion & ~binary_erosion(lesion, iterations=2)
    ring_out = binary_dilation(lesion, iterations=2) & ~lesion
    core = binary_erosion(lesion, iterations=8)
    far = binary_dilation(lesion, iterations=18) & ~binary_dilation(lesion, iterations=10)
    green = [float(np.median(case.image[1][m])) for m in (core, ring_in, ring_out, far)]
    assert green == sorted(green)
    assert green[2] - green[1] < 0.7 * (green[3] - green[0])
