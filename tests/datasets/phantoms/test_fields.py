"""Textures have the statistics that their names promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finemask.datasets.phantoms.fields import (
    fractal_noise,
    grain,
    log_uniform,
    speckle,
    standardised,
)


def power_near(field: np.ndarray, low: float, high: float) -> float:
    """Mean power between two frequencies in cycles per voxel."""
    frequency = np.sqrt(sum(f**2 for f in np.ix_(*[np.fft.fftfreq(n) for n in field.shape])))
    chosen = (frequency > low) & (frequency < high)
    return float((np.abs(np.fft.fftn(field))[chosen] ** 2).mean())


@pytest.mark.parametrize("exponent", [0.0, 2.0, 3.0])
def test_fractal_power_falls_with_frequency_to_the_exponent(exponent: float) -> None:
    field = fractal_noise((256, 256), np.random.default_rng(0), exponent)
    slope = np.log2(power_near(field, 0.049, 0.051) / power_near(field, 0.196, 0.204)) / 2
    assert slope == pytest.approx(exponent, abs=0.35)
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-4)


def test_grain_repeats_at_its_wavelength() -> None:
    field = grain((200, 200), np.random.default_rng(1), wavelength=10.0)
    inside = power_near(field, 0.09, 0.11)
    assert inside > 20 * power_near(field, 0.2, 0.22)
    assert inside > 20 * power_near(field, 0.0, 0.02)


def test_stretched_noise_is_smoother_along_the_stretched_axis() -> None:
    field = fractal_noise((128, 128), np.random.default_rng(2), 2.5, stretch=(1.0, 5.0))
    assert np.abs(np.diff(field, axis=0)).mean() > 2 * np.abs(np.diff(field, axis=1)).mean()


def test_speckle_over_uniform_tissue_is_rayleigh() -> None:
    envelope = speckle(np.full((400, 400), 3.0, np.float32), np.random.default_rng(3), (1.5, 2.0))
    assert envelope.mean() == pytest.approx(3.0, rel=0.05)
    assert envelope.std() / envelope.mean() == pytest.approx(0.523, abs=0.03)
    along = np.corrcoef(envelope[:-3].ravel(), envelope[3:].ravel())[0, 1]
    across = np.corrcoef(envelope[:, :-3].ravel(), envelope[:, 3:].ravel())[0, 1]
    assert along < across, "the pulse is shorter than the beam is wide"


def test_looks_calm_speckle() -> None:
    flat = np.ones((200, 200), np.float32)
    one = speckle(flat, np.random.default_rng(4), (1.0, 1.0))
    four = speckle(flat, np.random.default_rng(4), (1.0, 1.0), looks=4)
    assert four.std() == pytest.approx(one.std() / 2, rel=0.1)


@given(st.floats(0.1, 10), st.floats(1.1, 100), st.floats(0, 1))
def test_log_uniform_stays_in_its_range(low: float, factor: float, quantile: float) -> None:
    assert low * (1 - 1e-9) <= log_uniform(low, low * factor, quantile) <= low * factor * (1 + 1e-9)


def test_constant_field_becomes_zero() -> None:
    assert not standardised(np.full(5, 7.0)).any()
