"""Volumes with a landmark, and where the real data lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finemask.geometry import Geometry

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"real images are not at {REAL}")
    return REAL


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Rotation about x, then y, then z."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def grid(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    direction: np.ndarray,
    origin: tuple[float, float, float] = (-91.3, 17.25, 402.5),
) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(spacing)
    affine[:3, 3] = origin
    return Geometry.from_affine(shape, affine)


_LPS = np.array([[0.0, 0, -1], [0, -1, 0], [1, 0, 0]])  # (slice, row, column) of an axial CT
GRIDS = {
    "axial": grid((7, 9, 11), (5.0, 0.7, 0.7), _LPS),
    "flipped": grid((7, 9, 11), (2.5, 0.6, 0.8), _LPS * [-1, 1, -1]),
    "sagittal": grid((7, 9, 11), (1.1, 0.9, 0.5), np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])),
    "oblique": grid((7, 9, 11), (3.0, 0.4, 0.9), rotation((23, -41, 67)) @ _LPS),
    "half turn": grid((7, 9, 11), (3.0, 0.4, 0.9), rotation((0, 0, 179.99)) @ _LPS),
    "left-handed": grid((7, 9, 11), (2.0, 1.0, 0.5), rotation((5, 80, -130)) @ np.diag([1, 1, -1])),
}


@pytest.fixture(params=sorted(GRIDS))
def volume_grid(request: pytest.FixtureRequest) -> Geometry:
    return GRIDS[request.param]


@pytest.fixture
def oblique() -> Geometry:
    return GRIDS["oblique"]


@pytest.fixture
def sheared() -> Geometry:
    return grid(
        (7, 9, 11), (3.0, 0.4, 0.9), rotation((23, -41, 67)) @ [[1, 0.2, 0], [0, 1, 0], [0, 0, 1]]
    )


@pytest.fixture
def landmark() -> np.ndarray:
    """One bright voxel that no flip or transposition of (7, 9, 11) leaves in place."""
    volume = np.zeros((7, 9, 11), np.int16)
    volume[1, 6, 3] = 1000
    return volume
