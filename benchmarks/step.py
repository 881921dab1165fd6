"""What do one training step and one prediction cost, beside MONAI's BasicUNet?

finemask reads the LR image and answers on the HR grid; MONAI's usual way reads the HR
image. **That is different work**: the rows "MONAI, LR image" give MONAI's network
finemask's input and enlarge its logits, the rows "MONAI, HR image" are what its users
would run. Nothing here says how good the masks are.

Every row has a process of its own, alive as long as its group, so that peaks of memory
are its own (over what it holds with the network built, before the first step) and the
rounds can take the rows in turn. GMAC counts convolutions and matrix products, both ways
in training. The peak of `torch.mm` in float32 is measured in every round as well; it is no
bound, since convolutions run in another library.

    pip install -c constraints.txt -e . monai    # MONAI's rows are left out without it
    python benchmarks/step.py --rounds 7
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

from startup import machine, monai_version, ratio, table

SCALE = 2
WIDTHS = {2: (32, 64, 128, 256, 256), 3: (16, 32, 64, 128)}
"""Of finemask's default networks; MONAI's BasicUNet always has five levels."""
MATRICES = (512, 1024, 2048)
LR, HR, SLIDING = "MONAI, LR image", "MONAI, HR image", "MONAI, HR image, sliding window"


@dataclass(frozen=True)
class Size:
    """Channels, batch and HR sides of one comparison."""

    channels: int
    batch: int
    crop: tuple[int, ...]
    image: tuple[int, ...]
    window: tuple[int, ...] = ()


SIZES = (
    Size(3, 8, (192, 192), (512, 512)),
    Size(1, 2, (64, 64, 64), (192, 192, 128), (96, 96, 64)),
)
QUICK = (
    Size(3, 2, (64, 64), (128, 128)),
    Size(1, 1, (64, 64, 64), (64, 64, 96), (64, 64, 64)),
)


@dataclass(frozen=True)
class Job:
    """One row: ``kind`` is ``train``, ``predict`` or ``gemm``."""

    kind: str
    name: str
    size: Size

    @property
    def dims(self) -> int:
        return len(self.size.crop)


@dataclass(frozen=True)
class Work:
    """What a process repeats, and the same without bookkeeping, for counting."""

    run: Callable[[], Any]
    count: Callable[[], Any]


def finemask_work(job: Job) -> Work:
    """`step_player` or `run_whole`, on the network of the method's default recipe."""
    import numpy as np
    import torch

    from finemask.inference.model import Machine
    from finemask.inference.network import run_whole
    from finemask.inference.torch_backend import segmenting
    from finemask.methods import create, default_recipe
    from finemask.recipe import Task

    recipe = default_recipe(job.name, Task(job.dims, job.size.channels, scale=(SCALE,)))
    method = create(recipe)
    if job.kind == "predict":
        sides = [side // SCALE for side in job.size.image]
        image = np.random.default_rng(0).random((job.size.channels, *sides), np.float32)
        segmenter = method.deploy().eval()
        return Work(
            lambda: run_whole(segmenting(segmenter, Machine()), image),
            lambda: segmenter.probs(torch.from_numpy(image)[None]),
        )
    from lightning_fabric import Fabric

    from finemask.pairs.batches import Batch
    from finemask.training.loop import make_optimiser, step_player

    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimiser = fabric.setup(method, make_optimiser(method, "network", recipe.train))
    model.mark_forward_method("losses")
    batch = Batch(*training_tensors(job.size))

    def step() -> None:
        step_player(fabric, model, method, "network", optimiser, [batch], recipe.train)

    return Work(step, step)


def monai_work(job: Job) -> Work:
    """BasicUNet of the same widths with DiceCELoss and AdamW, or its prediction."""
    import torch
    from monai.inferers import sliding_window_inference
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet
    from torch.nn.functional import interpolate

    size, widths = job.size, WIDTHS[job.dims]
    features = (*widths, *widths[-1:] * (5 - len(widths)), widths[0])
    network = BasicUNet(job.dims, size.channels, 1, features)
    linear = "bilinear" if job.dims == 2 else "trilinear"

    def logits(image: torch.Tensor) -> torch.Tensor:
        out = network(image)
        return interpolate(out, scale_factor=SCALE, mode=linear) if job.name == LR else out

    if job.kind == "predict":
        network.eval()
        sides = [side // SCALE if job.name == LR else side for side in size.image]
        image = torch.rand(1, size.channels, *sides)

        @torch.inference_mode()
        def predict() -> Any:
            if job.name != SLIDING:
                return logits(image).sigmoid().numpy()
            out = sliding_window_inference(image, size.window, 1, network, overlap=0.5)
            return out.sigmoid().numpy()

        return Work(predict, predict)

    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    loss = DiceCELoss(sigmoid=True)
    image_lr, image_hr, target = training_tensors(size)

    def step() -> None:
        optimiser.zero_grad()
        loss(logits(image_lr if job.name == LR else image_hr), target).backward()
        optimiser.step()

    return Work(step, step)


def training_tensors(size: Size) -> tuple[Any, Any, Any]:
    """LR image, HR image and target without meaning."""
    import torch

    image = torch.rand(size.batch, size.channels, *size.crop)
    pool = torch.nn.functional.avg_pool2d if image.ndim == 4 else torch.nn.functional.avg_pool3d
    return pool(image, SCALE), image, (torch.rand(size.batch, 1, *size.crop) > 0.9).float()


def matrix_product() -> float:
    """The most multiply-adds a second that float32 products of three sizes reach, times two."""
    import torch

    best = 0.0
    for side in MATRICES:
        a, b = torch.rand(side, side), torch.rand(side, side)
        for _ in range(3):
            started = perf_counter()
            torch.mm(a, b)
            best = max(best, 2 * side**3 / (perf_counter() - started))
    return best


def serve(job: Job, threads: int, pipe: Any) -> None:
    """The life of a row's process: report memory and FLOP once, then a result each time asked."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    if job.kind == "gemm":
        pipe.send((0.0, 0))
        while pipe.recv():
            pipe.send(matrix_product())
        return
    work = monai_work(job) if job.name.startswith("MONAI") else finemask_work(job)
    before = peak_mib()
    for _ in range(2):  # the optimiser takes its memory at the end of the first step
        work.run()
    added = peak_mib() - before
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(job.kind == "train"):
        work.count()
    pipe.send((added, counter.get_total_flops()))
    while pipe.recv():
        started = perf_counter()
        work.run()
        pipe.send(perf_counter() - started)


def peak_mib() -> float:
    """Highest resident memory of this process so far (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True)
class Row:
    """What is measured of a job."""

    job: Job
    added_mib: float
    flop: int
    seconds: list[float]


def measure(jobs: Sequence[Job], rounds: int, threads: int) -> tuple[list[Row], float]:
    """A group of jobs, taken in turn round by round; and the best matrix product meanwhile."""
    context = get_context("spawn")
    workers, rows, peak = [], [], 0.0
    for job in (*jobs, Job("gemm", "", jobs[0].size)):
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(job, threads, theirs), daemon=True)
        process.start()
        theirs.close()
        added, flop = pipe.recv()
        workers.append((process, pipe))
        rows.append(Row(job, added, flop, []))
    for _ in range(rounds):
        for row, (_, pipe) in zip(rows, workers, strict=True):
            pipe.send(True)
            value = pipe.recv()
            if row.job.kind == "gemm":
                peak = max(peak, value)
            else:
                row.seconds.append(value)
    for process, pipe in workers:
        pipe.send(False)
        process.join()
    return rows[:-1], peak


def cells(row: Row, reference: Row, peak: float) -> list[str]:
    """One row of the table; speed is that of the best round, as the peak is."""
    size, best = row.job.size, min(row.seconds)
    sides = "x".join(map(str, size.crop if row.job.kind == "train" else size.image))
    many = f"{size.batch} of {sides}" if row.job.kind == "train" else sides
    return [
        f"{row.job.kind} {row.job.dims}-D, {many}: {row.job.name}",
        f"{1000 * median(row.seconds):.0f}",
        f"{1000 * best:.0f}",
        f"{ratio(row.seconds, reference.seconds):.2f}",
        f"{row.added_mib:.0f}",
        f"{row.flop / 2e9:.1f}",
        f"{row.flop / best / 1e9:.0f}",
        f"{100 * row.flop / best / peak:.0f} %",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0 as torch does")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else arguments.rounds
    names = ["unet", "dsrl"] + ([LR, HR] if monai_version() else [])
    groups, peak = [], 0.0
    for size in QUICK if arguments.quick else SIZES:
        for kind in ("train", "predict"):
            further = [SLIDING] if kind == "predict" and size.window and LR in names else []
            jobs = [Job(kind, name, size) for name in (*names, *further)]
            rows, reached = measure(jobs, rounds, arguments.threads)
            groups.append(rows)
            peak = max(peak, reached)
    print(f"{machine(arguments.threads)}")
    print(f"peak of float32 matrix products: {peak / 1e9:.0f} GFLOP/s\n")
    head = ["HR size: network", "median ms", "best ms", "x `unet`", "MiB added", "GMAC"]
    head += ["GFLOP/s", "of the peak"]
    print(table(head, [cells(row, rows[0], peak) for rows in groups for row in rows]))


if __name__ == "__main__":
    main()
