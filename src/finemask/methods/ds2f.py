"""DS2F: two streams whose shared features have to serve both tasks by themselves.

Z. Qiu, Y. Hu, X. Chen, D. Zeng, Q. Hu and J. Liu, "Rethinking dual-stream
super-resolution semantic learning in medical image segmentation", IEEE TPAMI
45(12), 2023.

Idea: from one encoder, one decoder learns the HR mask of an LR image and another the HR image
itself. Forcing their features to be alike ties the mask to a background of which a vessel
or lesion is a few per cent. Here a module (SFEM) looks at both decoders' features and
re-weights each; the same two heads then make a second mask and a second image, and stronger
losses on these proxies (RMI, SSIM) make the shared features find what matters. The image's
stream and the module are thrown away: what ships costs what the plain network does.

| Figures 2 and 3                     | here                                       |
|-------------------------------------|--------------------------------------------|
| encoder, decoders, heads            | `nn.dual_stream.DualStream`                |
| DeepLabV3+                          | `nn.deeplab`                               |
| SFEM and its instances              | `nn.shared_features.make_sfem`             |
| MSCG                                | `nn.shared_features.MultiScaleCrossGate`   |
| MRCAB                               | `nn.shared_features.ChannelAttention`      |
| MS-Conv                             | `nn.shared_features.MultiScaleConv`        |

| Equation                                       | here                                  |
|------------------------------------------------|---------------------------------------|
| (1) to (5) encoder, decoders, heads            | `DualStream.encode` ... `.image`      |
| (6), (8) features of both tasks, fused         | `MultiScaleCrossGate.fuse`            |
| (7) both proxies near their targets            | `DS2F.losses`                         |
| (9) to (11) MRCAB                              | `ChannelAttention`                    |
| (12) MS-Conv                                   | `MultiScaleConv.forward`              |
| (13), (14) gates                               | `MultiScaleCrossGate.reweigh_*`       |
| (15) cross-entropy                             | `losses.overlap.cross_entropy`        |
| (16) mean squared error                        | `losses.fidelity.mse`                 |
| (17) L_TI, both proxy losses                   | `DS2F.interaction`                    |
| RMI, SSIM, GDice of Table II                   | `losses.region`, `.similarity`, `.overlap` |
| (18) to (20) IoU, BM, Dice                     | `metrics.overlap.Confusion`           |

Errata and departures:
- Eq. (6) prints a sum of features, the text and Fig. 2 a concatenation. Eqs. (13) and (14)
  leave out the sum with F_t that the text, the figure and the released code have, and print
  a GELU behind W_2 that the code has not. Eq. (15) divides by the classes and starts at 0
  with C + 1 of them; the mean is over pixels. Eq. (7)'s alpha and beta are never told: 1.
- Silent in the text, from the released code: 32 maps within MSCG, a batch norm and a GELU
  behind the fusion, four groups, a shortcut around MRCAB and MS-Conv, the heads.
- The released DeepLabV3+ uses another module, whose gate of the mask's features is never
  applied, so that nothing teaches it. Here the proxy mask is made from gated features.
- The released code passes SSIM a range of 1 for images in [-1, 1], takes HRF's portrait
  sides for landscape pictures, and moves RMI to the CPU each step. None of it is
  reproduced. RMI sees a sigmoid of each map also where the answer is a softmax: as published.
- Defaults are those of `methods/unet.py` (widths, instance norm, sub-pixel head, one map for one
  foreground class, Dice beside the cross-entropy), so that the two differ in nothing but the
  method, and the image's stream learns what the interpolated LR image lacks (see
  `methods/dsrl.py`). The recipes ``hrf_ds2f`` and others have the paper's network and
  training: 28,949,698 weights that ship and 39,194,682 that learn.
- ESPNetv2, the third backbone of Table IX, is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from finemask.errors import UsageError
from finemask.losses.fidelity import mse
from finemask.losses.overlap import cross_entropy, generalised_dice_loss
from finemask.losses.region import rmi_loss
from finemask.losses.similarity import ssim_loss
from finemask.methods.streams import TwoStreams
from finemask.nn.dual_stream import StreamOptions
from finemask.nn.outputs import foreground_probs
from finemask.nn.shared_features import Attention, MscgParts, Scales, Sfem, make_sfem
from finemask.pairs.batches import Batch
from finemask.recipe import Task

ProxySeg = Literal["rmi", "gdice", "ce", "none"]
ProxySr = Literal["ssim", "mse", "none"]


@dataclass(frozen=True)
class Config(StreamOptions):
    """Options of DS2F; those of the backbone are the U-Net's.

    Args:
        sr: Learn the HR image too; without it and ``sfem`` the plain network is left.
        sfem: Module that re-weights both decoders' features (``mscg``, a single 1x1
            convolution ``conv``, squeeze and excitation ``se``, SuperVessel's ``fim``,
            SS-MAF's ``maf``), or ``none``.
        proxy_seg: Loss of the proxy mask.
        proxy_sr: Loss of the proxy image.
        w_dice: Weight of the Dice loss of the mask; 0 in the paper.
        w_sr: Weight of the restored image.
        w_proxy_seg: alpha, weight of the proxy mask.
        w_proxy_sr: beta, weight of the proxy image.
        rmi_pool: Pixels a side whose means RMI compares; 1 for full, 2 for half resolution.
        data_range: Largest less smallest intensity for SSIM; 0 for that of each HR image.
        attention: Of MSCG, see ``MscgParts``.
        scales: Of MSCG, see ``MscgParts``.
        point: Of MSCG: the first group of MS-Conv is a 1x1 convolution.
        image_pool: Of MSCG: the last group of MS-Conv is the image's mean.
        depthwise: Of MSCG: convolve each map of MS-Conv on its own.
    """

    sr: bool = True
    sfem: Literal[Sfem, "none"] = "mscg"
    proxy_seg: ProxySeg = "rmi"
    proxy_sr: ProxySr = "ssim"
    w_dice: float = 1.0
    w_sr: float = 1.0
    w_proxy_seg: float = 1.0
    w_proxy_sr: float = 1.0
    rmi_pool: int = 3
    data_range: float = 0.0
    attention: Attention = "mrcab"
    scales: Scales = "ms_conv"
    point: bool = True
    image_pool: bool = True
    depthwise: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sfem != "none" and not self.sr:
            raise UsageError(
                "config.sfem",
                f"is {self.sfem}, which needs the stream that config.sr=false leaves out",
                "set config.sfem=none, or config.sr=true",
            )
        if self.sfem != "none" and self.proxy_seg == self.proxy_sr == "none":
            raise UsageError(
                "config.sfem",
                f"is {self.sfem}, and no proxy loss teaches it",
                "set one, or sfem=none",
            )


class DS2F(TwoStreams):
    """LR image in, HR mask out; shared features must make the mask and the image once more."""

    paper: ClassVar[str] = "Qiu et al., DS2F, IEEE TPAMI 45(12), 2023"
    dropped: ClassVar[str] = "super-resolution decoder and head, shared feature extraction"
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config, restores=config.sr)
        self.sfem = None
        if config.sfem != "none":
            parts = MscgParts(
                config.attention, config.scales, config.point, config.image_pool, config.depthwise
            )
            self.sfem = make_sfem(config.sfem, self.streams.width, parts)
            self.rest_without_proxy()

    def rest_without_proxy(self) -> None:
        """Weights of the SFEM's half that no proxy loss reaches do not learn."""
        assert self.sfem is not None
        half = {"seg": self.config.proxy_seg, "sr": self.config.proxy_sr}
        for name, parameter in self.sfem.named_parameters():
            side = name.partition(".")[0].rpartition("_")[2]
            if half.get(side) == "none":
                parameter.requires_grad_(False)

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Both tasks for themselves, and both near their targets from shared features.

        Paper: ds2f Eq. (7)
        """
        seen = self.look(batch)
        parts = self.own_losses(seen, batch)
        if self.sfem is not None:
            f_sr, f_seg = self.sfem(seen.sr_levels[-1], seen.seg_levels[-1])
            parts |= self.interaction(f_sr, f_seg, batch)
        return parts

    def interaction(
        self, f_sr: Float[Tensor, " b w h v"], f_seg: Float[Tensor, " b w h v"], batch: Batch
    ) -> dict[str, Tensor]:
        """``L_TI = L_ProxySeg(O_fuseg, Y) + L_ProxySR(O_fusr, HR)``, in its two parts.

        Paper: ds2f Eq. (17)
        """
        config, parts = self.config, {}
        if config.proxy_seg != "none":
            logits = self.streams.mask(f_seg, batch.image_lr)
            parts["L_proxy_seg"] = self.proxy_seg_loss(logits, batch.target)
        if config.proxy_sr != "none":
            image = self.streams.image(f_sr, batch.image_lr)
            if config.proxy_sr == "mse":
                parts["L_proxy_sr"] = mse(image, batch.image_hr)
            else:
                parts["L_proxy_sr"] = ssim_loss(image, batch.image_hr, config.data_range or None)
        return parts

    def proxy_seg_loss(
        self, logits: Float[Tensor, " b l h w"], target: Float[Tensor, " b f h w"]
    ) -> Float[Tensor, ""]:
        """The loss of the proxy mask that the options name."""
        if self.config.proxy_seg == "rmi":
            return rmi_loss(logits, target, pool=self.config.rmi_pool)
        if self.config.proxy_seg == "gdice":
            return generalised_dice_loss(foreground_probs(logits.float()), target)
        return cross_entropy(logits, target)

    def weights(self) -> dict[str, float]:
        config, weights = self.config, super().weights()
        if self.sfem is not None and config.proxy_seg != "none":
            weights["L_proxy_seg"] = config.w_proxy_seg
        if self.sfem is not None and config.proxy_sr != "none":
            weights["L_proxy_sr"] = config.w_proxy_sr
        return weights

    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "U-Net+Inter": {"sr": False, "sfem": "none"},
        "U-Net+Inter+SR": {"sfem": "none"},
        "MSE + CE": {"proxy_sr": "mse", "proxy_seg": "ce"},
        "SSIM + CE": {"proxy_seg": "ce"},
        "SSIM + GDice": {"proxy_seg": "gdice"},
        "proxy image only": {"proxy_seg": "none"},
        "proxy mask only": {"proxy_sr": "none"},
        "RCAB": {"attention": "rcab"},
        "MRCAB with pooling": {"attention": "mrcab_pooled"},
        "ASPP": {"scales": "aspp"},
        "self-attention": {"scales": "self_attention"},
        "depthwise only": {"point": False, "image_pool": False},
        "no image pooling": {"image_pool": False},
        "no 1x1 convolution": {"point": False},
        "dense convolutions": {"depthwise": False},
        "single 1x1 convolution": {"sfem": "conv"},
        "squeeze and excitation": {"sfem": "se"},
        "SuperVessel's module": {"sfem": "fim"},
        "SS-MAF's module": {"sfem": "maf"},
    }
    """Rows of Fig. 4 and of Tables II to VI, and the instances of SFEM."""
