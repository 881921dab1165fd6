"""What was done to each case: ``manifest.json`` and ``failures.csv`` of an output folder.

The manifest is the only thing that ``--resume`` trusts: a case is done when
its entry says so, was made by the same model with the same settings from the
same bytes and declared spacing, and every output still has the checksum that
was written down. Paths in both files are told from the folder that the user
named, so that they can be shared and moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finemask import __version__
from finemask.errors import FinemaskError, UsageError
from finemask.inference.inputs import Source
from finemask.io.files import sha256, write_json, write_text
from finemask.io.outputs import check_writable, error_within, path_within
from finemask.io.tables import csv_table


class Ledger:
    """Keeps the manifest of an output folder up to date, case by case.

    Args:
        out: Output folder; made if need be.
        made_by: What decides the outputs besides the inputs: model checksum and settings.

    Raises:
        UsageError: When the folder cannot be written, or its manifest not be understood.
    """

    def __init__(self, out: Path, made_by: Mapping[str, Any]) -> None:
        self.out, self.made_by = out, json.loads(json.dumps(made_by))
        self.path = out / "manifest.json"
        check_writable(out)
        self._cases: dict[str, Any] = _read_cases(self.path)
        self._failures: list[tuple[str, str, str]] = []

    def is_done(self, source: Source, outputs: Sequence[Path]) -> bool:
        """Whether a case need not be done again, judged by checksums alone."""
        entry = self._cases.get(source.name)
        if not entry or entry["status"] != "done" or entry["made_by"] != self.made_by:
            return False
        if tuple(entry.get("spacing_mm", ())) != source.spacing_mm:
            return False
        wanted = [path_within(self.out, path) for path in outputs]
        if [output["path"] for output in entry["outputs"]] != wanted:
            return False
        try:
            return _checksums(self.out, outputs) == entry["outputs"] and [
                sha256(path) for path in source.files
            ] == [i["sha256"] for i in entry["inputs"]]
        except OSError:
            return False

    def record_done(self, source: Source, outputs: Sequence[Path], seconds: float) -> None:
        """Write down what a case was made from and what came of it."""
        self._cases[source.name] = {
            "status": "done",
            "inputs": _checksums(source.root, source.files),
            "spacing_mm": list(source.spacing_mm),
            "outputs": _checksums(self.out, outputs),
            "seconds": round(seconds, 3),
            "made_by": self.made_by,
        }
        self._save()

    def record_failure(self, source: Source, error: FinemaskError) -> None:
        """Write down why a case could not be done."""
        file, line = path_within(source.root, source.path), error_within(source.root, error)
        self._cases[source.name] = {
            "status": "failed",
            "inputs": [{"path": file}],
            "outputs": [],
            "error": line,
            "made_by": self.made_by,
        }
        self._failures.append((source.name, file, line))
        self._save()
        table = csv_table(("case", "file", "error"), self._failures)
        write_text(self.out / "failures.csv", table, overwrite=True)

    def close(self) -> None:
        """Remove the failures of an earlier call when this one had none."""
        if not self._failures:
            (self.out / "failures.csv").unlink(missing_ok=True)

    def _save(self) -> None:
        value = {"finemask": __version__, "cases": self._cases}
        write_json(self.path, value, overwrite=True)


def _checksums(root: Path, paths: Sequence[Path]) -> list[dict[str, str]]:
    return [{"path": path_within(root, path), "sha256": sha256(path)} for path in paths]


def _read_cases(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        sound = all({"status", "inputs", "outputs", "made_by"} <= set(c) for c in cases.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UsageError(
            path, "is no manifest of finemask predict", "remove it, or choose another --out"
        )
    return dict(cases)
