"""What does it cost, and how exact is it, to compare affinities without their L x L matrices?

Each row is one loss and its gradients for a pair of feature maps of one sample, with C
channels at L positions, that nearly agree (they differ by 0.001 of their size, as late in
training). "naive" builds both matrices in float32, as the papers' code does. Every
measurement has a process of its own, so that its peak of memory is its own. The errors
are relative to float64: to the naive form up to 4 096 positions, to the C x C identity beyond.

    python benchmarks/affinity.py --rounds 3
"""

from __future__ import annotations

import argparse
import math
import resource
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from time import perf_counter
from typing import Any

from startup import machine, table

SQUARED = ((1152, 12), (4096, 1), (4096, 12), (4096, 64), (16384, 16), (294912, 12))
SQUARED += ((294912, 64), (4718592, 1), (4718592, 16))
ABSOLUTE = ((1152, 12), (4096, 12), (16384, 16), (65536, 16))
QUICK = ((1152, 12), (30000, 2))
LONGEST_NAIVE, LONGEST_EXACT = 16384, 4096
"""The naive form takes 5 GiB at the first in float32, less than 1 at the second in float64."""


@dataclass(frozen=True)
class Job:
    """One measurement: ``form`` is ``naive`` or ``ours``."""

    form: str
    power: int
    length: int
    channels: int


def pair(job: Job) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    a = torch.randn(1, job.channels, job.length)
    return a, a + 1e-3 * torch.randn_like(a)


def naive(power: int) -> Callable[[Any, Any], Any]:
    """The definition."""

    def loss(a: Any, b: Any) -> Any:
        difference = a.transpose(1, 2) @ a - b.transpose(1, 2) @ b
        return (difference.square() if power == 2 else difference.abs()).mean()

    return loss


def identity(a: Any, b: Any) -> Any:
    """The squared form from C x C matrices, all of it in the precision of the input."""
    u, v = (a - b)[0], (a + b)[0]
    uv = u @ v.T
    return ((u @ u.T * (v @ v.T)).sum() + (uv * uv.T).sum()) / (2.0 * u.shape[1] ** 2)


def loss_of(job: Job) -> Callable[[Any, Any], Any]:
    from finemask.losses.affinity import feature_affinity

    if job.form == "naive":
        return naive(job.power)
    return lambda a, b: feature_affinity(a, b, power=job.power)  # type: ignore[arg-type]


def differentiate(loss: Callable[[Any, Any], Any], a: Any, b: Any) -> tuple[Any, Any]:
    import torch

    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    value = loss(a, b)
    return value.detach(), torch.autograd.grad(value, (a, b))


def errors(job: Job) -> tuple[float, float]:
    """Relative error of the value and of the gradients."""
    a, b = pair(job)
    exact = naive(job.power)
    if job.length > LONGEST_EXACT:
        if job.power == 1:
            return math.nan, math.nan
        exact = identity
    value, gradients = differentiate(loss_of(job), a, b)
    true, slopes = differentiate(exact, a.double(), b.double())
    wrong = max(
        float((got - expected).norm() / expected.norm())
        for got, expected in zip(gradients, slopes, strict=True)
    )
    return float((value - true).abs() / true), wrong


def serve(job: Job, rounds: int, threads: int, pipe: Any) -> None:
    """Send seconds, MiB added, and the errors."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    loss = loss_of(job)
    small = Job(job.form, job.power, 8, job.channels)
    differentiate(loss, *pair(small))  # libraries are loaded before memory is counted
    a, b = pair(job)
    before, seconds = peak_mib(), []
    for _ in range(rounds + 1):
        started = perf_counter()
        differentiate(loss, a, b)
        seconds.append(perf_counter() - started)
    pipe.send((min(seconds[1:]), peak_mib() - before))
    pipe.send(errors(job))


def peak_mib() -> float:
    """Highest resident memory of this process so far (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(job: Job, rounds: int, threads: int) -> tuple[float, float, float, float]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(job, rounds, threads, theirs), daemon=True)
    process.start()
    result = (*ours.recv(), *ours.recv())
    process.join()
    return result


def cells(power: int, length: int, channels: int, rounds: int, threads: int) -> list[str]:
    """One row of the table."""
    jobs = (Job(form, power, length, channels) for form in ("ours", "naive"))
    ours = measure(next(jobs), rounds, threads)
    row = [f"{power}", f"{length:,}", f"{channels}", f"{1000 * ours[0]:.2f}", f"{ours[1]:.0f}"]
    if length > LONGEST_NAIVE:
        matrix = 4 * length**2 / 2**40
        row += ["", f"one matrix: {matrix:.2g} TiB", "", ""]
    else:
        other = measure(next(jobs), rounds, threads)
        ratio = other[1] / max(ours[1], 0.5)
        row += [f"{1000 * other[0]:.0f}", f"{other[1]:.0f}", f"{other[0] / ours[0]:.0f}"]
        row += [f"{ratio:.0f}"]
    shown = ["" if math.isnan(e) else f"{e:.0e}" for e in ours[2:]]
    return [*row, *shown]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 as torch does")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    arguments = parser.parse_args()
    rows = []
    for power, sizes in ((2, SQUARED), (1, ABSOLUTE)):
        for length, channels in QUICK if arguments.quick else sizes:
            rows.append(cells(power, length, channels, arguments.rounds, arguments.threads))
    print(f"{machine(arguments.threads)}\n")
    head = ["power", "L", "C", "ms", "MiB added", "naive ms", "MiB added", "faster", "less memory"]
    print(table([*head, "error of the value", "of the gradients"], rows))


if __name__ == "__main__":
    main()
