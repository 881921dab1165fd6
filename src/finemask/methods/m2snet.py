"""MSNet and M2SNet: subtraction between levels, within levels, and a network as the loss.

X. Zhao, L. Zhang and H. Lu, "Automatic polyp segmentation via multi-scale
subtraction network", MICCAI 2021 (MSNet).
X. Zhao et al., "M2SNet: multi-scale in multi-scale subtraction network for
medical image segmentation", arXiv 2303.10894, 2023.

Idea: adding or joining the levels of an encoder repeats what they share. A
subtraction unit keeps what they do not: the absolute difference of two
neighbouring levels, convolved. Units over units make a pyramid that compares
ever more distant levels. M2SNet also compares sums over 3x3 and 5x5
neighbourhoods. A frozen VGG-16 compares the predicted and the true mask,
beside the usual losses.

| Figures 2, 3, 4 and 7                | here                                  |
|--------------------------------------|---------------------------------------|
| E1 to E5, Res2Net-50                 | `nn.encoders`                         |
| 3x3 convolutions to 64 channels      | `SubtractionNetwork.reduce`, `.coarsest` |
| SU, MSU                              | `nn.subtraction.SubtractionUnit`      |
| filters of ones                      | `nn.subtraction.OnesFilter`           |
| MMSM                                 | `nn.subtraction.SubtractionPyramid`   |
| ASPP and DenseASPP in an MSU         | `nn.subtraction.ASPP`, `.DenseASPP`   |
| D1 to D4                             | `nn.subtraction.AdditiveDecoder`      |
| LossNet                              | `nn.lossnet.LossNet`                  |

| Equation                                     | here                                 |
|----------------------------------------------|--------------------------------------|
| (1), (2) SU, MSU                             | `SubtractionUnit.forward`            |
| (3) CE_i, sum of all on a level's grid       | `SubtractionPyramid.enhance`         |
| (4) L_wIoU + L_wBCE + L_LossNet              | `M2SNet.losses`, `M2SNet.weights`    |
| (5) sum of the levels' distances             | `nn.lossnet.LossNet.forward`         |
| (6) distance of one level's features         | `nn.lossnet.feature_distance`        |

Errata and departures:
- Eq. (3) adds a level's own feature (MS_1) to its differences; the released graph does not
  (`own = false`). That graph decides what the text leaves open: x1 is used as it is, CE5 has
  a convolution of its own from x5, CE4 has none, the last unit's deeper input is convolved
  once more. With these the weights are as many as printed, 27.7 M; the printed 9.0 G
  multiply-adds are those of an input of 256x256, not of the 352x352 that is trained on.
- A filter of ones over all channels makes 64 equal maps; the released code convolves densely
  for them, out of sight of its FLOP counter, at nearly the cost of the whole network, and
  normalises and rectifies behind, which the text does not say. Here they are one box sum.
  `ones = "depthwise"` is the reading that keeps the channels apart.
- The released weighted cross-entropy is averaged before it is weighted, so the weights cancel
  (`weighted_bce = false` repeats it). Its learning-rate groups look for a name that the network
  does not have: everything was trained at the head's rate (`encoder_factor = 1`). Its VGG is
  loaded four times, and training and testing normalise differently. LossNet's weight, 0.1, is
  in the code only.
- The LR image goes in, and logits are interpolated to the HR grid, where the released code
  interpolates to the input's. With scale 1 that is the same.
- Several classes: softmax; LossNet sees each foreground class as a picture.
- Without a file of ImageNet weights LossNet's are random (`lossnet_weights`); a run's
  ``meta.json`` names them. Nothing of LossNet is kept for prediction.
- The recipe is the paper's, made safe from scratch: the encoder learns at the full rate (the
  paper's tenth is for ImageNet weights), the gradient's norm is bounded, masks start at a
  foreground probability of 0.1, and batches, windows and augmentation are those of the other
  methods here. Rates change step by step, not once an epoch. `recipes/polyps/m2snet.toml` has
  the paper's own numbers.
- The released filters of ones keep one running mean and variance for all ten units and both
  inputs, whose sums differ widely, so that the network that is evaluated is not the one that
  learned. Here each place has its own; gains and offsets are shared as there. In small batches
  even those lag behind: `ones = "dense_in"` has none, see docs/results/m2snet.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.errors import UsageError
from finemask.losses.structure import WINDOW, structure_losses
from finemask.methods.base import Method, ParameterGroup, Segmenter
from finemask.nn.blocks import ConvBlock, crop_end, resize
from finemask.nn.encoders import Encoder, EncoderName, make_encoder
from finemask.nn.lossnet import LossNet
from finemask.nn.outputs import foreground_probs
from finemask.nn.subtraction import (
    STYLE,
    AdditiveDecoder,
    Context,
    Mode,
    Ones,
    SubtractionPyramid,
)
from finemask.nn.superres import mask_channels, prior_logits
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges


@dataclass(frozen=True)
class Config:
    """Options of M2SNet.

    Args:
        encoder: Name in ``nn.encoders.ENCODERS``.
        encoder_width: Feature maps of the encoder's stem; 64 in all public weights.
        encoder_factor: Learning rate of the encoder, as a share of the rest's.
        width: Feature maps of every level behind the encoder.
        order: Rows of subtraction units, 0 (none: a feature pyramid network) to 4.
        own: Add each level's own feature to its sum, as Eq. (3).
        unit: ``subtract``, or ``add`` for the ablation's addition units.
        context: How a unit looks around: filters of ``ones`` (MSU), ``none`` (SU), or the
            comparisons ``aspp`` and ``dense_aspp``.
        sides: Of the filters of ones, beside the 1x1 filter.
        ones: Filters over all channels, normalised over the batch (``dense_bn``) or in each image
            (``dense_in``), or in each channel (``depthwise``).
        w_iou: Weight of the weighted IoU loss.
        w_bce: Weight of the weighted cross-entropy.
        w_lossnet: Weight of LossNet; 0 does without.
        weighted_bce: See ``structure_losses``.
        edge_window: HR voxels a side of the surroundings that an outline is found by.
        lossnet_weights: File with VGG-16's ImageNet weights; random weights without.
        lossnet_size: Side that LossNet sees masks at; 0 for the HR grid.
        lossnet_width: Feature maps of LossNet's first level; 64 in the public weights.
    """

    encoder: EncoderName = "res2net50"
    encoder_width: int = 64
    encoder_factor: float = 0.1
    width: int = 64
    order: int = 4
    own: bool = True
    unit: Mode = "subtract"
    context: Context = "ones"
    sides: tuple[int, ...] = (3, 5)
    ones: Ones = "dense_bn"
    w_iou: float = 1.0
    w_bce: float = 1.0
    w_lossnet: float = 0.1
    weighted_bce: bool = True
    edge_window: int = WINDOW
    lossnet_weights: str = ""
    lossnet_size: int = 224
    lossnet_width: int = 64

    def __post_init__(self) -> None:
        check_ranges(
            "config",
            self,
            {
                "encoder_width": (1.0, 4096.0),
                "encoder_factor": (0.0, 1.0),
                "width": (1.0, 4096.0),
                "order": (0.0, 4.0),
                "sides": (1.0, 31.0),
                "edge_window": (1.0, 4096.0),
                "lossnet_size": (0.0, 4096.0),
                "lossnet_width": (1.0, 4096.0),
            },
        )
        for key, sides in {"sides": self.sides, "edge_window": (self.edge_window,)}.items():
            if any(side % 2 == 0 for side in sides):
                raise UsageError(f"config.{key}", f"is {sides}, needs odd sides", "change it")


@dataclass(frozen=True)
class SingleScaleConfig(Config):
    """Options of MSNet: those of M2SNet, without filters."""

    context: Context = "none"


class SubtractionNetwork(nn.Module):
    """Figure 2: encoder, subtraction pyramid, decoder; LR image in, HR logits out.

    Args:
        task: Channels, classes and scale.
        config: Of the method.
    """

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        width, self.scale = config.width, task.scale
        finest = {} if config.encoder == "vgg16" else {"finest": "pool"}
        self.encoder = make_encoder(
            config.encoder, task.channels, width=config.encoder_width, **finest
        )
        x1, *wider, x5 = self.encoder.widths
        self.reduce = nn.ModuleList(ConvBlock(w, width, STYLE) for w in (x5, *reversed(wider)))
        self.reduce.append(nn.Identity() if x1 == width else ConvBlock(x1, width, STYLE))
        if not config.order:  # nothing is subtracted from the coarsest level then
            self.reduce[0] = nn.Identity()
        self.coarsest = ConvBlock(x5, width, STYLE)
        self.pyramid = SubtractionPyramid(
            width,
            config.order,
            own=config.own,
            mode=config.unit,
            context=config.context,
            sides=config.sides,
            ones=config.ones,
        )
        self.decoder = AdditiveDecoder(width, mask_channels(task.classes))
        assert self.decoder.output.bias is not None
        with torch.no_grad():
            self.decoder.output.bias.copy_(prior_logits(task.classes))

    def forward(self, image_lr: Float[Tensor, " b c h w"]) -> Float[Tensor, " b l i j"]:
        features = self.encoder(image_lr)[::-1]
        reduced = [reduce(x) for reduce, x in zip(self.reduce, features, strict=True)]
        enhanced = self.pyramid(reduced)
        logits = self.decoder([self.coarsest(features[0]), *enhanced])
        step = [self.encoder.strides[0] * f for f in self.scale]
        whole = [n * s for n, s in zip(logits.shape[2:], step, strict=True)]
        hr = [n * f for n, f in zip(image_lr.shape[2:], self.scale, strict=True)]
        return crop_end(resize(logits, whole), hr)


class MSNet(Method):
    """LR image in, HR mask out, by subtraction of levels."""

    paper: ClassVar[str] = "Zhao et al., Multi-scale subtraction network (MSNet), MICCAI 2021"
    dims: ClassVar[tuple[int, ...]] = (2,)
    config_type: ClassVar[type] = SingleScaleConfig
    config: Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        self.network = SubtractionNetwork(task, config)
        self.lossnet: LossNet | None = None

    def equip(self) -> dict[str, str]:
        """Make LossNet, from its file or with the random weights that stand in for it."""
        config, file = self.config, self.config.lossnet_weights
        if not config.w_lossnet:
            return {}
        weights = Path(file) if file else None
        self.lossnet = LossNet(weights, config.lossnet_size, config.lossnet_width)
        self.lossnet.to(next(self.parameters()).device)
        return {"LossNet": file or "random weights (config.lossnet_weights names no file)"}

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Paper: m2snet Eq. (4), its parts."""
        config, target = self.config, batch.target
        logits = self.network(batch.image_lr)
        iou, bce = structure_losses(
            logits, target, weighted_bce=config.weighted_bce, window=config.edge_window
        )
        parts = {"L_wIoU": iou, "L_wBCE": bce}
        if config.w_lossnet:
            if self.lossnet is None:
                self.equip()
            assert self.lossnet is not None
            parts["L_LossNet"] = self.lossnet(foreground_probs(logits.float()), target)
        return parts

    def weights(self) -> dict[str, float]:
        config = self.config
        lossnet = {"L_LossNet": config.w_lossnet} if config.w_lossnet else {}
        return {"L_wIoU": config.w_iou, "L_wBCE": config.w_bce, **lossnet}

    def deploy(self) -> Segmenter:
        return Segmenter(self.network, self.task, self.network.encoder.strides[-1])

    def public_encoder(self) -> Encoder:
        return self.network.encoder

    def parameter_groups(self, player: str = "network") -> Iterator[ParameterGroup]:
        """The encoder at ``encoder_factor`` times the learning rate, and the rest."""
        yield from self.encoder_groups(self.config.encoder_factor)

    RECIPE: ClassVar[Mapping[str, Any]] = {
        "train": {
            "optimiser": "sgd",
            "nesterov": True,
            "learning_rate": 0.05,
            "weight_decay": 5e-4,
            "schedule": "triangle",
            "warmup_steps": 0,
            "rescale": (0.64, 0.73, 0.82, 0.91, 1.0),
        },
        "config": {"encoder_factor": 1.0},
    }

    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "baseline (FPN)": {"order": 0, "w_lossnet": 0.0},
        "+ order 1": {"order": 1, "w_lossnet": 0.0},
        "+ order 2": {"order": 2, "w_lossnet": 0.0},
        "+ order 3": {"order": 3, "w_lossnet": 0.0},
        "+ order 4": {"w_lossnet": 0.0},
        "+ LossNet": {},
        "addition units": {"unit": "add"},
    }


class M2SNet(MSNet):
    """LR image in, HR mask out, by subtraction of levels and of their neighbourhoods."""

    paper: ClassVar[str] = "Zhao et al., Multi-scale in multi-scale subtraction (M2SNet), 2023"
    config_type: ClassVar[type] = Config

    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "MSNet": {"context": "none"},
        "ASPP": {"context": "aspp"},
        "DenseASPP": {"context": "dense_aspp"},
        "filters of ones": {},
    }
