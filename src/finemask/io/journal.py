"""What was done to each case, a line of JSON at a time, for commands that can be resumed.

A line is added when a case is through, so that a thousandth costs no more
than the first and a killed process loses one line at most.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from finemask import __version__
from finemask.errors import UsageError
from finemask.io.files import sha256, unwritable
from finemask.io.outputs import path_within


def fingerprint(value: Any) -> str:
    """A short digest of whatever JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checksums(root: Path, paths: Sequence[Path]) -> list[dict[str, str]]:
    """Files with their SHA-256, paths told from a folder."""
    return [{"path": path_within(root, path), "sha256": sha256(path)} for path in paths]


class Journal:
    """The journal of an output folder; each of its lines lists the ``outputs`` of a case.

    Args:
        path: The file, in the folder of the outputs.
        kind: What wrote it, its first line.
        needed: Keys of every line.
        keep: Go on with what is written there; else it is begun anew, and files that it
            lists are removed.

    Raises:
        UsageError: When the file is something else.
    """

    def __init__(self, path: Path, kind: str, needed: set[str], keep: bool) -> None:
        self.out, self.path = path.parent, path
        self.lines = read_journal(path, kind, needed)
        if not keep:
            for line in self.lines.values():
                self._remove(output["path"] for output in line["outputs"])
            self.lines = {}
        self.out.mkdir(parents=True, exist_ok=True)
        fresh = not (keep and path.exists() and path.stat().st_size)
        self._file = open(path, "w" if fresh else "a", encoding="utf-8")  # noqa: SIM115
        if fresh:
            self._append({"kind": kind, "finemask": __version__})
        elif not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # after a line that was cut off

    def record(self, name: str, line: Mapping[str, Any]) -> None:
        """Write down what came of a case; what an earlier call left of it in other files goes."""
        kept = {output["path"] for output in line["outputs"]}
        before = self.lines.get(name, {"outputs": []})["outputs"]
        self._remove(o["path"] for o in before if o["path"] not in kept)
        self.lines[name] = dict(line)
        self._append({"case": name, **line})

    def _remove(self, files: Iterable[str]) -> None:
        home = os.path.realpath(self.out)
        for file in (self.out / name for name in files):
            if Path(os.path.realpath(file)).is_relative_to(home):
                file.unlink(missing_ok=True)

    def close(self) -> None:
        with suppress(OSError):  # what did not fit when it was written does not fit now
            self._file.close()

    def _append(self, value: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(value, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error


def read_journal(path: Path, kind: str, needed: set[str]) -> dict[str, dict[str, Any]]:
    """The last line about each case; what a killed process left of a line is passed over.

    Raises:
        UsageError: When the file is something else.
    """
    if not path.exists() or not path.stat().st_size:  # killed before its first line
        return {}
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            value = json.loads(text)
        except ValueError:
            continue
        lines += [value] if isinstance(value, dict) else []
    if not lines or lines[0].get("kind") != kind:
        raise UsageError(path, f"is no journal of {kind}", "choose another folder")
    needed = needed | {"case", "outputs"}
    return {line["case"]: line for line in lines[1:] if needed <= set(line)}
