"""The command ``compare``: every method on the same data under one protocol."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finemask.comparison.examples import read_examples
from finemask.comparison.files import write_tables
from finemask.comparison.jobs import is_done, locked, run_cells
from finemask.comparison.page import comparison_page
from finemask.comparison.plan import (
    PLAN,
    Choices,
    Mode,
    Plan,
    check_choices,
    extended,
    make_rows,
    make_splits,
)
from finemask.comparison.results import Results, collect
from finemask.datasets import load_dataset
from finemask.datasets.listing import few
from finemask.errors import DataError, UsageError
from finemask.io import write_text
from finemask.io.outputs import check_writable
from finemask.metrics.protocols import PROTOCOLS
from finemask.progress import Track, silent
from finemask.pseudonyms import Pseudonyms

MADE_HERE = (
    "cells", "splits", "comparison.csv", "cases.csv", "costs.csv", "table.tex", "summary.json",
    "report.html", "failures.csv", PLAN,
)  # fmt: skip
"""What a comparison writes and may replace; the plan goes last, it says whose folder this is."""


def compare(
    data: str | Path,
    out: str | Path,
    methods: Sequence[str] = (),
    *,
    ablate: Sequence[str] = (),
    seeds: int | None = None,
    folds: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    scale: Sequence[int] | None = None,
    recipe: str | Path | None = None,
    settings: Sequence[str] = (),
    settings_for: Sequence[str] = (),
    mode: Mode | None = None,
    protocol: str | None = None,
    size_edges: Sequence[float | int] = (),
    split: str | Path | None = None,
    jobs: int = 1,
    threads: int | None = None,
    quote: str | Path | None = None,
    reference: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    pseudonyms: Pseudonyms | None = None,
    progress: Track = silent,
    title: str = "Comparison of methods",
    lead: str = "",
    notes: Sequence[str] = (),
) -> Results:
    """Train, predict and evaluate every method alike, and say what the numbers allow to say.

    Checkpoint and threshold are chosen on validation cases, scores are of test cases.
    Every cell (method, seed, fold) is a process and a folder of its own under
    ``cells/``; one that is done is never done again.

    Args:
        data: Data set, in any layout.
        out: Folder to write.
        methods: Names; the first is the one that all others are compared with. None, with
            ``resume``: go on with what the folder holds.
        ablate: Methods whose paper's ablations become rows too; ``method:row,row`` for some.
        seeds: How many, 0, 1, ...; 1 by default.
        folds: Cross-validate in so many folds.
        steps: Optimiser steps of each training.
        epochs: Passes over the training cases.
        minutes: Wall-clock bound of each training.
        scale: HR voxels for each LR voxel.
        recipe: Recipe file, or the name of one that ships, for all methods.
        settings: ``key=value`` changes for all.
        settings_for: ``method:key=value`` changes for one method and its ablations.
        mode: ``matched`` (if not given): images are reduced first; ``native``: they are the
            LR input.
        protocol: A name of ``finemask.metrics.PROTOCOLS``; ``segmentation`` if not given.
        size_edges: Diameters between the size groups; tertiles if not given.
        split: A ``splits.json``, or a named split of the data set, instead of one drawn by patient.
        jobs: Cells at a time; the results do not depend on it.
        threads: CPU threads of each cell; the cores divided by the jobs if not given.
        quote: Table of published rows (``row,source`` and metrics) to show beside.
        reference: Label of the row that all others are compared with; the first if not given.
        resume: Go on in a folder that holds a comparison; methods and seeds may be added.
        overwrite: Replace the comparison that a folder holds.
        pseudonyms: Name cases and patients by keyed hashes in everything that is written.
        progress: Shows how far the work is.
        title: Of the report.
        lead: Its first sentence; made up from what is compared if not given.
        notes: What else a reader should know, for its end.

    Raises:
        UsageError: On what makes no sense or would not be fair, and on a folder whose
            comparison was another one.
        Interrupted: After a signal; everything is saved.

    Example:
        >>> compare("data", "comparison", ["unet", "dsrl"], steps=2000)  # doctest: +SKIP
    """
    data, out = Path(data), Path(out)
    quotes = read_quotes(Path(quote)) if quote is not None else []
    check_writable(out)
    bounds = {"steps": steps, "epochs": epochs, "minutes": minutes}
    choices = Choices(
        methods=tuple(methods),
        ablate=tuple(ablate),
        recipe=recipe,
        settings=tuple(settings),
        settings_for=tuple(settings_for),
        scale=tuple(scale) if scale else None,
        bounds={name: value for name, value in bounds.items() if value is not None},
    )
    old = _find(out, resume, overwrite)
    if resume and old is None and choices == Choices():
        raise UsageError(out, "holds no comparison to go on with", "name methods to begin one")
    plan = _planned(
        data, pseudonyms, old, choices, seeds, jobs, folds, split,
        mode=mode,
        protocol=protocol,
        size_edges=tuple(float(e) for e in size_edges) or None,
        threads=threads,
    )  # fmt: skip
    plan = plan if reference is None else _referring(plan, reference)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out) as lock:
        if overwrite:
            _clear(out)
        plan.save(out)
        waiting = [cell for cell in plan.cells if not is_done(out, cell)]
        errors = run_cells(
            plan, waiting, data, out, jobs=jobs, lock=lock, progress=progress,
            key=pseudonyms.path if pseudonyms else None,
        )  # fmt: skip
    results = collect(plan, out, errors)
    if not results.cells:
        name, error = next(iter(errors.items()))
        raise DataError(
            out, f"no cell could be done; the first, {name}, {error}", "see its log.txt"
        )
    write_tables(results, out)
    examples = read_examples(results, data, out, pseudonyms)
    page = comparison_page(results, examples, title=title, lead=lead, notes=notes, quotes=quotes)
    write_text(out / "report.html", page, overwrite=True)
    return results


def _find(out: Path, resume: bool, overwrite: bool) -> Plan | None:
    """The plan of a folder that is gone on with.

    Raises:
        UsageError: When there is something that may not be touched.
    """
    if resume and overwrite:
        raise UsageError("--resume", "and --overwrite contradict each other", "leave one out")
    if not out.exists() or not any(p.name != ".lock" for p in out.iterdir()):
        return None
    if not (out / PLAN).exists():
        raise UsageError(out, "is not empty, and no comparison made it", "choose another --out")
    if overwrite:
        return None
    if not resume:
        raise UsageError(out, "holds a comparison", "pass --resume, --overwrite or another --out")
    return Plan.load(out)


def _planned(
    data: Path,
    pseudonyms: Pseudonyms | None,
    old: Plan | None,
    choices: Choices,
    seeds: int | None,
    jobs: int,
    folds: int | None,
    split: str | Path | None,
    **asked: Any,
) -> Plan:
    """The plan of this call, in agreement with that of the folder."""
    given = {name: value for name, value in asked.items() if value is not None}
    check_choices(jobs=jobs, seeds=seeds, **given)
    dataset = load_dataset(data)
    if pseudonyms:
        dataset = dataset.pseudonymised(pseudonyms)
    if old is not None and choices == Choices() and not folds and not split:
        new = replace(
            old,
            fingerprint=dataset.fingerprint(),
            seeds=tuple(range(seeds or len(old.seeds))),
            **given,
        )
        return extended(old, new)
    protocol = given.get("protocol", Plan.protocol)
    new = Plan(
        rows=make_rows(dataset, choices),
        seeds=tuple(range(seeds or 1)),
        splits=make_splits(dataset, folds=folds, split=split),
        data=data.absolute().name,
        fingerprint=dataset.fingerprint(),
        protocol_version=PROTOCOLS[protocol].version,
        **{"threads": old.threads if old else max(1, (os.cpu_count() or 1) // jobs), **given},
    )
    return new if old is None else extended(old, new)


def _referring(plan: Plan, label: str) -> Plan:
    """The plan with that row first."""
    rows = {row.label: row for row in plan.rows}
    if label not in rows:
        raise UsageError("--reference", f"{label} is no row", f"pick of {', '.join(rows)}")
    return replace(plan, rows=(rows.pop(label), *rows.values()))


def _clear(out: Path) -> None:
    """Remove what an earlier comparison made, and nothing else."""
    for path in (out / name for name in MADE_HERE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read_quotes(path: Path) -> list[dict[str, str]]:
    """Published rows to show beside: columns ``row``, ``source`` and metrics.

    Raises:
        UsageError: When a column is missing or means nothing here.
    """
    import csv

    from finemask.metrics.protocols import METRICS

    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise UsageError(path, f"cannot be read ({error})", "give a CSV table") from error
    names = set(rows[0]) if rows else set()
    unknown = sorted(names - {"row", "source", "class", *METRICS, "psnr_db", "ssim"})
    if not {"row", "source"} <= names or unknown:
        raise UsageError(
            path, f"needs the columns row, source and metrics, not {few(unknown) or 'these'}",
            "name the columns as finemask evaluate does",
        )  # fmt: skip
    return rows
