"""The whole job on generated phantoms: a first look for people, an end-to-end test for us."""

from __future__ import annotations

import shutil
from pathlib import Path

from finemask.datasets import load_dataset, make_phantoms, make_split
from finemask.errors import DataError
from finemask.evaluate import Evaluation, evaluate
from finemask.predict import predict
from finemask.progress import Track, silent
from finemask.report.comparison import MethodResult, format_table, write_comparison
from finemask.runs import Run
from finemask.train import train

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
    results = []
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
        results.append(score_on_test_cases(run, data, out, progress))
    report = write_comparison(
        out / "report.html",
        title="finemask demo: generated phantoms, no patients",
        results=results,
        dataset=dataset,
        names=split.test,
    )
    return f"{format_table(results)}\n\nreport: {report}"


def score_on_test_cases(run: Run, data: Path, out: Path, progress: Track) -> MethodResult:
    """Predict and evaluate the test cases of a run's split, at HR against the known truth."""
    name = run.recipe.method
    masks = out / "masks" / name
    predict(run, [data], masks, mode="matched", part="test", sr=True, progress=progress)
    evaluation: Evaluation = evaluate(masks, data, out / "scores" / name, progress=progress)
    return MethodResult(name=name, run=run.path, masks=masks, evaluation=evaluation)
