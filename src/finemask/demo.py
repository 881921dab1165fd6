"""The whole job on generated phantoms: a first look for people, an end-to-end test for us."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from finemask.datasets import Dataset, load_dataset, make_phantoms, make_split
from finemask.errors import UsageError
from finemask.evaluation.cohort import evaluate
from finemask.inference.cohort import predict
from finemask.io import read_labels
from finemask.pairs.degradation import make_pair
from finemask.progress import Track, silent, titled
from finemask.report.comparison import (
    Example,
    MethodResult,
    choose_examples,
    format_table,
    write_comparison,
)
from finemask.runs import Run
from finemask.training.loop import train

METHODS_SHOWN = ("unet", "dsrl")
SCALE = (4, 4)
MADE_HERE = ("phantoms", "runs", "masks", "scores", "splits.json", "report.html")
"""Everything that a demo writes into its folder, and all that another one may remove."""


def run_demo(
    out: str | Path,
    *,
    steps: int = 180,
    minutes: float = 2.0,
    cases: int = 60,
    kind: str = "ultrasound",
    seed: int = 0,
    overwrite: bool = False,
    progress: Track = silent,
) -> str:
    """Make phantoms, train a plain and a guided network, predict, evaluate, report.

    Args:
        out: Folder to write; the page to open is ``report.html`` in it.
        steps: Optimiser steps of each method.
        minutes: Training time of each method at the most.
        cases: Phantoms to make.
        kind: What the phantoms show, see ``make_phantoms``.
        seed: Of phantoms and networks.
        overwrite: Replace what an earlier demo left; whatever else is there stays.
        progress: Shows how far the work is.

    Returns:
        The table of results, and where the report is.

    Raises:
        UsageError: When the folder holds something and may not be replaced.
    """
    out = Path(out)
    _make_room(out, overwrite)
    data = make_phantoms(out / "phantoms", kind=kind, cases=cases, seed=seed)
    dataset = load_dataset(data)
    split = make_split(dataset)
    split.save(out / "splits.json")
    results, predicted = [], {}
    for number, name in enumerate(METHODS_SHOWN, start=1):
        run = train(
            dataset,
            out / "runs" / name,
            method=name,
            scale=SCALE,
            split=out / "splits.json",
            settings=[f"train.steps={steps}", f"train.minutes={minutes}", f"train.seed={seed}"],
            progress=titled(progress, f"{name} ({number} of {len(METHODS_SHOWN)})"),
        )
        results.append(score_on_test_cases(run, data, out, split.test, progress))
        predicted[name] = out / "masks" / name
    report = write_comparison(
        out / "report.html",
        title="finemask demo",
        lead=f"{len(split.test)} generated phantoms, no patients: two networks see every image "
        f"{SCALE[0]} times reduced and draw the mask on the full grid.",
        results=results,
        examples=choose_examples(results, partial(read_example, dataset, predicted)),
        method_notes=[
            f"Each method was to train for {steps} steps, {minutes:g} minutes at the most, on "
            f"{len(split.train)} phantoms; checkpoint and threshold were chosen on "
            f"{len(split.val)} others. The best checkpoints were those of step "
            + " and ".join(f"{result.steps} ({result.name})" for result in results)
            + ".",
            "dsrl learns to restore the image beside the mask, and ships without that part: "
            "both networks cost the same to run.",
            "So short a training shows that everything works, not which method is better.",
        ],
    )
    return f"{format_table(results)}\n\nreport: {report}"


def _make_room(out: Path, overwrite: bool) -> None:
    """Remove what an earlier demo made, and nothing else; refuse any other folder in use."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(out, "is a file", "give a folder as --out")
    if not any(out.iterdir()):
        return
    if not _is_demo(out):
        raise UsageError(out, "is not empty, and no demo made it", "give another --out")
    if not overwrite:
        raise UsageError(
            out, "is not empty, it holds a demo", "give another --out, or pass --overwrite"
        )
    # The phantoms say whose folder this is, so they go last, should this be interrupted.
    for path in (out / name for name in reversed(MADE_HERE)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_demo(folder: Path) -> bool:
    """Whether the phantoms in a folder are generated ones, by their own word."""
    try:
        about = json.loads((folder / "phantoms" / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("generator") == "finemask phantoms"


def score_on_test_cases(
    run: Run, data: Path, out: Path, cases: Sequence[str], progress: Track
) -> MethodResult:
    """Predict and evaluate the test cases, on the HR grid where the truth is known."""
    name = run.recipe.method
    masks = out / "masks" / name
    image = run.method.makes_image()
    predict(run, [data], masks, mode="matched", part="test", sr=image, progress=progress)
    scores = out / "scores" / name
    return MethodResult(
        name=name,
        evaluation=evaluate(masks, data, scores, cases=cases, progress=progress),
        parameters_training=sum(p.numel() for p in run.method.parameters()),
        parameters_inference=sum(p.numel() for p in run.segmenter.parameters()),
        steps=int(run.meta["step"]),
        report=str((scores / "report.html").relative_to(out)),
    )


def read_example(dataset: Dataset, masks: Mapping[str, Path], name: str) -> Example:
    """A case as the methods saw it, and their masks."""
    pair = make_pair(dataset.read(dataset.entry(name)), SCALE)
    shape = dataset.read(dataset.entry(name)).geometry.shape
    whole = tuple(slice(0, n) for n in shape)
    truth = pair.hr.truth if pair.hr.truth is not None else np.zeros(pair.hr.geometry.shape)
    return Example(
        case=name,
        image_lr=pair.lr.image,
        image_hr=pair.hr.image[(slice(None), *whole)],
        truth=truth[whole].astype(np.uint8),
        predictions={
            method: read_labels(folder / f"{name}.png")[0].astype(np.uint8)
            for method, folder in masks.items()
        },
    )
