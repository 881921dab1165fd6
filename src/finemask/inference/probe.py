"""Which of several ways to run a network is the fastest here, by a short measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from finemask.inference.model import Machine, Model
from finemask.inference.tiles import padded_shape

SIDES = {2: 128, 3: 32}
"""LR sides of the tile that is timed, where the model names no window."""

ROUNDS = 3

CLEARLY = 1.1
"""A later choice must be faster than an earlier one by this factor: the first is the safest."""


def fastest(model: Model, machines: Sequence[Machine]) -> Machine:
    """The machine on which a model runs fastest; the only one is not measured.

    Args:
        model: Run once to warm up and a few times on the clock, on noise of the size that it
            learned from.
        machines: The safest first.
    """
    if len(machines) == 1:
        return machines[0]
    networks = [model.network(machine) for machine in machines]
    task = model.recipe.task
    first = networks[0]
    sides = padded_shape(first.window or (SIDES[task.dims],) * task.dims, first.stride)
    tile = np.random.default_rng(0).normal(size=(task.channels, *sides)).astype(np.float32)
    cut = None
    if model.guide is not None:
        fine = [side * factor for side, factor in zip(sides, first.scale, strict=True)]
        cut = model.guidance(np.random.default_rng(1).random((task.channels, *fine), np.float32))
    seconds = [float("inf")] * len(networks)
    for turn in range(ROUNDS + 1):
        for number, network in enumerate(networks):
            start = time.perf_counter()
            network.forward(tile, cut)
            if turn:  # the first warms up
                seconds[number] = min(seconds[number], time.perf_counter() - start)
    best = 0
    for number in range(1, len(seconds)):
        if CLEARLY * seconds[number] < seconds[best]:
            best = number
    return machines[best]
