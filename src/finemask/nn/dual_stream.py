"""Two streams from one encoder: the mask of an LR image, and the HR image itself.

What DS2F and its relatives are made on, whatever they ask of the two decoders' features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from finemask.errors import UsageError
from finemask.nn.aligned import AlignedUp, OverlappingMaxPool
from finemask.nn.blocks import MaxPool, ResizeUp, Style, crop_end, enlarge, resize
from finemask.nn.deeplab import DeepLabDecoder, DeepLabEncoder, ResNetName
from finemask.nn.superres import Head, MaskHead, SubPixelHead
from finemask.nn.unet import UNetDecoder, UNetEncoder, unet_widths
from finemask.strict import check_ranges

FINE = 4
"""Pixels a side for each feature of DeepLabV3+'s decoder."""


@dataclass(frozen=True)
class StreamOptions:
    """Options that all methods with two streams share.

    Args:
        backbone: ``unet``, or ``deeplab`` (DeepLabV3+).
        width: Feature maps of the U-Net's finest level, doubled at each coarser one; the
            decoder of DeepLabV3+ has four times as many.
        depth: Levels of the U-Net, the bottleneck included.
        widest: Feature maps of the U-Net's coarsest level, in widths; 16 in the paper.
        pool: Pixels a side whose largest the U-Net keeps, at every second pixel; 3 in the
            released code.
        norm: Of the feature maps, outside of a ResNet; ``batch`` in the paper.
        dropout: Share of feature maps dropped behind each block.
        aligned: Interpolate so that corners coincide, for released weights; see ``AlignedUp``.
        encoder: ResNet of ``deeplab``.
        encoder_width: Feature maps of its stem; 64 in all public weights.
        encoder_factor: Its learning rate, as a share of the rest's.
        head: How the HR mask is made, see ``MaskHead``; ``interpolate`` in the paper.
        softmax: Give the background a map of its own also beside one foreground class, as the
            paper does.
        sr_width: Feature maps of the super-resolution head; 64 in the paper, as ``width``.
        sr_skip: Learn what the HR image has beyond the interpolated LR image; the paper learns
            it whole.
    """

    backbone: Literal["unet", "deeplab"] = "unet"
    width: int = 32
    depth: int = 5
    widest: int = 8
    pool: Literal[2, 3] = 2
    norm: Literal["instance", "batch"] = "instance"
    dropout: float = 0.0
    aligned: bool = False
    encoder: ResNetName = "resnet50"
    encoder_width: int = 64
    encoder_factor: float = 1.0
    head: Head = "shuffle"
    softmax: bool = False
    sr_width: int = 32
    sr_skip: bool = True

    def __post_init__(self) -> None:
        check_ranges(
            "config",
            self,
            {
                "width": (1.0, 4096.0),
                "depth": (2.0, 8.0),
                "widest": (1.0, 256.0),
                "dropout": (0.0, 0.99),
                "encoder_width": (2.0, 4096.0),
                "encoder_factor": (0.0, 1.0),
                "sr_width": (1.0, 4096.0),
            },
        )
        if self.backbone == "deeplab" and self.head != "interpolate":
            raise UsageError(
                "config.head",
                f"is {self.head}, DeepLabV3+ classifies every fourth pixel and interpolates",
                "set config.head=interpolate",
            )


class MaskStream(nn.Sequential):
    """Encoder, decoder and head of the mask, in a row: what ships.

    Args:
        parts: By name.
        scale: HR pixels for each LR pixel along each axis.
    """

    def __init__(self, parts: OrderedDict[str, nn.Module], scale: Sequence[int]) -> None:
        super().__init__(parts)
        self.scale = tuple(scale)

    def forward(self, image_lr: Float[Tensor, " b c h w"]) -> Float[Tensor, " b l i j"]:
        logits = super().forward(image_lr)
        sides = zip(image_lr.shape[2:], self.scale, strict=True)
        return crop_end(logits, [side * factor for side, factor in sides])


class DualStream(nn.Module):
    """An encoder, and a decoder with its head for the mask and for the image.

    Args:
        channels: Image channels.
        classes: Of the task, background included.
        scale: HR pixels for each LR pixel along each axis.
        options: See ``StreamOptions``.
        restores: Whether there is a stream for the image.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        scale: Sequence[int],
        options: StreamOptions,
        restores: bool = True,
    ) -> None:
        super().__init__()
        self.scale, self.sr_skip = tuple(scale), options.sr_skip
        style = Style(norm=options.norm, dropout=options.dropout)
        self.encoder: UNetEncoder | DeepLabEncoder
        decoders: list[UNetDecoder | DeepLabDecoder]
        if options.backbone == "unet":
            widths = unet_widths(options.width, options.depth, options.widest)
            pool = OverlappingMaxPool if options.pool == 3 else MaxPool
            up = AlignedUp if options.aligned else ResizeUp
            self.encoder = UNetEncoder(channels, widths, style, down=pool)
            decoders = [UNetDecoder(widths, style, up=up) for _ in range(1 + restores)]
            self.width, self.step = options.width, 1
        else:
            self.width, self.step = 4 * options.width, FINE
            self.encoder = DeepLabEncoder(
                options.encoder, channels, self.width, options.encoder_width, style
            )
            decoders = [DeepLabDecoder(self.encoder.widths, style) for _ in range(1 + restores)]
        self.seg_decoder = decoders[0]
        fine = [self.step * factor for factor in scale]
        self.seg_head = MaskHead(
            self.width, classes, fine, options.head, options.softmax, options.aligned
        )
        if restores:
            self.sr_decoder = decoders[1]
            self.sr_head = SubPixelHead(self.width, channels, scale, options.sr_width)

    def encode(self, image_lr: Float[Tensor, " b c h w"]) -> list[Tensor]:
        """``F_en = Encoder(x)``, what both streams start from.

        Paper: ds2f Eq. (1)
        """
        return self.encoder(image_lr)

    def decode_seg(self, shared: Sequence[Tensor]) -> list[Tensor]:
        """``F_seg = Decoder_seg(F_en)``, the last of the levels returned.

        Paper: ds2f Eq. (2)
        """
        return self.seg_decoder.levels(shared)

    def decode_sr(self, shared: Sequence[Tensor]) -> list[Tensor]:
        """``F_sr = Decoder_sr(F_en)``, the last of the levels returned.

        Paper: ds2f Eq. (3)
        """
        return self.sr_decoder.levels(shared)

    def mask(
        self, f_seg: Float[Tensor, " b w h v"], image_lr: Float[Tensor, " b c i j"]
    ) -> Float[Tensor, " b l k m"]:
        """``O_seg = Head_seg(F_seg)``, logits on the HR grid.

        Paper: ds2f Eq. (4)
        """
        return crop_end(self.seg_head(f_seg), self.fine_sides(image_lr))

    def image(
        self, f_sr: Float[Tensor, " b w h v"], image_lr: Float[Tensor, " b c i j"]
    ) -> Float[Tensor, " b c k m"]:
        """``O_sr = Head_sr(F_sr)``, the HR image, or what it has beyond the interpolated one.

        Paper: ds2f Eq. (5)
        """
        image = self.sr_head(enlarge(f_sr, image_lr.shape[2:]))
        return image + resize(image_lr, self.fine_sides(image_lr)) if self.sr_skip else image

    def restore(self, image_lr: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c i j"]:
        """The HR image of an LR image."""
        return self.image(self.decode_sr(self.encode(image_lr))[-1], image_lr)

    def fine_sides(self, image_lr: Tensor) -> list[int]:
        """Sides of the HR grid."""
        return [n * f for n, f in zip(image_lr.shape[2:], self.scale, strict=True)]

    def mask_stream(self) -> MaskStream:
        """What inference needs."""
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            encoder=self.encoder, decoder=self.seg_decoder, head=self.seg_head
        )
        return MaskStream(parts, self.scale)
