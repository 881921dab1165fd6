"""DSRL: dual super-resolution learning, the ancestor of the methods here.

L. Wang, D. Li, Y. Zhu, L. Tian and Y. Shan, "Dual super-resolution learning for
semantic segmentation", CVPR 2020, pp. 3774-3783.

Idea: from one shared encoder, one decoder learns the HR mask of an LR image and
a second one learns the HR image itself. Restoring the image needs fine
structure, so its features know where edges are; a feature affinity loss asks
the mask's features to find the same places alike. The second decoder is thrown
away after training: the network that ships costs what the plain one does.

| Figure 2                    | here                                        |
|-----------------------------|---------------------------------------------|
| shared feature extractor    | `nn.unet.UNetEncoder`                       |
| SSSR, with extra upsampling | `nn.unet.UNetDecoder`, `nn.superres.MaskHead`  |
| SISR                        | `nn.unet.UNetDecoder`, `nn.superres.ImageHead` |
| feature transform           | `FeatureTransform`                          |
| FA                          | `losses.affinity.feature_affinity`          |

| Equation                                          | here                            |
|---------------------------------------------------|---------------------------------|
| (1) cross-entropy of the HR mask                  | `losses.overlap.cross_entropy`  |
| (2) mean squared error of the HR image            | `losses.fidelity.mse`           |
| (3) affinity loss, 1-norm of S_seg - S_sr over L^2 | `losses.affinity.feature_affinity` |
| (4) similarity S_ij of unit feature vectors       | `losses.affinity.feature_affinity` |
| (5) L_ce + 0.1 L_mse + 1.0 L_fa                   | `DSRL.weights`                  |

Errata and departures:
- The authors' repository holds no code. The paper's own text was not at hand either: this
  file follows a summary of it, and the order of the equations may differ from print.
- Figure 2's backbones (DeepLabV3+, ESPNetv2) become the U-Net of `methods/unet.py`, with the
  same widths, so that the two differ in nothing but the method. Dice joins the
  cross-entropy as it does there; `w_dice = 0` is the paper's Eq. (5).
- Instance norm, which the paper's backbones do not have, removes a crop's brightness, so no
  decoder could restore it: the SISR branch adds to the interpolated LR image instead
  (`sr_skip = false` is the paper's form; use it with `norm = "batch"`).
- The paper picks every eighth position of the features; here cells of eight voxels are
  averaged, which ignores none. Both maps are pooled to the same cells of the shared extent,
  so the mask's features are compared before their logits are enlarged.
- The unofficial port (Dootmaan/DSRL), which later papers start from, compares the *outputs*
  (logits brought to three channels, and the restored image) instead of features, pools by
  16, has the division by the vectors' lengths commented out, sums over the batch, and
  enlarges with corner alignment, which shifts HR against LR. None of this is reproduced.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from finemask.losses.affinity import feature_affinity
from finemask.losses.fidelity import mse
from finemask.losses.overlap import cross_entropy, dice_loss
from finemask.methods.base import Method, Segmenter
from finemask.nn.blocks import ConvBlock, Style, resize
from finemask.nn.outputs import foreground_probs
from finemask.nn.superres import Head, ImageHead, MaskHead
from finemask.nn.unet import UNetDecoder, UNetEncoder, unet_widths
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges


@dataclass(frozen=True)
class Config:
    """Options of DSRL; those of the backbone are the U-Net's.

    Args:
        width: Feature maps of the finest level, doubled at each coarser one up to eightfold.
        depth: Levels, the bottleneck included.
        norm: Of the backbone's feature maps.
        dropout: Share of feature maps dropped behind each block.
        head: How the HR mask is made, see ``MaskHead``.
        w_ce: Weight of the cross-entropy.
        w_dice: Weight of the Dice loss; 0 in the paper.
        w_mse: w1, weight of the restored image.
        w_fa: w2, weight of the feature affinity.
        sr_width: Feature maps of the SISR branch on the HR grid.
        sr_skip: Learn what the HR image has beyond the interpolated LR image; the paper learns
            it whole.
        fa_stride: HR voxels a side of the cells that affinity compares.
    """

    width: int = 32
    depth: int = 5
    norm: Literal["instance", "batch"] = "instance"
    dropout: float = 0.0
    head: Head = "shuffle"
    w_ce: float = 1.0
    w_dice: float = 1.0
    w_mse: float = 0.1
    w_fa: float = 1.0
    sr_width: int = 16
    sr_skip: bool = True
    fa_stride: int = 8

    def __post_init__(self) -> None:
        check_ranges(
            "config",
            self,
            {
                "width": (1.0, 4096.0),
                "depth": (2.0, 8.0),
                "dropout": (0.0, 0.99),
                "sr_width": (1.0, 4096.0),
                "fa_stride": (1.0, 4096.0),
            },
        )


class FeatureTransform(ConvBlock):
    """1x1 convolution, batch norm, ReLU: the mask's features in the SISR branch's channels."""

    def __init__(self, c_in: int, c_out: int, dims: int) -> None:
        super().__init__(c_in, c_out, Style(dims, norm="batch"), kernel=1)


class DSRL(Method):
    """LR image in, HR mask out; learns to restore the HR image beside it."""

    paper: ClassVar[str] = "Wang et al., Dual super-resolution learning (DSRL), CVPR 2020"
    dropped: ClassVar[str] = "SISR decoder and head, feature transform"
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        style = Style(task.dims, norm=config.norm, dropout=config.dropout)
        widths = unet_widths(config.width, config.depth)
        self.encoder = UNetEncoder(task.channels, widths, style)
        self.sssr_decoder = UNetDecoder(widths, style)
        self.sssr_head = MaskHead(widths[0], task.classes, task.scale, config.head)
        self.sisr_decoder = UNetDecoder(widths, style)
        self.sisr_head = ImageHead(widths[0], task.channels, task.scale, config.sr_width)
        self.feature_transform = FeatureTransform(widths[0], config.sr_width, task.dims)

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Paper: dsrl Eq. (5), its parts."""
        shared = self.encoder(batch.image_lr)
        f_sssr = self.sssr_decoder(shared)
        f_sisr = self.sisr_head.features(self.sisr_decoder(shared))
        logits, image = self.sssr_head(f_sssr), self.restore(f_sisr, batch.image_lr)
        return {
            "L_ce": cross_entropy(logits, batch.target),
            "L_dice": dice_loss(foreground_probs(logits.float()), batch.target),
            "L_mse": mse(image, batch.image_hr),
            "L_fa": self.affinity(f_sssr, f_sisr),
        }

    def restore(
        self, f_sisr: Float[Tensor, " b i *hr"], image_lr: Float[Tensor, " b c *s"]
    ) -> Float[Tensor, " b c *hr"]:
        """The HR image: what the branch adds to the interpolated LR image."""
        image = self.sisr_head.output(f_sisr)
        return image + resize(image_lr, image.shape[2:]) if self.config.sr_skip else image

    def affinity(
        self, f_sssr: Float[Tensor, " b w *s"], f_sisr: Float[Tensor, " b i *hr"]
    ) -> Float[Tensor, ""]:
        """How differently the two branches see which places are alike."""
        cells = [
            max(1, side // max(1, self.config.fa_stride // scale))
            for side, scale in zip(f_sssr.shape[2:], self.task.scale, strict=True)
        ]
        return feature_affinity(
            self.feature_transform(f_sssr), f_sisr, grid=cells, normalise=True, power=1
        )

    def weights(self) -> dict[str, float]:
        config = self.config
        return {
            "L_ce": config.w_ce,
            "L_dice": config.w_dice,
            "L_mse": config.w_mse,
            "L_fa": config.w_fa,
        }

    def deploy(self) -> Segmenter:
        parts = OrderedDict(encoder=self.encoder, decoder=self.sssr_decoder, head=self.sssr_head)
        return Segmenter(nn.Sequential(parts), self.task, self.encoder.stride)

    def super_resolve(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b c *hr"]:
        f_sisr = self.sisr_head.features(self.sisr_decoder(self.encoder(image_lr)))
        return self.restore(f_sisr, image_lr)

    RECIPE_3D: ClassVar[Mapping[str, Any]] = {
        "train": {"batch_size": 2},
        "config": {"width": 16, "depth": 4, "sr_width": 8},
    }
