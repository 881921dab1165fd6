"""The command ``soften``: a data set of Soft Masks from masks, several readers or RECIST marks."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, cast

from finemask import __version__
from finemask.annotation.journal import Journal, file_of, journals_in
from finemask.annotation.parallel import Killed, run_tasks
from finemask.annotation.plan import Origin, Plan, Task, plan_tasks
from finemask.annotation.quality import Row
from finemask.annotation.sheet import write_pages
from finemask.annotation.work import Report, Work
from finemask.annotation.writing import Wanted
from finemask.datasets.listing import inside
from finemask.datasets.split import PARTS, Split
from finemask.errors import DataError, FinemaskError, OutputError, UsageError
from finemask.io import DataWarning, write_json, write_text
from finemask.io.journal import fingerprint
from finemask.io.outputs import check_writable, error_within, path_within, shard_tag
from finemask.io.tables import csv_table
from finemask.outcome import Outcome, shared_out, stopped
from finemask.progress import Track, silent
from finemask.pseudonyms import Pseudonyms
from finemask.softmask.matting import EPSILON, LEAST_EPSILON
from finemask.softmask.softening import METHODS, Method, Softening

ORIGINS = ("mask", "raters", "recist")
MANIFEST = ("case", "image", "mask", "soft", "group", "split", "spacing_mm", "diameter_mm")
GIVEN = {"mask": "mask", "raters": "readers", "recist": "axes"}


@dataclass(frozen=True)
class Softenings:
    """What ``soften`` did.

    Args:
        out: The new data set.
        outcome: How many images (RECIST: marks) were done, failed and skipped.
        rows: The rows of ``quality.csv``.
        notes: What was assumed or left out.
    """

    out: Path
    outcome: Outcome
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The last lines of the command."""
        lines = [*(f"note: {note}" for note in self.notes), self.outcome.text()]
        agreements = [row.agreement for row in self.rows if row.agreement is not None]
        if agreements:
            readers = sorted({row.readers for row in self.rows if row.readers})
            told = f" of R = {' or '.join(map(str, readers))} readers" if readers else ""
            lines.append(
                f"agreement with the {self.rows[0].agreement_with}{told}: median Dice "
                f"{median(agreements):.3f}, least {min(agreements):.3f}"
            )
        flags = Counter(flag for row in self.rows for flag in row.flags.split())
        if flags:
            lines.append("flags: " + ", ".join(f"{n} {flag}" for flag, n in flags.most_common()))
        return "\n".join(lines)


def soften(
    source: str | Path,
    out: str | Path,
    origin: str,
    *,
    marks: str | Path | None = None,
    label: str | None = None,
    method: str = "matting",
    scale: Sequence[int] = (1,),
    radius: float | int | None = None,
    epsilon: float | None = None,
    window: Sequence[float | int] = (),
    crop: int = 0,
    trimaps: bool = False,
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    shard: tuple[int, int] | None = None,
    pseudonyms: Pseudonyms | None = None,
    progress: Track = silent,
) -> Softenings:
    """Make a data set of Soft Masks and of binary masks, which are the Soft Masks cut at 0.5.

    A bad image or mark costs only itself: it is counted and named in
    ``failures.csv``. ``quality.csv`` and the contact sheets tell which results
    to trust. Of marks on a volume come pictures of the slices that they are on.

    Args:
        source: Data set; for marks also DeepLesion's folder, or a folder of images.
        out: Folder of the new data set.
        origin: What is softened: ``mask``, ``raters`` or ``recist``.
        marks: Table of RECIST marks; ``recist.csv`` or ``DL_info.csv`` in ``source`` if not given.
        label: Class to soften where there are several.
        method: ``matting``, or of the baselines ``dilation``, ``resampling`` and, of several
            readers, ``mean``.
        scale: How often the new grid splits each voxel along each axis.
        radius: Half width of the unknown band (or width of the ring) in voxels of the new grid.
        epsilon: Noise that matting forgives, see ``soft_mask``; its own default if not given.
        window: Intensities (HU) that become black and white.
        crop: Cut a square of this side round each mark, larger for large lesions; 0 keeps slices.
        trimaps: Write trimaps too.
        jobs: Processes.
        resume: Leave out what is there, whole and made the same way.
        overwrite: Replace what an earlier call made.
        shard: ``(i, n)``: only every ``n``-th image, from the ``i``-th on. Calls with one
            ``n`` do each image once between them, in one folder; a last call with
            ``resume`` and no shard writes the tables and contact sheets of all.
        pseudonyms: Name cases and patients by keyed hashes in everything that is written.
        progress: Tells the user how far it is.

    Raises:
        UsageError: On options that make no sense, or a folder that cannot be written.
        DataError: When nothing can be softened.

    Example:
        >>> soften("data", "soft", "mask", scale=(2,))  # doctest: +SKIP
    """
    source, out = Path(source), Path(out)
    if origin not in ORIGINS:
        raise UsageError("--from", f"is {origin!r}", f"choose {', '.join(ORIGINS)}")
    origin = cast(Origin, origin)
    epsilon = EPSILON if epsilon is None else epsilon
    settings = _settings(origin, method, scale, radius, epsilon, window)
    _check_options(origin, crop, jobs)
    plan = plan_tasks(source, origin, None if marks is None else Path(marks), label)
    if pseudonyms:
        plan = plan.pseudonymised(pseudonyms)
    plan = replace(
        plan,
        tasks=shared_out(plan.tasks, shard),
        problems=shared_out(plan.problems, shard),
    )
    _check_scale(plan, settings.scale)
    _check_out(out, source, reuse=resume or overwrite, shard=shard)
    wanted = Wanted(out.absolute(), plan.label, settings, trimaps, crop)
    course = _Course(plan, Work(plan.root, wanted), Journal(out, resume, shard), shard)
    try:
        course.run(jobs, progress)
        return course.finish(out)
    except OutputError as error:
        raise stopped(error, course.done + course.skipped) from error
    finally:
        course.journal.close()


@dataclass
class _Course:
    """One call: what is to be done, what was done, and what came of it."""

    plan: Plan
    work: Work
    journal: Journal
    shard: tuple[int, int] | None = None
    skipped: int = 0
    done: int = 0
    failures: list[tuple[str, FinemaskError]] = field(default_factory=list)

    def run(self, jobs: int, progress: Track) -> None:
        """Do what is not done yet, each result written down as it comes."""
        self.failures += [(Path(e.subject).stem, e) for e in self.plan.problems]
        made_by = {task.name: self._made_by(task) for task in self.plan.tasks}
        left = [task for task in self.plan.tasks if not self._skips(task, made_by[task.name])]
        results: Iterator[tuple[Task, Report | Killed]] = run_tasks(self.work, left, jobs)
        for task, report in progress(results, "softening", len(left)):
            if isinstance(report, Killed):
                report = Report(failures=[_killed(task)] * task.items)
            for error in report.failures:
                if isinstance(error, OutputError):
                    raise error
            self.done += task.items - len(report.failures)
            for message in report.warnings:
                warnings.warn(message, DataWarning, stacklevel=2)
            self.failures += [(task.name, error) for error in report.failures]
            line = _line(report, made_by[task.name], self.plan.hide)
            self.journal.record(task.name, line)

    def _skips(self, task: Task, made_by: str) -> bool:
        """Whether a task was done by an earlier call; marks that failed then count again."""
        if not self.journal.is_done(task.name, made_by, task.files):
            return False
        before = [DataError(*parts) for parts in self.journal.lines[task.name]["failures"]]
        self.failures += [(task.name, error) for error in before]
        self.skipped += task.items - len(before)
        return True

    def _made_by(self, task: Task) -> str:
        """What decides the results besides the files that are read."""
        wanted = asdict(self.work.wanted) | {"out": ""}
        entry = task.entry
        marks = [asdict(replace(mark, where="")) for mark in task.marks]
        about = (entry.group, entry.split, entry.spacing_mm, task.label, task.labels)
        return fingerprint((__version__, wanted, task.origin, about, marks))

    def finish(self, out: Path) -> Softenings:
        """Write the tables and the contact sheets."""
        lines = [self.journal.lines[task.name] for task in self.plan.tasks]
        rows = tuple(Row(**row) for line in lines for row in line["rows"])
        if self.shard is None:
            self.journal.merge()
        if rows and self.shard is None:
            cases = [[c[column] for column in MANIFEST] for line in lines for c in line["cases"]]
            write_text(out / "manifest.csv", csv_table(MANIFEST, cases), overwrite=True)
            table = csv_table(Row.columns(), [row.cells() for row in rows])
            write_text(out / "quality.csv", table, overwrite=True)
            write_json(out / "dataset.json", self._about(rows), overwrite=True)
            self._write_pages(out, rows)
            carry_splits(self.plan.root, out, {case[0] for case in cases})
        order = {task.name: number for number, task in enumerate(self.plan.tasks)}
        failures = sorted(self.failures, key=lambda failure: order.get(failure[0], -1))
        errors = [error for _, error in failures]
        failed = out / f"failures{shard_tag(self.shard)}.csv"
        if errors:
            told = [
                (self.plan.hide(name), *map(self.plan.hide, _told(self.plan.root, error)))
                for name, error in failures
            ]
            table = csv_table(("case", "file", "error"), told)
            write_text(failed, table, overwrite=True)
        else:
            failed.unlink(missing_ok=True)
        outcome = Outcome(self.done, len(errors), self.skipped, tuple(errors))
        return Softenings(out, outcome, rows, self.plan.notes)

    def _about(self, rows: Sequence[Row]) -> dict[str, Any]:
        settings = asdict(self.work.wanted.settings)
        return {
            "description": "Soft Masks in soft/, cut at 0.5 in masks/; see quality.csv",
            "generator": f"finemask soften {__version__}",
            "labels": {"background": 0, self.work.wanted.label: 1},
            "source": rows[0].source,
            "readers": sorted({row.readers for row in rows if row.readers}),
            "settings": {key: value for key, value in settings.items() if value is not None},
        }

    def _write_pages(self, out: Path, rows: Sequence[Row]) -> None:
        """Pages of the contact sheet, what needs a look first."""
        for page in out.glob("contact_sheet_*.png"):
            page.unlink()
        ordered = sorted(rows, key=lambda row: 1.0 if row.agreement is None else row.agreement)
        first = rows[0]
        heading = (
            f"{len(rows)} soft masks from {GIVEN[first.source]} by {first.method}; "
            f"lowest agreement with the {first.agreement_with} first"
        )
        strips = [out / "contact_sheet" / f"{row.case}.png" for row in ordered]
        write_pages(strips, out, heading, GIVEN[first.source])


def carry_splits(source: Path, out: Path, cases: set[str]) -> None:
    """Keep the named splits of a data set whose cases kept their names.

    Args:
        source: Folder of the data set that was softened.
        out: Folder of the new one.
        cases: Its cases; a split that has others too keeps those that there are.
    """
    for path in sorted((source / "splits").glob("*.json")):
        split = Split.load(path)
        train, val, test = (tuple(n for n in split.part(p) if n in cases) for p in PARTS)
        if train or val or test:
            kept = replace(split, train=train, val=val, test=test, fingerprint="")
            kept.save(out / "splits" / path.name, overwrite=True)


def _line(report: Report, made_by: str, hide: Callable[[str], str]) -> dict[str, Any]:
    """What the journal keeps of a task."""
    return {
        "made_by": made_by,
        "inputs": [{**told, "path": hide(told["path"])} for told in report.inputs],
        "outputs": report.outputs,
        "rows": [vars(row) for row in report.rows],
        "cases": report.cases,
        "failures": [tuple(map(hide, (e.subject, e.what, e.fix))) for e in report.failures],
    }


def _told(root: Path, error: FinemaskError) -> tuple[str, str]:
    """File and line of an error as a shared table may tell them."""
    return path_within(root, error.subject), error_within(root, error)


def _killed(task: Task) -> DataError:
    return DataError(
        task.entry.images[0],
        "its process was killed, most likely for want of memory",
        "use fewer --jobs, or a smaller --scale",
    )


def _settings(
    origin: Origin,
    method: str,
    scale: Sequence[int],
    radius: float | int | None,
    epsilon: float,
    window: Sequence[float | int],
) -> Softening:
    """The settings of a call, each checked by itself."""
    if method not in METHODS:
        raise UsageError("--method", f"is {method!r}", f"choose {', '.join(METHODS)}")
    if method == "mean" and origin != "raters":
        raise UsageError("--method", "is mean, of several readers", "take --from raters")
    if radius is not None and not 0 < radius < math.inf:
        raise UsageError("--radius", f"is {radius}", "give a positive number of voxels")
    if not LEAST_EPSILON <= epsilon < math.inf:
        raise UsageError("--epsilon", f"is {epsilon}", "give a small number such as 1e-4")
    if window and (len(window) != 2 or not window[0] < window[1]):
        raise UsageError("--window", f"is {window}", "give the lower, then the higher intensity")
    if not scale or min(scale) < 1:
        raise UsageError("--scale", f"is {tuple(scale)}", "give whole numbers from 1")
    low_high = tuple(float(value) for value in window)
    return Softening(
        cast(Method, method),
        tuple(scale),
        None if radius is None else float(radius),
        epsilon,
        low_high,
    )


def _check_options(origin: Origin, crop: int, jobs: int) -> None:
    if crop and origin != "recist":
        raise UsageError("--crop", "is for --from recist", "leave it out")
    if crop < 0 or jobs < 1:
        name, value = ("--crop", crop) if crop < 0 else ("--jobs", jobs)
        raise UsageError(name, f"is {value}", "give a positive number")


def _check_scale(plan: Plan, scale: Sequence[int]) -> None:
    """Refuse a scale of other axes than the images have."""
    marked = any(task.origin == "recist" for task in plan.tasks)
    axes = 2 if marked else plan.dims
    if len(scale) not in (1, axes) or (marked and len(set(scale)) > 1):
        raise UsageError(
            "--scale", f"is {'x'.join(map(str, scale))}", f"give one number, or one for each of "
            f"{axes} axes" if not marked else "give one number for both axes of a slice",
        )  # fmt: skip


def _check_out(out: Path, source: Path, reuse: bool, shard: tuple[int, int] | None) -> None:
    """Refuse to write into the input, or unasked into a folder that is in use."""
    if inside(source, out) or inside(out, source):
        raise UsageError(out, f"lies in {source}, or that in it", "choose another folder")
    check_writable(out)
    if out.is_dir() and any(out.iterdir()):
        # Other shards may be at work there; what this one did is not done again unasked.
        beside_others = shard and journals_in(out) and not (out / file_of(shard)).exists()
        if not reuse and not beside_others:
            raise UsageError(
                out, "exists already", "choose another folder, or pass --overwrite or --resume"
            )
        if not journals_in(out):
            raise UsageError(
                out, "is no folder that finemask soften wrote", "choose another folder"
            )
