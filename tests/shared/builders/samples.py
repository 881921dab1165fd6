"""A small sound file of every format that is read, and seeded ways to damage it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from builders.dicom import EVEN, enhanced, save, series, slice_tags
from finemask.geometry import Geometry
from finemask.io import write_image, write_segmentation

_RNG = np.random.default_rng(7)
VOLUME = _RNG.integers(-900, 900, (5, 6, 7)).astype(np.int16)
PICTURE = _RNG.integers(0, 256, (9, 11)).astype(np.uint8)
COLOURS = _RNG.integers(0, 256, (3, 9, 11)).astype(np.uint8)
FRAMES = _RNG.integers(0, 4000, (3, 40, 48)).astype(np.int16)
GRID = Geometry.regular(VOLUME.shape, (2.0, 0.6, 0.5), (1.0, 2.0, 3.0))

WHOLLY_CHECKED = {".nii.gz", ".png", "16-bit.png", "palette.png"}
"""A checksum covers header and values: a changed file is refused or reads as if unchanged."""
VALUES_CHECKED = {"zlib.mha", "gzip.nrrd", "detached.nhdr"}
"""A checksum covers the values; the text header has none."""


def _itk(path: Path, compressed: bool = False) -> None:
    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((0.5, 0.6, 2.0))
    sitk.WriteImage(image, str(path), compressed)


def _dicom(path: Path, syntax: str | None = None) -> None:
    dataset = slice_tags(FRAMES[0])
    if syntax:
        dataset.compress(syntax)
    save(path, dataset)


def _jpeg_in_dicom(path: Path) -> None:
    packed = io.BytesIO()
    pixels = (FRAMES[0] >> 4).astype(np.uint8)
    Image.fromarray(pixels).save(packed, "JPEG")
    dataset = slice_tags(pixels)
    dataset.PixelData = encapsulate([packed.getvalue()])
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    save(path, dataset)


def _segmentation(path: Path, fractional: bool = False) -> None:
    source = path.with_name("source.dcm")
    save(source, enhanced(FRAMES, EVEN[:3], FrameOfReferenceUID="1.2.5"))
    grid = Geometry.regular(FRAMES.shape, (2.5, 0.7, 0.5), (10.0, -20.0, 30.0))
    axes = np.array([[0.0, 0, -1], [0, -1, 0], [1, 0, 0]])
    grid = Geometry(grid.shape, grid.spacing, (10.0, -20.0, 30.0), tuple(map(tuple, axes)))
    share = np.stack([FRAMES > 2500, FRAMES < 1500])
    write_segmentation(
        path, share * np.float32(0.4) if fractional else share, grid, source, ["a", "b"]
    )
    source.unlink()


def _palette(path: Path) -> None:
    picture = Image.fromarray(PICTURE % 3, "P")
    picture.putpalette([0, 0, 0, 200, 0, 0, 0, 90, 0])
    picture.save(path)


SAMPLES: dict[str, Callable[[Path], object]] = {
    "plain.nii": lambda p: write_image(p, VOLUME, GRID),
    ".nii.gz": lambda p: write_image(p, VOLUME, GRID),
    "plain.mha": _itk,
    "zlib.mha": lambda p: _itk(p, compressed=True),
    "detached.mhd": _itk,
    "raw.nrrd": _itk,
    "gzip.nrrd": lambda p: write_image(p, VOLUME, GRID),
    "detached.nhdr": lambda p: _itk(p, compressed=True),
    ".png": lambda p: write_image(p, COLOURS, Geometry.regular((9, 11))),
    "16-bit.png": lambda p: write_image(p, PICTURE * np.uint16(257), Geometry.regular((9, 11))),
    "palette.png": _palette,
    ".jpg": lambda p: Image.fromarray(np.moveaxis(COLOURS, 0, -1)).save(p),
    ".bmp": lambda p: Image.fromarray(PICTURE).save(p),
    "plain.tif": lambda p: tifffile.imwrite(p, PICTURE),
    "zlib.tif": lambda p: tifffile.imwrite(p, PICTURE, compression="zlib"),
    "lzw.tif": lambda p: Image.fromarray(PICTURE).save(p, compression="tiff_lzw"),
    "series": lambda p: series(p, EVEN),
    "slice.dcm": _dicom,
    "rle.dcm": lambda p: _dicom(p, RLELossless),
    "jpegls.dcm": lambda p: _dicom(p, JPEGLSLossless),
    "jpeg2000.dcm": lambda p: _dicom(p, JPEG2000Lossless),
    "jpeg.dcm": _jpeg_in_dicom,
    "frames.dcm": lambda p: save(p, enhanced(FRAMES, EVEN[:3], [(2.0, -5.0)] * 3)),
    "binary-seg.dcm": _segmentation,
    "fractional-seg.dcm": lambda p: _segmentation(p, fractional=True),
}  # fmt: skip
"""Name of a file (its end decides the format) to what writes it."""

EVIL = (b"nan", b"inf", b"-1", b"0", b"1e308", b"99999999999", b"-99999999", b"", b"x", b"0 0 0")
"""Words that numbers of a text header are replaced by."""


def make(folder: Path, name: str) -> Path:
    """Write the sample of a name; a name that is only a suffix becomes ``a<suffix>``."""
    path = folder / (f"a{name}" if name.startswith(".") else name)
    SAMPLES[name](path)
    return path


def files_of(path: Path) -> list[Path]:
    """Every file of a sample: slices of a folder, a header and what lies beside it."""
    if path.is_dir():
        return sorted(path.iterdir())
    beside = [p for p in path.parent.iterdir() if p.stem.split(".")[0] == path.stem]
    return sorted({path, *beside})


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with one kind of damage: bits, blocks, words of a text header, or the end cut off."""
    size, kind = len(data), int(rng.integers(0, 8))
    at = int(rng.integers(0, size) if rng.random() < 0.5 else rng.integers(0, min(size, 400)))
    changed = bytearray(data)
    if kind <= 2:
        for _ in range(1 if kind == 0 else int(rng.integers(1, 9))):
            changed[at] ^= 1 << int(rng.integers(0, 8))
            at = int(rng.integers(0, size))
    elif kind == 3:
        del changed[at:]
    elif kind == 4:
        length = int(rng.integers(1, 17))
        changed[at : at + length] = bytes([int(rng.choice([0, 255]))]) * length
    elif kind == 5:
        changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
    elif kind == 6:
        del changed[at : at + int(rng.integers(1, 9))]
    else:
        words = _numbers_in(data[:1000])
        if words:
            start, stop = words[int(rng.integers(0, len(words)))]
            changed[start:stop] = EVIL[int(rng.integers(0, len(EVIL)))]
    return bytes(changed)


def _numbers_in(text: bytes) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(rb"(?<=[ =(,])-?[0-9.]+(?=[ \n),])", text)]


def without_pydicom_log() -> None:
    """Decoders log what they then raise; a fuzzer needs it once."""
    pydicom.config.logger.setLevel("CRITICAL")
