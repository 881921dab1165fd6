"""SASR-Net as its authors released it: the 3-D network for lung nodules in CT.

The repository holds the code of this variant only, and the class, attribute
and branch names below are read from it; the weights themselves were not at
hand. It is trained in a data-parallel wrapper and saved with the optimiser,
under ``state_dict``.

What differs here from the released code, with the same weights: the HR logits
are interpolated over the true extent, where the code aligns corners (up to half
an HR voxel of shift towards the edges), and dropout rests in prediction.
"""

from __future__ import annotations

from collections.abc import Iterator

from finemask.methods.released.base import Released

ENCODER_LEVELS = 4
DECODER_BLOCKS = (5, 6, 7)
"""The released numbers of the decoder's blocks, coarsest first."""

BRANCHES = ("conv_1x1_1", "conv_3x3_1", "conv_3x3_2", "conv_3x3_3")
"""Of an SDC block, from the smallest reach to the largest."""

DECODERS = {"seg_decoder": "lmsr_decoder", "sr_decoder.sr_decoder": "lisr_decoder"}

HEADS = {
    "seg_decoder.block_8_seg": "lmsr_head.conv",
    "sr_decoder.up_sr_2": "lisr_head.up",
    "sr_decoder.up_edsr_2.conv.0": "lisr_head.unit.body.0",
    "sr_decoder.up_edsr_2.conv.2": "lisr_head.unit.body.2",
    "sr_decoder.up_edsr_2.residual_upsampler.0": "lisr_head.unit.shortcut",
    "sr_decoder.up_conv_last": "lisr_head.output",
    "pointwise.0": "fa_lmsr.conv",
    "pointwise.1": "fa_lmsr.norm",
}


def encoder_modules() -> Iterator[tuple[str, str]]:
    """Two convolutions a level, each with its norm; the activations between have no weights."""
    for level in range(ENCODER_LEVELS):
        for layer in range(2):
            theirs, ours = f"encoder.block_{level + 1}.conv", f"encoder.blocks.{level}.{layer}"
            yield f"{theirs}.{3 * layer}", f"{ours}.conv"
            yield f"{theirs}.{3 * layer + 1}", f"{ours}.norm"


def decoder_modules() -> Iterator[tuple[str, str]]:
    """The way up (interpolation, convolution, norm) and the SDC block of each level."""
    for theirs, ours in DECODERS.items():
        for level, number in enumerate(DECODER_BLOCKS):
            block, own = f"{theirs}.block_{number}", f"{ours}.blocks.{level}"
            yield f"{block}_up.conv.1", f"{ours}.ups.{level}.block.conv"
            yield f"{block}_up.conv.2", f"{ours}.ups.{level}.block.norm"
            for k, branch in enumerate(BRANCHES):
                yield f"{block}.{branch}", f"{own}.branches.{k}.conv"
                yield f"{block}.bn_{branch}", f"{own}.branches.{k}.norm"
            yield f"{block}.offset_conv", f"{own}.gates"
            yield f"{block}.conv", f"{own}.mix.conv"
            yield f"{block}.bn", f"{own}.mix.norm"


GRAPH = {
    "width": 32,
    "depth": 4,
    "norm": "batch",
    "bias": True,
    "dropout": 0.5,
    "up_kernel": 3,
    "head": "interpolate",
    "fusion": "concat",
    "sr_width": 32,
    "sr_skip": False,
    "fa_on": "outputs",
}
"""Options of the method that make the released network."""

LOSSES = {"power": 1, "w_ce": 0.0, "w_lesion": 1.0, "w_sa": 0.0}
"""Options that come nearest to what it was trained by."""

SASRNET = Released(
    source="github.com/poiuohke/SASR_Net, 3D",
    sections={
        "task": {"dims": 3, "channels": 1, "classes": 2, "scale": (2, 2, 2)},
        "prepare": {"window_hu": (-1000.0, 400.0), "window_to_unit": True, "normalise": "none"},
        "config": {**GRAPH, **LOSSES},
    },
    modules={**dict(encoder_modules()), **dict(decoder_modules()), **HEADS},
    unused=("sr_decoder.up_sr_3.", "sr_decoder.up_edsr_3."),
    window_lr=(48, 48, 48),
)
