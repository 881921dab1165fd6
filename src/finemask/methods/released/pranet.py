"""PraNet as its authors released it: Res2Net-50, for polyps in endoscopy.

The attribute names below are read from the repository's code; the weights
themselves (``PraNet-19.pth``) were not at hand. The file is a bare state dict,
ImageNet's classifier included.

What differs here from the released code, with the same weights: upsampling in the
partial decoder does not align corners, and maps are neither interpolated to
another size nor stretched to [0, 1]. The authors bring every image to 352x352
first; so should be done with images whose polyps would be of another size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from finemask.methods.released.base import Released
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names

BLOCKS = {
    "agg1.conv_upsample1": "partial_decoder.weigh_4_by_5",
    "agg1.conv_upsample2": "partial_decoder.weigh_3_by_5",
    "agg1.conv_upsample3": "partial_decoder.weigh_3_by_4",
    "agg1.conv_upsample4": "partial_decoder.pass_5",
    "agg1.conv_upsample5": "partial_decoder.pass_4",
    "agg1.conv_concat2": "partial_decoder.join_4",
    "agg1.conv_concat3": "partial_decoder.join_3",
    "agg1.conv4": "partial_decoder.last",
}
STAGES = {
    4: ("reduce", "first", "rest.0", "rest.1", "output"),
    3: ("reduce", "first", "rest.0", "output"),
    2: ("reduce", "first", "rest.0", "output"),
}
"""Convolutions of each stage of reverse attention, by its number in the code; the paper counts
one more."""


def decoder_blocks() -> Iterator[tuple[str, str]]:
    """Every convolution that has a norm behind it."""
    yield from BLOCKS.items()
    for level, number in enumerate((2, 3, 4)):
        theirs, ours = f"rfb{number}_1", f"fields.{level}"
        yield f"{theirs}.branch0.0", f"{ours}.branches.0"
        for branch in (1, 2, 3):
            for k in range(4):
                yield f"{theirs}.branch{branch}.{k}", f"{ours}.branches.{branch}.{k}"
        yield f"{theirs}.conv_cat", f"{ours}.join"
        yield f"{theirs}.conv_res", f"{ours}.shortcut"
    for number, layers in STAGES.items():
        for k, layer in enumerate(layers, start=1):
            yield f"ra{number}_conv{k}", f"ra_{number + 1}.{layer}"


def modules() -> Iterator[tuple[str, str]]:
    """Released module and ours, the encoder's after ImageNet's public names."""
    with torch.device("meta"):
        encoder = make_encoder("res2net50", 3)
    for ours, theirs in public_names(encoder).items():
        yield f"resnet.{theirs.rpartition('.')[0]}", f"network.encoder.{ours.rpartition('.')[0]}"
    for theirs, ours in decoder_blocks():
        yield f"{theirs}.conv", f"network.decoder.{ours}.conv"
        yield f"{theirs}.bn", f"network.decoder.{ours}.norm"
    yield "agg1.conv5", "network.decoder.partial_decoder.output"


PRANET = Released(
    source="github.com/DengPingFan/PraNet, snapshots/PraNet_Res2Net",
    sections={
        "task": {"dims": 2, "channels": 3, "classes": 2, "scale": (1, 1)},
        "prepare": {"normalise": "imagenet"},
        "config": {"weighted_bce": False},
    },
    modules=dict(modules()),
    unused=("resnet.fc.",),
    window_lr=(352, 352),
)
