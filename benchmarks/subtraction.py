"""What do filters of ones cost, as box sums and as the dense convolutions of the released code?

MSNet has none; M2SNet has them as box sums; "dense" is M2SNet with the released convolutions
in their place, which answers the same; "depthwise" keeps the channels apart. Beside them
`unet` on the same encoder, Res2Net-50. One RGB image at scale 1, forward alone (in
evaluation) and forward with backward (in training, from the sum of the logits). The rows take
turns in every round; on one thread, times are the processor's, which a busy machine disturbs
less than a clock.

    python benchmarks/subtraction.py --rounds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from time import process_time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from finemask.methods import create, default_recipe
from finemask.nn.blocks import BatchNorm2d
from finemask.nn.subtraction import OnesFilter
from finemask.recipe import Recipe, Task
from startup import machine, ratio, table

RGB = Task(2, 3, 2, (1, 1))


class DenseOnes(nn.Module):
    """The released filter: a dense convolution with ones, batch norm, ReLU."""

    def __init__(self, like: OnesFilter) -> None:
        super().__init__()
        width = len(like.weight)
        self.norm = BatchNorm2d(width)
        self.register_buffer("ones", torch.ones(width, width, like.side, like.side))

    def forward(self, x: Tensor, place: int = 0) -> Tensor:
        return F.relu(self.norm(F.conv2d(x, self.ones, padding=self.ones.shape[-1] // 2)))


def network(method: str, **config: object) -> nn.Module:
    """What would be trained and shipped, with random weights."""
    torch.manual_seed(0)
    values = default_recipe(method, RGB).to_dict()
    values["config"] |= {"encoder": "res2net50", **config}
    return create(Recipe.from_dict(values)).deploy()


def networks() -> dict[str, nn.Module]:
    """The rows; all share their random weights as far as they go."""
    dense = network("m2snet")
    filters = dense.network.pyramid.filters
    for number, box in enumerate(filters):
        filters[number] = DenseOnes(box)
    return {
        "`msnet`": network("msnet"),
        "`m2snet`, box sums": network("m2snet"),
        "`m2snet`, dense": dense,
        "`m2snet`, depthwise": network("m2snet", ones="depthwise"),
        "`unet` on Res2Net-50": network("unet"),
    }


def predict(net: nn.Module, image: Tensor) -> None:
    with torch.inference_mode():
        net.eval()(image)


def learn(net: nn.Module, image: Tensor) -> None:
    net.train()(image).sum().backward()
    net.zero_grad()


def convolutions(work: Callable[[], None]) -> float:
    """Billions of multiply-adds, of functional convolutions too."""
    with FlopCounterMode(display=False) as counter:
        work()
    counts = counter.get_flop_counts()["Global"]
    kinds = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
    return sum(counts.get(kind, 0) for kind in kinds) / 2e9


def measure(works: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each row in each round; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = process_time()
            work()
            if number:
                seconds[name].append(process_time() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=352)
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    arguments = parser.parse_args()
    side, rounds = (64, 2) if arguments.quick else (arguments.side, arguments.rounds)
    torch.set_num_threads(1)
    image, nets, rows = torch.rand(1, 3, side, side), networks(), []
    for label, work in (("forward", predict), ("forward, backward", learn)):
        works = {name: partial(work, net, image) for name, net in nets.items()}
        seconds = measure(works, rounds)
        reference = seconds["`msnet`"]
        rows += [
            [
                f"{label}, {side}x{side}: {name}",
                f"{convolutions(works[name]):.1f}",
                f"{1000 * median(times):.0f}",
                f"{1000 * min(times):.0f}",
                f"{ratio(times, reference):.2f}",
                f"{sum(p.numel() for p in nets[name].parameters()) / 1e6:.1f}",
            ]
            for name, times in seconds.items()
        ]
    print(f"{machine(1)}\n")
    head = ["work: network", "GMAC", "median ms", "best ms", "x `msnet`", "weights, M"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
