"""What was done to each case: ``manifest.json`` and ``failures.csv`` of an output folder.

The manifest is the only thing that ``--resume`` trusts: a case is done when
its entry says so, was made by the same model with the same settings from the
same bytes, and every output still has the checksum that was written down.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finemask import __version__
from finemask.errors import FinemaskError, UsageError
from finemask.io.files import sha256, write_json, write_text


@dataclass(frozen=True)
class Outcome:
    """How many cases a command did, with the errors of those it could not do.

    Example:
        >>> outcome = Outcome(done=2, failed=1, skipped=0)
        >>> outcome.text(), outcome.exit_code
        ('2 done, 1 failed, 0 skipped of 3', 1)
    """

    done: int
    failed: int
    skipped: int
    failures: tuple[FinemaskError, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed, 3 nothing could be done."""
        if not self.failed:
            return 0
        return 1 if self.done + self.skipped else 3

    def text(self) -> str:
        """The last line of a command; the numbers add up."""
        total = self.done + self.failed + self.skipped
        return f"{self.done} done, {self.failed} failed, {self.skipped} skipped of {total}"


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
        _check_writable(out)
        self._cases: dict[str, Any] = _read_cases(self.path)
        self._failures: list[tuple[str, str, str]] = []

    def is_done(self, name: str, inputs: Sequence[Path], outputs: Sequence[Path]) -> bool:
        """Whether a case need not be done again, judged by checksums alone."""
        entry = self._cases.get(name)
        if not entry or entry["status"] != "done" or entry["made_by"] != self.made_by:
            return False
        wanted = [self._relative(path) for path in outputs]
        if [output["path"] for output in entry["outputs"]] != wanted:
            return False
        try:
            return self._checksums(outputs) == entry["outputs"] and [
                sha256(path) for path in inputs
            ] == [i["sha256"] for i in entry["inputs"]]
        except OSError:
            return False

    def record_done(
        self, name: str, inputs: Sequence[Path], outputs: Sequence[Path], seconds: float
    ) -> None:
        """Write down what a case was made from and what came of it."""
        self._cases[name] = {
            "status": "done",
            "inputs": self._checksums(inputs),
            "outputs": self._checksums(outputs),
            "seconds": round(seconds, 3),
            "made_by": self.made_by,
        }
        self._save()

    def record_failure(self, name: str, path: Path, error: FinemaskError) -> None:
        """Write down why a case could not be done."""
        self._cases[name] = {
            "status": "failed",
            "inputs": [{"path": self._relative(path)}],
            "outputs": [],
            "error": str(error),
            "made_by": self.made_by,
        }
        self._failures.append((name, str(path), str(error)))
        self._save()
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("case", "file", "error"))
        table.writerows([_harmless(cell) for cell in row] for row in self._failures)
        write_text(self.out / "failures.csv", text.getvalue(), overwrite=True)

    def close(self) -> None:
        """Remove the failures of an earlier call when this one had none."""
        if not self._failures:
            (self.out / "failures.csv").unlink(missing_ok=True)

    def _save(self) -> None:
        value = {"finemask": __version__, "cases": self._cases}
        write_json(self.path, value, overwrite=True)

    def _checksums(self, paths: Sequence[Path]) -> list[dict[str, str]]:
        return [{"path": self._relative(path), "sha256": sha256(path)} for path in paths]

    def _relative(self, path: Path) -> str:
        """Relative to the folder, so that the manifest names nobody's home and can be moved."""
        try:
            return Path(os.path.relpath(path, self.out)).as_posix()
        except ValueError:  # another drive
            return path.name


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(
            out, f"cannot be written ({error.strerror})", "choose another --out"
        ) from error


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


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell
