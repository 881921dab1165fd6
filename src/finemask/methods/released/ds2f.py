"""DS2F as its authors released it: the U-Net of five levels with MSCG.

The attribute names below are read from the repository's code; no weights were at hand. The
training script saves a bare state dict. With these options the graph is the released
one: it aligns corners, pools over three pixels and answers with a softmax of two maps.
The released DeepLabV3+ is another network than the paper's, and is not met.
"""

from __future__ import annotations

from collections.abc import Iterator

from finemask.methods.released.base import Released

LEVELS = 5
FIRST_UP = 6
"""The released number of the coarsest level on the way up."""

DECODERS = {"up": "seg_decoder", "sr_up": "sr_decoder"}

HEADS = {
    "out_conv": "streams.seg_head.conv",
    "sr_module.0": "streams.sr_head.first",
    "sr_module.2": "streams.sr_head.second",
    "sr_module.4": "streams.sr_head.third",
}

MSCG = {
    "fusion_conv.0": "join.conv",
    "fusion_conv.1": "join.norm",
    "fusion_conv.3.rcab.conv1": "attention.first",
    "fusion_conv.3.rcab.conv2": "attention.second",
    "fusion_conv.3.rcab.se.0": "attention.squeeze",
    "fusion_conv.3.rcab.se.2": "attention.expand",
    "fusion_conv.3.msconv.convs.0": "scales.branches.0",
    "fusion_conv.3.msconv.convs.1": "scales.branches.1",
    "fusion_conv.3.msconv.convs.2": "scales.branches.2",
    "fusion_conv.3.msconv.convs.3.conv": "scales.branches.3.conv",
    "fusion_conv.3.msconv.norm": "scales.norm",
    "linear_cross_sr.0": "to_sr",
    "linear_cross_seg.0": "to_seg",
    "gate_sr": "gate_sr",
    "gate_seg": "gate_seg",
}


def double_conv(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """Two convolutions, each with its norm."""
    for layer in range(2):
        yield f"{theirs}.conv{layer + 1}.conv", f"{ours}.{layer}.conv"
        yield f"{theirs}.conv{layer + 1}.norm_layer", f"{ours}.{layer}.norm"


def modules() -> Iterator[tuple[str, str]]:
    """Released module and ours."""
    for level in range(LEVELS):
        inner = ".conv" if level < LEVELS - 1 else ""
        yield from double_conv(f"down{level + 1}{inner}", f"streams.encoder.blocks.{level}")
    for start, decoder in DECODERS.items():
        for level in range(LEVELS - 1):
            theirs, ours = f"{start}{FIRST_UP + level}", f"streams.{decoder}"
            yield f"{theirs}.upsample_conv.conv", f"{ours}.ups.{level}.block.conv"
            yield f"{theirs}.upsample_conv.norm_layer", f"{ours}.ups.{level}.block.norm"
            yield from double_conv(f"{theirs}.conv", f"{ours}.blocks.{level}")
    yield from HEADS.items()
    for theirs, ours in MSCG.items():
        yield f"sr_seg_fusion_module.{theirs}", f"sfem.{ours}"


GRAPH = {
    "width": 64,
    "depth": LEVELS,
    "widest": 16,
    "pool": 3,
    "norm": "batch",
    "aligned": True,
    "head": "interpolate",
    "softmax": True,
    "sr_width": 64,
    "sr_skip": False,
    "w_dice": 0.0,
}
"""Options of the method that make the released network, and its loss."""

DS2F = Released(
    source="github.com/Qsingle/imed_vision, Unet with super_reso and sr_seg_fusion",
    sections={
        "task": {"dims": 2, "channels": 3, "classes": 2, "scale": (2, 2)},
        "prepare": {"normalise": "symmetric"},
        "config": GRAPH,
    },
    modules=dict(modules()),
    unused=(),
    window_lr=(),
)
