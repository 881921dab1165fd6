"""What does each encoder cost, and the U-Net on it, beside the plain U-Net?

One prediction of one RGB image on one thread, in evaluation mode, with random weights: its
time, its multiplications and its weights. Rows are measured in turn, round by round.

    OMP_NUM_THREADS=1 python benchmarks/encoders.py --rounds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from startup import machine, ratio, table

PLAIN = "U-Net, plain"


def networks() -> dict[str, Callable[[], Any]]:
    """What is measured, by name; the U-Nets at scale 1."""
    from finemask.methods.unet import Config, UNet
    from finemask.nn.encoders import ENCODERS, make_encoder
    from finemask.recipe import Task

    task = Task(channels=3, scale=(1, 1))
    rows: dict[str, Callable[[], Any]] = {PLAIN: lambda: UNet(task, Config()).deploy()}
    for name in ENCODERS:
        rows[name] = lambda name=name: make_encoder(name, 3)
        rows[f"U-Net, {name}"] = lambda name=name: UNet(task, Config(encoder=name)).deploy()
    return rows


def cost(make: Callable[[], Any], side: int) -> tuple[float, float]:
    """Multiplications in thousand millions, and weights in millions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = make().eval()
        network(torch.empty(1, 3, side, side))
    # The counter calls a multiplication and an addition two operations.
    return counter.get_total_flops() / 2e9, sum(p.numel() for p in network.parameters()) / 1e6


def seconds_of(network: Any, side: int) -> float:
    import torch

    torch.manual_seed(0)
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        network(image[..., :64, :64])
        started = perf_counter()
        network(image)
        return perf_counter() - started


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=352)
    parser.add_argument("--quick", action="store_true", help="small and once, to see that it runs")
    arguments = parser.parse_args()
    side, rounds = (64, 1) if arguments.quick else (arguments.side, arguments.rounds)
    makes = networks()
    ready = {name: make().eval() for name, make in makes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in makes}
    for _ in range(rounds):
        for name, network in ready.items():
            seconds[name].append(seconds_of(network, side))
    rows = []
    for name, times in seconds.items():
        macs, weights = cost(makes[name], side)
        rows.append(
            [
                name,
                f"{weights:.2f}",
                f"{macs:.2f}",
                f"{min(times):.3f}",
                f"{median(times):.3f}",
                f"{ratio(times, seconds[PLAIN]):.2f}",
            ]
        )
    print(f"{machine(torch.get_num_threads())}; {side}x{side}\n")
    print(table(["network", "M weights", "G MACs", "best s", "median s", "x plain U-Net"], rows))


if __name__ == "__main__":
    main()
