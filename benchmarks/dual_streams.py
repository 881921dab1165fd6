"""What do DS2F's losses cost beside others' code, and a step of it beside the plain U-Net's?

Losses: value and gradient at 1168 x 1752, as the paper trains on HRF. RMI is compared with the
published steps, written out in float64; SSIM of three channels with MONAI's and
pytorch-msssim's. Errors are relative to float64, gradients by their norm.

Steps: `step_player` of each method on one batch, as `finemask train` runs it. Rows are taken in
turn, and a ratio is the median over rounds of two times of the same round. Times are those of
the process, which other processes on the machine lengthen less than those of the clock.

    pip install -c constraints.txt -e . monai pytorch-msssim   # rows without them are left out
    python benchmarks/dual_streams.py --rounds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from time import process_time
from typing import Any

import torch
import torch.nn.functional as F

from startup import installed, machine, table

HEIGHT, WIDTH = 1168, 1752
PLAIN = {"w_dice": 0.0, "head": "interpolate"}
STEPS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "default widths, scale 2": (2, 192, 8, {"w_dice": 0.0}),
    "width 16, scale 4": (4, 192, 4, {**PLAIN, "width": 16, "sr_width": 16}),
    "the paper's network, scale 2": (
        *(2, 192, 2),
        {**PLAIN, "width": 64, "widest": 16, "norm": "batch", "sr_width": 64, "sr_skip": False},
    ),
}
"""Scale, HR side, batch and options of each comparison of steps."""
METHODS = ("unet", "dsrl", "cogseg", "supervessel", "ssmaf", "ds2f: SR alone", "ds2f")


def published_rmi(logits: torch.Tensor, target: torch.Tensor, pool: int) -> torch.Tensor:
    """The published loss, step by step in float64."""
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    p, y = torch.sigmoid(logits).double() + 1e-6, target.double()
    if pool > 1:
        p, y = (F.avg_pool2d(x, pool, pool, pool // 2) for x in (p, y))
    h, w = p.shape[2:]

    def regions(x: torch.Tensor) -> torch.Tensor:
        shifts = [x[:, :, i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3)]
        flat = torch.stack(shifts, 2).flatten(3)
        return flat - flat.mean(3, keepdim=True)

    p, y = regions(p), regions(y)
    ridge = 5e-4 * torch.eye(9, dtype=torch.float64)
    left = y @ y.mT - y @ p.mT @ torch.inverse(p @ p.mT + ridge) @ (p @ y.mT)
    diagonal = torch.linalg.cholesky(left + ridge).diagonal(dim1=2, dim2=3)
    rmi = torch.log(diagonal + 1e-8).sum(2).mean(0).sum() / 9
    return 0.5 * bce / (target[:, 0].numel() + 1) + 0.5 * rmi


def differentiated(loss: Callable[..., Any], x: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Value and gradient."""
    x = x.detach().requires_grad_()
    value = loss(x)
    return value.item(), torch.autograd.grad(value, x)[0]


def seconds(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times of all, in turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = process_time()
            work()
            if number:
                times[name].append(process_time() - started)
    return times


def rows_of(times: dict[str, list[float]], reference: str) -> list[list[str]]:
    """Name, best time and ratio to the reference."""
    base = times[reference]
    return [
        [name, f"{1000 * min(t):.0f}", f"{median(a / b for a, b in zip(t, base, strict=True)):.2f}"]
        for name, t in times.items()
    ]


def compare_losses(rounds: int, height: int, width: int) -> None:
    from finemask.losses.region import rmi_loss
    from finemask.losses.similarity import ssim_loss

    torch.manual_seed(0)
    truth = F.interpolate((torch.rand(1, 1, 100, 100) > 0.9).float(), (height, width))
    logits = 3 * truth - 1 + torch.randn_like(truth)
    lines = []
    for pool in (1, 2, 3):
        ours, theirs = (
            lambda x, f=f, pool=pool: f(x, truth, pool=pool) for f in (rmi_loss, published_rmi)
        )
        (value, slope), (exact, true) = (differentiated(f, logits) for f in (ours, theirs))
        works = {
            "published, float64": lambda f=theirs: differentiated(f, logits),
            "ours": lambda f=ours: differentiated(f, logits),
        }
        off = (slope - true).norm() / true.norm()
        for row in rows_of(seconds(works, rounds), "published, float64"):
            wrong = [f"{abs(value - exact) / abs(exact):.0e}", f"{float(off):.0e}"]
            lines.append(
                [
                    f"RMI, pool {pool}: {row[0]}",
                    *row[1:],
                    *(wrong if row[0] == "ours" else ["", ""]),
                ]
            )
    print(table(["loss", "best ms", "x published", "value off", "gradient off"], lines), "\n")

    image, real = torch.rand(1, 3, height, width), torch.rand(1, 3, height, width)
    losses: dict[str, Callable[..., Any]] = {"ours": lambda x: ssim_loss(x, real, 1.0)}
    if installed("monai"):
        from monai.losses import SSIMLoss

        monai = SSIMLoss(2, data_range=1.0)
        losses = {"MONAI": lambda x: monai(x, real), **losses}
    if installed("pytorch_msssim"):
        from pytorch_msssim import ssim

        losses["pytorch-msssim"] = lambda x: 1 - ssim(x, real, data_range=1.0)
    for name, loss in losses.items():
        print(f"SSIM by {name}: {differentiated(loss, image)[0]:.7f}")
    works = {name: lambda f=f: differentiated(f, image) for name, f in losses.items()}
    times = seconds(works, rounds)
    first = next(iter(times))
    print(table(["SSIM, 3 channels", "best ms", f"x {first}"], rows_of(times, first)), "\n")


def step_of(
    label: str, scale: int, side: int, batch: int, options: dict[str, Any]
) -> Callable[[], Any]:
    """One step of a method, as the training loop makes it."""
    from lightning_fabric import Fabric

    from finemask.methods import create, default_recipe
    from finemask.pairs.batches import Batch
    from finemask.recipe import Task
    from finemask.training.loop import step_player
    from finemask.training.setup import make_optimiser

    name, _, alone = label.partition(":")
    recipe = default_recipe(name, Task(2, 3, 2, (scale,)))
    known = {k: v for k, v in options.items() if k in recipe.config}
    recipe = replace(
        recipe, config={**recipe.config, **known, **({"sfem": "none"} if alone else {})}
    )
    method = create(recipe)
    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimiser = fabric.setup(method, make_optimiser(method, "network", recipe.train))
    model.mark_forward_method("losses")
    image = torch.rand(batch, 3, side, side)
    target = (torch.rand(batch, 1, side, side) > 0.9).float()
    data = Batch(F.avg_pool2d(image, scale), image, target)
    return lambda: step_player(fabric, model, method, "network", optimiser, [data], recipe.train)


def compare_steps(rounds: int, chosen: Sequence[str]) -> None:
    for title in chosen:
        works = {label: step_of(label, *STEPS[title]) for label in METHODS}
        print(
            table([f"step: {title}", "best ms", "x unet"], rows_of(seconds(works, rounds), "unet")),
            "\n",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=("all", "losses", "steps"), default="all")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{machine(arguments.threads)}\n")
    rounds, small = (1, 8) if arguments.quick else (arguments.rounds, 1)
    if arguments.part != "steps":
        compare_losses(rounds, HEIGHT // small, WIDTH // small)
    if arguments.part != "losses":
        compare_steps(rounds, list(STEPS)[:1] if arguments.quick else list(STEPS))


if __name__ == "__main__":
    main()
