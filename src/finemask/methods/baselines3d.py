"""What PFSeg is compared with: networks on patches of the HR volume, and other patch-free ones.

Table V of H. Wang et al., "Super-resolution based patch-free 3D medical image segmentation with
self-supervised guidance", 2022. All are trained by cross-entropy and Dice, as its UST is, and all
with instance norm and leaky ReLU, as the paper asks.

| Table V      | network                                                  | reads                 |
|--------------|----------------------------------------------------------|-----------------------|
| V-Net        | F. Milletari et al., 3DV 2016                            | HR, in patches        |
| UNet3D       | Ö. Çiçek et al., MICCAI 2016, at the widths of PFSeg     | HR, in patches        |
| ResUNet3D    | L. Yu et al., AAAI 2017, at the widths of PFSeg          | HR, in patches        |
| ResUNet3D up | the same, its mask enlarged by cubic interpolation       | LR, whole             |
| HDResUNet    | G. Zeng and G. Zheng, holistic decomposition, MedIA 2019 | HR, whole, in channels |
| SAN          | N.-V. Ho et al., attention of Point-Unet, MICCAI 2021    | HR, whole             |
| Point-Unet   | not here, see below                                      |                       |

A network that reads HR is a segmenter at scale 1: in a comparison at scale 2 it is given the
volume that the others see coarsened, and all are scored on one grid. One on patches is shown
windows of training's size that overlap by half, the paper's 96 x 96 x 64 at strides of 48, 48, 32.

Errata and departures:
- Overlapping windows fade into each other by a raised cosine, as all tiles here; the paper's
  count alike, which leaves seams.
- V-Net's PReLU and missing norm become the paper's instance norm and leaky ReLU; its way up is
  that of the others, 4-wide transposed convolutions.
- HDResUNet decomposes by the task's scale, so that its inner grid is the LR grid; a learned
  convolution follows the decomposition, and a dense upsampling convolution makes the answer.
- SAN is told by its authors' code alone, which is configured to about 9 M weights; the paper
  counts 1.534 M. Here its widths are 3/8 of those, and of its fine features 5/8: 1.52 M.
- Point-Unet is quoted, not run: its second stage is a network on points with compiled sampling,
  which needs 16 to 32 GB to train by the paper's own account, and two trainings that no
  end-to-end budget can be set beside.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from finemask.losses.overlap import cross_entropy, dice_loss
from finemask.methods.base import Method, Segmenter
from finemask.nn.blocks import (
    CONV,
    Block,
    ConvBlock,
    DoubleConv,
    ResidualUnit,
    Style,
    TransposeUp,
    average_cells,
    make_activation,
    make_conv,
    make_norm,
)
from finemask.nn.outputs import foreground_probs
from finemask.nn.saliency import SaliencyNet
from finemask.nn.superres import mask_channels, pixel_shuffle, pixel_unshuffle
from finemask.nn.unet import UNetDecoder, UNetEncoder, unet_widths
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges


@dataclass(frozen=True)
class Config:
    """Options of a comparison model.

    Args:
        width: Feature maps of the finest level.
        depth: Levels, the bottleneck included.
        w_bce: Weight of the cross-entropy.
        w_dice: Weight of the Dice loss.
    """

    width: int = 32
    depth: int = 5
    w_bce: float = 1.0
    w_dice: float = 1.0

    def __post_init__(self) -> None:
        check_ranges("config", self, {"width": (2.0, 4096.0), "depth": (2.0, 8.0)})


class Baseline(Method):
    """A network of one branch; a subclass says what it is and what it reads."""

    dims: ClassVar[tuple[int, ...]] = (3,)
    config_type: ClassVar[type] = Config
    reads_hr: ClassVar[bool] = True
    """Reads the HR volume, else the LR one."""
    in_patches: ClassVar[bool] = False
    """Is shown windows of training's size only."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        style = Style(task.dims, norm="instance_plain", activation="leaky_relu", bias=True)
        self.network = self.build(style)

    @abstractmethod
    def build(self, style: Style) -> nn.Module:
        """The network, from the volume that it reads to logits on that grid."""

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        logits = self.network(batch.image_hr if self.reads_hr else batch.image_lr)
        target = average_cells(batch.target, logits.shape[2:])
        return {
            "L_bce": cross_entropy(logits, target),
            "L_dice": dice_loss(foreground_probs(logits.float()), target),
        }

    def weights(self) -> dict[str, float]:
        return {"L_bce": self.config.w_bce, "L_dice": self.config.w_dice}

    def deploy(self) -> Segmenter:
        task = replace(self.task, scale=(1,) * self.task.dims) if self.reads_hr else self.task
        return Segmenter(self.network, task, self.stride, patches=self.in_patches)

    @property
    def stride(self) -> int:
        """Sides that are multiples of this are pooled evenly."""
        stride: int = 2 ** (self.config.depth - 1)
        return stride

    @property
    def maps(self) -> int:
        """Logit maps."""
        return mask_channels(self.task.classes)

    WHOLE: ClassVar[Mapping[str, Any]] = {"pairs": {"whole": True}, "train": {"batch_size": 1}}
    PATCHES: ClassVar[Mapping[str, Any]] = {
        "pairs": {"crop": (64, 96, 96)},
        "train": {"batch_size": 1},
    }


class UNetLogits(nn.Sequential):
    """Encoder, decoder and a 1x1 convolution, at PFSeg's widths.

    Args:
        c_in: Maps of the input.
        c_out: Maps of the answer.
        config: Width and depth.
        style: Of the network.
        block: Of every level.
    """

    def __init__(self, c_in: int, c_out: int, config: Config, style: Style, block: Block) -> None:
        widths = (config.width, *unet_widths(config.width, config.depth - 1))
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            encoder=UNetEncoder(c_in, widths, style, block),
            decoder=UNetDecoder(widths, style, block, TransposeUp),
            output=make_conv(style.dims, config.width, c_out, 1),
        )
        super().__init__(parts)


class UNet3D(Baseline):
    """Two convolutions a level, on patches."""

    paper: ClassVar[str] = "Çiçek et al., 3D U-Net, MICCAI 2016"
    in_patches: ClassVar[bool] = True
    RECIPE: ClassVar[Mapping[str, Any]] = Baseline.PATCHES

    def build(self, style: Style) -> nn.Module:
        return UNetLogits(self.task.channels, self.maps, self.config, style, DoubleConv)


class ResUNet3D(Baseline):
    """A residual block a level, on patches: PFSeg's backbone at full resolution."""

    paper: ClassVar[str] = "Yu et al., Volumetric ConvNets with residual connections, AAAI 2017"
    in_patches: ClassVar[bool] = True
    RECIPE: ClassVar[Mapping[str, Any]] = Baseline.PATCHES

    def build(self, style: Style) -> nn.Module:
        return UNetLogits(self.task.channels, self.maps, self.config, style, ResidualUnit)


class ResUNet3DUp(Baseline):
    """PFSeg's backbone on the whole LR volume; its LR mask is enlarged by cubic interpolation."""

    paper: ClassVar[str] = ResUNet3D.paper
    reads_hr: ClassVar[bool] = False
    RECIPE: ClassVar[Mapping[str, Any]] = Baseline.WHOLE

    def build(self, style: Style) -> nn.Module:
        return UNetLogits(self.task.channels, self.maps, self.config, style, ResidualUnit)

    def deploy(self) -> Segmenter:
        parts = OrderedDict(network=self.network, enlarge=CubicEnlarge(self.task.scale))
        return Segmenter(nn.Sequential(parts), self.task, self.stride)


class HDResUNet(Baseline):
    """The whole HR volume, its sub-volumes as channels of a residual U-Net on the LR grid."""

    paper: ClassVar[str] = "Zeng & Zheng, Holistic decomposition convolution, MedIA 2019"
    RECIPE: ClassVar[Mapping[str, Any]] = Baseline.WHOLE

    def build(self, style: Style) -> nn.Module:
        return Decomposed(self.task, self.maps, self.config, style)

    @property
    def stride(self) -> int:
        return super().stride * max(self.task.scale)


class Decomposed(nn.Module):
    """Holistic decomposition, a residual U-Net, and dense upsampling back.

    Args:
        task: Its scale is what each side is decomposed by.
        maps: Of the answer.
        config: Width and depth.
        style: Of the network.
    """

    def __init__(self, task: Task, maps: int, config: Config, style: Style) -> None:
        super().__init__()
        self.scale, copies = task.scale, math.prod(task.scale)
        self.mix = ConvBlock(task.channels * copies, config.width, style)
        self.network = UNetLogits(config.width, maps * copies, config, style, ResidualUnit)

    def forward(self, image: Float[Tensor, " b c *s"]) -> Float[Tensor, " b m *s"]:
        return pixel_shuffle(self.network(self.mix(pixel_unshuffle(image, self.scale))), self.scale)


class SAN(Baseline):
    """A small network with channel and spatial attention, on the whole HR volume."""

    paper: ClassVar[str] = "Ho et al., Point-Unet (its saliency attention network), MICCAI 2021"
    RECIPE: ClassVar[Mapping[str, Any]] = {**Baseline.WHOLE, "config": {"width": 6}}

    def build(self, style: Style) -> nn.Module:
        config = self.config
        return SaliencyNet(self.task.channels, self.maps, config.width, max(3, config.depth), style)


class VNet(Baseline):
    """Ever more 5-wide convolutions a level, each level beside a shortcut, on patches."""

    paper: ClassVar[str] = "Milletari et al., V-Net, 3DV 2016"
    in_patches: ClassVar[bool] = True
    RECIPE: ClassVar[Mapping[str, Any]] = {**Baseline.PATCHES, "config": {"width": 16}}

    def build(self, style: Style) -> nn.Module:
        config, block = self.config, partial(VBlock, finest=self.config.width)
        widths = unet_widths(config.width, config.depth, largest=16)
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            encoder=UNetEncoder(self.task.channels, widths, style, block, StridedDown),
            decoder=UNetDecoder(widths, style, block, TransposeUp),
            output=make_conv(style.dims, config.width, self.maps, 1),
        )
        return nn.Sequential(parts)


class VBlock(nn.Module):
    """One to three 5-wide convolutions, what came in added before the last activation.

    Args:
        c_in: Input feature maps; brought to ``c_out`` by a 1x1 convolution.
        c_out: Output feature maps.
        style: Of the network.
        finest: Feature maps of the finest level, which has one convolution; the next has two.
    """

    def __init__(self, c_in: int, c_out: int, style: Style, finest: int) -> None:
        super().__init__()
        count = min(3, (c_out // finest).bit_length())
        self.body = nn.Sequential(
            *(ConvBlock(c_out if k else c_in, c_out, style, 5) for k in range(count))
        )
        self.shortcut = make_conv(style.dims, c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.activation = make_activation(style)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *s"]:
        return self.activation(self.body(x) + self.shortcut(x))


class StridedDown(nn.Module):
    """A 2-wide convolution of step 2 in place of pooling; an odd side keeps its last voxel.

    Args:
        width: Feature maps.
        style: Of the network.
    """

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.conv = CONV[style.dims](width, width, 2, stride=2)
        self.norm, self.activation = make_norm(width, style), make_activation(style)

    def forward(self, x: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *t"]:
        padding = [n for side in reversed(x.shape[2:]) for n in (0, side % 2)]
        return self.activation(self.norm(self.conv(F.pad(x, padding))))


class CubicEnlarge(nn.Module):
    """Cubic interpolation of logits to a grid finer by whole numbers, axis by axis.

    Args:
        scale: Finer voxels for each voxel along each axis.

    Example:
        >>> import torch
        >>> CubicEnlarge((1, 1, 2))(torch.ones(1, 1, 2, 3, 4)).shape
        torch.Size([1, 1, 2, 3, 8])
    """

    def __init__(self, scale: Sequence[int]) -> None:
        super().__init__()
        self.scale = tuple(scale)

    def forward(self, logits: Float[Tensor, " b m d h w"]) -> Float[Tensor, " b m *hr"]:
        depth, *plane = (n * f for n, f in zip(logits.shape[2:], self.scale, strict=True))
        cubic = partial(F.interpolate, mode="bicubic", align_corners=False)
        flat = cubic(logits.flatten(0, 1), tuple(plane))
        deep = cubic(flat.flatten(2).unsqueeze(1), (depth, math.prod(plane))).squeeze(1)
        return deep.reshape(*logits.shape[:2], depth, *plane)
