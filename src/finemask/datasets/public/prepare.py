"""The command ``prepare``: a public data set as it is downloaded becomes a finemask data set."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finemask import __version__
from finemask.datasets.listing import inside
from finemask.datasets.public.layout import Raw
from finemask.datasets.public.preview import write_preview
from finemask.datasets.public.records import Computed, Draft, Item, PublicSet, Source
from finemask.datasets.public.registry import find_public
from finemask.datasets.public.writing import (
    Writer,
    check_items,
    is_whole,
    roles,
    write_tables,
)
from finemask.errors import DataError, FinemaskError, OutputError, UsageError
from finemask.io.files import write_text
from finemask.io.journal import Journal, fingerprint
from finemask.io.outputs import check_writable, error_within
from finemask.outcome import Outcome, stopped
from finemask.progress import Track, silent

FILE = "prepare.jsonl"
KIND = "finemask prepare"
PARTIAL = ".partial"
"""Ending of the folder that grows beside the one that is wanted, until it is complete."""


@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` made.

    Args:
        out: The new data set.
        draft: Its cases, splits and notes.
        outcome: How many cases were written, failed and skipped.
    """

    out: Path
    draft: Draft
    outcome: Outcome

    def text(self) -> str:
        """The last lines of the command."""
        lines = [f"note: {note}" for note in self.draft.notes]
        parts = Counter(item.split for item in self.draft.items if item.split)
        if parts:
            lines.append("split: " + ", ".join(f"{n} {part}" for part, n in parts.items()))
        for name, split in self.draft.splits.items():
            sizes = ", ".join(f"{len(split.part(p))} {p}" for p in ("train", "val", "test"))
            leak = f"; it leaks: {split.leak}" if split.leak else ""
            lines.append(f"--split {name}: {sizes}{leak}")
        return "\n".join([*lines, self.outcome.text()])


def prepare_dataset(
    name: str,
    raw: str | Path,
    out: str | Path,
    *,
    variant: str | None = None,
    copy: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Track = silent,
) -> Prepared:
    """Turn the official download of a public data set into a finemask data set.

    Images are linked (a hard link takes no space; where that is impossible
    they are copied) and never compressed again; masks are written anew as what
    they mean. ``out`` appears when everything is done; what was written by a
    call that was stopped waits beside it, in ``OUT.partial``.

    Args:
        name: Of the set, see ``finemask.datasets.public.PUBLIC``.
        raw: Folder of the unpacked download.
        out: Folder of the new data set.
        variant: A paper's form of it (resized, cropped); ``original`` by default.
        copy: Copy images instead of linking them.
        resume: Go on where an earlier call stopped, or try again what failed.
        overwrite: Replace what an earlier call made.
        progress: Tells the user how far it is.

    Raises:
        UsageError: On an unknown set or variant, or a folder that cannot be written.
        DataError: When the download is not in its official layout.

    Example:
        >>> prepare_dataset("drive", "DRIVE", "vessels")  # doctest: +SKIP
    """
    public = find_public(name)
    variant = variant or public.default
    known = [public.default, *(v for v in public.variants if v != public.default)]
    if variant not in known:
        raise UsageError("--variant", f"is {variant!r}", f"choose {', '.join(known)}")
    raw, out = Path(raw), Path(out)
    if not raw.is_dir():
        what = "is a file" if raw.exists() else "does not exist"
        raise DataError(raw, what, f"give the folder of {public.title}, unpacked")
    folder = _working_folder(raw, out, resume, overwrite)
    draft = public.read(Raw(raw, public.title, variant, progress))
    check_items(draft, raw)
    journal = Journal(folder / FILE, KIND, {"made_by"}, keep=resume)
    course = _Course(draft, (name, variant), Writer(folder, draft.labels, copy), journal)
    try:
        course.run(progress)
    finally:
        journal.close()
    outcome = course.outcome()
    _write_failures(folder, raw, course)
    if course.done:
        write_tables(folder, draft, course.done, _about(name, public, variant, draft))
        write_preview(folder, course.done, draft.labels)
        _put_in_place(folder, out, overwrite)
    return Prepared(out, draft, outcome)


@dataclass
class _Course:
    """One call: what is to be written, what was, and what could not be."""

    draft: Draft
    made_by: tuple[str, str]
    writer: Writer
    journal: Journal
    skipped: int = 0
    done: list[Item] = field(default_factory=list)
    failures: list[tuple[str, FinemaskError]] = field(default_factory=list)

    def run(self, progress: Track) -> None:
        """Write every case that is not there yet; a bad file costs only its own case."""
        for item in progress(self.draft.items, "preparing", len(self.draft.items)):
            made_by = self._made_by(item)
            line = self.journal.lines.get(item.name)
            if line and line["made_by"] == made_by and is_whole(self.writer.out, line):
                self.skipped += 1
                self.done.append(item)
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # masks are interpreted here, not guessed
                    outputs = self.writer.write(item)
            except OutputError as error:
                raise stopped(error, len(self.done)) from error
            except FinemaskError as error:
                self.failures.append((item.name, error))
                continue
            self.journal.record(item.name, {"made_by": made_by, "outputs": outputs})
            self.done.append(item)

    def _made_by(self, item: Item) -> str:
        """What decides the files of a case: who made it, and the state of what it is made of."""
        sources = [(role, _state(source)) for role, source in roles(item)]
        labels = dict(self.draft.labels)
        return fingerprint((__version__, self.made_by, labels, item.about, sources))

    def outcome(self) -> Outcome:
        errors = tuple(error for _, error in self.failures)
        return Outcome(len(self.done) - self.skipped, len(errors), self.skipped, errors)


def _state(source: Source) -> list[tuple[str, int, int]]:
    """Name, size and time of change of what a source is made of."""
    if isinstance(source, Computed):
        paths: Sequence[Path] = source.inputs
    else:
        paths = sorted(source.iterdir()) if source.is_dir() else [source]
    states = [(path.name, path.stat()) for path in paths if path.exists()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in states]


def _working_folder(raw: Path, out: Path, resume: bool, overwrite: bool) -> Path:
    """Where the data set is built: beside ``out``, or in it when it is mended.

    Raises:
        UsageError: When there is something that may not be replaced.
    """
    if inside(raw, out) or inside(out, raw):
        raise UsageError(out, f"lies in {raw}, or that in it", "choose another folder")
    check_writable(out)
    partial = out.with_name(out.name + PARTIAL)
    for folder in (out, partial):
        there = folder.is_dir() and any(folder.iterdir())
        if folder.exists() and not folder.is_dir():
            raise UsageError(folder, "is a file", "choose another folder")
        if there and not (resume or overwrite):
            what = "exists already" if folder == out else "was left by a call that was stopped"
            raise UsageError(folder, what, "pass --resume or --overwrite, or choose another folder")
        if there and not (folder / FILE).is_file():
            raise UsageError(
                folder, "is no folder that finemask prepare wrote", "choose another folder"
            )
    return out if resume and out.is_dir() and any(out.iterdir()) else partial


def _put_in_place(folder: Path, out: Path, overwrite: bool) -> None:
    if folder == out:
        return
    if out.exists() and overwrite:
        shutil.rmtree(out)
    elif out.exists():
        out.rmdir()  # empty
    folder.rename(out)


def _about(name: str, public: PublicSet, variant: str, draft: Draft) -> dict[str, Any]:
    return {
        "name": public.title,
        "description": f"{public.task}, {public.modality}; {public.home}",
        "generator": f"{KIND} {__version__}",
        "set": name,
        "variant": variant,
        "licence": public.terms,
        "labels": {"background": 0, **draft.labels},
        "notes": list(draft.notes),
    }


def _write_failures(folder: Path, raw: Path, course: _Course) -> None:
    import csv
    import io

    path = folder / "failures.csv"
    if not course.failures:
        path.unlink(missing_ok=True)
        return
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("case", "error"))
    writer.writerows((name, error_within(raw, error)) for name, error in course.failures)
    write_text(path, table.getvalue(), overwrite=True)
