"""What is in a file, whatever it is called: hashes that find copies."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError

CHUNK = 1 << 20


def file_hash(path: Path) -> str:
    """SHA-256 of a file as it lies on disk, or of all files in a folder."""
    return _hash(_stamped(path), False)


def content_hash(path: Path) -> str:
    """SHA-256 of what a file holds: two gzip files of one volume hash alike.

    Raises:
        DataError: When the file is not sound gzip although its name says so.
    """
    return _hash(_stamped(path), True)


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
    """The files of ``path`` with size and time, so that a changed file is hashed anew."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    try:
        return tuple((f, (stat := f.stat()).st_size, stat.st_mtime_ns) for f in files)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file") from error


@lru_cache(maxsize=65536)
def _hash(files: tuple[tuple[Path, int, int], ...], unpack: bool) -> str:
    digests = [_digest(path, unpack) for path, _, _ in files]
    # The slices of a series are one image in whatever order the files are named.
    return (
        digests[0] if len(digests) == 1 else sha256("".join(sorted(digests)).encode()).hexdigest()
    )


def _digest(path: Path, unpack: bool) -> str:
    digest = sha256()
    for chunk in _chunks(path, unpack and path.name.lower().endswith(".gz")):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path, gzipped: bool) -> Iterator[bytes]:
    try:
        with gzip.open(path) if gzipped else open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise DataError(path, f"cannot be read whole ({error})", "replace the file") from error


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
