"""CogSeg, SuperVessel and SS-MAF: two streams that are told what to have in common.

The relatives that DS2F is compared with, on the same U-Net. All three take an LR image,
learn the HR mask beside the HR image from one encoder, and ship the mask's stream alone.

- CogSeg, 2021 (a COVID-19 segmentation guided by super-resolution; as re-implemented by
  the authors of DS2F): the features of both decoders shall be alike, level by level.
- Y. Hu et al., "SuperVessel: segmenting high-resolution vessel from low-resolution retinal
  image", PRCV 2022: where the restored image and the mask agree, the mask counts more.
- Z. Qiu et al., "Rethinking dual-stream super-resolution semantic learning in medical image
  segmentation", IEEE TPAMI 45(12), 2023, reference 24 (SS-MAF): both decoders' features are
  re-weighted by what they show at several scales.

| Part                                 | here                                  |
|--------------------------------------|---------------------------------------|
| encoder, two decoders, two heads     | `nn.dual_stream.DualStream`           |
| CogSeg: L1 of the decoders' levels   | `CogSeg.losses`                       |
| SuperVessel: FIM behind the heads    | `nn.shared_features.FeatureInteraction` |
| SS-MAF: MAF before the heads         | `nn.shared_features.make_sfem("maf")` |

Errata and departures:
- None of these papers was at hand: the three follow their graphs in the released code of
  DS2F (weights of all losses 1). DS2F's reference list has one COVID-19 paper under two
  numbers, so that CogSeg's authors are not told apart with certainty.
- The U-Net, its widths, its norm and the Dice loss beside the cross-entropy are those of
  `methods/unet.py`, so that methods differ in nothing else; as are the skips around the
  restored image (see `methods/dsrl.py`). `docs/results/ds2f.md` has the paper's settings.
- SS-MAF's own paper may use another loss for its re-weighted mask than the released script,
  which has the region mutual information.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from finemask.losses.fidelity import mae, mse
from finemask.losses.overlap import cross_entropy
from finemask.losses.region import rmi_loss
from finemask.methods.streams import TwoStreams
from finemask.nn.dual_stream import StreamOptions
from finemask.nn.shared_features import FeatureInteraction, make_sfem
from finemask.pairs.batches import Batch
from finemask.recipe import Task


@dataclass(frozen=True)
class Config(StreamOptions):
    """Options of CogSeg, SuperVessel and SS-MAF.

    Args:
        w_dice: Weight of the Dice loss; 0 in the papers.
        w_sr: Weight of the restored image.
        w_shared: Weight of what the streams are told to have in common.
    """

    w_dice: float = 1.0
    w_sr: float = 1.0
    w_shared: float = 1.0


class CogSeg(TwoStreams):
    """The features of both decoders shall be alike."""

    paper: ClassVar[str] = "CogSeg, 2021 (as re-implemented by Qiu et al., IEEE TPAMI 2023)"
    config_type: ClassVar[type] = Config

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        seen = self.look(batch)
        levels = zip(seen.sr_levels, seen.seg_levels, strict=True)
        return {
            **self.own_losses(seen, batch),
            "L_1": torch.stack([mae(sr, seg) for sr, seg in levels]).sum(),
        }

    def weights(self) -> dict[str, float]:
        return {**super().weights(), "L_1": self.config.w_shared}


class SuperVessel(TwoStreams):
    """Where the restored image and the mask agree, the mask counts more."""

    paper: ClassVar[str] = "Hu et al., SuperVessel, PRCV 2022"
    dropped: ClassVar[str] = "super-resolution decoder and head, feature interaction"
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        maps = self.streams.seg_head.maps
        self.interaction = FeatureInteraction(task.channels, maps)

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        seen = self.look(batch)
        assert seen.image is not None
        fused = self.interaction.attention(seen.image, seen.logits) * seen.logits + seen.logits
        return {
            **self.own_losses(seen, batch),
            "L_proxy_seg": cross_entropy(fused, batch.target),
        }

    def weights(self) -> dict[str, float]:
        return {**super().weights(), "L_proxy_seg": self.config.w_shared}


class SSMAF(TwoStreams):
    """Both decoders' features are re-weighted by what they show at several scales."""

    paper: ClassVar[str] = "Qiu et al., SS-MAF (reference 24 of DS2F, IEEE TPAMI 2023)"
    dropped: ClassVar[str] = "super-resolution decoder and head, multi-scale fusion"
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        self.fusion = make_sfem("maf", self.streams.width)

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        seen = self.look(batch)
        f_sr, f_seg = self.fusion(seen.sr_levels[-1], seen.seg_levels[-1])
        logits = self.streams.mask(f_seg, batch.image_lr)
        image = self.streams.image(f_sr, batch.image_lr)
        return {
            **self.own_losses(seen, batch),
            "L_proxy_seg": rmi_loss(logits, batch.target),
            "L_proxy_sr": mse(image, batch.image_hr),
        }

    def weights(self) -> dict[str, float]:
        shared = self.config.w_shared
        return {**super().weights(), "L_proxy_seg": shared, "L_proxy_sr": shared}
