"""PFSeg: patch-free 3-D segmentation guided by super-resolution and by a window of itself.

H. Wang, L. Lin, H. Hu, Q. Chen, Y. Li, Y. Iwamoto, X.-H. Han, Y.-W. Chen and R. Tong,
"Super-resolution based patch-free 3D medical image segmentation with self-supervised
guidance", 2022; first as PFSeg at MICCAI 2021, pp. 131-141.

Idea: a whole volume fits a network that reads it coarsened by two, and sees all of its
context at once. What coarsening loses is brought back by three helpers. A second decoder
restores the HR image (SRT) beside the mask (UST); a small window of the HR image, the one
richest in contrast, is shown beside the LR image (SGM); and the product of mask and image is
compared with the true one (TFM), which ties the two decoders. The window's encoder ships, the
second decoder does not. On the images of a test set, whose HR image is known, the network may
be fine-tuned once more without labels (TPF, `finemask adapt`).

| Figures 2 to 4, Algorithm 1   | here                                                  |
|-------------------------------|-------------------------------------------------------|
| shared encoder, SGM           | `nn.unet.UNetEncoder` of the blocks below             |
| MSRes block, Res block        | `nn.patch_free.MultiScaleUnit`, `nn.blocks.ResidualUnit` |
| UST and SRT decoders          | `nn.patch_free.PatchFreeDecoder`                      |
| selective cropping            | `pairs.guidance.CropGuide`                            |
| TFM                           | `losses.fusion.fuse`, and the two losses of it        |
| TPF, Table III                | `PFSeg.adaptations`, `finemask.adapt`                 |

| Equation                                              | here                                |
|-------------------------------------------------------|-------------------------------------|
| (1) squared error of the restored image               | `losses.fidelity.mse`               |
| (2) L_bce + L_dice, (13) L_tel + L_ssl, (19) all      | `PFSeg.losses`, `PFSeg.weights`     |
| (3) cross-entropy, (4) Dice loss                      | `losses.overlap`                    |
| (5) to (8) shared and guidance features, two decoders | `PFSeg.features`, `PFSeg.decode`    |
| (9) places of the selective search                    | `pairs.guidance.shell_centre`       |
| (10) squared error within the guidance window         | `losses.fusion.window_mse`          |
| (11), (12), (18) product of mask and image            | `losses.fusion.fuse`                |
| (14) squared error of the products                    | `losses.fidelity.mse`               |
| (15), (16) difference of their self-similarities      | `losses.affinity.feature_affinity`  |
| (17) test-phase loss                                  | `PFSeg.adaptations`                 |

Errata and departures:
- Eqs. 4 and 14 print binarised predictions, which have no gradient: probabilities are used, as
  in the released code. Its Dice lacks the factor 2 (`w_dice = 0.5` has its gradient).
- Algorithm 1 adds where Eq. 9 multiplies: a slip. The released code checks only the upper faces
  of the volume and looks at other angles; here both faces, Eq. 9's angles, each window once.
- Eq. 15's matrix has the square of the voxels. The released code averages over cells of ten
  voxels, multiplies after averaging (so a perfect answer has a loss), sums absolute differences
  and divides by another number. Here it is Eq. 15 itself, at full resolution, by C x C matrices.
- SGM's "5 %" of the weights is the Res version's; here it is 7.8 % in training (MSRes).
- The window covers 1/64 of what the bottleneck covers; they are joined cell by cell all the
  same. It is a code of what fine structure looks like, and is not aligned.
- SRT ends in a ReLU (released; the paper is silent), so images are brought to [0, 1]:
  `sr_output = "linear"` for others. The released data set normalises LR and HR apart; here both
  by the LR image, which is what prediction knows.
- The released augmentation writes into its cache, so that it accumulates, transposes slices
  when it shifts, and displaces HR by thrice the LR shift. None of this is reproduced.
- The paper divides the rate by ten when the training loss has not fallen for ten epochs; the
  schedule here is the package's own, so that methods differ in nothing but the method. The
  recipes `pfseg_brats2020` and `pfseg_liver` are the paper's settings.
- A light head (`head = "light"`) is ours: see `nn.patch_free.LightHead`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from finemask.errors import UsageError
from finemask.losses.affinity import feature_affinity
from finemask.losses.fidelity import mse
from finemask.losses.fusion import fuse, window_mse
from finemask.losses.overlap import cross_entropy, dice_loss
from finemask.methods.base import Adaptation, Method, Segmenter
from finemask.nn.blocks import Block, DoubleConv, ResidualUnit, Style
from finemask.nn.outputs import foreground_probs
from finemask.nn.patch_free import LightHead, MultiScaleUnit, PatchFreeDecoder, UpHead, join_code
from finemask.nn.superres import mask_channels
from finemask.nn.unet import UNetDecoder, UNetEncoder, unet_widths
from finemask.pairs.batches import Batch
from finemask.pairs.guidance import CropGuide, CropMode
from finemask.recipe import Task
from finemask.strict import check_ranges


@dataclass(frozen=True)
class Config:
    """Options of PFSeg.

    Args:
        width: Feature maps of the finest two levels, doubled at each coarser one; 32 is the
            paper's. Half as many, again doubled, are the SGM's.
        depth: Levels of the encoder, the bottleneck included; the SGM has one less.
        backbone: ``resunet3d`` (Res blocks) or ``unet3d`` (two convolutions).
        msres: Where MSRes blocks take the place of the backbone's: ``none``, ``sgm`` or
            ``all`` (SGM and shared encoder).
        head: ``residual`` is the paper's; ``light`` has no block on the HR grid.
        srt: Restore the HR image beside the mask.
        sgm: Show a window of the HR image beside the LR image.
        crop: How that window is chosen, see ``CropGuide``.
        tel: Target-enhanced loss; needs ``srt``.
        ssl: Spatial similarity loss; needs ``srt``.
        sr_output: Of the restored image: ``relu`` for images in [0, 1], else ``linear``.
        w_bce: Weight of the cross-entropy.
        w_dice: Weight of the Dice loss.
        w_srt: omega_srt, weight of the restored image.
        w_sgl: omega_sgl, weight of the restored image within the window.
        w_tfm: omega_tfm, weight of both losses of the product.
    """

    width: int = 32
    depth: int = 5
    backbone: Literal["resunet3d", "unet3d"] = "resunet3d"
    msres: Literal["none", "sgm", "all"] = "all"
    head: UpHead = "residual"
    srt: bool = True
    sgm: bool = True
    crop: CropMode = "selective"
    tel: bool = True
    ssl: bool = True
    sr_output: Literal["relu", "linear"] = "relu"
    w_bce: float = 1.0
    w_dice: float = 1.0
    w_srt: float = 0.5
    w_sgl: float = 0.5
    w_tfm: float = 0.5

    def __post_init__(self) -> None:
        check_ranges("config", self, {"width": (2.0, 4096.0), "depth": (2.0, 8.0)})
        if (self.tel or self.ssl) and not self.srt:
            raise UsageError(
                "config",
                f"has tel = {self.tel}, ssl = {self.ssl} without srt, whose image they compare",
                "switch them off too",
            )


BLOCKS: Mapping[str, Block] = {"resunet3d": ResidualUnit, "unet3d": DoubleConv}


class PFSeg(Method):
    """LR volume and a window of the HR volume in, HR mask out; learns the HR volume beside it."""

    paper: ClassVar[str] = "Wang et al., Patch-free 3-D segmentation (PFSeg), 2022"
    dims: ClassVar[tuple[int, ...]] = (3,)
    dropped: ClassVar[str] = "SRT decoder; TFM has no weights"
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        style = Style(task.dims, norm="instance_plain", activation="leaky_relu", bias=True)
        block = BLOCKS[config.backbone]
        widths = (config.width, *unet_widths(config.width, config.depth - 1))
        encoding = MultiScaleUnit if config.msres == "all" else block
        self.encoder = UNetEncoder(task.channels, widths, style, encoding)
        code = 0
        if config.sgm:
            sgm_widths = unet_widths(config.width // 2, config.depth - 1, largest=4)
            sgm_block = block if config.msres == "none" else MultiScaleUnit
            self.sgm = UNetEncoder(task.channels, sgm_widths, style, sgm_block)
            self.guide = CropGuide(config.crop)
            code = sgm_widths[-1]
        parts = (task.scale, style, block, config.head)
        self.ust = PatchFreeDecoder(widths, code, mask_channels(task.classes), *parts)
        if config.srt:
            self.srt = PatchFreeDecoder(widths, code, task.channels, *parts)

    def features(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None
    ) -> list[Tensor]:
        """F_share, level by level, with F_sgm beside the bottleneck.

        Paper: pfseg Eq. (5), pfseg Eq. (6)
        """
        return encode(self.encoder, self.sgm if self.config.sgm else None, image_lr, guidance)

    def decode(
        self, features: Sequence[Tensor]
    ) -> tuple[Float[Tensor, " b l *hr"], Float[Tensor, " b c *hr"] | None]:
        """O_ust as logits, and O_srt.

        Paper: pfseg Eq. (7), pfseg Eq. (8)
        """
        return self.ust(features), self.restore(features) if self.config.srt else None

    def restore(self, features: Sequence[Tensor]) -> Float[Tensor, " b c *hr"]:
        """O_srt, the HR image."""
        image: Tensor = self.srt(features)
        return image.relu() if self.config.sr_output == "relu" else image

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Paper: pfseg Eq. (19), its parts."""
        config = self.config
        logits, image = self.decode(self.features(batch.image_lr, batch.guidance))
        probs = foreground_probs(logits.float())
        parts = {
            "L_bce": cross_entropy(logits, batch.target),
            "L_dice": dice_loss(probs, batch.target),
        }
        if image is None:
            return parts
        parts["L_srt"] = mse(image, batch.image_hr)
        if batch.guidance is not None and batch.guidance_start is not None:
            size = batch.guidance.shape[2:]
            parts["L_sgl"] = window_mse(image, batch.image_hr, batch.guidance_start, size)
        fusion, truth = fuse(image, probs), fuse(batch.image_hr, batch.target)
        if config.tel:
            parts["L_tel"] = mse(fusion, truth)
        if config.ssl:
            parts["L_ssl"] = feature_affinity(fusion, truth)
        return parts

    def weights(self) -> dict[str, float]:
        """Paper: pfseg Eq. (2), pfseg Eq. (13), pfseg Eq. (19)"""
        config = self.config
        terms = {
            "L_bce": (True, config.w_bce),
            "L_dice": (True, config.w_dice),
            "L_srt": (config.srt, config.w_srt),
            "L_sgl": (config.srt and config.sgm, config.w_sgl),
            "L_tel": (config.tel, config.w_tfm),
            "L_ssl": (config.ssl, config.w_tfm),
        }
        return {name: weight for name, (used, weight) in terms.items() if used}

    def adaptations(self) -> dict[str, Adaptation]:
        """The strategies of Table III; the paper's choice, the product alone, comes first.

        Paper: pfseg Eq. (17)
        """
        if not self.config.srt:
            return {}
        tfm, srt, ust = ("L_tel", "L_ssl"), ("L_srt", "L_sgl"), ("L_bce", "L_dice")
        strategies = {
            "tfm": Adaptation(tfm),
            "srt": Adaptation(srt, frozen=("ust",)),
            "srt+ust": Adaptation(srt + ust),
            "srt+ust+tfm": Adaptation(srt + ust + tfm),
        }
        if not (self.config.tel or self.config.ssl):
            del strategies["tfm"], strategies["srt+ust+tfm"]
        return strategies

    def deploy(self) -> Segmenter:
        sgm, head = self.sgm if self.config.sgm else None, self.ust.head
        head = head.folded() if isinstance(head, LightHead) else head
        network = Upsampler(self.encoder, sgm, self.ust.decoder, head)
        return Segmenter(network, self.task, self.encoder.stride)

    def makes_image(self) -> bool:
        return bool(self.config.srt)

    def super_resolve(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b c *hr"] | None:
        if not self.config.srt:
            return None
        return self.restore(self.features(image_lr, guidance))

    RECIPE: ClassVar[Mapping[str, Any]] = {
        "prepare": {"normalise": "minmax"},
        "pairs": {"whole": True, "intensity": 0.0},
        "train": {"batch_size": 1},
    }
    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "UST": {"srt": False, "tel": False, "ssl": False, "sgm": False, "msres": "none"},
        "UST+SRT": {"tel": False, "ssl": False, "sgm": False, "msres": "none"},
        "UST+SRT+TEL": {"ssl": False, "sgm": False, "msres": "none"},
        "UST+SRT+TFM": {"sgm": False, "msres": "none"},
        "UST+SRT+TFM+SGM": {"msres": "none"},
        "UST+SRT+TFM+SGM+MSRes": {},
    }


class Upsampler(nn.Module):
    """What ships: the shared encoder, the SGM, the decoder of the mask and its head."""

    def __init__(
        self, encoder: UNetEncoder, sgm: UNetEncoder | None, decoder: UNetDecoder, head: nn.Module
    ) -> None:
        super().__init__()
        self.encoder, self.sgm, self.decoder, self.head = encoder, sgm, decoder, head

    def forward(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b l *hr"]:
        features = encode(self.encoder, self.sgm, image_lr, guidance)
        return self.head(self.decoder(features))


def encode(
    encoder: UNetEncoder, sgm: UNetEncoder | None, image_lr: Tensor, guidance: Tensor | None
) -> list[Tensor]:
    """Features of the image at each level, those of the guidance beside the coarsest.

    Raises:
        ValueError: When the network takes guidance and none is given.
    """
    if sgm is None:
        return encoder(image_lr)
    if guidance is None:
        raise ValueError("this network is shown a window of the HR image too: give its guidance")
    return join_code(encoder(image_lr), sgm(guidance)[-1])
