"""Contact sheets: the window that is shown, what is drawn where, pages of strips."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from finemask.annotation import sheet
from finemask.annotation.sheet import SIDE, STRIP, Shown, draw_strip, window_round, write_pages
from finemask.report.panels import PREDICTION, TRUTH
from finemask.softmask.recist import Mark


def lesion(rows: slice, columns: slice, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def pictures(strip: bytes) -> list[np.ndarray]:
    image = np.asarray(Image.open(io.BytesIO(strip)).convert("RGB"))
    assert image.shape[:2] == STRIP[::-1]
    lefts = [k * (SIDE + sheet.GAP) for k in range(5)]
    return [image[sheet.CAPTION :, left : left + SIDE] for left in lefts]


def near(picture: np.ndarray, colour: str) -> np.ndarray:
    return np.abs(picture.astype(int) - ImageColor.getrgb(colour)).sum(-1) < 60


@pytest.mark.parametrize(
    ("mask", "spacing", "expected"),
    [
        (lesion(slice(30, 34), slice(40, 42)), (1.0, 1.0), (16, 16)),
        (lesion(slice(0, 20), slice(0, 10)), (1.0, 1.0), (40, 40)),
        (lesion(slice(10, 20), slice(10, 30)), (2.0, 1.0), (20, 40)),
        (lesion(slice(0, 64), slice(0, 80)), (1.0, 1.0), (80, 80)),
        (lesion(slice(0, 0), slice(0, 0)), (1.0, 1.0), (80, 80)),
    ],
)
def test_the_window_is_square_in_space_and_holds_the_lesion(mask, spacing, expected) -> None:
    window = window_round(mask, spacing)
    assert tuple(s.stop - s.start for s in window) == expected
    assert all(s.start >= 0 for s in window)
    assert mask[window].sum() == mask.sum()


def test_five_pictures_show_what_they_say() -> None:
    mask = lesion(slice(24, 40), slice(30, 46))
    image = np.random.default_rng(0).random((1, 64, 80))
    soft = mask * np.float32(0.75)
    trimap = mask * np.float32(0.5)
    shown = Shown(image, soft, mask, trimap, outlines=[mask])
    plain, given, open_, share, cut = pictures(draw_strip(shown, "a case", "low_agreement"))
    assert not near(plain, TRUTH).any()
    assert near(given, TRUTH).sum() > 100
    assert not near(given, PREDICTION).any()
    assert near(cut, PREDICTION).sum() > 100
    assert open_[SIDE // 2, SIDE // 2].tolist() == [128] * 3
    assert share[SIDE // 2, SIDE // 2].tolist() == [191] * 3
    assert share[2, 2].tolist() == [0, 0, 0]


def test_axes_are_drawn_where_they_lie() -> None:
    mask = lesion(slice(24, 40), slice(30, 46))
    image = np.zeros((3, 64, 80))
    mark = Mark.from_xy(30, 32, 45, 32, 38, 24, 38, 39)
    given = pictures(draw_strip(Shown(image, mask * np.float32(1), mask, marks=[mark]), ""))[1]
    found = near(given, TRUTH)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    # The window starts at row 16 and column 22, 32 pixels are SIDE pixels.
    expected = (np.array([24, 39]) - 16 + 0.5) * SIDE / 32
    assert [rows[0], rows[-1]] == pytest.approx(expected, abs=2)
    assert [columns[0], columns[-1]] == pytest.approx(
        (np.array([30, 45]) - 22 + 0.5) * SIDE / 32, abs=2
    )


def test_a_line_with_too_much_in_it_is_cut_off() -> None:
    mask = lesion(slice(24, 40), slice(30, 46))
    shown = Shown(np.zeros((1, 64, 80)), mask * np.float32(1), mask)
    draw_strip(shown, "a name " * 30, "flag " * 40)
    draw_strip(shown, "", "x" * 500)


def test_pages_hold_the_strips_in_two_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, "ROWS", 3)
    monkeypatch.setattr(sheet, "SHORT", 2)
    monkeypatch.setattr(sheet, "MOST_PAGES", 2)
    strips = []
    for number in range(14):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", STRIP, (number, 0, 0)).save(path)
        strips.append(path)
    pages = write_pages(strips[:8], tmp_path, "all", "axes")
    assert [p.name for p in pages] == ["contact_sheet_001.png", "contact_sheet_002.png"]
    sizes = [Image.open(page).size for page in pages]
    assert sizes[0][0] > 2 * STRIP[0]
    assert sizes[1][0] < 2 * STRIP[0]
    assert len(write_pages(strips, tmp_path, "all", "axes")) == 2
