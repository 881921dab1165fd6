"""One cell of a comparison, in a process of its own: train, predict, evaluate, measure.

Started by ``finemask.comparison.jobs`` as ``python -m finemask.comparison.cell DATA OUT NAME``.
``cell.json`` is written last: a cell that has it is done and never done again.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch

import finemask
from finemask import __version__
from finemask.comparison.plan import DONE, FAILED, STOPPED, TOLD, Cell, Plan, split_file
from finemask.datasets import Dataset, load_dataset
from finemask.errors import FinemaskError
from finemask.evaluation.cohort import evaluate
from finemask.inference.activations import activation_bytes
from finemask.inference.cohort import predict
from finemask.inference.model import Machine
from finemask.inference.network import guidance_of, image_of, labels_of
from finemask.inference.tiles import padded_shape
from finemask.inference.view import View, view_case
from finemask.io import write_json
from finemask.io.outputs import error_within
from finemask.methods import create
from finemask.methods.describe import (
    count_macs,
    count_parameters,
    count_training_macs,
)
from finemask.progress import Label, Track
from finemask.pseudonyms import Pseudonyms
from finemask.runs import Run
from finemask.training.checkpoint import load_checkpoint
from finemask.training.loop import train
from finemask.training.standing import Interrupted

TIMED_CASES, ENOUGH_SECONDS = 5, 20.0
SECONDS_BETWEEN_NEWS = 0.5

T = TypeVar("T")


def run_cell(
    plan: Plan, cell: Cell, data: Path, out: Path, names: Pseudonyms | None = None
) -> None:
    """Do whatever of a cell is not done yet.

    Raises:
        FinemaskError: When the cell cannot be done; ``Interrupted`` when it was told to stop.
    """
    folder = out / "cells" / cell.name
    run = _train(cell, data, out, folder / "run", telling(folder / TOLD), names)
    training_memory = peak_memory_bytes()
    image = run.method.makes_image()
    outcome = predict(
        run, data, folder / "masks", mode=plan.mode, grid="source", part="test",
        probs=True, sr=image, resume=True, pseudonyms=names,
    )  # fmt: skip
    test = plan.splits[cell.fold - 1].test
    evaluation = evaluate(
        folder / "masks", data, folder / "scores", protocol=plan.protocol,
        size_edges=plan.size_edges, cases=test, overwrite=True, pseudonyms=names,
    )  # fmt: skip
    dataset = load_dataset(data)
    if names:
        dataset = dataset.pseudonymised(names)
    standing = load_checkpoint(run.path / "checkpoints" / "last").meta["standing"]
    cost = {
        **_counts(run),
        "seconds_training": standing["seconds"],
        "memory_training_bytes": training_memory,
        **_measure_inference(run, plan, dataset, test),
    }
    about = {
        "finemask": __version__,
        "code_sha256": code_sha256(),
        "row": cell.row.label,
        "seed": cell.seed,
        "fold": cell.fold,
        "recipe": cell.recipe.to_dict(),
        "step_best": run.meta["step"],
        "step_last": standing["step"],
        "threshold": run.threshold,
        "validation": run.meta["score"],
        "predicted": outcome.done + outcome.skipped,
        "failed": sorted({failure.case for failure in evaluation.failures}),
        "cost": cost,
    }
    write_json(folder / DONE, about, overwrite=True)


def _train(
    cell: Cell, data: Path, out: Path, folder: Path, progress: Track, names: Pseudonyms | None
) -> Run:
    """Train, or go on with what a stopped process left."""
    if (folder / "checkpoints" / "last").exists():
        return train(data, folder, resume=True, progress=progress, pseudonyms=names)
    shutil.rmtree(folder, ignore_errors=True)  # no checkpoint: nothing to go on from
    split = split_file(out, cell.fold)
    return train(data, folder, recipe=cell.recipe, split=split, progress=progress, pseudonyms=names)


def _counts(run: Run) -> dict[str, Any]:
    """Weights and multiplications, both at the training window."""
    window = tuple(run.meta["window_lr"])
    with torch.device("meta"):
        bare = create(run.recipe)
        macs = count_macs(bare, bare.deploy(), window)
    return {
        "parameters_training": count_parameters(run.method),
        "parameters_inference": count_parameters(run.segmenter),
        "macs_training": count_training_macs(run.recipe, window),
        "macs_inference": macs,
        "macs_input": list(window),
    }


def _measure_inference(
    run: Run, plan: Plan, dataset: Dataset, names: Sequence[str]
) -> dict[str, Any]:
    """Seconds from an image in memory to its mask, and the memory this takes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = replace(run, segmenter=run.segmenter.to(device))
    seconds: list[float] = []
    memory = 0
    # The first case warms up, unless it takes so long that this makes no difference.
    for name in (names[0], *names[:TIMED_CASES]):
        if sum(seconds) > ENOUGH_SECONDS:
            break
        entry = dataset.entry(name)
        real = plan.mode == "matched" and run.recipe.pairs.degrade == "real"
        lr_case = dataset.read_lr(entry) if real else None
        view = view_case(
            run.recipe, dataset.read(entry), mode=plan.mode, grid="source", lr_case=lr_case
        )
        memory = max(memory, prediction_bytes(run, view))
        start = time.perf_counter()
        labels_of(run, view, Machine(device), run.threshold)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds_a_case": statistics.median(seconds[1:] or seconds),
        "memory_inference_bytes": memory,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }


def prediction_bytes(run: Run, view: View) -> int:
    """Weights and, at their peak, live activations of one prediction of a whole image."""
    shipped = run.segmenter
    image = image_of(run, view)
    sides = [max(n, w) for n, w in zip(image.shape[1:], shipped.window, strict=True)]
    sides = list(shipped.window) if shipped.patches else sides
    shapes = [(1, len(image), *padded_shape(sides, shipped.stride))]
    if (guidance := guidance_of(run, view)) is not None:
        shapes.append((1, *guidance.shape))
    weights = sum(w.numel() * w.element_size() for w in shipped.state_dict().values())
    try:
        return weights + activation_bytes(shipped, *shapes)[0]
    except (RuntimeError, NotImplementedError):  # it looks at values, which meta has not
        return 0


def code_sha256() -> str:
    """Checksum of the program itself, which may change between two cells."""
    digest = sha256()
    root = Path(finemask.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def peak_memory_bytes() -> int:
    """Largest memory that this process held, or its GPU where it works on one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def telling(path: Path) -> Track:
    """Progress for the process that started this one: steps to go, and a label, in a file."""

    def tell(items: Iterable[T], label: Label, total: int | None = None) -> Iterator[T]:
        last = 0.0
        for done, item in enumerate(items, start=1):
            yield item
            if time.monotonic() - last > SECONDS_BETWEEN_NEWS:
                last = time.monotonic()
                left = "" if total is None else total - done
                path.write_text(f"{left}\n{label if isinstance(label, str) else label()}")

    return tell


def stop_with_parent() -> None:
    """End, in the same orderly way as on a signal, when the process that started this is gone."""

    def watch() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock Python wants back at its end
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Do the cell that the arguments name; leave its failure in a file."""
    data, out, name, *key = sys.argv[1:]
    names = Pseudonyms.load(key[0]) if key else None
    with names.on_terminal() if names else nullcontext():  # which is the cell's log
        return _main(Path(data), Path(out), name, names)


def _main(data: Path, out: Path, name: str, names: Pseudonyms | None) -> int:
    stop_with_parent()
    folder = out / "cells" / name
    try:
        plan = Plan.load(out)
        torch.set_num_threads(plan.threads)
        (folder / FAILED).unlink(missing_ok=True)
        run_cell(plan, plan.cell(name), data, out, names)
    except Interrupted:
        return STOPPED
    except FinemaskError as error:
        line = error_within(folder, error)
    except Exception as error:
        traceback.print_exc()
        line = f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}; see log.txt"
    else:
        return 0
    hide = names.hide if names else str
    write_json(folder / FAILED, {"error": hide(line)}, overwrite=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
