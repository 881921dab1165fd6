"""Make ``matting.npz``: what PyMatting's closed-form matting says of a few small images.

PyMatting compiles for half a minute when it is first imported, too long for a test.
The stored values were made by version 1.1.16 to a tolerance of 1e-12:

    pip install pymatting && python tests/golden/make_matting.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

SETTINGS = {  # epsilon for a grey image, radius of the windows
    "grey": (1e-4, 1),
    "sharp": (1e-7, 1),
    "smooth": (1e-2, 1),
    "border": (1e-4, 1),
    "wide": (1e-4, 1),
    "even": (1e-4, 1),
    "colour": (1e-4, 1),
    "coarse": (1e-4, 2),
}
SIDE = 40


def scene(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An 8-bit image (H, W, C) and a trimap in half units of a lesion with a blurred edge."""
    y, x = (axis - SIDE / 2 + 0.3 for axis in np.mgrid[:SIDE, :SIDE])
    centre = 14 if name == "border" else 0
    level = 11 + 2 * np.sin(3 * np.arctan2(y, x)) - np.hypot(y - centre, x + centre)
    channels = 3 if name == "colour" else 1
    grain = rng.standard_normal((SIDE, SIDE, channels))
    texture = 2 * gaussian_filter(grain, (2, 2, 0)) + 0.3 * grain
    edge = 1 / (1 + np.exp(-level / 1.2))[..., None]
    image = 0.3 + edge * np.linspace(0.2, 0.45, channels) + 0.08 * texture
    if name == "even":
        image = np.full_like(image, 0.4)
    width = 9 if name == "wide" else 3.5
    trimap = np.where(np.abs(level) < width, 1, np.where(level > 0, 2, 0))
    return np.uint8(255 * image.clip(0, 1)), trimap.astype(np.uint8)


def main() -> None:
    import pymatting

    rng = np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {}
    for name, (epsilon, radius) in SETTINGS.items():
        image, trimap = scene(name, rng)
        # A grey image repeated in three channels has three times the variance.
        repeats = 3 // image.shape[2]
        alpha = pymatting.estimate_alpha_cf(
            np.repeat(image, repeats, 2) / 255,
            trimap / 2,
            laplacian_kwargs={"epsilon": repeats * epsilon, "radius": radius},
            cg_kwargs={"rtol": 1e-12, "maxiter": 100_000},
        )
        stored |= {
            f"{name}_settings": np.array([epsilon, radius]),
            f"{name}_image": image,
            f"{name}_trimap": trimap,
            f"{name}_alpha": alpha[trimap == 1].astype(np.float32),
        }
    np.savez_compressed(Path(__file__).with_name("matting.npz"), **stored)


if __name__ == "__main__":
    main()
