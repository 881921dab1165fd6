"""Which reader a path belongs to, and one door through which every file is read."""

from __future__ import annotations

import importlib
import logging
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finemask.errors import DataError, FinemaskError
from finemask.io import dicom
from finemask.io.notices import warn
from finemask.io.raster import FilePath, Header, Raster

# Longest first, so that ".nii.gz" is one suffix.
READERS = {
    ".nii.gz": "nifti", ".nii": "nifti", ".mha": "metaimage", ".mhd": "metaimage",
    ".nrrd": "nrrd", ".nhdr": "nrrd", ".png": "pictures", ".jpg": "pictures",
    ".jpeg": "pictures", ".bmp": "pictures", ".tiff": "tiff", ".tif": "tiff", ".dicom": "dicom",
    ".dcm": "dicom", ".ima": "dicom",
}  # fmt: skip
"""Suffix to module of this package."""


def suffix(path: FilePath) -> str:
    """The known suffix of a path in lower case, or an empty string.

    Example:
        >>> suffix("A/scan.1.NII.GZ"), suffix("notes.txt")
        ('.nii.gz', '')
    """
    name = Path(path).name.lower()
    return next((s for s in READERS if name.endswith(s) and len(name) > len(s)), "")


def stem(path: FilePath) -> str:
    """Name of a file without its image suffix; of a folder, its name.

    Example:
        >>> stem("A/scan.1.nii.gz"), stem("slice.png"), stem("series")
        ('scan.1', 'slice', 'series')
    """
    name = Path(path).name
    return name[: len(name) - len(suffix(path))]


def is_image(path: FilePath) -> bool:
    """Whether a path is an image file by its suffix or DICOM mark, or a DICOM series folder."""
    path = Path(path)
    if path.is_dir():
        return dicom.is_series(path)
    if path.name.startswith(".") or not path.is_file():
        return False
    return bool(suffix(path)) or (not path.suffix and dicom.is_dicom(path))


def find_images(folder: FilePath) -> list[Path]:
    """Image files and DICOM series folders directly in a folder, in natural order.

    Hidden files are left out, and so is, with a warning, what a symbolic link
    leads to outside the folder.

    Raises:
        DataError: When the folder cannot be listed.
    """
    root = Path(folder)
    try:
        inside = [p for p in root.iterdir() if not p.name.startswith(".")]
    except OSError as error:
        raise DataError(
            root, f"cannot be listed ({error.strerror})", "check the path and its rights"
        ) from error
    home = root.resolve()
    strays = [p for p in inside if not p.resolve().is_relative_to(home)]
    if strays:
        warn(root, f"{len(strays)} links to places outside were left out, first {strays[0].name}")
    return sorted((p for p in inside if p not in strays and is_image(p)), key=natural_key)


def natural_key(path: FilePath) -> tuple[Any, ...]:
    """Sort key that puts ``case_2`` before ``case_10``."""
    parts = re.split(r"(\d+)", Path(path).name.casefold())
    return tuple((1, int(p), "") if p.isdecimal() else (0, 0, p) for p in parts), Path(path).name


def read_header(path: FilePath, series: str | None = None) -> Header:
    """What a file or DICOM folder says about its image, nothing allocated.

    Args:
        path: File, or folder with one DICOM series.
        series: SeriesInstanceUID to read from a folder with several.

    Raises:
        DataError: When it is no image, is cut off, or claims absurd sizes.
    """
    with reading(path):
        return _reader(path).read_header(Path(path), **_options(series))


def read_raster(path: FilePath, series: str | None = None) -> Raster:
    """Every value of a file or DICOM folder as stored, read to the end and verified.

    Raises:
        DataError: When it is no image, or not sound.
    """
    with reading(path):
        return _reader(path).read(Path(path), **_options(series))


def writer(path: FilePath) -> Any:
    """The module that writes files with this suffix.

    Raises:
        DataError: When images are not written in that format.
    """
    name = READERS.get(suffix(path))
    if name in (None, "dicom"):
        raise DataError(
            path,
            f"has the suffix {Path(path).suffix!r}, which is not written",
            "write .png or .tif in 2-D, .nii.gz, .mha or .nrrd in 3-D",
        )
    return importlib.import_module(f"finemask.io.{name}")


def _options(series: str | None) -> dict[str, str]:
    return {} if series is None else {"series": series}


def _reader(path: FilePath) -> Any:
    path = Path(path)
    if path.is_dir():
        return dicom
    if not path.exists():
        raise DataError(path, "does not exist", "check the path")
    name = READERS.get(suffix(path)) or ("dicom" if dicom.is_dicom(path) else "")
    if not name:
        raise DataError(
            path,
            "is of no known image format",
            f"give one of {', '.join(READERS)} or a DICOM folder",
        )
    return importlib.import_module(f"finemask.io.{name}")


@contextmanager
def reading(path: FilePath) -> Iterator[None]:
    """Turn whatever a decoder raises on a bad file into one line that names the file."""
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise DataError(path, "is empty (0 bytes)", "copy or export it again")
    try:
        yield
    except FinemaskError:
        raise
    except PermissionError as error:
        raise DataError(path, "may not be read", "check the rights of the file") from error
    except MemoryError as error:
        raise DataError(path, "does not fit into memory", "crop it") from error
    except Exception as error:
        made_by = type(error).__module__.partition(".")[0]
        if not isinstance(error, DECODER_ERRORS) and made_by not in DECODERS:
            raise
        kind = type(error).__name__
        raise DataError(
            path, f"cannot be decoded ({kind}: {str(error)[:200]})", "copy or export it again"
        ) from error


DECODER_ERRORS = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, SyntaxError,
    ArithmeticError, NotImplementedError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow, tifffile, pydicom and int() are known to raise on damaged files."""

DECODERS = ("PIL", "tifffile", "pydicom", "openjpeg", "libjpeg", "jpeg_ls")
"""Packages whose own kinds of exception mean a damaged file, too."""

for _name in DECODERS:  # what they log of a damaged file is said by our line
    logging.getLogger(_name).addHandler(logging.NullHandler())
