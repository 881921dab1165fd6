"""Files that are whole or absent: atomic writing, checksums and safe names."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finemask.errors import DataError, OutputError

HOPELESS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
)  # fmt: skip
"""Reasons for which no further output can be written."""
_BLOCK = 1 << 18
_DRAFT = re.compile(r"\.finemask-[0-9a-f]{8}-.+", re.DOTALL)
_ABANDONED_SECONDS = 24 * 3600
_swept: set[Path] = set()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@contextmanager
def atomic_write(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Write a file that appears complete or not at all.

    The block gets the path of a temporary file in the same folder, with the
    same suffix, and writes it by any means. When the block ends the bytes are
    forced to disk and the file is moved into place; when it raises, nothing
    is left behind and an existing file is untouched. What a killed process
    left behind is removed by the first writing into that folder a day later.

    Args:
        path: The file to make; missing parent folders are made too.
        overwrite: Replace an existing file.

    Raises:
        DataError: When the file exists and may not be replaced, or cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    target = Path(path)
    _refuse_existing(target, overwrite)
    temporary = target.with_name(f".finemask-{secrets.token_hex(4)}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent.absolute())
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        _refuse_existing(target, overwrite)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except DataError as error:
        if error.subject == str(temporary):
            raise DataError(target, error.what, error.fix) from error
        raise
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def unwritable(target: Path, error: OSError) -> DataError:
    """Why a file could not be written; told apart when no other can be, either."""
    kind = OutputError if error.errno in HOPELESS else DataError
    reason = error.strerror or str(error)
    return kind(
        target, f"cannot be written ({reason})", "check the folder, its rights and free space"
    )


def is_draft(path: Path) -> bool:
    """Whether a file is what a killed writer left, or a living one has begun.

    Example:
        >>> is_draft(Path("out/.finemask-0a1b2c3d-mask.png")), is_draft(Path("out/mask.png"))
        (True, False)
    """
    return _DRAFT.fullmatch(path.name) is not None


def _sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder, once for each folder and process.

    Only plain files of our own pattern that nobody has changed for a day: a
    younger one may belong to a process that is still writing.
    """
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (_DRAFT.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)):
                continue
            with suppress(OSError):
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age > _ABANDONED_SECONDS:
                    os.unlink(entry.path)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise DataError(target, "is a folder, a file was to be written", "choose another name")
    if target.exists() and not overwrite:
        raise DataError(target, "exists already", "choose another place or pass --overwrite")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable where the system lets a folder be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike[str], text: str, overwrite: bool = False) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], value: Any, overwrite: bool = False) -> None:
    """Write JSON atomically; NaN and infinity are refused because JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", overwrite)


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read anew at each call."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Digests:
    """SHA-256 of a file, from one reading.

    Args:
        stored: Of its bytes as they lie on disk.
        unpacked: Of what a gzip file holds, else ``stored``; empty where nobody
            asked or the file is not sound.
        flaw: What is wrong with a gzip file.
    """

    stored: str
    unpacked: str = ""
    flaw: str = ""


_known: dict[tuple[Path, int, int], Digests] = {}


def digests(path: Path, *, unpack: bool = False) -> Digests:
    """Hashes of a file, which is read once in each process for each state it is in.

    Args:
        path: A file; its size and time of change tell its states apart.
        unpack: Whether ``unpacked`` is wanted of a gzip file, for copies packed
            differently. Asked for at the first call it costs no second reading.

    Raises:
        DataError: When the file cannot be read.
    """
    try:
        state = path.stat()
        key = (path.absolute(), state.st_size, state.st_mtime_ns)
        found = _known.get(key)
        if found is None or (unpack and not found.unpacked and not found.flaw):
            found = _known[key] = _digests(path, unpack)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(path, f"cannot be read ({reason})", "check the file") from error
    return found


def _digests(path: Path, unpack: bool) -> Digests:
    stored, flaw = hashlib.sha256(), ""
    inside = _Unpacked() if unpack and path.name.lower().endswith(".gz") else None
    # Small blocks, as a block of gzip may hold a thousand times its length.
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            stored.update(block)
            if inside is not None and not flaw:
                flaw = inside.feed(block)
    found = stored.hexdigest()
    if inside is None:
        return Digests(found, "" if path.name.lower().endswith(".gz") else found)
    if not flaw and not inside.stream.eof:
        flaw = "its compressed data end early"
    return Digests(found, "" if flaw else inside.digest.hexdigest(), flaw)


class _Unpacked:
    """Hash of what a gzip stream of one or more members holds."""

    def __init__(self) -> None:
        self.digest, self.stream = hashlib.sha256(), zlib.decompressobj(wbits=31)

    def feed(self, block: bytes) -> str:
        """Take the next bytes; returns what is wrong with them, or nothing."""
        try:
            while block:
                if self.stream.eof:  # padding, or a further member
                    block = block.lstrip(b"\0")
                    if not block:
                        break
                    self.stream = zlib.decompressobj(wbits=31)
                self.digest.update(self.stream.decompress(block))
                block = self.stream.unused_data
        except zlib.error as error:
            return str(error)
        return ""


def check_name(name: str) -> str:
    """Return a case name that is safe as a file name on every system.

    Raises:
        DataError: Unless it is 1 to 128 letters, digits, ``.``, ``_`` or ``-``, the first
            of them a letter or digit.

    Example:
        >>> check_name("patient_01-left.2")
        'patient_01-left.2'
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            repr(name)[:140],
            "is no safe case name (letters, digits, '.', '_' and '-', at most 128, starting with "
            "a letter or digit)",
            "rename the file",
        )
    return name
