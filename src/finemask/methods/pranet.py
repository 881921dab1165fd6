"""PraNet: a global map, corrected three times where it sees background.

D.-P. Fan, G.-P. Ji, T. Zhou, G. Chen, H. Fu, J. Shen and L. Shao, "PraNet:
parallel reverse attention network for polyp segmentation", MICCAI 2020, pp.
263-273. A comparison model of sasrnet and m2snet, and sasrnet's backbone for polyps.

Idea: a doctor finds roughly where a polyp is, then follows its outline. Three
coarse levels of an encoder make a global map. From the coarsest of them up,
each stage erases what the map has found, looks at what is left (outlines, and
what was missed) and corrects the map. All four maps are supervised.

| Figure 2                                 | here                            |
|------------------------------------------|---------------------------------|
| f1 to f5, Res2Net-50                     | `nn.encoders`                   |
| receptive field blocks (in the code)     | `nn.pranet.ReceptiveField`      |
| PD, the parallel partial decoder; S_g    | `nn.pranet.PartialDecoder`      |
| RA, reverse attention                    | `nn.pranet.ReverseAttention`    |
| S_5, S_4, S_3                            | `nn.pranet.PraNetDecoder`       |
| deep supervision                         | `losses.deep_supervision`       |

| Equation                                           | here                              |
|----------------------------------------------------|-----------------------------------|
| (1) R_i = f_i A_i                                  | `nn.pranet.ReverseAttention.erase` |
| (2) A_i = 1 - sigmoid(P(S_{i+1}))                  | `nn.pranet.reverse_attention`     |
| (3) L(S_g) + L(S_3) + L(S_4) + L(S_5)              | `PraNet.losses`, `PraNet.weights` |

Errata and departures:
- The paper's own text was not at hand: this file follows summaries of it and the graph of the
  released code, which decides what they leave open. The order of its equations may differ.
- 30,498,319 weights with Res2Net-50 and 50,005,887 with Res2Net-101, at 3 channels and one
  class. The 32.5 M that others print are those with ImageNet's classifier, 2,049,000 weights
  which the released network carries along and never uses.
- The released convolution block makes a ReLU and leaves it out: only the three stages'
  convolutions and the end of a receptive field block are activated. So it is here.
- The partial decoder's released upsampling aligns corners and shifts the levels against each
  other; here as everywhere corners are not aligned.
- The LR image goes in, and each map is interpolated from its level's grid to the HR grid,
  where the released code goes to the input's. With scale 1 that is the same.
- Several classes: softmax. What the maps have found is then whatever is no background, one
  attention for all features; with one class that is Eq. (2).
- The released weighted cross-entropy is averaged before it is weighted, so that the weights
  cancel; printed scores come from that (`weighted_bce = false` repeats it). Its weighted IoU is
  least at 0 or 1 where the target is soft, as masks are after resizing; see `losses.structure`.
- The released code makes three steps of each batch, at 0.75, 1 and 1.25 times its size; here
  each batch has one of these sizes, so as many images want three times the steps. It clamps
  each element of the gradient to 0.5, which turns it; here its norm is bounded. Its learning
  rate would decay after 50 epochs, of which it trains 19: it is constant.
- Each predicted map is stretched to [0, 1] before scoring, which turns the faint map of an
  image without a polyp into a full one. Not done here.
- From scratch the global map starts at a foreground probability of 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from finemask.losses.deep_supervision import side_map_losses
from finemask.methods.base import Method, Segmenter
from finemask.nn.blocks import Style
from finemask.nn.encoders import Encoder, EncoderName, make_encoder
from finemask.nn.pranet import PraNetDecoder, PraNetwork
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.strict import check_ranges


@dataclass(frozen=True)
class Config:
    """Options of PraNet.

    Args:
        encoder: Name in ``nn.encoders.ENCODERS``.
        encoder_width: Feature maps of the encoder's stem; 64 in all public weights.
        channel: Feature maps behind the receptive field blocks; the first stage of reverse
            attention has eight times as many, the others twice as many.
        w_side: Weight of S_g, S_5 and S_4; S_3, which is the answer, has 1.
        weighted_bce: See ``structure_losses``.
    """

    encoder: EncoderName = "res2net50"
    encoder_width: int = 64
    channel: int = 32
    w_side: float = 1.0
    weighted_bce: bool = True

    def __post_init__(self) -> None:
        check_ranges("config", self, {"encoder_width": (1.0, 4096.0), "channel": (1.0, 4096.0)})


class PraNet(Method):
    """LR image in, HR mask out, by reverse attention."""

    paper: ClassVar[str] = "Fan et al., Parallel reverse attention network (PraNet), MICCAI 2020"
    dims: ClassVar[tuple[int, ...]] = (2,)
    config_type: ClassVar[type] = Config

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__(task, config)
        encoder = make_encoder(config.encoder, task.channels, width=config.encoder_width)
        style = Style(task.dims, norm="batch")
        decoder = PraNetDecoder(encoder.widths, task.classes, style, config.channel)
        self.network = PraNetwork(encoder, decoder, task.scale)

    def losses(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        """Paper: pranet Eq. (3), its parts."""
        maps = self.network.decoder(self.network.encoder(batch.image_lr))
        sides = self.network.on_hr_grid(maps, batch.image_lr)
        losses = side_map_losses(sides, batch.target, weighted_bce=self.config.weighted_bce)
        return dict(zip(("L_g", "L_5", "L_4", "L_3"), losses, strict=True))

    def weights(self) -> dict[str, float]:
        side = self.config.w_side
        return {"L_g": side, "L_5": side, "L_4": side, "L_3": 1.0}

    def deploy(self) -> Segmenter:
        return Segmenter(self.network, self.task, self.network.encoder.strides[-1])

    def public_encoder(self) -> Encoder:
        return self.network.encoder

    RECIPE: ClassVar[Mapping[str, Any]] = {
        "train": {
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "schedule": "constant",
            "rescale": (0.75, 1.0, 1.25),
        }
    }
    ABLATIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "PraNet": {},
        "PraNet-101": {"encoder": "res2net101"},
    }
