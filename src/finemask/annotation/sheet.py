"""Contact sheets: every Soft Mask beside what it was made from, small enough to look through.

Each case leaves a strip of five pictures, drawn where the case is worked on;
pages are strips put together. Pillow draws them, as thousands are wanted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from finemask.io.files import atomic_write
from finemask.masks import bounding_box
from finemask.report.panels import PREDICTION, TRUTH, outline, to_picture
from finemask.softmask.recist import Mark

SIDE, GAP, CAPTION = 136, 3, 18
"""Pixels of a picture's side, between pictures, and of the line of text above them."""
STRIP = 5 * SIDE + 4 * GAP, CAPTION + SIDE
FINE = 3
"""Lines are drawn at so many times the size and reduced, which smooths them."""
ROWS, COLUMNS, MARGIN = 20, 2, 16
"""Strips of a page, and pixels between them."""
SHORT = 8
"""Up to so many strips stand in one column."""
MOST_PAGES = 25
SMALLEST_WINDOW = 16
PAPER, INK, ALERT = "#16181a", "#f2f2f2", "#ffb454"


@dataclass(frozen=True, eq=False)
class Shown:
    """What a strip shows: one slice, everything on one grid.

    Args:
        image: ``(C, H, W)``.
        soft: Soft Mask.
        hard: It, cut at 0.5.
        trimap: ``None`` where there is none.
        outlines: Masks that were given, one a reader.
        marks: RECIST marks that were given, in pixels of this grid.
        spacing: Distance of rows and of columns.
    """

    image: Shaped[ndarray, " c h w"]
    soft: Float[ndarray, " h w"]
    hard: Bool[ndarray, " h w"]
    trimap: Float[ndarray, " h w"] | None = None
    outlines: Sequence[Bool[ndarray, " h w"]] = ()
    marks: Sequence[Mark] = ()
    spacing: tuple[float, float] = (1.0, 1.0)


def draw_strip(shown: Shown, caption: str, alert: str = "") -> bytes:
    """One case as a PNG: image, what was given, trimap, Soft Mask, and it cut at 0.5.

    Args:
        shown: The slice.
        caption: Line above the pictures.
        alert: What is worth a look, at the end of that line.
    """
    seen = np.any([shown.hard, shown.soft > 0, *shown.outlines], axis=0)
    window = window_round(seen, shown.spacing)
    image = to_picture(np.stack([_seen(channel, window) for channel in shown.image]))
    given, cut = _enlarged(image), _enlarged(image)
    for mask in shown.outlines:
        _draw_outline(given, _seen(mask, window), TRUTH)
    for mark in shown.marks:
        _draw_axes(given, mark, window)
    _draw_outline(cut, _seen(shown.hard, window), PREDICTION)
    maps = [
        _enlarged(_grey(None if share is None else _seen(share, window), image.shape))
        for share in (shown.trimap, shown.soft)
    ]
    sheet = Image.new("RGB", STRIP, PAPER)
    for place, picture in enumerate((_enlarged(image), given, *maps, cut)):
        small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
        sheet.paste(small, (place * (SIDE + GAP), CAPTION))
    _write(sheet, caption, alert)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


Window = tuple[slice, slice]


def window_round(mask: Bool[ndarray, " h w"], spacing: Sequence[float]) -> Window:
    """Rows and columns round a lesion, square in space; they may reach beyond the image.

    Example:
        >>> mask = np.zeros((64, 64), bool); mask[20:30, 30:40] = True
        >>> window_round(mask, (1.0, 1.0))
        (slice(15, 35, None), slice(25, 45, None))
    """
    box = bounding_box(mask) or tuple(slice(0, n) for n in mask.shape)
    steps = np.array(spacing) / min(spacing)
    extent = max((s.stop - s.start) * step for s, step in zip(box, steps, strict=True))
    side = max(2 * extent, SMALLEST_WINDOW)
    side = min(side, float((np.array(mask.shape) * steps).max()))
    starts = [
        round((s.start + s.stop - side / step) / 2) for s, step in zip(box, steps, strict=True)
    ]
    lengths = [max(round(side / step), 1) for step in steps]
    first, last = (
        slice(min(max(a, 0), max(n - k, 0)), min(max(a, 0), max(n - k, 0)) + k)
        for a, k, n in zip(starts, lengths, mask.shape, strict=True)
    )
    return first, last


def _seen(array: NDArray[Any], window: Window) -> NDArray[Any]:
    """The part of an array in a window; black beyond it."""
    part = array[window]
    missing = [(0, s.stop - s.start - n) for s, n in zip(window, part.shape, strict=True)]
    return np.pad(part, missing) if any(m for _, m in missing) else part


def _grey(share: NDArray[Any] | None, shape: tuple[int, ...]) -> UInt8[ndarray, " h w 3"]:
    if share is None:
        return np.full(shape, 24, np.uint8)
    return np.repeat(np.rint(255 * share).astype(np.uint8)[..., None], 3, axis=2)


def _enlarged(picture: UInt8[ndarray, " h w 3"]) -> Image.Image:
    """Few pixels are shown as what they are."""
    return Image.fromarray(picture).resize((SIDE * FINE,) * 2, Image.Resampling.NEAREST)


def _draw_outline(picture: Image.Image, mask: NDArray[np.bool_], colour: str) -> None:
    ends = outline(mask) * (np.array(picture.size) / np.array(mask.shape)[::-1])
    draw = ImageDraw.Draw(picture)
    for first, last in ends:
        draw.line([*first, *last], colour, width=FINE + 1)


def _draw_axes(picture: Image.Image, mark: Mark, window: Window) -> None:
    shape = [s.stop - s.start for s in window]
    places = (mark.points - [s.start for s in window] + 0.5) * (
        np.array(picture.size)[::-1] / np.array(shape)
    )
    draw = ImageDraw.Draw(picture)
    for colour, width in ((PAPER, 3 * FINE + 1), (TRUTH, FINE + 2)):  # readable on any grey
        for first, last in (places[:2], places[2:]):
            draw.line([*first[::-1], *last[::-1]], colour, width=width)


def _write(sheet: Image.Image, caption: str, alert: str) -> None:
    """The line above the pictures; what has no room is cut off."""
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    text.text((1, 2), caption, INK, font=font)
    room = sheet.width - text.textlength(caption, font=font) - 16
    words = alert.split()
    while words and text.textlength(alert, font=font) > room:
        words.pop()
        alert = " ".join([*words, "..."]) if words else ""
    text.text((sheet.width - 1, 2), alert, ALERT, font=font, anchor="ra")


def write_pages(strips: Sequence[Path], out: Path, heading: str, given: str) -> list[Path]:
    """Put strips together into pages ``contact_sheet_001.png`` ..., at most ``MOST_PAGES``.

    Args:
        strips: Files that ``draw_strip`` made, in the order of the pages.
        out: Folder of the pages.
        heading: First line of each page.
        given: Title of the second picture.

    Returns:
        The pages.
    """
    size = ROWS * COLUMNS
    pages = [strips[first : first + size] for first in range(0, len(strips), size)][:MOST_PAGES]
    paths = []
    for number, page in enumerate(pages, start=1):
        columns = min(-(-len(page) // SHORT), COLUMNS)
        rows = -(-len(page) // columns)
        sheet = Image.new(
            "RGB",
            (columns * (STRIP[0] + MARGIN) + MARGIN, rows * (STRIP[1] + MARGIN * 3 // 4) + 52),
            PAPER,
        )
        text = ImageDraw.Draw(sheet)
        told = f"{heading}; page {number} of {len(pages)}"
        text.text((MARGIN, 8), told, INK, font=ImageFont.load_default(14))
        for k, strip in enumerate(page):
            left = MARGIN + k // rows * (STRIP[0] + MARGIN)
            with Image.open(strip) as picture:
                sheet.paste(picture, (left, 52 + k % rows * (STRIP[1] + MARGIN * 3 // 4)))
        for column in range(columns):
            _write_titles(text, MARGIN + column * (STRIP[0] + MARGIN), given)
        paths.append(out / f"contact_sheet_{number:03d}.png")
        with atomic_write(paths[-1], overwrite=True) as temporary:
            sheet.save(temporary, "PNG")
    return paths


def _write_titles(text: ImageDraw.ImageDraw, left: int, given: str) -> None:
    titles = (
        ("image", INK), (given, TRUTH), ("trimap", INK), ("soft mask", INK),
        ("cut at 0.5", PREDICTION),
    )  # fmt: skip
    for place, (title, colour) in enumerate(titles):
        at = (left + place * (SIDE + GAP), 32)
        text.text(at, title, colour, font=ImageFont.load_default(13))
