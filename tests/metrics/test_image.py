from __future__ import annotations

import math

import numpy as np
import pytest

from finemask.metrics import psnr, ssim


def noisy_pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    image = rng.random(shape) * 200
    return image, image + rng.normal(0, 20, shape)


@pytest.mark.parametrize("shape", [(40, 31), (11, 11), (16, 18, 13)])
def test_ssim_agrees_with_scikit_image(shape) -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is the reference")
    image, reference = noisy_pair(shape)
    expected = skimage.structural_similarity(
        image,
        reference,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(image, reference, data_range=255) == pytest.approx(expected, abs=1e-9)


def test_psnr_agrees_with_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is the reference")
    image, reference = noisy_pair((20, 30))
    expected = skimage.peak_signal_noise_ratio(reference, image, data_range=255)
    assert psnr(image, reference, data_range=255) == pytest.approx(expected, abs=1e-9)


def test_ssim_at_the_centre_of_one_window_by_hand() -> None:
    x, y = noisy_pair((11, 11))
    tap = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(tap, tap) / tap.sum() ** 2
    mx, my = (window * x).sum(), (window * y).sum()
    vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
    cov = (window * (x - mx) * (y - my)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(x, y, data_range=255) == pytest.approx(expected, abs=1e-9)


def test_a_volume_of_depth_one_scores_as_its_slice() -> None:
    image, reference = noisy_pair((30, 30))
    flat = ssim(image, reference, data_range=255)
    assert ssim(image[None], reference[None], data_range=255) == pytest.approx(flat, abs=1e-12)


def test_identical_images() -> None:
    for image in (noisy_pair((12, 12))[0], np.full((12, 12), 7.0), np.zeros((3, 3))):
        assert ssim(image, image, data_range=255) == pytest.approx(1)
        assert psnr(image, image, data_range=255) == math.inf


@pytest.mark.parametrize("data_range", [0, -1, math.inf, math.nan])
def test_refuses_a_data_range_that_makes_no_sense(data_range) -> None:
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="data_range must be positive"):
            metric(np.ones((12, 12)), np.ones((12, 12)), data_range=data_range)


def test_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"image has shape \(2, 3\), reference \(2, 2\)"):
        psnr(np.ones((2, 3)), np.ones((2, 2)), data_range=1)
