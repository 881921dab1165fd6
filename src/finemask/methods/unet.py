"""The plain U-Net: what every other method here has to beat.

O. Ronneberger, P. Fischer and T. Brox, "U-Net: convolutional networks for
biomedical image segmentation", MICCAI 2015.

Idea: an encoder sees ever larger surroundings at ever coarser grids; a decoder
brings them back to the finest one, joined at each level by a skip. Here the LR
image goes in and a head enlarges the last step to the HR mask, with no help
from super-resolution. Every other method that starts from this network uses
the same widths, so a difference in score is a difference of method.

| Figure 1                        | here                          |
|---------------------------------|-------------------------------|
| contracting path                | `nn.unet.UNetEncoder`, or one of `nn.encoders` |
| expanding path, copies          | `nn.unet.UNetDecoder`         |
| last 1x1 convolution            | `nn.superres.MaskHead`        |
| energy function (cross-entropy) | `losses.overlap.cross_entropy` |

Errata and departures: the paper's unpadded convolutions lose a border and its
weight map favours gaps between touching cells; neither suits lesions. Sizes
are kept, Dice is added to the cross-entropy, upsampling interpolates, and
feature maps are normalised.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from finemask.errors import UsageError
from finemask.losses.overlap import cross_entropy, dice_loss
from finemask.losses.region import rmi_loss
from finemask.methods.base import Method, ParameterGroup, Segmenter
from finemask.nn.blocks import Style, resize
from finemask.nn.encoders import Encoder, EncoderName, make_encoder
from finemask.nn.outputs import foreground_probs
from finemask.nn.superres import Head, MaskHead
from finemask.nn.unet import PublicUNetEncoder, UNetDecoder, UNetEncoder, unet_widths
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges


@dataclass(frozen=True)
class Config:
    """Options of the U-Net.

    Args:
        width: Feature maps of the finest level, doubled at each coarser one up to eightfold.
        depth: Levels, the bottleneck included; a public encoder has its own.
        encoder: ``plain`` is the paper's; one of ``nn.encoders.ENCODERS`` (2-D) takes its place
            in comparisons with methods that are built on it, and can start from public weights.
        encoder_width: Feature maps of the public encoder's stem; 64 in all public weights.
        encoder_factor: Learning rate of the public encoder, as a share of the rest's.
        norm: ``instance`` treats a crop of training and a whole image of prediction alike
            and needs no large batch; ``batch`` does neither.
        dropout: Share of feature maps dropped behind each block.
        head: How the HR mask is made, see ``MaskHead``.
        w_ce: Weight of the cross-entropy.
        w_dice: Weight of the Dice loss.
        w_rmi: Weight of the region mutual information (2-D), see ``losses.region``.
        supervision: Grid of the masks that teach: ``hr``, or ``lr``, where the LR logits learn
            the nearest pixels of the masks and are only enlarged for prediction. A control
            for comparisons.
    """

    width: int = 32
    depth: int = 5
    encoder: Literal["plain", EncoderName] = "plain"
    encoder_width: int = 64
    encoder_factor: float = 1.0
    norm: Literal["instance", "batch"] = "instance"
    dropout: float = 0.0
    head: Head = "shuffle"
    w_ce: float = 1.0
    w_dice: float = 1.0
    w_rmi: float = 0.0
    supervision: Literal["hr", "lr"] = "hr"

    def __post_init__(self) -> None:
        check_ranges(
            "config",
            self,
            {
                "width": (1.0, 4096.0),
                "depth": (2.0, 8.0),
                "encoder_width": (2.0, 4096.0),
                "encoder_factor": (0.0, 1.0),
                "dropout": (0.0, 0.99),
            },
        )
        if self.supervision == "lr" and self.head != "interpolate":
            raise UsageError(
                "config.supervision",
                f"is lr, and the head {self.head} has no logits on the LR grid",
                "set config.head=interpolate",
            )


def make_unet_encoder(task: Task, config: Config, style: Style) -> UNetEncoder | PublicUNetEncoder:
    """The contracting path.

    Raises:
        UsageError: When a two-dimensional encoder is wanted for volumes.
    """
    if config.encoder == "plain":
        return UNetEncoder(task.channels, unet_widths(config.width, config.depth), style)
    if task.dims != 2:
        raise UsageError(
            "config.encoder", f"is {config.encoder}, which is for 2-D images", "use plain"
        )
    public = make_encoder(config.encoder, task.channels, width=config.encoder_width)
    return PublicUNetEncoder(public, task.channels, config.width, style)


class UNet(Method):
    """LR image in, HR mask out."""

    paper: ClassVar[str] = "Ronneberger et al., U-Net, MICCAI 2015"
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        style = Style(task.dims, norm=config.norm, dropout=config.dropout)
        self.encoder = make_unet_encoder(task, config, style)
        self.decoder = UNetDecoder(self.encoder.widths, style)
        self.head = MaskHead(config.width, task.classes, task.scale, config.head)
        if config.w_rmi and task.dims != 2:
            raise UsageError(
                "config.w_rmi", f"is {config.w_rmi}, the loss is for 2-D images", "set it to 0"
            )

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        features, target = self.decoder(self.encoder(batch.image_lr)), batch.target
        if self.config.supervision == "lr":
            logits = self.head.conv(features)
            target = resize(target, logits.shape[2:], "nearest")
        else:
            logits = self.head(features)
        parts = {
            "L_ce": cross_entropy(logits, target),
            "L_dice": dice_loss(foreground_probs(logits.float()), target),
        }
        if self.config.w_rmi:
            parts["L_rmi"] = rmi_loss(logits, target)
        return parts

    def weights(self) -> dict[str, float]:
        config = self.config
        weights = {"L_ce": config.w_ce, "L_dice": config.w_dice}
        return {**weights, "L_rmi": config.w_rmi} if config.w_rmi else weights

    def public_encoder(self) -> Encoder | None:
        return self.encoder.encoder if isinstance(self.encoder, PublicUNetEncoder) else None

    def parameter_groups(self, player: str = "network") -> Iterator[ParameterGroup]:
        yield from self.encoder_groups(self.config.encoder_factor)

    def deploy(self) -> Segmenter:
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            encoder=self.encoder, decoder=self.decoder, head=self.head
        )
        return Segmenter(nn.Sequential(parts), self.task, self.encoder.stride)

    RECIPE_3D: ClassVar[Mapping[str, Any]] = {
        "train": {"batch_size": 2},
        "config": {"width": 16, "depth": 4},
    }
    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "ResNet-18": {"encoder": "resnet18"},
        "ResNet-34": {"encoder": "resnet34"},
        "ResNet-50": {"encoder": "resnet50"},
        "Res2Net-50": {"encoder": "res2net50"},
        "CE": {"w_dice": 0.0},
        "CE + Dice": {"w_dice": 1.0},
        "CE + RMI": {"w_dice": 0.0, "w_rmi": 1.0},
        "LR supervision": {"w_dice": 0.0, "head": "interpolate", "supervision": "lr"},
    }
    """Public encoders, for rows beside methods that are built on them."""
