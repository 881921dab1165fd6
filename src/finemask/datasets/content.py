"""What is in a file, whatever it is called: hashes that find copies."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.io.files import digests


def file_hash(path: Path, *, unpack: bool = False) -> str:
    """SHA-256 of a file as it lies on disk, or of all files in a folder.

    With ``unpack`` a later `content_hash` of the same file reads nothing.

    Raises:
        DataError: When a file cannot be read.
    """
    return _joint([digests(file, unpack=unpack).stored for file in _files(path)])


def content_hash(path: Path) -> str:
    """SHA-256 of what a file holds: two gzip files of one volume hash alike.

    Raises:
        DataError: When the file is not sound gzip although its name says so.
    """
    found = {file: digests(file, unpack=True) for file in _files(path)}
    for file, of_file in found.items():
        if of_file.flaw:
            raise DataError(file, f"cannot be read whole ({of_file.flaw})", "replace the file")
    return _joint([of_file.unpacked for of_file in found.values()])


def picture_hash(path: Path) -> str:
    """``pixel_hash`` of an image file, decoded once for each state of the file.

    Raises:
        DataError: When the file is not sound.
    """
    return _picture_hash(_stamped(path))


@lru_cache(maxsize=65536)
def _picture_hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    from finemask.io import read_image

    return pixel_hash(read_image(files[0][0])[0])


def pixel_hash(image: NDArray[Any]) -> str:
    """SHA-256 of decoded intensities ``(C, *S)``; equal channels count as one."""
    if image.shape[0] > 1 and (image == image[:1]).all():
        image = image[:1]
    digest = sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image, dtype=np.float32).tobytes())
    return digest.hexdigest()


def _stamped(path: Path) -> tuple[tuple[Path, int, int], ...]:
    """The files of ``path`` with size and time, so that a changed file is decoded anew."""
    try:
        return tuple((f, (stat := f.stat()).st_size, stat.st_mtime_ns) for f in _files(path))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file") from error


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def _joint(hashes: list[str]) -> str:
    # The slices of a series are one image in whatever order the files are named.
    return hashes[0] if len(hashes) == 1 else sha256("".join(sorted(hashes)).encode()).hexdigest()


def joined(groups: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join groups that hold the same content.

    Args:
        groups: ``(group, content hash)`` of each case.

    Returns:
        For each group the first, by name, of all groups that it is joined with.

    Example:
        >>> joined([("ann", "x"), ("bob", "x"), ("bob", "y"), ("cy", "z")])
        {'ann': 'ann', 'bob': 'ann', 'cy': 'cy'}
    """
    first: dict[str, str] = {}
    owner: dict[str, str] = {}

    def root(group: str) -> str:
        while first[group] != group:
            group = first[group]
        return group

    for group, content in groups:
        first.setdefault(group, group)
        low, high = sorted((root(group), root(owner.setdefault(content, group))))
        first[high] = low
    return {group: root(group) for group in first}
