"""The released PraNet: its graph written out with the released names, against ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.inference.cohort import predict
from finemask.io import read_labels, write_image
from finemask.methods.describe import count_parameters
from finemask.methods.released import load_released, released_recipe
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names
from finemask.runs import import_released

State = Mapping[str, Tensor]
CLASSIFIER = 2048 * 1000 + 1000


def synthetic() -> dict[str, Tensor]:
    """A state dict of the released graph, drawn at random."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def block(name: str, c_in: int, c_out: int, kernel: tuple[int, int] = (1, 1)) -> None:
        shape = (c_out, c_in, *kernel)
        state[f"{name}.conv.weight"] = torch.randn(shape) / (c_in * np.prod(kernel)) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            spread = torch.rand(c_out) / 2
            state[f"{name}.bn.{part}"] = spread + (part in ("weight", "running_var"))
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(5)

    encoder = make_encoder("res2net50", 3)
    for ours, theirs in public_names(encoder).items():
        state[f"resnet.{theirs}"] = encoder.state_dict()[ours]
    state["resnet.fc.weight"], state["resnet.fc.bias"] = torch.ones(1000, 2048), torch.ones(1000)
    for n, c_in in ((2, 512), (3, 1024), (4, 2048)):
        rfb = f"rfb{n}_1"
        block(f"{rfb}.branch0.0", c_in, 32)
        for i, k in ((1, 3), (2, 5), (3, 7)):
            block(f"{rfb}.branch{i}.0", c_in, 32)
            block(f"{rfb}.branch{i}.1", 32, 32, (1, k))
            block(f"{rfb}.branch{i}.2", 32, 32, (k, 1))
            block(f"{rfb}.branch{i}.3", 32, 32, (3, 3))
        block(f"{rfb}.conv_cat", 128, 32, (3, 3))
        block(f"{rfb}.conv_res", c_in, 32)
    for layer, c in [
        *((f"conv_upsample{i}", 32) for i in (1, 2, 3, 4)),
        *(("conv_upsample5", 64), ("conv_concat2", 64), ("conv_concat3", 96), ("conv4", 96)),
    ]:
        block(f"agg1.{layer}", c, c, (3, 3))
    state["agg1.conv5.weight"], state["agg1.conv5.bias"] = (
        torch.randn(1, 96, 1, 1) / 8,
        torch.ones(1),
    )
    for n, c_in, c, k, count in ((4, 2048, 256, 5, 3), (3, 1024, 64, 3, 2), (2, 512, 64, 3, 2)):
        block(f"ra{n}_conv1", c_in, c)
        for i in range(count):
            block(f"ra{n}_conv{i + 2}", c, c, (k, k))
        block(f"ra{n}_conv{count + 2}", c, 1, (1, 1) if n == 4 else (3, 3))
    return state


@pytest.fixture(scope="module")
def state() -> State:
    return synthetic()


@pytest.fixture(scope="module")
def file(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "PraNet-19.pth"
    torch.save(dict(state), path)
    return path


def written_out(s: State, levels: list[Tensor]) -> list[Tensor]:
    """The released decoder on three levels, corners not aligned: S_g, S_5, S_4, S_3."""

    def block(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = s[f"{name}.conv.weight"]
        padding = [dilation * (k // 2) for k in weight.shape[2:]]
        y = F.conv2d(x, weight, None, 1, padding, dilation)
        mean, var, gain, offset = (
            s[f"{name}.bn.{part}"].reshape(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / (var + 1e-5).sqrt() * gain + offset

    def up(x: Tensor, factor: float = 2) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    def rfb(name: str, x: Tensor) -> Tensor:
        branches = [block(f"{name}.branch0.0", x)]
        for i in (1, 2, 3):
            y = x
            for k in range(4):
                y = block(f"{name}.branch{i}.{k}", y, 2 * i + 1 if k == 3 else 1)
            branches.append(y)
        joined = block(f"{name}.conv_cat", torch.cat(branches, 1))
        return F.relu(joined + block(f"{name}.conv_res", x))

    x2, x3, x4 = levels
    c, b, a = rfb("rfb2_1", x2), rfb("rfb3_1", x3), rfb("rfb4_1", x4)
    b1 = block("agg1.conv_upsample1", up(a)) * b
    c1 = block("agg1.conv_upsample2", up(up(a))) * block("agg1.conv_upsample3", up(b)) * c
    b2 = block("agg1.conv_concat2", torch.cat([b1, block("agg1.conv_upsample4", up(a))], 1))
    c2 = block("agg1.conv_concat3", torch.cat([c1, block("agg1.conv_upsample5", up(b2))], 1))
    best = F.conv2d(block("agg1.conv4", c2), s["agg1.conv5.weight"], s["agg1.conv5.bias"])
    maps = [best]
    for n, x, factor, count in ((4, x4, 0.25, 3), (3, x3, 2, 2), (2, x2, 2, 2)):
        guide = up(best, factor)
        y = block(f"ra{n}_conv1", x * (1 - torch.sigmoid(guide)))
        for i in range(count):
            y = F.relu(block(f"ra{n}_conv{i + 2}", y))
        best = block(f"ra{n}_conv{count + 2}", y) + guide
        maps.append(best)
    return maps


def test_the_whole_graph_is_the_released_one(state: State, file: Path) -> None:
    method = load_released("pranet", file).eval()
    learnt = sum(
        v.numel() for k, v in state.items() if not k.endswith(("_mean", "_var", "_tracked"))
    )
    assert count_parameters(method) == learnt - CLASSIFIER == 30_498_319
    network = method.network
    with torch.no_grad():
        sides = ((512, 8, 12), (1024, 4, 6), (2048, 2, 3))
        levels = [torch.randn(1, *side).relu() for side in sides]
        expected = written_out(state, levels)
        got = network.decoder(levels)
    assert 0.1 < torch.sigmoid(expected[0]).mean() < 0.9, "attention is neither open nor shut"
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_user_predicts_with_it(file: Path, tmp_path: Path) -> None:
    run = import_released("pranet", file, tmp_path / "run")
    assert run.recipe == released_recipe("pranet")
    picture = np.random.default_rng(0).integers(0, 256, (3, 40, 50)).astype(np.uint8)
    write_image(tmp_path / "polyp.png", picture, Geometry.regular((40, 50)))
    assert predict(run, tmp_path / "polyp.png", tmp_path / "masks").done == 1
    assert read_labels(tmp_path / "masks" / "polyp.png")[0].shape == (40, 50)


def test_another_network_is_refused(state: State, tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if "ra2" not in k}, tmp_path / "less.pth")
    with pytest.raises(DataError, match="is not the released pranet"):
        load_released("pranet", tmp_path / "less.pth")
