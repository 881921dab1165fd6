"""What is told of a Soft Mask: widths by geometry, sizes in the right unit."""

from __future__ import annotations

import numpy as np
import pytest

from finemask.annotation.quality import Row, band_width, measure
from finemask.geometry import Geometry
from finemask.softmask.softening import Softened

KNOWN = {
    "case": "a", "source": "mask", "method": "matting", "image_case": "a", "slice": None,
    "readers": None, "agreement_with": "mask", "seconds": 0.1,
}  # fmt: skip


def disc(radius: float, spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    y, x = (np.arange(120)[:, None] - 60) * spacing[0], (np.arange(120) - 60) * spacing[1]
    return np.hypot(y, x) <= radius


def test_a_band_is_as_wide_as_it_was_drawn() -> None:
    for width in (2, 6, 10):
        band = disc(40 + width / 2) & ~disc(40 - width / 2)
        assert band_width(band, disc(40), (1.0, 1.0)) == pytest.approx(width, rel=0.05)
    spacing = (2.0, 1.0)
    band = disc(44, spacing) & ~disc(36, spacing)
    assert band_width(band, disc(40, spacing), spacing) == pytest.approx(8, rel=0.1)
    z, y, x = np.indices((61, 61, 61)) - 30
    radius = np.sqrt(x * x + y * y + z * z)
    band = (radius > 17) & (radius < 23)
    assert band_width(band, radius < 20, (1.0, 1.0, 1.0)) == pytest.approx(6, rel=0.05)
    assert band_width(band, radius < 0, (1.0, 1.0, 1.0)) == 0


def test_lengths_are_in_millimetres_or_in_pixels_of_the_image() -> None:
    soft = disc(40).astype(np.float32)
    trimap = np.where(disc(44) & ~disc(36), 0.5, soft).astype(np.float32)
    made = Softened(soft, trimap, disc(40))
    image = Geometry.regular((30, 30))
    in_px = measure(made, image.refined((4, 4)), [(20.0, 19.0), (21.0, 3.0)], **KNOWN)
    assert in_px.unit == "px"
    assert in_px.diameter == pytest.approx(20, rel=0.01)
    assert in_px.band_px == pytest.approx(8, rel=0.05)
    assert in_px.band_mm is None
    assert (in_px.long_axis, in_px.short_axis) == (21.0, 3.0)
    in_mm = measure(made, Geometry.regular((120, 120), spacing=(0.5, 0.5)), [], **KNOWN)
    assert in_mm.diameter == pytest.approx(40, rel=0.01)
    assert in_mm.band_mm == pytest.approx(4, rel=0.05)
    open_, core = (trimap == 0.5).sum(), (trimap == 1).sum()
    assert in_mm.unknown_share == pytest.approx(open_ / (open_ + core), abs=1e-4)
    assert in_mm.agreement == 1
    assert in_mm.flags == ""
    assert len(in_mm.cells()) == len(Row.columns())


def test_what_does_not_agree_is_flagged_and_nothing_is_no_agreement() -> None:
    soft = disc(20).astype(np.float32)
    poor = measure(
        Softened(soft, None, disc(40), ("x",)), Geometry.regular((120, 120)), [], **KNOWN
    )
    assert poor.flags == "x low_agreement"
    nothing = np.zeros((8, 8), np.float32)
    empty = measure(Softened(nothing, nothing, nothing > 0), Geometry.regular((8, 8)), [], **KNOWN)
    assert (empty.agreement, empty.lesions, empty.diameter) == (None, 0, 0)
    assert empty.cells()[Row.columns().index("agreement")] == ""
