"""The whole job on generated phantoms: a first look for people, an end-to-end test for us."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from finemask.datasets import Dataset, load_dataset, make_phantoms, make_split
from finemask.errors import DataError
from finemask.evaluation.cohort import evaluate
from finemask.inference.cohort import predict
from finemask.io import read_labels
from finemask.pairs.degradation import make_pair
from finemask.progress import Track, silent
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


def run_demo(
    out: str | Path,
    *,
    minutes: float = 1.25,
    cases: int = 60,
    kind: str = "ultrasound",
    seed: int = 0,
    overwrite: bool = False,
    progress: Track = silent,
) -> str:
    """Make phantoms, train a plain and a guided network, predict, evaluate, report.

    Args:
        out: Folder to write; the page to open is ``report.html`` in it.
        minutes: Training time of each method.
        cases: Phantoms to make.
        kind: What the phantoms show, see ``make_phantoms``.
        seed: Of phantoms and networks.
        overwrite: Replace what an earlier demo left.
        progress: Shows how far the work is.

    Returns:
        The table of results, and where the report is.

    Raises:
        DataError: When the folder holds something and may not be replaced.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        if not overwrite or not (out / "phantoms").is_dir():
            raise DataError(out, "is not empty", "give another --out, or pass --overwrite")
        shutil.rmtree(out)
    data = make_phantoms(out / "phantoms", kind=kind, cases=cases, seed=seed)
    dataset = load_dataset(data)
    split = make_split(dataset)
    split.save(out / "splits.json")
    results, predicted = [], {}
    for name in METHODS_SHOWN:
        run = train(
            dataset,
            out / "runs" / name,
            method=name,
            scale=SCALE,
            split=out / "splits.json",
            settings=["train.steps=0", f"train.minutes={minutes}", f"train.seed={seed}"],
            progress=progress,
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
            f"Each method trained for {minutes:g} minutes on {len(split.train)} phantoms; "
            f"checkpoint and threshold were chosen on {len(split.val)} others.",
            "dsrl learns to restore the image beside the mask, and ships without that part: "
            "both networks cost the same to run.",
            "So short a training shows that everything works, not which method is better.",
        ],
    )
    return f"{format_table(results)}\n\nreport: {report}"


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
