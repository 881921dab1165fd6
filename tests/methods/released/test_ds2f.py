"""The released U-Net with MSCG, its graph written out with the released names, against ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finemask.errors import DataError
from finemask.methods.describe import count_parameters
from finemask.methods.released import load_released, released_recipe
from finemask.runs import import_released

State = Mapping[str, Tensor]
WIDTHS = (64, 128, 256, 512, 1024)


def synthetic() -> dict[str, Tensor]:
    """A state dict of the released graph, drawn at random."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def conv(
        key: str, c_in: int, c_out: int, side: int, bias: bool = True, groups: int = 1
    ) -> None:
        fan = c_in // groups * side**2
        state[f"{key}.weight"] = torch.randn(c_out, c_in // groups, side, side) / fan**0.5
        if bias:
            state[f"{key}.bias"] = torch.randn(c_out) / 10

    def norm(key: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{key}.{part}"] = torch.rand(width) / 2 + (part in ("weight", "running_var"))
        state[f"{key}.num_batches_tracked"] = torch.tensor(5)

    def block(key: str, c_in: int, c_out: int, side: int = 3) -> None:
        conv(f"{key}.conv", c_in, c_out, side, bias=False)
        norm(f"{key}.norm_layer", c_out)

    for level, (c_in, width) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False), start=1):
        inner = ".conv" if level < 5 else ""
        block(f"down{level}{inner}.conv1", c_in, width)
        block(f"down{level}{inner}.conv2", width, width)
    for start in ("up", "sr_up"):
        for number, width in zip((6, 7, 8, 9), WIDTHS[-2::-1], strict=True):
            block(f"{start}{number}.upsample_conv", 2 * width, width, 1)
            block(f"{start}{number}.conv.conv1", 2 * width, width)
            block(f"{start}{number}.conv.conv2", width, width)
    conv("out_conv", 64, 2, 1)
    for number, c_in, c_out, side in ((0, 64, 64, 5), (2, 64, 32, 3), (4, 32, 12, 3)):
        conv(f"sr_module.{number}", c_in, c_out, side, bias=False)
    gate = "sr_seg_fusion_module"
    conv(f"{gate}.fusion_conv.0", 128, 32, 1)
    norm(f"{gate}.fusion_conv.1", 32)
    inner = f"{gate}.fusion_conv.3"
    for k in (1, 2):
        conv(f"{inner}.rcab.conv{k}", 32, 32, 3, groups=32)
    conv(f"{inner}.rcab.se.0", 32, 8, 1)
    conv(f"{inner}.rcab.se.2", 8, 32, 1)
    conv(f"{inner}.msconv.convs.0", 8, 8, 1)
    for k in (1, 2):
        conv(f"{inner}.msconv.convs.{k}", 8, 8, 3, groups=8)
    conv(f"{inner}.msconv.convs.3.conv", 8, 8, 1)
    norm(f"{inner}.msconv.norm", 32)
    for task in ("sr", "seg"):
        conv(f"{gate}.linear_cross_{task}.0", 32, 64, 1)
        conv(f"{gate}.gate_{task}", 64, 64, 1)
    return state


def written_out(s: State, x: Tensor) -> dict[str, Tensor]:
    """The released training graph in evaluation mode: both answers and both proxies."""

    def conv(key: str, x: Tensor, groups: int = 1, dilation: int = 1) -> Tensor:
        weight = s[f"{key}.weight"]
        pad = dilation * (weight.shape[2] // 2)
        return F.conv2d(x, weight, s.get(f"{key}.bias"), 1, pad, dilation, groups)

    def norm(key: str, x: Tensor) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(s[f"{key}.{part}"] for part in parts))

    def block(key: str, x: Tensor) -> Tensor:
        return F.relu(norm(f"{key}.norm_layer", conv(f"{key}.conv", x)))

    def double(key: str, x: Tensor) -> Tensor:
        return block(f"{key}.conv2", block(f"{key}.conv1", x))

    def grown(x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    hr = (2 * x.shape[2], 2 * x.shape[3])
    skips, down = [], x
    for level in range(1, 5):
        skips.append(double(f"down{level}.conv", down))
        down = F.max_pool2d(skips[-1], 3, 2, 1)
    bottom = double("down5", down)

    def way_up(start: str) -> Tensor:
        x = bottom
        for number, skip in zip((6, 7, 8, 9), reversed(skips), strict=True):
            up = block(f"{start}{number}.upsample_conv", grown(x, skip.shape[2:]))
            x = double(f"{start}{number}.conv", torch.cat([up, skip], 1))
        return x

    def image(x: Tensor) -> Tensor:
        x = torch.tanh(conv("sr_module.2", torch.tanh(conv("sr_module.0", x))))
        return F.pixel_shuffle(conv("sr_module.4", x), 2)

    seg, sr, gate = way_up("up"), way_up("sr_up"), "sr_seg_fusion_module"
    inner = f"{gate}.fusion_conv.3"
    fused = F.gelu(
        norm(f"{gate}.fusion_conv.1", conv(f"{gate}.fusion_conv.0", torch.cat([sr, seg], 1)))
    )
    z = conv(f"{inner}.rcab.conv2", conv(f"{inner}.rcab.conv1", fused, 32), 32)
    weights = conv(f"{inner}.rcab.se.2", F.leaky_relu(conv(f"{inner}.rcab.se.0", z)))
    attended = torch.sigmoid(weights) * z + fused
    one, two, three, four = attended.chunk(4, 1)
    mean = conv(f"{inner}.msconv.convs.3.conv", four.mean((2, 3), keepdim=True))
    parts = [
        conv(f"{inner}.msconv.convs.0", one),
        conv(f"{inner}.msconv.convs.1", two, 8, 1),
        conv(f"{inner}.msconv.convs.2", three, 8, 2),
        mean.expand_as(four),
    ]
    shared = F.gelu(norm(f"{inner}.msconv.norm", torch.cat(parts, 1))) + fused

    def gated(task: str, x: Tensor) -> Tensor:
        weight = F.gelu(conv(f"{gate}.linear_cross_{task}.0", shared))
        return conv(f"{gate}.gate_{task}", weight * x) + x

    return {
        "mask": grown(conv("out_conv", seg), hr),
        "image": image(sr),
        "proxy mask": grown(conv("out_conv", gated("seg", seg)), hr),
        "proxy image": image(gated("sr", sr)),
    }


def test_the_whole_graph_is_the_released_one(tmp_path: Path) -> None:
    state = synthetic()
    torch.save(state, tmp_path / "released.pth")
    method = load_released("ds2f", tmp_path / "released.pth").eval()
    assert count_parameters(method) == 39_194_682
    run = import_released("ds2f", tmp_path / "released.pth", tmp_path / "run")
    assert run.segmenter.window == (), "whole images were trained on"
    image, streams = torch.randn(1, 3, 21, 32), method.streams
    with torch.no_grad():
        wanted = written_out(state, image)
        shared = streams.encode(image)
        sr, seg = streams.decode_sr(shared)[-1], streams.decode_seg(shared)[-1]
        f_sr, f_seg = method.sfem(sr, seg)
        made = {
            "mask": method.deploy()(image),
            "image": method.super_resolve(image),
            "proxy mask": streams.mask(f_seg, image),
            "proxy image": streams.image(f_sr, image),
        }
    for name, answer in made.items():
        spread = float(wanted[name].std())
        assert spread > 0.01, name
        torch.testing.assert_close(answer, wanted[name], atol=1e-3 * spread, rtol=1e-3)


def test_the_other_released_networks_are_refused(tmp_path: Path) -> None:
    """The DeepLabV3+ of the repository, and a U-Net without its second stream."""
    state = {k: v for k, v in synthetic().items() if not k.startswith("sr_")}
    torch.save(state, tmp_path / "plain.pth")
    with pytest.raises(DataError, match="has no weight"):
        load_released("ds2f", tmp_path / "plain.pth")
    torch.save({**synthetic(), "aspp.conv.weight": torch.zeros(1)}, tmp_path / "deeplab.pth")
    with pytest.raises(DataError, match=r"aspp\.conv\.weight unexpected"):
        load_released("ds2f", tmp_path / "deeplab.pth")


def test_its_recipe_is_the_released_one() -> None:
    config = released_recipe("ds2f").config
    assert (config["sfem"], config["aligned"], config["sr_skip"]) == ("mscg", True, False)
