"""What every method is: named losses while it learns, a slimmer network once it ships."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.encoders import Encoder
from finemask.nn.outputs import foreground_probs
from finemask.pairs.batches import Batch
from finemask.pairs.guidance import Guide
from finemask.recipe import Task


class Segmenter(nn.Module):
    """The network that ships: LR image in, logits on the HR grid out, nothing else inside.

    Args:
        network: Maps ``image_lr`` (and ``guidance`` where the method has a guide) to logits.
        task: Channels, classes and scale.
        stride: Any LR size gives an answer; sides that are multiples of this are pooled
            evenly, so ``predict`` pads to it.

        patches: Predict in windows of the training windows' size that overlap by half, even
            where the whole image fits.

    ``window`` holds the sides of the windows that the network learned from, on the grid that it
    reads; a smaller image is shown in the middle of such a window, as smaller cases were in
    training. A network that reads the HR image has a task of scale 1 here.
    """

    explanations: ClassVar[tuple[str, ...]] = ()
    """Names of the maps that ``explain`` gives, for file names and titles."""

    def __init__(
        self, network: nn.Module, task: Task, stride: int = 1, patches: bool = False
    ) -> None:
        super().__init__()
        self.window: tuple[int, ...] = ()
        self.network, self.task, self.stride, self.patches = network, task, stride, patches

    def on_its_grid(self, sides_lr: Sequence[int], scale: Sequence[int]) -> tuple[int, ...]:
        """LR sides of a task of ``scale`` as sides on the grid that this network reads.

        No sides, of a network that learned from whole images, stay none.
        """
        if not sides_lr:
            return ()
        grids = zip(sides_lr, scale, self.task.scale, strict=True)
        return tuple(side * factor // own for side, factor, own in grids)

    def forward(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b l *hr"]:
        return self.network(image_lr) if guidance is None else self.network(image_lr, guidance)

    def probs(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b f *hr"]:
        """Foreground probabilities on the HR grid, in [0, 1]."""
        return foreground_probs(self(image_lr, guidance).float())

    def explain(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> dict[str, Float[Tensor, " b 1 *s"]]:
        """Maps in [0, 1] on the LR grid of what the answer was made from, by name."""
        return {}


@dataclass(frozen=True)
class ParameterGroup:
    """Weights that one optimiser steps at ``factor`` times the learning rate."""

    parameters: list[nn.Parameter]
    factor: float = 1.0


@dataclass(frozen=True)
class Adaptation:
    """What a trained method learns from images without labels, before it predicts them.

    Args:
        parts: Of ``losses``; the target is the method's own mask, made before.
        frozen: Parts of the network that are left as they are.
    """

    parts: tuple[str, ...]
    frozen: tuple[str, ...] = ()


class Method(nn.Module, ABC):
    """A published method, as it is trained.

    A subclass builds its network in ``__init__(task, config)``, returns named
    loss parts from ``losses`` and hands over what inference needs by ``deploy``.
    Construction must work under ``torch.device("meta")``, where costs are counted.
    """

    paper: ClassVar[str]
    """Citation in one line."""
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    dropped: ClassVar[str] = "nothing"
    """What ``deploy`` leaves behind, in words."""
    config_type: ClassVar[type]
    """The frozen dataclass ``Config`` of the method's file."""
    RECIPE: ClassVar[Mapping[str, Any]] = {}
    """Settings by section that differ from the defaults of ``Recipe``."""
    RECIPE_3D: ClassVar[Mapping[str, Any]] = {}
    """Settings that differ further for volumes."""
    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Rows of the paper's ablation table: a label, and the options that it changes."""
    players: tuple[str, ...] = ("network",)
    """Stepped in turn, each by its own optimiser (a GAN has two)."""
    needs_masks: ClassVar[bool] = True
    """Whether it learns from masks; else images alone are enough, and it answers with images."""
    two_labels: ClassVar[bool] = False
    """Learns from the binary mask beside a soft target, where a case has both."""
    teacher_options: ClassVar[Mapping[str, str]] = {}
    """Its options that a super-resolution teacher decides, by the teacher's own names for them."""
    guide: Guide | None = None
    """Chooses the window of the prepared HR image that the network is shown beside the LR image,
    in methods that take such guidance."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__()
        self.task, self.config = task, config

    @abstractmethod
    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Unweighted scalar parts of the loss of one player, under the paper's symbols."""

    @abstractmethod
    def weights(self) -> dict[str, float]:
        """The weight of every part that ``losses`` may return."""

    @abstractmethod
    def deploy(self) -> Segmenter:
        """The inference network, sharing weights (and so train or eval mode) with this one."""

    def equip(self) -> dict[str, str]:
        """Make the frozen networks that only training needs, from the files that options name.

        Called once before the first step; they are no part of what is saved or deployed.

        Returns:
            Where each is from, for the run's record.
        """
        return {}

    def turn(self, share: float) -> tuple[str, ...]:
        """The players to step now that ``share`` of the run is done, asked before every step."""
        return self.players

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen super-resolution network in it, where it has one as it is configured."""
        return None

    def adaptations(self) -> dict[str, Adaptation]:
        """The strategies of fine-tuning on unlabelled images by name, the usual one first."""
        return {}

    def super_resolve(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b c *hr"] | None:
        """The super-resolved image, for methods that make one."""
        return None

    def makes_image(self) -> bool:
        """Whether ``super_resolve`` returns an image, as configured."""
        return type(self).super_resolve is not Method.super_resolve

    def public_encoder(self) -> Encoder | None:
        """The part that ``train.encoder_weights`` fills, in methods that have one."""
        return None

    def encoder_groups(self, factor: float) -> Iterator[ParameterGroup]:
        """The public encoder at ``factor`` times the learning rate, and the rest at all of it."""
        encoder = self.public_encoder()
        inside = {id(p) for p in encoder.parameters()} if encoder else set()
        learnt = [p for p in self.parameters() if p.requires_grad]
        if inside:
            yield ParameterGroup([p for p in learnt if id(p) in inside], factor)
        yield ParameterGroup([p for p in learnt if id(p) not in inside])

    def parameter_groups(self, player: str = "network") -> Iterator[ParameterGroup]:
        """Trainable weights of a player, by learning-rate factor."""
        yield ParameterGroup([p for p in self.parameters() if p.requires_grad])
