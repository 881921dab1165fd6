"""PFSeg as its authors released it: the journal's network and the one of MICCAI 2021.

The class and attribute names below are read from the two repositories' code; no weights were
at hand. Each file is a bare state dict. Their norms have neither weights nor statistics.

What differs here from the released code, with the same weights: LR and HR image are brought to
[0, 1] by the LR image's extremes, where the code normalises each alone and resamples the LR
image with aligned corners; and the window is searched at Eq. 9's places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from finemask.methods.released.base import Released

LEVELS = 5
BRANCHES = {"seg": "ust", "sr": "srt"}

RESIDUAL = {"conv.0": "body.0.conv", "conv.3": "body.1", "residual_upsampler.0": "shortcut.0"}
"""Layers of a Res block with weights."""
MULTI_SCALE = {
    **{f"conv{side}x{side}": f"branches.{k}" for k, side in enumerate((3, 5, 7))},
    "conv_2.2": "body.2",
    "residual_upsampler.0": "shortcut.0",
}
"""Layers of an MSRes block with weights."""


def modules(block: Mapping[str, str], sgm: str) -> Iterator[tuple[str, str]]:
    """Released module and ours.

    Args:
        block: Layers of the blocks of encoder and SGM.
        sgm: Their name for the SGM, blocks and poolings in turn.
    """
    for level in range(LEVELS):
        for theirs, ours in block.items():
            yield f"conv{level + 1}.{theirs}", f"encoder.blocks.{level}.{ours}"
    for level in range(LEVELS - 1):
        for theirs, ours in block.items():
            yield f"{sgm}.{2 * level}.{theirs}", f"sgm.blocks.{level}.{ours}"
    for theirs, ours in BRANCHES.items():
        yield from decoder_modules(theirs, ours)


def decoder_modules(name: str, own: str) -> Iterator[tuple[str, str]]:
    """The way up of one branch: numbers go on behind the encoder's, the head's come last."""
    for level in range(LEVELS - 1):
        number = LEVELS + 1 + level
        yield f"up{number}_{name}.deconv.0", f"{own}.decoder.ups.{level}.conv"
        for theirs, ours in RESIDUAL.items():
            yield f"conv{number}_{name}.{theirs}", f"{own}.decoder.blocks.{level}.{ours}"
    head = 2 * LEVELS
    yield f"up{head}_{name}.deconv.0", f"{own}.head.0"
    for theirs, ours in RESIDUAL.items():
        yield f"conv{head}_{name}.{theirs}", f"{own}.head.2.{ours}"
    yield f"conv{head + 1}_{name}", f"{own}.head.3"


PFSEG = Released(
    source="github.com/Dootmaan/PFSeg-Full",
    sections={
        "task": {"dims": 3, "channels": 1, "classes": 2, "scale": (2, 2, 2)},
        "prepare": {"normalise": "minmax"},
        "config": {"w_dice": 0.5},
    },
    modules=dict(modules(MULTI_SCALE, "ssgm")),
    unused=(),
    window_lr=(64, 96, 96),
)
PFSEG_2021 = replace(
    PFSEG,
    source="github.com/Dootmaan/PFSeg",
    sections={**PFSEG.sections, "config": {"w_dice": 0.5, "msres": "none", "crop": "central"}},
    modules=dict(modules(RESIDUAL, "high_freq_extract")),
    method="pfseg",
)
