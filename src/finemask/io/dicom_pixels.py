"""The pixels of a DICOM file by frame: decoded, foreign bits off, rescaled, the right way up."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.io.dicom_planes import GREYS, found_in, frames_of
from finemask.io.jpeg_streams import FAMILY as JPEG_FAMILY
from finemask.io.jpeg_streams import check_stream

STRICT = ("pyjpegls",)
"""Decoders to take where there are several, as they refuse what others fill up."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's remarks on unusual but legible values to itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")
        yield


def read_frames(path: Path) -> Iterator[NDArray[np.float32]]:
    """``(C, H, W)`` of each frame: unused bits off, rescaled, MONOCHROME1 turned over once."""
    import pydicom

    with quiet():
        dataset = pydicom.dcmread(path)
    for frame, array in enumerate(decoded(path, dataset)):
        yield _values(path, array, dataset, frame)


def _values(path: Path, array: NDArray[Any], dataset: Any, frame: int) -> NDArray[np.float32]:
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        colours = apply_color_lut(array, dataset)
        top = 2 ** int(dataset.RedPaletteColorLookupTableDescriptor[2]) - 1
        array = (colours * (255.0 / top)).round() if top != 255 else colours
    if kind not in GREYS:
        return np.moveaxis(array, -1, 0).astype(np.float32)
    if found_in(dataset, frame, "PixelValueTransformationSequence", "ModalityLUTSequence"):
        raise DataError(path, "maps its values by a table", "convert it to NIfTI first")
    array, span = _significant_bits(path, array, dataset)
    if kind == "MONOCHROME1":
        array = span - array
    slope, intercept = (
        found_in(dataset, frame, "PixelValueTransformationSequence", name)
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    slope, intercept = float(slope or 1), float(intercept or 0)
    if not np.isfinite([slope, intercept]).all():
        raise DataError(path, f"rescales by {slope:g} and {intercept:g}", "correct its tags")
    return (array * slope + intercept).astype(np.float32)[None]


def _significant_bits(
    path: Path, array: NDArray[Any], dataset: Any
) -> tuple[NDArray[Any], int | float]:
    """Stored values without foreign high bits, and smallest plus largest possible value."""
    if array.dtype.kind == "f":
        return array, float(array.min() + array.max())
    stored = int(dataset.get("BitsStored", 8 * array.itemsize))
    if int(dataset.get("HighBit", stored - 1)) != stored - 1 or stored > 8 * array.itemsize:
        raise DataError(path, "keeps its values in the middle of its words", "export it again")
    spare = 8 * array.itemsize - stored
    # Not every pydicom takes the unused bits off; doing it again changes nothing.
    array = (array << spare) >> spare  # arithmetic for signed types, so the sign is carried
    signed = array.dtype.kind == "i"
    return array.astype(np.int64), -1 if signed else 2**stored - 1


def decoded(path: Path, dataset: Any) -> Iterator[NDArray[Any]]:
    """The stored values of each frame, colours as RGB.

    Raises:
        DataError: When bytes are missing, or no decoder for them is installed.
    """
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder, iter_pixels

    meta = getattr(dataset, "file_meta", None)
    syntax = getattr(meta, "TransferSyntaxUID", None)
    if syntax is None:
        raise DataError(path, "does not say how it is encoded", "export it again")
    _check_pixel_length(path, dataset, syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise DataError(
            path, f"has the unsupported encoding {syntax.name}", "export it uncompressed"
        ) from error
    if not decoder.is_available:
        raise DataError(
            path,
            f"is compressed with {syntax.name}, for which no decoder is installed",
            'pip install "finemask[dicom]"',
        )
    if str(syntax).startswith(JPEG_FAMILY):
        frames = frames_of(dataset)
        size = (int(dataset.Rows), int(dataset.Columns))
        for number, stream in enumerate(
            generate_frames(dataset.PixelData, number_of_frames=frames)
        ):
            which = f"its frame {number + 1}" if frames > 1 else "its compressed image"
            check_stream(path, stream, size, which)
    found = 0
    with quiet():
        strict = next((p for p in STRICT if p in decoder.available_plugins), "")
        for frame in iter_pixels(dataset, decoding_plugin=strict):
            found += 1
            yield frame
    if found != frames_of(dataset):
        raise DataError(
            path, f"holds {found} of its {frames_of(dataset)} frames", "copy or export it again"
        )


def _check_pixel_length(path: Path, dataset: Any, syntax: Any) -> None:
    names = [n for n in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if n in dataset]
    if not names:
        raise DataError(path, "has no pixel data", "export it again")
    frames = frames_of(dataset)
    if syntax.is_encapsulated:
        return
    bits = frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    needed = (bits * int(dataset.BitsAllocated) + 7) // 8
    if str(dataset.PhotometricInterpretation) == "YBR_FULL_422":
        needed = needed * 2 // 3
    found = len(dataset[names[0]].value)
    if found not in (needed, needed + needed % 2):
        size = f"{dataset.Rows} x {dataset.Columns}" + (f" x {frames}" if frames > 1 else "")
        raise DataError(
            path,
            f"has {found:,} bytes of pixel data, its size of {size} needs {needed:,}",
            "copy or export it again",
        )
