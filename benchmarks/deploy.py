"""What does a deployed SASR-Net cost beside the plain U-Net, and beside one with SDC blocks?

"U-Net with SDC" is put together here from its parts, without the method, so that it shows
what shipping ought to cost. "sasrnet, both paths" answers with the mask and the restored
image, as the released inference script does. All have the same widths, read the LR image
and answer on the HR grid. Every row has a process of its own, so that its peak of memory is
its own (over what it holds with the network built); the rows are timed in turn, round by
round.

    python benchmarks/deploy.py --rounds 5 --threads 1
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import Any

from startup import machine, ratio, table

SIZES = {2: (256, 256), 3: (48, 48, 48)}
"""LR sides of the image that is answered."""
QUICK = {2: (32, 32), 3: (16, 16, 16)}
ROWS = ("unet", "U-Net with SDC", "sasrnet", "sasrnet, both paths")


@dataclass(frozen=True)
class Job:
    """One network at one size."""

    name: str
    size: tuple[int, ...]


def network_of(job: Job) -> tuple[Any, Callable[[Any], Any]]:
    """A module whose weights count, and how it answers."""
    from torch import nn

    from finemask.methods import create, default_recipe
    from finemask.nn.blocks import Style
    from finemask.nn.scale_aware import ScaleAwareDecoder
    from finemask.nn.superres import MaskHead
    from finemask.nn.unet import UNetEncoder, unet_widths
    from finemask.recipe import Task

    dims = len(job.size)
    task = Task(dims, 3 if dims == 2 else 1, scale=(2,))
    if job.name == "U-Net with SDC":
        config = default_recipe("unet", task).config
        widths, style = unet_widths(config["width"], config["depth"]), Style(dims)
        plain = nn.Sequential(
            UNetEncoder(task.channels, widths, style),
            ScaleAwareDecoder(widths, style),
            MaskHead(widths[0], task.classes, task.scale, config["head"]),
        ).eval()
        return plain, plain
    method = create(default_recipe(job.name.split(",")[0], task)).eval()
    segmenter = method.deploy()
    if "," not in job.name:
        return segmenter, segmenter
    return method, lambda image: (segmenter(image), method.super_resolve(image))


def serve(job: Job, threads: int, pipe: Any) -> None:
    """The life of a row's process: weights, MAC and memory once, then seconds each time asked."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    network, answer = network_of(job)
    image = torch.rand(1, 3 if len(job.size) == 2 else 1, *job.size)
    with torch.inference_mode():
        answer(image[(..., *(slice(16),) * len(job.size))])  # libraries are loaded before
        before = peak_mib()
        answer(image)
        added = peak_mib() - before
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        answer(image)
    weights = sum(p.numel() for p in network.parameters())
    pipe.send((weights, counter.get_total_flops() / 2, added))
    while pipe.recv():
        with torch.inference_mode():
            started = perf_counter()
            answer(image)
            pipe.send(perf_counter() - started)


def peak_mib() -> float:
    """Highest resident memory of this process so far (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(size: tuple[int, ...], rounds: int, threads: int) -> list[list[str]]:
    """The rows of one size, taken in turn."""
    context = get_context("spawn")
    workers, costs, seconds = [], [], [[] for _ in ROWS]  # type: ignore[var-annotated]
    for name in ROWS:
        pipe, theirs = context.Pipe()
        worker = context.Process(target=serve, args=(Job(name, size), threads, theirs), daemon=True)
        worker.start()
        theirs.close()
        costs.append(pipe.recv())
        workers.append((worker, pipe))
    for _ in range(rounds):
        for times, (_, pipe) in zip(seconds, workers, strict=True):
            pipe.send(True)
            times.append(pipe.recv())
    for worker, pipe in workers:
        pipe.send(False)
        worker.join()
    return [cells(*row, seconds[1], size) for row in zip(ROWS, costs, seconds, strict=True)]


def cells(
    name: str,
    costs: tuple[int, float, float],
    times: list[float],
    reference: list[float],
    size: Sequence[int],
) -> list[str]:
    weights, macs, added = costs
    return [
        f"{'x'.join(map(str, size))}: {name}",
        f"{weights / 1e6:.3f}",
        f"{macs / 1e9:.2f}",
        f"{1000 * median(times):.0f}",
        f"{1000 * min(times):.0f}",
        f"{ratio(times, reference):.2f}",
        f"{added:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0 as torch does")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    arguments = parser.parse_args()
    rows = []
    for size in (QUICK if arguments.quick else SIZES).values():
        rows += measure(size, 2 if arguments.quick else arguments.rounds, arguments.threads)
    print(f"{machine(arguments.threads)}\n")
    head = ["LR image: network", "million weights", "GMAC", "median ms", "best ms"]
    print(table([*head, "x U-Net with SDC", "MiB added"], rows))


if __name__ == "__main__":
    main()
