"""SRGAN: HR images of LR images, learned from images alone.

C. Ledig et al., "Photo-realistic single image super-resolution using a generative
adversarial network", CVPR 2017, arXiv 1609.04802. DSNet (paper 001) trains one on CT
slices, without labels, and lends its features to segmentation.

Idea: the squared error of an image is smallest for a mean of all that it might
have been, which is blurred. So the generator is first trained by it, and then
by what a classification network sees in the images and by a critic that tells
restored images from true ones.

| Figure 4                     | here                     |
|------------------------------|--------------------------|
| generator network            | `nn.srresnet.SRResNet`   |
| discriminator network        | `ImageCritic`            |
| VGG feature maps             | `nn.lossnet.LossNet`     |

| Equation                                     | here                                    |
|----------------------------------------------|-----------------------------------------|
| (1), (2) generator and critic                | `losses.adversarial`                    |
| (3) content and 0.001 of the adversarial loss | `SRGAN.losses`, `SRGAN.weights`        |
| (4) squared error of the image               | `losses.fidelity.mse`                   |
| (5) squared distance of VGG features         | `nn.lossnet.feature_distance`           |
| (6) -log D of a restored image               | `losses.adversarial.generator_loss`     |

Errata and departures:
- The content loss is VGG-19's, of the last convolution of its fifth stage; here it is
  VGG-16's, after the activation. Without a file of weights (``content_weights``) they are random.
- Training has two phases: the first ``pretrain`` share of the run by the squared error alone
  (SRResNet), then both players, where the paper's phases are of 10^6 and 2 * 10^5 steps.
- The critic's dense layers see the mean over all places, so that windows may have any size.
  Its loss is halved, as DSNet's.
- The generator is the paper's; ``skip`` lets it learn what the interpolated LR image lacks,
  which short trainings are better with. One PReLU slope a layer.
- LR images are made as for all methods here (means of blocks, where the paper is bicubic).
- The checkpoint with the best PSNR is kept, of the second phase once it has begun. PSNR prefers
  blur, so it watches over the training more than it judges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.losses.adversarial import critic_loss, generator_loss
from finemask.losses.fidelity import mse
from finemask.methods.base import Method, ParameterGroup, Segmenter
from finemask.nn.blocks import BATCH_NORM, make_conv
from finemask.nn.lossnet import LossNet, feature_distance
from finemask.nn.srresnet import SRResNet
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges

VGG_RESCALE = 1 / 12.75
"""Brings VGG features to the size of intensities; the paper's number."""


@dataclass(frozen=True)
class Config:
    """Options of SRGAN.

    Args:
        width: Feature maps of the generator.
        blocks: Residual blocks of the generator.
        kernel: Of its first and last convolution.
        skip: Add its output to the interpolated LR image.
        critic_width: Feature maps of the critic's first stage, doubled up to eightfold.
        critic_stages: Of two convolutions each.
        pretrain: Share of the run in which the generator learns alone, by the squared error;
            1 trains SRResNet.
        content_weights: File with VGG-16's ImageNet weights; random weights without.
        content_level: Stage whose last features are compared, 1 to 5.
        content_width: Feature maps of VGG's first stage; 64 in the public weights.
        w_mse: Weight of the squared error in the first phase.
        w_content: Weight of the distance of VGG features in the second.
        w_pixel: Weight of the squared error in the second; 0 in the paper.
        w_adversarial: Weight of the critic's verdict.
    """

    width: int = 64
    blocks: int = 16
    kernel: int = 9
    skip: bool = False
    critic_width: int = 64
    critic_stages: int = 4
    pretrain: float = 0.5
    content_weights: str = ""
    content_level: int = 5
    content_width: int = 64
    w_mse: float = 1.0
    w_content: float = 1.0
    w_pixel: float = 0.0
    w_adversarial: float = 1e-3

    def __post_init__(self) -> None:
        counts = ("width", "blocks", "kernel", "critic_width", "content_width")
        ranges = {
            **dict.fromkeys(counts, (1.0, 4096.0)),
            "critic_stages": (1.0, 8.0),
            "pretrain": (0.0, 1.0),
            "content_level": (1.0, 5.0),
        }
        check_ranges("config", self, ranges)


class ImageCritic(nn.Module):
    """Whether an image is a true one: stages of two convolutions, the second halving the grid.

    Args:
        channels: Image channels.
        width: Feature maps of the first stage.
        stages: How many.
        dims: 2 or 3.
    """

    def __init__(self, channels: int, width: int, stages: int, dims: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c_in = channels
        for stage in range(stages):
            c_out = width * min(2**stage, 8)
            for stride in (1, 2):
                normed = bool(layers)
                layers.append(make_conv(dims, c_in, c_out, stride=stride, bias=not normed))
                layers += [BATCH_NORM[dims](c_out)] if normed else []
                layers.append(nn.LeakyReLU(0.2, inplace=True))
                c_in = c_out
        self.stages = nn.Sequential(*layers)
        self.verdict = nn.Sequential(
            nn.Linear(c_in, 2 * c_in), nn.LeakyReLU(0.2, inplace=True), nn.Linear(2 * c_in, 1)
        )

    def forward(self, image: Float[Tensor, " b c *hr"]) -> Float[Tensor, " b 1"]:
        return self.verdict(self.stages(image).flatten(2).mean(2))


class SRGAN(Method):
    """LR image in, HR image out; no masks anywhere."""

    paper: ClassVar[str] = "Ledig et al., Photo-realistic super-resolution (SRGAN), CVPR 2017"
    dims: ClassVar[tuple[int, ...]] = (2,)
    dropped: ClassVar[str] = "critic, VGG features"
    config_type: ClassVar[type] = Config
    players = ("generator", "critic")
    needs_masks: ClassVar[bool] = False
    config: Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        options = (config.width, config.blocks, config.kernel, config.skip)
        self.generator = SRResNet(task.channels, task.scale, *options)
        self.critic = ImageCritic(
            task.channels, config.critic_width, config.critic_stages, task.dims
        )
        self.pretraining = False
        self.vgg: LossNet | None = None

    def equip(self) -> dict[str, str]:
        """Make the network that the content loss looks through."""
        config, file = self.config, self.config.content_weights
        if not config.w_content or config.pretrain == 1:
            return {}
        weights = Path(file) if file else None
        self.vgg = LossNet(weights, 0, config.content_width, config.content_level)
        self.vgg.to(next(self.parameters()).device)
        return {"VGG": file or "random weights (config.content_weights names no file)"}

    def turn(self, share: float) -> tuple[str, ...]:
        """The generator alone in the first phase, then both."""
        self.pretraining = share < self.config.pretrain
        return self.players[:1] if self.pretraining else self.players

    def losses(self, batch: Batch, player: str = "generator") -> dict[str, Tensor]:
        """Eq. (3), its parts, or Eq. (4) in the first phase."""
        config, true = self.config, batch.image_hr
        if player == "critic":
            with torch.no_grad():
                made = self.generator(batch.image_lr)
            return {"L_D": critic_loss(self.critic(true), self.critic(made))}
        made = self.generator(batch.image_lr)
        if self.pretraining:
            return {"L_MSE": mse(made, true)}
        parts = {"L_adv": generator_loss(self.critic(made))}
        if config.w_content:
            parts["L_VGG"] = self.content(made, true)
        if config.w_pixel:
            parts["L_pixel"] = mse(made, true)
        return parts

    def content(
        self, made: Float[Tensor, " b c h w"], true: Float[Tensor, " b c h w"]
    ) -> Float[Tensor, ""]:
        """How differently VGG sees two images, in float32, each channel a picture of its own."""
        if self.vgg is None:
            self.equip()
        assert self.vgg is not None
        with torch.autocast(made.device.type, enabled=False):
            found = self.vgg.features(made.float())[-1]
            with torch.no_grad():
                wanted = self.vgg.features(true.float())[-1]
            return feature_distance(VGG_RESCALE * found, VGG_RESCALE * wanted)

    def weights(self) -> dict[str, float]:
        config = self.config
        used = {"L_MSE": config.w_mse} if config.pretrain else {}
        if config.pretrain < 1:
            used |= {"L_adv": config.w_adversarial, "L_D": 1.0}
            used |= {"L_VGG": config.w_content} if config.w_content else {}
            used |= {"L_pixel": config.w_pixel} if config.w_pixel else {}
        return used

    def deploy(self) -> Segmenter:
        """The generator: what it answers with are intensities, not logits."""
        return Segmenter(self.generator, self.task)

    def super_resolve(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b c *hr"]:
        return self.generator(image_lr)

    def parameter_groups(self, player: str = "generator") -> Iterator[ParameterGroup]:
        """Each player's own weights."""
        yield ParameterGroup(list(getattr(self, player).parameters()))

    RECIPE: ClassVar[Mapping[str, Any]] = {
        "prepare": {"normalise": "minmax"},
        "pairs": {"target": "none"},
        "train": {
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "warmup_steps": 0,
            "metric": "psnr",
        },
    }
