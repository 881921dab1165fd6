"""What was done to each case: ``manifest.json`` and ``failures.csv`` of an output folder.

The manifest is the only thing that ``--resume`` trusts: a case is done when
its entry says so, was made by the same model with the same settings from the
same bytes and declared spacing, and every output still has the checksum that
was written down. While a call is at work its entries are lines of a journal,
``manifest.jsonl``, so that a thousandth case costs no more than the first; at
its end they become the manifest.

A shard keeps files of its own (``manifest_2of5.json``), so that shards can work
in one folder at a time; all are trusted, and a call without shards makes one
manifest of them. Paths are told from the folder that the user named, so that
the files can be shared and moved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finemask import __version__
from finemask.errors import FinemaskError, UsageError
from finemask.inference.inputs import Source
from finemask.io.files import sha256, write_json, write_text
from finemask.io.journal import Journal, checksums, read_journal
from finemask.io.outputs import check_writable, shard_tag
from finemask.io.tables import csv_table

KIND = "finemask predict"
NEEDED = {"status", "inputs", "outputs", "made_by"}
OURS = re.compile(r"manifest(_\d+of\d+)?\.jsonl?")


class Ledger:
    """Keeps account of an output folder, case by case.

    Args:
        out: Output folder; made if need be.
        made_by: What decides the outputs besides the inputs: model checksum and settings.
        shard: ``(i, n)`` of a call that does one share of the cases.

    Raises:
        UsageError: When the folder cannot be written, or its manifest not be understood.
    """

    def __init__(
        self, out: Path, made_by: Mapping[str, Any], shard: tuple[int, int] | None = None
    ) -> None:
        self.out, self.made_by = out, json.loads(json.dumps(made_by))
        tag = shard_tag(shard)
        self.path, self.failures = out / f"manifest{tag}.json", out / f"failures{tag}.csv"
        check_writable(out)
        own = [self.path, self.path.with_suffix(".jsonl")]
        found = sorted(out.iterdir()) if out.is_dir() else []
        self._merged = [p for p in found if shard is None and OURS.fullmatch(p.name)]
        others = [p for p in found if OURS.fullmatch(p.name) and p not in own]
        self._known = {n: c for p in (*others, *own) for n, c in _read_cases(p).items()}
        self._cases = dict(self._known)
        if shard:
            self._cases = {n: c for p in own for n, c in _read_cases(p).items()}
        self._journal = Journal(own[1], KIND, NEEDED, keep=True)
        self._failed: list[tuple[str, str, str]] = []

    def is_done(self, source: Source, outputs: Sequence[Path]) -> bool:
        """Whether a case need not be done again, judged by checksums alone."""
        entry = self._known.get(source.name)
        if not entry or entry["status"] != "done" or entry["made_by"] != self.made_by:
            return False
        if tuple(entry.get("spacing_mm", ())) != source.spacing_mm:
            return False
        try:
            return checksums(self.out, outputs) == entry["outputs"] and [
                sha256(path) for path in source.files
            ] == [i["sha256"] for i in entry["inputs"]]
        except OSError:
            return False

    def record_done(self, source: Source, outputs: Sequence[Path], seconds: float) -> None:
        """Write down what a case was made from and what came of it."""
        self._record(
            source.name,
            {
                "status": "done",
                "inputs": [
                    {**told, "path": source.hide(told["path"])}
                    for told in checksums(source.root, source.files)
                ],
                "spacing_mm": list(source.spacing_mm),
                "outputs": checksums(self.out, outputs),
                "seconds": round(seconds, 3),
                "made_by": self.made_by,
            },
        )

    def record_failure(self, source: Source, error: FinemaskError) -> None:
        """Write down why a case could not be done."""
        file, line = source.told(error)
        self._failed.append((source.name, file, line))
        self._record(
            source.name,
            {
                "status": "failed",
                "inputs": [{"path": file}],
                "outputs": [],
                "error": line,
                "made_by": self.made_by,
            },
        )

    def close(self) -> None:
        """Make the manifest of the journal, and list what failed in this call."""
        self._journal.close()
        cases = dict(sorted(self._cases.items()))
        write_json(self.path, {"finemask": __version__, "cases": cases}, overwrite=True)
        for path in {*self._merged, self._journal.path} - {self.path}:
            path.unlink(missing_ok=True)
        if self._failed:
            table = csv_table(("case", "file", "error"), self._failed)
            write_text(self.failures, table, overwrite=True)
        else:
            self.failures.unlink(missing_ok=True)

    def _record(self, name: str, entry: dict[str, Any]) -> None:
        self._cases[name] = entry
        self._journal.record(name, entry)


def _read_cases(path: Path) -> dict[str, Any]:
    """Entries by case, of a manifest or of the journal that a stopped call left."""
    if not path.exists():
        return {}
    if path.suffix == ".jsonl":
        return read_journal(path, KIND, NEEDED)
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        sound = all(set(c) >= NEEDED for c in cases.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UsageError(
            path, "is no manifest of finemask predict", "remove it, or choose another --out"
        )
    return dict(cases)
