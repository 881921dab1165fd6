"""Names that tell nobody who the patient is: keyed hashes, whose key stays with the user.

The same name and key make the same pseudonym in every command, so a model
trained on pseudonyms, its masks and their scores fit together. Nobody without
the key can try names until one fits, as with a plain hash.
"""

from __future__ import annotations

import csv
import hmac
import io
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finemask.errors import UsageError
from finemask.io.notices import warn

KEY_BYTES = 32
SHORTEST_KEY = 16
PSEUDONYM = re.compile(r"id-[0-9a-f]{16}")
LEAST_LETTERS, LEAST_DIGITS = 3, 4
"""Shorter names are not searched in texts: they name nobody, and numbers are everywhere."""


class Pseudonyms:
    """Hashes of names under one key, and what each of them stands for in this process.

    Args:
        key: Secret bytes.
        path: The file that they came from.

    Example:
        >>> names = Pseudonyms(b"0123456789abcdef")
        >>> names("doe_john")
        'id-c7a5e7c7deee0ef5'
        >>> names(names("doe_john"))
        'id-c7a5e7c7deee0ef5'
        >>> names.hide("error: /data/doe_john.png: is empty")
        'error: /data/id-c7a5e7c7deee0ef5.png: is empty'
    """

    def __init__(self, key: bytes, path: Path | None = None) -> None:
        self.path, self._key = path, key
        self._names: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    @classmethod
    def load(cls, path: str | Path, apart_from: Iterable[Path] = ()) -> Pseudonyms:
        """Read a key; where there is none yet, make one that only its owner can read.

        Args:
            path: File with the key, as any text or bytes.
            apart_from: Folders that are shared, where no key may lie.

        Raises:
            UsageError: When it cannot be read or made, is too short, or would be shared.
        """
        file = Path(path)
        for folder in apart_from:
            refuse_shared(file, folder)
        try:
            if not file.exists():
                handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w", encoding="ascii") as new:
                    new.write(secrets.token_hex(KEY_BYTES) + "\n")
                warn(file, "is a new key: keep it, and keep it to yourself")
            key = file.read_bytes().strip()
        except OSError as error:
            raise UsageError(
                file, f"cannot be read or made ({error.strerror})", "choose another key file"
            ) from error
        if len(key) < SHORTEST_KEY:
            raise UsageError(
                file,
                f"is a key of {len(key)} bytes, which could be guessed",
                f"give at least {SHORTEST_KEY}, or the name of a file that is not there yet",
            )
        return cls(key, file)

    def __call__(self, name: str) -> str:
        """The pseudonym of a case or a patient; one that is a pseudonym already stays."""
        if PSEUDONYM.fullmatch(name):
            return name
        if name not in self._names:
            digest = hmac.new(self._key, name.encode("utf-8"), "sha256").hexdigest()
            self._names[name] = f"id-{digest[:16]}"
            self.remember(name, self._names[name])
        return self._names[name]

    def remember(self, text: str, shown: str) -> None:
        """Have ``hide`` show something else for a text, such as the path of a case."""
        letters = text.strip()
        least = LEAST_DIGITS if letters.isdigit() else LEAST_LETTERS
        if len(letters) >= least and self._texts.get(text) != shown:
            self._texts[text], self._pattern = shown, None

    def remember_files(self, files: Iterable[Path], root: Path, shown: str) -> None:
        """Have ``hide`` show the pseudonym for the files of a case, however they are named."""
        files = list(files)
        for number, path in enumerate(files, start=1):
            suffixes = "".join(s for s in path.suffixes[-2:] if s.lower() in SUFFIXES)
            file = f"{shown}{suffixes}" if len(files) == 1 else f"{shown}/{number}{suffixes}"
            whole = os.path.abspath(path)
            below = os.path.relpath(whole, os.path.abspath(root))
            for text in (str(path), whole, below, path.name):
                self.remember(text, file)
            self.remember(path.name.removesuffix("".join(path.suffixes)), shown)
            if len(files) > 1:  # a series is named by its folder
                self.remember(path.parent.name, shown)

    def hide(self, text: str) -> str:
        """A text in which every name and path that is known is a pseudonym."""
        if not self._texts:
            return text
        if self._pattern is None:
            known = sorted(self._texts, key=len, reverse=True)
            self._pattern = re.compile(
                rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, known))})(?![A-Za-z0-9])"
            )
        return self._pattern.sub(lambda found: self._texts[found[0]], text)

    def write_mapping(self, path: Path) -> None:
        """A table that only its owner can read: which pseudonym is whose; rows are added to it."""
        known = {shown: name for name, shown in self._names.items()}
        if path.exists():
            with open(path, encoding="utf-8", newline="") as file:
                known = {row["pseudonym"]: row["name"] for row in csv.DictReader(file)} | known
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("pseudonym", "name"))
        table.writerows(sorted(known.items()))
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())

    @contextmanager
    def on_terminal(self) -> Iterator[None]:
        """Hide names in whatever this process prints, which may end in a log."""
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Hiding(sys.stdout, self), _Hiding(sys.stderr, self)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


SUFFIXES = (".nii", ".gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".png", ".tif", ".tiff",
            ".jpg", ".jpeg", ".bmp")  # fmt: skip


def refuse_shared(file: Path, folder: Path) -> None:
    """Refuse a secret that would lie in a folder of outputs.

    Raises:
        UsageError: When it would.
    """
    if Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(file, f"lies in {folder}, which may be shared", "keep it elsewhere")


class _Hiding:
    """A stream that writes texts with names hidden, and is otherwise the stream behind it."""

    def __init__(self, stream: Any, names: Pseudonyms) -> None:
        self._stream, self._hide = stream, names.hide

    def write(self, text: str) -> int:
        self._stream.write(self._hide(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
