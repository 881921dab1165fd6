"""SASR-Net on PraNet: the polyp network of the SASR-Net paper.

Y. Li, L. Luo, H. Lin, P.-A. Heng and H. Chen, "Scale-aware super-resolution
network with dual affinity learning for lesion segmentation from medical images",
IEEE TNNLS 2024, doi 10.1109/TNNLS.2024.3477947, arXiv 2305.19063: the rows
"PraNet+Ours" of Table III. The method itself is in `methods/sasrnet.py`.

Idea: what SASR-Net adds to a U-Net is added to PraNet. A block in each of its
three stages of reverse attention becomes scale-aware; a twin path with as many
such blocks restores the HR image from the same encoder; the two affinity losses
tie the paths together. PraNet's side maps stay supervised. The twin is thrown
away after training.

| Figure 2                          | here                                          |
|-----------------------------------|-----------------------------------------------|
| shared encoder                    | `nn.encoders`                                 |
| LMSR path                         | `nn.pranet.PraNetwork` with SDC blocks        |
| LISR path, EDSR module            | `nn.scale_aware_pranet.TwinDecoder`, `nn.superres.ImageHead` |
| SDC block, scale coefficient maps | `nn.scale_aware.ScaleAwareConv`               |
| FA and SA                         | `SASRPraNet.affinity_of_features`, `.affinity_of_scales` |

| Equation                                 | here                                   |
|------------------------------------------|----------------------------------------|
| (1) Dice of the HR mask                  | `losses.overlap.dice_loss`             |
| (2) squared error, lesion 0.8, else 0.2  | `losses.fidelity.lesion_weighted_mse`  |
| (3) branches weighed by S_i              | `nn.scale_aware.ScaleAwareConv.with_maps` |
| (4), (5) Gram matrices of features       | `SASRPraNet.affinity_of_features`      |
| (6), (7) Gram matrices of S_all          | `SASRPraNet.affinity_of_scales`        |
| (8) L_LMSR + L_LISR + L_FA + L_SA        | `SASRPraNet.losses`, `SASRPraNet.weights` |

Errata and departures:
- The paper says no more than that PraNet is the backbone, and no code of it is released. What
  is here was chosen: the first convolution behind the 1x1 one of each stage becomes an SDC
  block of its width (256, 64, 64); the twin goes up from the same three levels with blocks of
  these widths, then by transposed convolutions to the LR grid; PraNet's structure losses join
  Eq. (8), whose only loss of the mask is Dice.
- Table III's caption calls PraNet*'s backbone ResNet-101; the text calls it Res2Net-101. The
  star does not survive in a folder's name: the rows are "PraNet-101" here.
- FA compares the mask's features on PraNet's finest grid, an eighth of LR: with scale 2 its
  voxels are the cells of 16 HR voxels that the paper pools to.
- The row "PraNet" is `methods/pranet.py` to the bit: without the blocks, the twin and Dice.
- The paper's 3-D networks are U-Nets; PraNet is 2-D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, cast

from jaxtyping import Float
from torch import Tensor

from finemask.errors import UsageError
from finemask.losses.affinity import feature_affinity
from finemask.losses.deep_supervision import side_map_losses
from finemask.losses.fidelity import lesion_weighted_mse
from finemask.losses.overlap import dice_loss
from finemask.methods.base import Method, Segmenter
from finemask.nn.blocks import (
    ConvBlock,
    Style,
    average_cells,
    count_cells,
    crop_end,
    enlarge,
    make_conv,
    resize,
)
from finemask.nn.encoders import Encoder, EncoderName, make_encoder
from finemask.nn.outputs import foreground_probs
from finemask.nn.pranet import PraNetDecoder, PraNetwork
from finemask.nn.scale_aware import FIELDS, Fusion, ScaleAwareConv, stack_maps
from finemask.nn.scale_aware_pranet import TwinDecoder, trace
from finemask.nn.superres import ImageHead, enlarge_by
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges

PLAIN = {"sdc": False, "dsr": False, "fa": False, "sa": False, "w_lmsr": 0.0}
"""Options that leave nothing of SASR-Net."""


@dataclass(frozen=True)
class Config:
    """Options of SASR-Net on PraNet: PraNet's, and those that SASR-Net adds.

    Args:
        encoder: Name in ``nn.encoders.ENCODERS``.
        encoder_width: Feature maps of the encoder's stem; 64 in all public weights.
        channel: Feature maps behind PraNet's receptive field blocks; the first stage of both
            paths has eight times as many, the others twice as many.
        sdc: A block of each stage is an SDC block; else a convolution.
        fusion: How an SDC block joins its branches, see ``ScaleAwareConv``.
        dsr: Learn to restore the HR image beside the mask.
        fa: Feature affinity; needs ``dsr``.
        sa: Scale affinity; needs ``dsr`` and ``sdc``.
        sr_width: Feature maps of the LISR path on the HR grid.
        sr_skip: Learn what the HR image has beyond the interpolated LR image.
        fa_width: C, channels of the features that FA compares.
        fa_stride: HR voxels a side of the cells that FA compares, W / W'.
        sa_stride: LR voxels a side of the cells that SA compares.
        gram: ``l2`` scales the vector of every cell to length 1 before the Gram matrices.
        power: Of the difference of the Gram matrices: 2 squared, 1 absolute.
        weighted_bce: See ``structure_losses``.
        w_lesion: lambda_1, weight of the lesion in the restored image.
        w_background: lambda_2, weight of what is around it.
        w_lmsr: Weight of the Dice loss of the mask.
        w_side: Weight of PraNet's structure loss of each of its four maps.
        w_lisr: alpha, weight of the restored image.
        w_fa: beta, weight of the feature affinity.
        w_sa: gamma, weight of the scale affinity.
    """

    encoder: EncoderName = "res2net50"
    encoder_width: int = 64
    channel: int = 32
    sdc: bool = True
    fusion: Fusion = "sum"
    dsr: bool = True
    fa: bool = True
    sa: bool = True
    sr_width: int = 16
    sr_skip: bool = True
    fa_width: int = 16
    fa_stride: int = 16
    sa_stride: int = 16
    gram: Literal["none", "l2"] = "none"
    power: Literal[1, 2] = 2
    weighted_bce: bool = True
    w_lesion: float = 0.8
    w_background: float = 0.2
    w_lmsr: float = 1.0
    w_side: float = 1.0
    w_lisr: float = 1.0
    w_fa: float = 1.0
    w_sa: float = 1.0

    def __post_init__(self) -> None:
        counts = ("encoder_width", "channel", "sr_width", "fa_width", "fa_stride", "sa_stride")
        check_ranges("config", self, dict.fromkeys(counts, (1.0, 4096.0)))
        if (self.fa and not self.dsr) or (self.sa and not (self.dsr and self.sdc)):
            raise UsageError(
                "config",
                f"has fa = {self.fa}, sa = {self.sa} with dsr = {self.dsr}, sdc = {self.sdc}; "
                "fa compares the two paths of dsr, sa their sdc blocks",
                "switch fa and sa off too",
            )


class SASRPraNet(Method):
    """LR image in, HR mask out, by reverse attention; learns to restore the HR image beside it."""

    paper: ClassVar[str] = "Li et al., SASR-Net on PraNet, TNNLS 2024"
    dims: ClassVar[tuple[int, ...]] = (2,)
    dropped: ClassVar[str] = "LISR decoder and head, FA projections; SA has no weights"
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        style = Style(task.dims, norm="batch")
        block = partial(ScaleAwareConv, fusion=config.fusion) if config.sdc else None
        encoder = make_encoder(config.encoder, task.channels, width=config.encoder_width)
        decoder = PraNetDecoder(encoder.widths, task.classes, style, config.channel, block)
        self.lmsr = PraNetwork(encoder, decoder, task.scale)
        if config.dsr:
            self.lisr_decoder = TwinDecoder(encoder, config.channel, style, block or ConvBlock)
            width = self.lisr_decoder.width
            self.lisr_head = ImageHead(width, task.channels, task.scale, config.sr_width)
        if config.fa:
            # A bias would be the larger part of the pooled features, alike everywhere.
            project = partial(make_conv, task.dims, c_out=config.fa_width, kernel=1, bias=False)
            self.fa_lmsr, self.fa_lisr = project(2 * config.channel), project(config.sr_width)

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Paper: sasrnet Eq. (8), its parts."""
        config, image_lr, target = self.config, batch.image_lr, batch.target
        shared = self.lmsr.encoder(image_lr)
        maps, f_lmsr, s_lmsr = trace(self.lmsr.decoder, shared)
        sides = self.lmsr.on_hr_grid(maps, image_lr)
        losses = side_map_losses(sides, target, weighted_bce=config.weighted_bce)
        parts = dict(zip(("L_g", "L_5", "L_4", "L_3"), losses, strict=True))
        parts["L_LMSR"] = dice_loss(foreground_probs(sides[-1].float()), target)
        if config.dsr:
            f_lisr, s_lisr = self.lisr_decoder.trace(shared, image_lr.shape[2:])
            f_lisr = self.lisr_head.features(f_lisr)
            parts["L_LISR"] = lesion_weighted_mse(
                self.restore(f_lisr, image_lr),
                batch.image_hr,
                target,
                config.w_lesion,
                config.w_background,
            )
            if config.fa:
                parts["L_FA"] = self.affinity_of_features(f_lmsr, f_lisr)
            if config.sa:
                parts["L_SA"] = self.affinity_of_scales(s_lmsr, s_lisr, image_lr.shape[2:])
        return parts

    def restore(
        self, f_lisr: Float[Tensor, " b i *hr"], image_lr: Float[Tensor, " b c *s"]
    ) -> Float[Tensor, " b c *hr"]:
        """The HR image: what the path adds to the interpolated LR image."""
        image = self.lisr_head.output(f_lisr)
        return image + resize(image_lr, image.shape[2:]) if self.config.sr_skip else image

    def affinity_of_features(
        self, f_lmsr: Float[Tensor, " b w *s"], f_lisr: Float[Tensor, " b i *hr"]
    ) -> Float[Tensor, ""]:
        """How differently the two paths see which places are alike.

        Paper: sasrnet Eq. (4), sasrnet Eq. (5)
        """
        cells = count_cells(f_lisr.shape[2:], self.config.fa_stride)
        if any(n > side for n, side in zip(cells, f_lmsr.shape[2:], strict=True)):
            f_lmsr = enlarge(f_lmsr, f_lisr.shape[2:])
        return self._affinity(
            self.fa_lmsr(average_cells(f_lmsr, cells)),
            self.fa_lisr(average_cells(f_lisr, cells)),
            cells,
        )

    def affinity_of_scales(
        self, s_lmsr: Sequence[Tensor], s_lisr: Sequence[Tensor], size: Sequence[int]
    ) -> Float[Tensor, ""]:
        """How differently the two paths choose their reach over the LR image of ``size``.

        Paper: sasrnet Eq. (6), sasrnet Eq. (7)
        """
        cells = count_cells(size, self.config.sa_stride)
        return self._affinity(stack_maps(s_lmsr), stack_maps(s_lisr), cells)

    def _affinity(self, a: Tensor, b: Tensor, cells: Sequence[int]) -> Tensor:
        config = self.config
        return feature_affinity(a, b, grid=cells, normalise=config.gram == "l2", power=config.power)

    def weights(self) -> dict[str, float]:
        config = self.config
        terms = {
            **dict.fromkeys(("L_g", "L_5", "L_4", "L_3"), (True, config.w_side)),
            "L_LMSR": (True, config.w_lmsr),
            "L_LISR": (config.dsr, config.w_lisr),
            "L_FA": (config.fa, config.w_fa),
            "L_SA": (config.sa, config.w_sa),
        }
        return {name: weight for name, (used, weight) in terms.items() if used}

    def deploy(self) -> Segmenter:
        kind = ScaleAwareSegmenter if self.config.sdc else Segmenter
        return kind(self.lmsr, self.task, self.lmsr.encoder.strides[-1])

    def public_encoder(self) -> Encoder:
        return self.lmsr.encoder

    def makes_image(self) -> bool:
        return bool(self.config.dsr)

    def super_resolve(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b c *hr"] | None:
        if not self.config.dsr:
            return None
        f_lisr = self.lisr_decoder(self.lmsr.encoder(image_lr), image_lr.shape[2:])
        return self.restore(self.lisr_head.features(f_lisr), image_lr)

    RECIPE: ClassVar[Mapping[str, Any]] = {
        "train": {
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "schedule": "constant",
            "rescale": (0.75, 1.0, 1.25),
        }
    }
    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "PraNet": PLAIN,
        "PraNet-101": {**PLAIN, "encoder": "res2net101"},
        "PraNet+Ours": {},
        "PraNet-101+Ours": {"encoder": "res2net101"},
    }


class ScaleAwareSegmenter(Segmenter):
    """Can tell which reach it chose where: the scale coefficient maps of the finest stage."""

    explanations: ClassVar[tuple[str, ...]] = tuple(f"reach{field}" for field in FIELDS)

    def explain(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> dict[str, Float[Tensor, " b 1 *s"]]:
        """One map a branch, by the voxels a side that it sees; Figure 7 of the paper."""
        network = cast(PraNetwork, self.network)
        finest = trace(network.decoder, network.encoder(image_lr))[2][-1]
        step = [network.encoder.strides[-3]] * 2
        on_lr = crop_end(enlarge_by(finest, step), image_lr.shape[2:])
        return dict(zip(self.explanations, on_lr.split(1, dim=1), strict=True))
