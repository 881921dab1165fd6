"""What was done to each case, a line at a time: ``soften.jsonl``, which ``--resume`` trusts.

A line is added when a case is through, so that a thousandth costs no more
than the first and a killed process loses one line at most. A case counts as
done when its last line says so, nothing that decides the result has changed,
and every file it was made from and every file it left has its checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finemask import __version__
from finemask.datasets.listing import inside
from finemask.errors import UsageError
from finemask.io import sha256
from finemask.io.outputs import path_within

FILE = "soften.jsonl"
KIND = "finemask soften"


def fingerprint(value: Any) -> str:
    """A short digest of whatever JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checksums(root: Path, paths: Sequence[Path]) -> list[dict[str, str]]:
    """Files with their SHA-256, paths told from a folder."""
    return [{"path": path_within(root, path), "sha256": sha256(path)} for path in paths]


class Journal:
    """The journal of an output folder.

    Args:
        out: The folder.
        keep: Go on with what is written there; else it is begun anew, and files that it
            lists are removed.

    Raises:
        UsageError: When the folder holds something else.
    """

    def __init__(self, out: Path, keep: bool) -> None:
        self.out, self.path = out, out / FILE
        self.lines: dict[str, dict[str, Any]] = _read(self.path) if self.path.exists() else {}
        if not keep:
            for line in self.lines.values():
                self._remove(output["path"] for output in line["outputs"])
            self.lines = {}
        out.mkdir(parents=True, exist_ok=True)
        fresh = not (keep and self.path.exists())
        self._file = open(self.path, "w" if fresh else "a", encoding="utf-8")  # noqa: SIM115
        if fresh:
            self._append({"kind": KIND, "finemask": __version__})
        elif not self.path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # after a line that was cut off

    def is_done(self, name: str, made_by: str, inputs: Sequence[Path]) -> bool:
        """Whether a case need not be done again, judged by checksums alone."""
        line = self.lines.get(name)
        if not line or not line["rows"] or line["made_by"] != made_by:
            return False
        try:
            return [i["sha256"] for i in line["inputs"]] == [sha256(p) for p in inputs] and all(
                sha256(self.out / output["path"]) == output["sha256"] for output in line["outputs"]
            )
        except OSError:
            return False

    def record(self, name: str, line: Mapping[str, Any]) -> None:
        """Write down what came of a case; what an earlier call left of it in other files goes."""
        kept = {output["path"] for output in line["outputs"]}
        before = self.lines.get(name, {"outputs": []})["outputs"]
        self._remove(o["path"] for o in before if o["path"] not in kept)
        self.lines[name] = dict(line)
        self._append({"case": name, **line})

    def _remove(self, files: Iterable[str]) -> None:
        for file in (self.out / name for name in files):
            if inside(self.out, file):
                file.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()

    def _append(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._file.flush()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The last line about each case; what a killed process left of a line is passed over."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(text)
        except ValueError:
            continue
        lines += [value] if isinstance(value, dict) else []
    if not lines or lines[0].get("kind") != KIND:
        raise UsageError(path, "is no journal of finemask soften", "choose another folder")
    needed = {"case", "made_by", "inputs", "outputs", "rows", "cases", "failures"}
    return {line["case"]: line for line in lines[1:] if needed <= set(line)}
