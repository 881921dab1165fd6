"""Folders that we write: names of files in them, and paths that name nobody's home."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from finemask.errors import FinemaskError, UsageError

_ABSOLUTE = re.compile(r"(?<![\w.~/:<-])(?:[A-Za-z]:)?[/\\](?:[^/\\\s:;,'\"()]+[/\\])+")
"""The folders of an absolute path within a sentence."""


def class_in_file_name(label: str) -> str:
    """A class name as part of a file name.

    Example:
        >>> class_in_file_name("rim zone")
        'rim_zone'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)


def shard_tag(shard: tuple[int, int] | None) -> str:
    """What the files of a shard have in their names, so that shards can share a folder.

    Example:
        >>> shard_tag((2, 5)), shard_tag(None)
        ('_2of5', '')
    """
    return "" if shard is None else f"_{shard[0]}of{shard[1]}"


def check_writable(out: Path) -> None:
    """Find out now, rather than after hours, that a folder cannot be made or takes no file.

    Raises:
        UsageError: When it cannot be written.
    """
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(
            out, f"cannot be written ({error.strerror})", "choose another --out"
        ) from error


def path_within(root: Path, path: str | Path) -> str:
    """A path as a shared file may tell it: below the root, or just the name of the file.

    Example:
        >>> path_within(Path("/home/me/set"), "/home/me/set/images/a.png")
        'images/a.png'
        >>> path_within(Path("/home/me/set"), "/home/me/other/b.png")
        'b.png'
    """
    whole, base = (Path(os.path.abspath(p)) for p in (path, root))
    inside = whole != base and whole.is_relative_to(base)
    return whole.relative_to(base).as_posix() if inside else whole.name


def error_within(root: Path, error: FinemaskError) -> str:
    """The line of an error as a shared file may tell it: no path in it is absolute.

    Example:
        >>> from finemask.errors import DataError
        >>> error = DataError("/home/me/set/a.png", "differs from /home/me/b.png", "redo it")
        >>> error_within(Path("/home/me/set"), error)
        'a.png: differs from b.png; redo it'
    """
    text = f"{error.what}; {error.fix}"
    for base in sorted({str(root), os.path.abspath(root), os.path.realpath(root)}, key=len):
        text = text.replace(f"{base.rstrip(os.sep)}{os.sep}", "") if base != "." else text
    text = _ABSOLUTE.sub("", text)
    return " ".join(f"{path_within(root, error.subject)}: {text}".split())
