"""What the methods with a stream for the mask and one for the image have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from finemask.losses.fidelity import mse
from finemask.losses.overlap import cross_entropy, dice_loss
from finemask.methods.base import Method, ParameterGroup, Segmenter
from finemask.nn.deeplab import DeepLabEncoder
from finemask.nn.dual_stream import DualStream
from finemask.nn.encoders import Encoder
from finemask.nn.outputs import foreground_probs
from finemask.pairs.batches import Batch
from finemask.recipe import Task


@dataclass(frozen=True)
class Seen:
    """What both streams make of a batch.

    Args:
        seg_levels: Features of the mask's decoder, coarsest first.
        sr_levels: Features of the image's decoder; none without that stream.
        logits: Of the mask, on the HR grid.
        image: Restored, on the HR grid.
    """

    seg_levels: list[Tensor]
    sr_levels: list[Tensor]
    logits: Tensor
    image: Tensor | None


class TwoStreams(Method):
    """LR image in, HR mask out; learns to restore the HR image beside it.

    Args:
        task: Channels, classes and scale.
        config: A ``StreamOptions`` with ``w_dice`` and ``w_sr``.
        restores: Whether there is a stream for the image.
    """

    dims: ClassVar[tuple[int, ...]] = (2,)
    dropped: ClassVar[str] = "super-resolution decoder and head"

    def __init__(self, task: Task, config: Any, restores: bool = True) -> None:
        super().__init__(task, config)
        self.restores = restores
        self.streams = DualStream(task.channels, task.classes, task.scale, config, restores)

    def look(self, batch: Batch) -> Seen:
        """Both streams on a batch."""
        streams, image_lr = self.streams, batch.image_lr
        shared = streams.encode(image_lr)
        seg = streams.decode_seg(shared)
        sr = streams.decode_sr(shared) if self.restores else []
        image = streams.image(sr[-1], image_lr) if sr else None
        return Seen(seg, sr, streams.mask(seg[-1], image_lr), image)

    def own_losses(self, seen: Seen, batch: Batch) -> dict[str, Tensor]:
        """What each stream learns for itself."""
        parts = {"L_seg": cross_entropy(seen.logits, batch.target)}
        if self.config.w_dice:
            parts["L_dice"] = dice_loss(foreground_probs(seen.logits.float()), batch.target)
        if seen.image is not None:
            parts["L_sr"] = mse(seen.image, batch.image_hr)
        return parts

    def weights(self) -> dict[str, float]:
        weights = {"L_seg": 1.0}
        if self.config.w_dice:
            weights["L_dice"] = self.config.w_dice
        if self.restores:
            weights["L_sr"] = self.config.w_sr
        return weights

    def deploy(self) -> Segmenter:
        return Segmenter(self.streams.mask_stream(), self.task, self.streams.encoder.stride)

    def makes_image(self) -> bool:
        return self.restores

    def super_resolve(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b c *hr"] | None:
        return self.streams.restore(image_lr) if self.restores else None

    def public_encoder(self) -> Encoder | None:
        encoder = self.streams.encoder
        return encoder.encoder if isinstance(encoder, DeepLabEncoder) else None

    def parameter_groups(self, player: str = "network") -> Iterator[ParameterGroup]:
        yield from self.encoder_groups(self.config.encoder_factor)
