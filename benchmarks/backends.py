"""What does a mask cost, whichever library runs the network, and is it the same mask?

Each run is exported (and in eight bits, where that is accepted), and every way to run it is
given the same cases of its data: torch, bfloat16, compiled, ONNX Runtime, OpenVINO. Each way has
a process of its own, so that peaks of memory are its own (over what it holds with the network
built), and the rounds take the ways in turn, so that a busy machine slows all alike. Timed is
the way from a prepared LR image to probabilities, `inference.network.run_whole`. The peak of
`torch.mm` in float32 is measured in every round as well; it is no bound, since bfloat16 and
eight bits can pass it.

    python benchmarks/backends.py RUN DATA --rounds 5 --threads 1 [--compile]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from startup import machine, ratio, table
from step import matrix_product


@dataclass(frozen=True)
class Way:
    """One way to run a run: a folder, and what runs it how precisely."""

    name: str
    folder: Path
    backend: str
    precision: str = "32-true"


def ways_of(run: Path, data: Path, out: Path, compiled: bool) -> tuple[list[Way], str]:
    """Exports a run; tells what became of eight bits."""
    from finemask.deploy.export import export
    from finemask.errors import DataError

    plain, small = out / "float32", out / "int8"
    export(run, plain, "onnx", data=data)
    ways = [
        Way("torch float32", run, "torch"),
        Way("torch bfloat16", run, "torch", "bf16-mixed"),
        Way("ONNX Runtime float32", plain, "onnx"),
        Way("OpenVINO float32", plain, "openvino"),
        Way("OpenVINO bfloat16", plain, "openvino", "bf16-mixed"),
    ]
    if compiled:
        ways.insert(2, Way("torch compiled float32", run, "compile"))
        ways.insert(3, Way("torch compiled bfloat16", run, "compile", "bf16-mixed"))
    try:
        export(run, small, "onnx", data=data, int8=True)
    except DataError as error:
        return ways, str(error)
    both = [("ONNX Runtime int8", "onnx"), ("OpenVINO int8", "openvino")]
    return [*ways, *(Way(name, small, backend) for name, backend in both)], "int8 was accepted"


def serve(way: Way | None, run: Path, data: Path, cases: int, pipe: Any) -> None:
    """The life of a way's process: report memory and Dice once, then seconds each time asked."""
    if way is None:
        pipe.send(None)
        while pipe.recv():
            pipe.send(matrix_product())
        return
    from finemask.datasets import Split, load_dataset
    from finemask.inference.cohort import load_model
    from finemask.inference.model import Machine
    from finemask.inference.network import guidance_of, image_of, labels_of, run_whole
    from finemask.inference.view import view_case
    from finemask.metrics import dice

    dataset, model = load_dataset(data), load_model(way.folder)
    spot = Machine(backend=way.backend, precision=way.precision)
    views = [
        view_case(model.recipe, dataset.read(dataset.entry(name)), mode="matched", grid="source")
        for name in Split.load(run / "splits.json").part("test")[:cases]
    ]
    network = model.network(spot)
    shown = [(image_of(model, view), guidance_of(model, view)) for view in views]
    before = forget_peak()
    run_whole(network, *shown[0])
    added = status_mib("VmHWM") - before
    classes = range(1, model.recipe.task.foreground + 1)
    scores = []
    for view in views:
        labels, truth = labels_of(model, view, spot, model.threshold), view.case.truth
        scores += [dice(labels == k, truth == k) for k in classes if (truth == k).any()]
    pipe.send((added, sum(scores) / len(scores)))
    while pipe.recv():
        start = perf_counter()
        for image, cut in shown[:2]:
            run_whole(network, image, cut)
        pipe.send((perf_counter() - start) / len(shown[:2]))


def forget_peak() -> float:
    """Let the peak of this process start anew; returns what it holds (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_mib("VmRSS")


def status_mib(name: str) -> float:
    """One of the sizes in ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def count_flop(run: Path, data: Path) -> float:
    """Of one of the timed images, as torch counts convolutions and matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from finemask.datasets import Split, load_dataset
    from finemask.deploy.verify import tiles_of, view_for
    from finemask.runs import load_run

    model, dataset = load_run(run), load_dataset(data)
    name = Split.load(run / "splits.json").part("test")[0]
    view = view_for(model, dataset.read(dataset.entry(name)))
    tiles = [torch.from_numpy(tile[:1]) for tile in tiles_of(model, view)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.segmenter(*tiles)
    return float(counter.get_total_flops())


def measure(ways: list[Way], run: Path, data: Path, rounds: int, cases: int) -> list[list[str]]:
    """The rows of one run, taken in turn."""
    context = get_context("spawn")
    workers, costs, peak = [], [], 0.0
    for way in (*ways, None):
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(way, run, data, cases, theirs), daemon=True)
        process.start()
        theirs.close()
        costs.append(pipe.recv())
        workers.append((process, pipe))
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for (_, pipe), times in zip(workers[:-1], seconds, strict=True):
            pipe.send(True)
            times.append(pipe.recv())
        workers[-1][1].send(True)
        peak = max(peak, workers[-1][1].recv())
    for process, pipe in workers:
        pipe.send(False)
        process.join()
    flop = count_flop(run, data)
    rows = []
    for way, times, (added, score) in zip(ways, seconds, costs[:-1], strict=True):
        speed = flop / min(times)
        rows.append(
            [
                way.name,
                f"{1000 * median(times):.0f}",
                f"{1000 * min(times):.0f}",
                f"{ratio(seconds[0], times):.2f}",
                f"{speed / 1e9:.0f}",
                f"{100 * speed / peak:.0f} %",
                f"{added:.0f}",
                f"{score:.4f}",
            ]
        )
    print(f"peak of float32 matrix products: {peak / 1e9:.0f} GFLOP/s; {flop / 1e9:.1f} GFLOP\n")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=5, help="test cases that are scored")
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0: all cores")
    parser.add_argument("--compile", action="store_true", help="torch.compile too (minutes)")
    arguments = parser.parse_args()
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    print(machine(arguments.threads, peer="OpenVINO"))
    with tempfile.TemporaryDirectory() as folder:
        ways, told = ways_of(arguments.run, arguments.data, Path(folder), arguments.compile)
        rows = measure(ways, arguments.run, arguments.data, arguments.rounds, arguments.cases)
    head = ["way", "median ms", "best ms", "x faster than torch float32", "GFLOP/s"]
    print(table([*head, "of the peak", "MiB added", "Dice"], rows))
    print(f"\n{told}")


if __name__ == "__main__":
    main()
