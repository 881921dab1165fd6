"""MSNet and M2SNet as their authors released them: Res2Net-50, for polyps in endoscopy.

The attribute names below are read from the repository's code; no weights were
at hand. The file is a bare state dict, ImageNet's classifier included.

What differs here from the released code, with the same weights: images of sides
that 32 does not divide are enlarged without a shift. The released filters of ones
have one running mean and variance for all places where they are used, and one
more for each of their 64 equal maps; here each place starts from that number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from finemask.methods.released.base import Released
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names

BLOCKS = {
    **{f"x{5 - k}_dem_1": f"reduce.{k}" for k in range(4)},
    "x5_dem_5": "coarsest",
    "x5_dem_4": "pyramid.bridge",
    **{f"level{5 - k}": f"pyramid.enhance_blocks.{k}" for k in (2, 3, 4)},
    **{f"output{4 - k}": f"decoder.blocks.{k}" for k in range(3)},
}
UNITS = (
    *("x5_x4", "x4_x3", "x3_x2", "x2_x1"),
    *("x5_x4_x3", "x4_x3_x2", "x3_x2_x1"),
    *("x5_x4_x3_x2", "x4_x3_x2_x1"),
    "x5_x4_x3_x2_x1",
)
"""The ten units, named by the levels that they span, in our order."""

FILTERS = {"conv_3.norm": "pyramid.filters.0", "conv_5.norm": "pyramid.filters.1"}
PLACES = 2 * len(UNITS)


def modules() -> Iterator[tuple[str, str]]:
    """Released module and ours, the encoder's after ImageNet's public names."""
    with torch.device("meta"):
        encoder = make_encoder("res2net50", 3, finest="pool")
    for ours, theirs in public_names(encoder).items():
        yield f"resnet.{theirs.rpartition('.')[0]}", f"network.encoder.{ours.rpartition('.')[0]}"
    units = {name: f"pyramid.units.{number}.block" for number, name in enumerate(UNITS)}
    for theirs, ours in {**BLOCKS, **units}.items():
        yield f"{theirs}.0", f"network.{ours}.conv"
        yield f"{theirs}.1", f"network.{ours}.norm"
    yield "output1.0", "network.decoder.output"


def spread_statistics(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The one number that a filter's maps agree on, for each place where it is used."""
    return {
        name: value.mean().expand(PLACES).clone()
        if name.startswith(tuple(FILTERS)) and name.endswith(("_mean", "_var"))
        else value
        for name, value in given.items()
    }


MSNET = Released(
    source="github.com/Xiaoqi-Zhao-DLUT/MSNet-M2SNet",
    sections={
        "task": {"dims": 2, "channels": 3, "classes": 2, "scale": (1, 1)},
        "prepare": {"normalise": "imagenet"},
        "config": {"own": False, "weighted_bce": False, "encoder_factor": 1.0},
    },
    modules=dict(modules()),
    unused=("resnet.fc.",),
    window_lr=(352, 352),
)
M2SNET = replace(
    MSNET,
    modules={
        **MSNET.modules,
        **{theirs: f"network.{ours}" for theirs, ours in FILTERS.items()},
    },
    unused=(*MSNET.unused, *(f"{theirs}.num_batches_tracked" for theirs in FILTERS)),
    adapt=spread_statistics,
)
