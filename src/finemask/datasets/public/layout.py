"""Finding the files of an official download, and saying what is there when they are not.

A download may be unpacked one or two folders deeper than the user points to;
everything else about names is as the set ships it. What is missing is told
with what was found instead, because a renamed file is the usual reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from finemask.datasets.listing import few
from finemask.errors import DataError
from finemask.io.formats import natural_key
from finemask.progress import Track, silent

DEPTH = 3
"""Folders below the one that a user names in which a download is looked for."""
IGNORED = re.compile(r"^(\._|\.DS_Store|__MACOSX|Thumbs\.db|desktop\.ini)", re.IGNORECASE)
"""What archives carry along."""


@dataclass(frozen=True)
class Raw:
    """The folder of a download.

    Args:
        root: The folder.
        title: Name of the set, for messages.
        variant: The form that is wanted.
        progress: Tells the user how far a slow look is.
    """

    root: Path
    title: str
    variant: str = "original"
    progress: Track = silent

    def home(self, *markers: str) -> Raw:
        """The folder that holds every marker: this one, or one below it.

        Args:
            markers: Patterns of files or folders in it, such as ``train/*``; those of one
                name separated by ``|`` are alternatives.

        Raises:
            DataError: When there is none; the message names what was found instead.
        """
        for folder in self._folders():
            if all(_first(folder, marker) is not None for marker in markers):
                return replace(self, root=folder)
        missing = [m for m in markers if _first(self.root, m) is None] or list(markers)
        raise self.lacks(
            " and ".join(_told(m) for m in missing),
            "point to the folder of the official download, unpacked",
        )

    def lacks(self, what: str, fix: str = "unpack the whole download") -> DataError:
        """The error that something of the official layout is not here."""
        found = _found(self.root)
        return DataError(self.root, f"lacks {what}, which {self.title} has (found {found})", fix)

    def _folders(self) -> Iterator[Path]:
        level = [self.root]
        for _ in range(DEPTH):
            yield from level
            level = [f for folder in level for f in listed(folder) if f.is_dir()]

    def folder(self, marker: str) -> Path:
        """A folder by its name, or by one of the names separated by ``|``.

        Raises:
            DataError: When there is none.
        """
        found = _first(self.root, marker)
        if found is None or not found.is_dir():
            raise self.lacks(f"the folder {_told(marker)}")
        return found

    def file(self, marker: str) -> Path:
        """A file by its name or pattern, or by one of those separated by ``|``.

        Raises:
            DataError: When there is none.
        """
        found = _first(self.root, marker)
        if found is None:
            raise self.lacks(_told(marker))
        return found

    def below(self, marker: str) -> Raw:
        """A folder by its name as the place of further look-ups."""
        return replace(self, root=self.folder(marker))


def _first(folder: Path, marker: str) -> Path | None:
    """The first path that one of the alternatives of a marker matches, in natural order."""
    for pattern in marker.split("|"):
        found = [p for p in folder.glob(pattern) if not IGNORED.match(p.name)]
        if found:
            return min(found, key=natural_key)
    return None


def _told(marker: str) -> str:
    return " or ".join(marker.split("|"))


def _found(folder: Path) -> str:
    names = [p.name + ("/" if p.is_dir() else "") for p in listed(folder)]
    return few(names, 6) or "nothing"


def listed(folder: Path) -> list[Path]:
    """What a folder holds, in natural order, without the litter of archives.

    Raises:
        DataError: When it cannot be listed.
    """
    try:
        inside = [p for p in folder.iterdir() if not IGNORED.match(p.name)]
    except OSError as error:
        raise DataError(
            folder, f"cannot be listed ({error.strerror})", "check the path and its rights"
        ) from error
    return sorted(inside, key=natural_key)


def matching(folder: Path, pattern: str) -> dict[str, Path]:
    """Files of a folder by the part of their name that a pattern picks.

    Args:
        folder: Where they lie.
        pattern: Regular expression of the whole name, case ignored; its group is the key.

    Raises:
        DataError: When no file matches, or two have one key.
    """
    regular = re.compile(pattern, re.IGNORECASE)
    found: dict[str, Path] = {}
    for path in listed(folder):
        match = regular.fullmatch(path.name)
        if match is None:
            continue
        key = match[1]
        if key in found:
            raise DataError(path, f"and {found[key].name} are both {key}", "remove one of them")
        found[key] = path
    if not found:
        raise DataError(
            folder,
            f"has no file named like {_readable(pattern)} (found {_found(folder)})",
            "restore the official names",
        )
    return found


def _readable(pattern: str) -> str:
    """A regular expression as a file name with stars."""
    plain = re.sub(r"\((?!\?)[^)]*\)", "*", pattern)
    plain = re.sub(r"\(\?:([^|)]*)[^)]*\)\??", r"\1", plain)
    return plain.replace("\\d+", "*").replace("\\", "")


def partner(files: dict[str, Path], key: str, of: Path, folder: Path, what: str = "mask") -> Path:
    """The file that belongs to an image.

    Raises:
        DataError: When it is missing; the message names what the folder has instead.
    """
    if key in files:
        return files[key]
    others = few([p.name for p in files.values()], 3)
    raise DataError(
        folder,
        f"lacks the {what} of {of.name} (found {len(files)} others: {others})",
        "add or rename it, or remove the image",
    )


def case_name(text: str) -> str:
    """A name of an official file as a case name.

    Example:
        >>> case_name("benign (12)"), case_name("_a b")
        ('benign_12', 'a_b')
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.-")
