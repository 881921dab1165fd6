"""Ultrasound looks like ultrasound to simple measurements."""

from __future__ import annotations

import numpy as np

from finemask.datasets.phantoms import make_phantom


def otsu(image: np.ndarray) -> float:
    """The grey level that best splits an 8-bit picture in two."""
    counts = np.bincount(image.astype(int).ravel(), minlength=256) / image.size
    weight, mean = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    between = (mean[-1] * weight - mean) ** 2 / np.maximum(weight * (1 - weight), 1e-12)
    return float(between.argmax())


def test_a_threshold_does_not_find_the_lesion_and_yet_it_is_darker() -> None:
    for number in range(5):
        case = make_phantom("ultrasound", number, seed=4, size=128).case
        assert case.truth is not None
        image, inside = case.image[0], case.truth > 0
        dark = image <= otsu(image)
        dice = 2 * (dark & inside).sum() / (dark.sum() + inside.sum())
        assert dice < 0.9
        rows = inside.any(axis=1)
        beside = ~inside & rows[:, None]
        assert image[inside].mean() < image[beside].mean() - 10


def test_the_picture_darkens_with_depth() -> None:
    images = [make_phantom("ultrasound", n, seed=4, size=96).case.image[0] for n in range(4)]
    profile = np.mean(images, axis=(0, 2))
    assert profile[:24].mean() > 1.5 * profile[-24:].mean()
