"""DSNet: details from a super-resolution teacher, Soft Masks as labels, a critic of every pixel.

C. Wang, R. Xu, S. Xu, W. Meng, J. Xiao and X. Zhang, "Accurate lung nodule
segmentation with detailed representation transfer and Soft Mask supervision",
IEEE TNNLS 2023, arXiv 2007.14556; its conference version is SoftGAN (ICME 2022).

Idea: nodules are a few pixels wide, so a network that learned to restore CT
images lends its features to the one that segments. Detail is brought out of
them where a point differs from its surroundings, and mixed channel by channel
with plain context. The mask is learned twice from one output: hard by Dice,
soft by the distance to a Soft Mask, which a critic compares with true ones.

| Figures 3, 4, 5 and 7                | here                                     |
|--------------------------------------|------------------------------------------|
| SR model (SRGAN's generator, frozen) | `Teacher`, trained by `methods/srgan.py` |
| DRTM                                 | `nn.detail_transfer.DetailTransfer`      |
| detail texture enhancement           | `nn.detail_transfer.DetailBranch`        |
| channel-selective fusion             | `nn.detail_transfer.ChannelSelection`    |
| backbone, of CBAM blocks             | `nn.unet`, `nn.attention.CBAMBlock`      |
| down- and up-sampling blocks         | `nn.attention.StridedDown`, `nn.blocks.TransposeUp` |
| segmentation head                    | `DSNetwork.head`                         |
| pixel-wise discriminator             | `PixelCritic`                            |

| Equation                                   | here                                        |
|--------------------------------------------|---------------------------------------------|
| (1) to (8) Soft Masks by matting           | `softmask`, made beforehand: finemask soften |
| (9), (10) detail                           | `DetailBranch.contrast`, `DetailBranch.forward` |
| (11) to (14) channel-selective fusion      | `ChannelSelection`                          |
| (15) Dice of the binary mask               | `losses.overlap.dice_loss`                  |
| (16) L1 distance of the Soft Masks         | `losses.fidelity.mae`                       |
| (17), (18) critic and network              | `losses.adversarial`                        |
| (19) 0.5 L_Seg + 100 L_Soft + 1 L_GAN      | `DSNet.losses`, `DSNet.weights`             |
| (20) to (22) Dice, sensitivity, precision  | `metrics.overlap.Confusion`                 |

Errata and departures:
- Eq. (5) writes b as B and once F for L, Eqs. (5) to (8) use M for the intensity too, and a
  trimap asks for a linear system, not for an eigenvector; see `softmask`. The text calls the
  Soft Mask of Eq. (16) true which Eq. (15) calls predicted. Eq. (18) lacks its expectations.
- No code was released. Where the text is silent every choice is an option below; those not
  in the text follow pix2pix (critic, its learning rate and initial weights, Adam's betas).
- L_Soft is the *mean* absolute error: with a weight of 100 a sum would leave nothing of the
  others. tanh(z) and sigmoid(z) decide alike at z = 0 but want other slopes; as published.
- Eq. (18) says log(1 - D) to the network, which learns nothing once the critic is sure; it is
  given -log D, as pix2pix does. The critic's loss is halved.
- The mask of L_Seg is the data set's own, or the Soft Mask cut at 0.5 where there is none.
- Grids: the backbone works on the HR grid, where `F_SR` lies. Without a teacher it sees the
  interpolated LR image there, so that the rows of Table III differ in nothing else.
- Table V without CSF: the mean of the branches. Without DTM: F_SR as it is.
- Several classes: softmax and Dice by class; the soft output of a class is the tanh of its log
  odds, which for a single one are z itself.
- Outputs start at 0, not at a foreground probability of 0.1 as those of the other methods here:
  the slope of tanh is 1 there and a twentieth at the latter. Windows and augmentation are theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.losses.adversarial import critic_loss, generator_loss
from finemask.losses.fidelity import mae
from finemask.losses.overlap import dice_loss
from finemask.methods.base import Method, ParameterGroup, Segmenter
from finemask.nn.attention import CBAMBlock, StridedDown
from finemask.nn.blocks import BATCH_NORM, DoubleConv, Style, TransposeUp, make_conv, resize
from finemask.nn.detail_transfer import DetailTransfer
from finemask.nn.outputs import foreground_probs, log_odds
from finemask.nn.srresnet import SRResNet
from finemask.nn.superres import enlarge_by, mask_channels
from finemask.nn.unet import UNetDecoder, UNetEncoder, unet_widths
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges

TEACHER_OPTIONS = {name: f"teacher_{name}" for name in ("width", "blocks", "kernel", "skip")}
"""What a run of ``srgan`` calls its options, and what they are called here."""


@dataclass(frozen=True)
class Config:
    """Options of DSNet.

    Args:
        transfer: What the backbone sees: ``drtm`` (the teacher's features through the DRTM),
            ``image`` (the teacher's image), or ``none`` (the interpolated LR image, no teacher).
        teacher_width: C, feature maps of the teacher; taken from it by ``--teacher``.
        teacher_blocks: Residual blocks of the teacher; likewise.
        teacher_kernel: Of its first and last convolution; likewise.
        teacher_skip: Its image is added to the interpolated one; likewise.
        context_convs: 3x3 convolutions of the DRTM's context branch.
        dilation: Of the DRTM's convolution with the wide view.
        dtm: Detail texture enhancement, Eqs. (9) and (10).
        csf: Channel-selective fusion, Eqs. (11) to (14).
        backbone: ``cbam``, or the plain U-Net's blocks (``unet``).
        width: Feature maps of the finest level, doubled at each coarser one up to eightfold.
        depth: Levels, the bottleneck included.
        block_convs: 3x3 convolutions of a CBAM block.
        ratio: Channels for each hidden unit of channel attention.
        attention_kernel: Of spatial attention.
        critic_width: Feature maps of the critic's first layer, doubled in its second.
        critic_kernel: 1 judges each pixel by itself; 3 sees its neighbours.
        w_seg: lambda_1, weight of the Dice loss.
        w_soft: lambda_2, weight of the distance to the Soft Mask; 0 does without.
        w_gan: lambda_3, weight of the critic's verdict; 0 does without a critic.
    """

    transfer: Literal["drtm", "image", "none"] = "drtm"
    teacher_width: int = 64
    teacher_blocks: int = 16
    teacher_kernel: int = 9
    teacher_skip: bool = False
    context_convs: int = 1
    dilation: int = 2
    dtm: bool = True
    csf: bool = True
    backbone: Literal["cbam", "unet"] = "cbam"
    width: int = 64
    depth: int = 5
    block_convs: int = 2
    ratio: int = 16
    attention_kernel: Literal[3, 5, 7] = 7
    critic_width: int = 64
    critic_kernel: Literal[1, 3] = 1
    w_seg: float = 0.5
    w_soft: float = 100.0
    w_gan: float = 1.0

    def __post_init__(self) -> None:
        counts = (
            *("teacher_width", "teacher_blocks", "teacher_kernel", "context_convs", "dilation"),
            *("width", "block_convs", "ratio", "critic_width"),
        )
        ranges = {**dict.fromkeys(counts, (1.0, 4096.0)), "depth": (2.0, 8.0)}
        check_ranges("config", self, ranges)


class Teacher(SRResNet):
    """A super-resolution network that is only read: no weight of it learns, no average moves."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode."""
        return super().train(False)


class PixelCritic(nn.Sequential):
    """Figure 7: whether a Soft Mask is a true one, said of each pixel, the image beside it.

    Args:
        c_in: Channels of image and Soft Mask together.
        width: Feature maps of the first layer.
        dims: 2 or 3.
        kernel: 1 sees a pixel, 3 its neighbours too.
    """

    def __init__(self, c_in: int, width: int, dims: int, kernel: int = 1) -> None:
        super().__init__(
            make_conv(dims, c_in, width, kernel),
            nn.LeakyReLU(0.2, inplace=True),
            make_conv(dims, width, 2 * width, kernel, bias=False),
            BATCH_NORM[dims](2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            make_conv(dims, 2 * width, 1, kernel),
        )
        for module in self:
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.normal_(module.weight, 0.0, 0.02)


class DSNetwork(nn.Module):
    """Figure 3 without its critic: LR image in, HR logits out.

    Args:
        task: Channels, classes and scale.
        config: Of the method.
    """

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        self.scale, dims, seen = task.scale, task.dims, task.channels
        self.teacher: Teacher | None = None
        self.drtm: DetailTransfer | None = None
        if config.transfer != "none":
            like = {name: getattr(config, mine) for name, mine in TEACHER_OPTIONS.items()}
            self.teacher = Teacher(task.channels, task.scale, **like)
        if config.transfer == "drtm":
            seen, steps = config.teacher_width, (config.context_convs, config.dilation)
            self.drtm = DetailTransfer(task.channels, seen, dims, *steps, config.dtm, config.csf)
        style, widths = Style(dims, norm="batch"), unet_widths(config.width, config.depth)
        if config.backbone == "cbam":
            block = partial(
                CBAMBlock,
                convs=config.block_convs,
                ratio=config.ratio,
                kernel=config.attention_kernel,
            )
            self.encoder = UNetEncoder(seen, widths, style, block, StridedDown)
            self.decoder = UNetDecoder(widths, style, block, TransposeUp)
        else:
            self.encoder = UNetEncoder(seen, widths, style, DoubleConv)
            self.decoder = UNetDecoder(widths, style, DoubleConv)
        self.head = make_conv(dims, widths[0], mask_channels(task.classes))
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    @property
    def stride(self) -> int:
        """LR sides that are multiples of this are halved evenly at every level."""
        return max(self.encoder.stride // gcd(self.encoder.stride, f) for f in self.scale)

    def transfer(self, image_lr: Float[Tensor, " b c *s"]) -> Float[Tensor, " b d *hr"]:
        """What the backbone sees, on the HR grid."""
        if self.teacher is None:
            return enlarge_by(image_lr, self.scale)
        f_sr = self.teacher.features(image_lr)
        image_sr = self.teacher.restore(f_sr, image_lr)
        return image_sr if self.drtm is None else self.drtm(image_lr, image_sr, f_sr)

    def forward(self, image_lr: Float[Tensor, " b c *s"]) -> Float[Tensor, " b l *hr"]:
        return self.head(self.decoder(self.encoder(self.transfer(image_lr))))


class DSNet(Method):
    """LR image in, HR mask out, by the details that a super-resolution teacher sees."""

    paper: ClassVar[str] = "Wang et al., Detailed representation transfer (DSNet), TNNLS 2023"
    dims: ClassVar[tuple[int, ...]] = (2,)
    dropped: ClassVar[str] = "pixel-wise critic"
    config_type: ClassVar[type] = Config
    teacher_options: ClassVar[Mapping[str, str]] = TEACHER_OPTIONS
    two_labels: ClassVar[bool] = True
    players: tuple[str, ...] = ("network", "critic")
    config: Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        self.network = DSNetwork(task, config)
        if config.w_gan:  # last, so that without it the network starts from the same weights
            seen, width = task.channels + task.foreground, config.critic_width
            self.critic = PixelCritic(seen, width, task.dims, config.critic_kernel)
        else:
            self.players = ("network",)

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Paper: dsnet Eq. (19), its parts."""
        target = 2 * batch.target - 1
        if player == "critic":
            with torch.no_grad():
                made = torch.tanh(log_odds(self.network(batch.image_lr)))
            return {"L_D": critic_loss(self.judge(batch, target), self.judge(batch, made))}
        logits = self.network(batch.image_lr)
        mask = (batch.target >= 0.5).float() if batch.mask is None else batch.mask
        parts = {"L_Seg": dice_loss(foreground_probs(logits.float()), mask)}
        made = torch.tanh(log_odds(logits))
        if self.config.w_soft:
            parts["L_Soft"] = mae(made, target)
        if self.config.w_gan:
            parts["L_GAN"] = generator_loss(self.judge(batch, made))
        return parts

    def judge(self, batch: Batch, soft: Float[Tensor, " b f *hr"]) -> Float[Tensor, " b 1 *hr"]:
        """The critic's logit of each pixel for Soft Masks in [-1, 1], the LR image beside them."""
        condition = resize(batch.image_lr, soft.shape[2:])
        return self.critic(torch.cat([condition, soft.to(condition.dtype)], 1))

    def weights(self) -> dict[str, float]:
        config = self.config
        used = {"L_Seg": config.w_seg}
        if config.w_soft:
            used["L_Soft"] = config.w_soft
        if config.w_gan:
            used |= {"L_GAN": config.w_gan, "L_D": 1.0}
        return used

    def deploy(self) -> Segmenter:
        return Segmenter(self.network, self.task, self.network.stride)

    @property
    def teacher(self) -> Teacher | None:
        return self.network.teacher

    def makes_image(self) -> bool:
        return self.teacher is not None

    def super_resolve(
        self, image_lr: Float[Tensor, " b c *s"], guidance: Float[Tensor, " b c *p"] | None = None
    ) -> Float[Tensor, " b c *hr"] | None:
        """The teacher's image."""
        return None if self.teacher is None else self.teacher(image_lr)

    def parameter_groups(self, player: str = "network") -> Iterator[ParameterGroup]:
        """Each player's own weights; the teacher's belong to nobody."""
        part = self.network if player == "network" else self.critic
        yield ParameterGroup([p for p in part.parameters() if p.requires_grad])

    RECIPE: ClassVar[Mapping[str, Any]] = {
        "prepare": {"normalise": "minmax"},
        "pairs": {"target": "soft"},
        "train": {
            "batch_size": 4,
            "optimiser": "adam",
            "learning_rate": 2e-4,
            "betas": (0.5, 0.999),
            "weight_decay": 0.0,
            "warmup_steps": 0,
            "clip_norm": 0.0,
        },
    }
    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "U-Net": {"backbone": "unet", "transfer": "none", "w_soft": 0.0, "w_gan": 0.0},
        "backbone": {"transfer": "none", "w_soft": 0.0, "w_gan": 0.0},
        "+ SR input": {"transfer": "image", "w_soft": 0.0, "w_gan": 0.0},
        "+ DRTM": {"w_soft": 0.0, "w_gan": 0.0},
        "+ Soft Mask loss": {"w_gan": 0.0},
        "+ GAN loss": {},
        "neither DTM nor CSF": {"dtm": False, "csf": False},
        "DTM": {"csf": False},
        "no teacher (SoftGAN)": {"transfer": "none"},
    }
