"""SASR-Net: scale-aware super-resolution with dual affinity learning.

Y. Li, L. Luo, H. Lin, P.-A. Heng and H. Chen, "Scale-aware super-resolution
network with dual affinity learning for lesion segmentation from medical images",
IEEE TNNLS 2024, doi 10.1109/TNNLS.2024.3477947, arXiv 2305.19063.

Idea: DSRL's two decoders, one for the HR mask and one for the HR image, help
tiny lesions and harm large ones, which need a wide view. So both decoders are
built from blocks that look with four reaches at once and weigh them voxel by
voxel. Two affinity losses tie the decoders together: their features must find
the same places alike, and so must the maps that weigh the reaches.

| Figures 2, 3 and 7                | here                                      |
|-----------------------------------|-------------------------------------------|
| shared 3D U-Net encoder           | `nn.unet.UNetEncoder`                     |
| LMSR and LISR decoders            | `nn.scale_aware.ScaleAwareDecoder`        |
| SDC block, scale coefficient maps | `nn.scale_aware.ScaleAwareConv`           |
| HR mask, upsampled twice          | `nn.superres.MaskHead`                    |
| EDSR module                       | `nn.superres.ImageHead`                   |
| scale coefficient maps of Fig. 7  | `ScaleAwareSegmenter.explain`             |
| FA and SA                         | `SASRNet.affinity_of_features`, `SASRNet.affinity_of_scales` |

| Equation                                   | here                                    |
|--------------------------------------------|-----------------------------------------|
| (1) Dice of the HR mask                    | `losses.overlap.dice_loss`              |
| (2) squared error, lesion 0.8, else 0.2    | `losses.fidelity.lesion_weighted_mse`   |
| (3) branches weighed by S_i                | `nn.scale_aware.ScaleAwareConv.with_maps` |
| (4), (5) Gram matrices of features compared | `SASRNet.affinity_of_features`         |
| (6), (7) Gram matrices of S_all compared   | `SASRNet.affinity_of_scales`            |
| (8) L_LMSR + L_LISR + L_FA + L_SA          | `SASRNet.losses`, `SASRNet.weights`     |

Errata and departures:
- The text minimises the "similarity" of the Gram matrices; Eqs. 5 and 7 are their distance.
- Eq. 3 adds the weighed branches; the released code joins them and mixes by a 1x1
  convolution (`fusion = "concat"`). Its dilations 1, 2 and 5 are in Fig. 7 only.
- FA compares C-channel features from a convolution before each output. The released code
  compares the outputs instead (`fa_on = "outputs"`), and gives SA the weight 0.
- The released code sums the absolute differences over a batch (`power = 1`), counts lesions
  1.0 in Eq. 2, has no squares in Eq. 1, and builds dropout anew in every call, so that its
  predictions are random; here it drops whole maps and rests in evaluation. It resizes with
  corner alignment, which shifts HR against LR. None of this is reproduced.
- The convolutions of FA have no bias: pooled features are small beside one, and the loss
  compared two constants.
- Backbone, norm, head and widths are the U-Net's and DSRL's of this package, so that the
  three differ in nothing but the method; `sr_skip` is explained in `methods/dsrl.py`. The
  cross-entropy joins the Dice loss as it does there; `w_ce = 0` is the paper's Eq. (8). The
  released graph is in `methods/released/sasrnet.py`, the paper's settings are the recipes
  `lidc_idri/sasrnet` and `isic2018/sasrnet`.
- Without the dual path the paper's networks see and answer LR. So does `dsr = false`: it
  learns the mask averaged over HR blocks, and its logits are interpolated to the HR grid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from finemask.errors import UsageError
from finemask.losses.affinity import feature_affinity
from finemask.losses.fidelity import lesion_weighted_mse
from finemask.losses.overlap import cross_entropy, dice_loss
from finemask.methods.base import Method, Segmenter
from finemask.nn.blocks import (
    ConvBlock,
    ResizeUp,
    Style,
    average_cells,
    count_cells,
    make_conv,
    resize,
)
from finemask.nn.outputs import foreground_probs
from finemask.nn.scale_aware import FIELDS, Fusion, ScaleAwareDecoder, stack_maps
from finemask.nn.superres import Enlarge, Head, ImageHead, MaskHead, mask_channels
from finemask.nn.unet import UNetDecoder, UNetEncoder, unet_widths
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges


@dataclass(frozen=True)
class Config:
    """Options of SASR-Net; those of the backbone are the U-Net's.

    Args:
        width: Feature maps of the finest level, doubled at each coarser one up to eightfold.
        depth: Levels, the bottleneck included.
        norm: Of the feature maps.
        bias: Convolutions before a norm have a bias; for released weights only.
        dropout: Share of feature maps dropped behind each decoder block.
        up_kernel: Of the convolution behind each upsampling.
        head: How the HR mask is made, see ``MaskHead``.
        sdc: Decoder blocks are SDC blocks; else two convolutions.
        fusion: How an SDC block joins its branches, see ``ScaleAwareConv``.
        dsr: Two paths to the HR grid; else LR in and LR out, the mask interpolated.
        fa: Feature affinity; needs ``dsr``.
        sa: Scale affinity; needs ``dsr`` and ``sdc``.
        sr_width: Feature maps of the LISR path on the HR grid.
        sr_skip: Learn what the HR image has beyond the interpolated LR image; the paper
            learns it whole.
        fa_on: Compare ``features`` before the outputs, or the ``outputs``.
        fa_width: C, channels of the features that FA compares.
        fa_stride: HR voxels a side of the cells that FA compares, W / W'; 1 for all voxels.
        sa_stride: LR voxels a side of the cells that SA compares.
        gram: ``l2`` scales the vector of every cell to length 1 before the Gram matrices.
        power: Of the difference of the Gram matrices: 2 squared, 1 absolute.
        w_lesion: lambda_1, weight of the lesion in the restored image.
        w_background: lambda_2, weight of what is around it.
        w_lmsr: Weight of the Dice loss of the mask.
        w_ce: Weight of the cross-entropy; 0 in the paper.
        w_lisr: alpha, weight of the restored image.
        w_fa: beta, weight of the feature affinity.
        w_sa: gamma, weight of the scale affinity.
    """

    width: int = 32
    depth: int = 5
    norm: Literal["instance", "batch"] = "instance"
    bias: bool = False
    dropout: float = 0.0
    up_kernel: Literal[1, 3] = 1
    head: Head = "shuffle"
    sdc: bool = True
    fusion: Fusion = "sum"
    dsr: bool = True
    fa: bool = True
    sa: bool = True
    sr_width: int = 16
    sr_skip: bool = True
    fa_on: Literal["features", "outputs"] = "features"
    fa_width: int = 16
    fa_stride: int = 16
    sa_stride: int = 16
    gram: Literal["none", "l2"] = "none"
    power: Literal[1, 2] = 2
    w_lesion: float = 0.8
    w_background: float = 0.2
    w_lmsr: float = 1.0
    w_ce: float = 1.0
    w_lisr: float = 1.0
    w_fa: float = 1.0
    w_sa: float = 1.0

    def __post_init__(self) -> None:
        counts = ("width", "sr_width", "fa_width", "fa_stride", "sa_stride")
        ranges = {**dict.fromkeys(counts, (1.0, 4096.0)), "depth": (2.0, 8.0)}
        check_ranges("config", self, {**ranges, "dropout": (0.0, 0.99)})
        if (self.fa and not self.dsr) or (self.sa and not (self.dsr and self.sdc)):
            raise UsageError(
                "config",
                f"has fa = {self.fa}, sa = {self.sa} with dsr = {self.dsr}, sdc = {self.sdc}; "
                "fa compares the two paths of dsr, sa their sdc blocks",
                "switch fa and sa off too",
            )


class SASRNet(Method):
    """LR image in, HR mask out; learns to restore the HR image beside it."""

    paper: ClassVar[str] = "Li et al., Scale-aware super-resolution network (SASR-Net), TNNLS 2024"
    dropped: ClassVar[str] = "LISR decoder and head, FA projections; SA has no weights"
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        style = Style(task.dims, norm=config.norm, bias=config.bias)
        widths = unet_widths(config.width, config.depth)
        self.encoder = UNetEncoder(task.channels, widths, style)
        scale = task.scale if config.dsr else (1,) * task.dims
        self.lmsr_decoder = self._decoder(widths)
        self.lmsr_head = MaskHead(widths[0], task.classes, scale, config.head)
        if config.dsr:
            self.lisr_decoder = self._decoder(widths)
            self.lisr_head = ImageHead(
                widths[0], task.channels, task.scale, config.sr_width, project=True
            )
        if config.fa and config.fa_on == "features":
            # A bias would be the larger part of the pooled features, alike everywhere.
            project = partial(make_conv, task.dims, c_out=config.fa_width, kernel=1, bias=False)
            self.fa_lmsr: nn.Module = project(widths[0])
            self.fa_lisr = project(config.sr_width)
        elif config.fa:
            style = Style(task.dims, norm="batch", bias=True)
            self.fa_lmsr = ConvBlock(mask_channels(task.classes), task.channels, style, kernel=1)

    def _decoder(self, widths: Sequence[int]) -> UNetDecoder:
        config = self.config
        style = Style(self.task.dims, config.norm, bias=config.bias, dropout=config.dropout)
        up = partial(ResizeUp, kernel=config.up_kernel)
        if config.sdc:
            return ScaleAwareDecoder(widths, style, up, config.fusion)
        return UNetDecoder(widths, style, up=up)

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Paper: sasrnet Eq. (8), its parts."""
        config = self.config
        shared = self.encoder(batch.image_lr)
        f_lmsr, s_lmsr = decode(self.lmsr_decoder, shared)
        logits = self.lmsr_head(f_lmsr)
        target = average_cells(batch.target, logits.shape[2:])  # on the LR grid without dsr
        parts = {"L_LMSR": dice_loss(foreground_probs(logits.float()), target)}
        if config.w_ce:
            parts["L_ce"] = cross_entropy(logits, target)
        if config.dsr:
            f_lisr, s_lisr = decode(self.lisr_decoder, shared)
            f_lisr = self.lisr_head.features(f_lisr)
            image = self.restore(f_lisr, batch.image_lr)
            parts["L_LISR"] = lesion_weighted_mse(
                image, batch.image_hr, batch.target, config.w_lesion, config.w_background
            )
            if config.fa and config.fa_on == "features":
                parts["L_FA"] = self.affinity_of_features(f_lmsr, f_lisr)
            elif config.fa:
                parts["L_FA"] = self.affinity_of_outputs(logits, image)
            if config.sa:
                parts["L_SA"] = self.affinity_of_scales(s_lmsr, s_lisr)
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
        hr = f_lisr.shape[2:]
        cells = count_cells(hr, self.config.fa_stride)
        if any(n > side for n, side in zip(cells, f_lmsr.shape[2:], strict=True)):
            f_lmsr = resize(f_lmsr, hr)  # cells finer than LR voxels
        # A 1x1 convolution commutes with a mean, and is the cheaper behind it.
        a = self.fa_lmsr(average_cells(f_lmsr, cells))
        b = self.fa_lisr(average_cells(f_lisr, cells))
        return self._affinity(a, b, cells)

    def affinity_of_outputs(
        self, logits: Float[Tensor, " b l *hr"], image: Float[Tensor, " b c *hr"]
    ) -> Float[Tensor, ""]:
        """FA as the released code has it: of the projected logits and the restored image."""
        cells = count_cells(image.shape[2:], self.config.fa_stride)
        return self._affinity(self.fa_lmsr(logits), image, cells)

    def affinity_of_scales(
        self, s_lmsr: Sequence[Tensor], s_lisr: Sequence[Tensor]
    ) -> Float[Tensor, ""]:
        """How differently the two paths choose their reach over the image.

        Paper: sasrnet Eq. (6), sasrnet Eq. (7)
        """
        a, b = stack_maps(s_lmsr), stack_maps(s_lisr)
        return self._affinity(a, b, count_cells(a.shape[2:], self.config.sa_stride))

    def _affinity(self, a: Tensor, b: Tensor, cells: Sequence[int]) -> Tensor:
        config = self.config
        return feature_affinity(a, b, grid=cells, normalise=config.gram == "l2", power=config.power)

    def weights(self) -> dict[str, float]:
        config = self.config
        terms = {
            "L_LMSR": (True, config.w_lmsr),
            "L_ce": (bool(config.w_ce), config.w_ce),
            "L_LISR": (config.dsr, config.w_lisr),
            "L_FA": (config.fa, config.w_fa),
            "L_SA": (config.sa, config.w_sa),
        }
        return {name: weight for name, (used, weight) in terms.items() if used}

    def deploy(self) -> Segmenter:
        parts = OrderedDict(encoder=self.encoder, decoder=self.lmsr_decoder, head=self.lmsr_head)
        if not self.config.dsr:
            parts["enlarge"] = Enlarge(self.task.scale)
        kind = ScaleAwareSegmenter if self.config.sdc else Segmenter
        return kind(nn.Sequential(parts), self.task, self.encoder.stride)

    def makes_image(self) -> bool:
        return bool(self.config.dsr)

    def super_resolve(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b c *hr"] | None:
        if not self.config.dsr:
            return None
        f_lisr = self.lisr_head.features(self.lisr_decoder(self.encoder(image_lr)))
        return self.restore(f_lisr, image_lr)

    RECIPE_3D: ClassVar[Mapping[str, Any]] = {
        "train": {"batch_size": 2},
        "config": {"width": 16, "depth": 4, "sr_width": 8, "fa_width": 8},
    }
    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "baseline": {"sdc": False, "dsr": False, "fa": False, "sa": False},
        "SDC": {"dsr": False, "fa": False, "sa": False},
        "DSR": {"sdc": False, "fa": False, "sa": False},
        "SDC+DSR": {"fa": False, "sa": False},
        "SDC+DSR+FA": {"sa": False},
        "SDC+DSR+SA": {"fa": False},
        "SDC+DSR+FA+SA": {},
    }


class ScaleAwareSegmenter(Segmenter):
    """Can tell which reach it chose where: the scale coefficient maps of the finest block."""

    explanations: ClassVar[tuple[str, ...]] = tuple(f"reach{field}" for field in FIELDS)

    def explain(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> dict[str, Float[Tensor, " b 1 *s"]]:
        """One map a branch, by the voxels a side that it sees; Figure 7 of the paper."""
        encoder, decoder, *_ = self.network.children()
        finest = decode(decoder, encoder(image_lr))[1][-1]
        return dict(zip(self.explanations, finest.split(1, dim=1), strict=True))


def decode(decoder: nn.Module, shared: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Features, and scale coefficient maps where the decoder has any."""
    if isinstance(decoder, ScaleAwareDecoder):
        return decoder.with_maps(shared)
    return decoder(shared), []
