"""The released SASR-Net: names and shapes as its repository's classes make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.inference.cohort import predict
from finemask.io import read_labels, write_image
from finemask.methods.describe import count_parameters
from finemask.methods.released import load_released, released_recipe
from finemask.runs import import_released, load_run

UNUSED = 18_224
"""Weights that the released code makes and never uses (spec_000)."""


def synthetic() -> dict[str, Tensor]:
    """A state dict of the released graph, drawn at random: 13,250,574 weights."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def conv(name: str, c_in: int, c_out: int, kernel: int = 3, bias: bool = True) -> None:
        state[f"{name}.weight"] = (
            torch.randn(c_out, c_in, *[kernel] * 3) / (c_in * kernel**3) ** 0.5
        )
        if bias:
            state[f"{name}.bias"] = torch.randn(c_out) / 10

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = torch.rand(channels) + (part in ("weight", "running_var"))
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    for level, (c_in, c_out) in enumerate([(1, 32), (32, 64), (64, 128), (128, 256)], 1):
        for layer, width in ((0, c_in), (3, c_out)):
            conv(f"encoder.block_{level}.conv.{layer}", width, c_out)
            norm(f"encoder.block_{level}.conv.{layer + 1}", c_out)
    for decoder in ("seg_decoder", "sr_decoder.sr_decoder"):
        for number, (c_in, c_out) in {5: (256, 128), 6: (128, 64), 7: (64, 32)}.items():
            block = f"{decoder}.block_{number}"
            conv(f"{block}_up.conv.1", c_in, c_out)
            norm(f"{block}_up.conv.2", c_out)
            for branch in ("1x1_1", "3x3_1", "3x3_2", "3x3_3"):
                conv(f"{block}.conv_{branch}", c_in, c_out, int(branch[0]))
                norm(f"{block}.bn_conv_{branch}", c_out)
            conv(f"{block}.offset_conv", c_in, 4)
            conv(f"{block}.conv", 4 * c_out, c_out, 1)
            norm(f"{block}.bn", c_out)
    conv("seg_decoder.block_8_seg", 32, 1, 1)
    for level, width in ((2, 32), (3, 16)):
        up = f"sr_decoder.up_sr_{level}"  # transposed: input channels first
        state[f"{up}.weight"] = torch.randn(32, width, 2, 2, 2) / 8
        state[f"{up}.bias"] = torch.randn(width)
        unit = f"sr_decoder.up_edsr_{level}"
        conv(f"{unit}.conv.0", width, width)
        conv(f"{unit}.conv.2", width, width)
        conv(f"{unit}.residual_upsampler.0", width, width, 1, bias=False)
    conv("sr_decoder.up_conv_last", 32, 1, 1)
    conv("pointwise.0", 1, 1, 1)
    norm("pointwise.1", 1)
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return synthetic()


@pytest.fixture(scope="module")
def file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the training script saves it, data-parallel names and all."""
    path = tmp_path_factory.mktemp("released") / "checkpoint.pth.tar"
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {}, "best_pred": 0.7}, path)
    return path


def learnt(state: dict[str, Tensor]) -> int:
    apart = ("running_mean", "running_var", "num_batches_tracked")
    return sum(v.numel() for k, v in state.items() if not k.endswith(apart))


def test_every_weight_is_met_once(state: dict[str, Tensor], file: Path) -> None:
    assert learnt(state) == 13_250_574
    method = load_released("sasrnet", file)
    assert count_parameters(method) == learnt(state) - UNUSED
    ours = sorted(float(v.double().sum()) for v in method.state_dict().values())
    theirs = sorted(
        float(v.double().sum())
        for k, v in state.items()
        if not k.startswith(("sr_decoder.up_sr_3", "sr_decoder.up_edsr_3"))
    )
    assert ours == theirs


def test_one_decoder_block_computes_what_the_released_one_does(
    state: dict[str, Tensor], file: Path
) -> None:
    """Interpolate, convolve, join, weigh and mix, written out with the released names."""
    method = load_released("sasrnet", file).eval()
    decoder = method.lmsr_decoder
    coarse, skip = torch.randn(1, 256, 3, 3, 3), torch.randn(1, 128, 6, 6, 6)
    s, block = state, "seg_decoder.block_5"

    def cbr(x: Tensor, conv: str, norm: str, dilation: int = 1) -> Tensor:
        kernel = s[f"{conv}.weight"].shape[-1]
        padding = dilation * (kernel // 2)
        y = torch.nn.functional.conv3d(
            x, s[f"{conv}.weight"], s[f"{conv}.bias"], padding=padding, dilation=dilation
        )
        mean, var, gain, offset = (
            s[f"{norm}.{part}"].reshape(-1, 1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((y - mean) / (var + 1e-5).sqrt() * gain + offset).relu()

    with torch.no_grad():
        up = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="trilinear")
        x = torch.cat([cbr(up, f"{block}_up.conv.1", f"{block}_up.conv.2"), skip], 1)
        gates = torch.nn.functional.conv3d(
            x, s[f"{block}.offset_conv.weight"], s[f"{block}.offset_conv.bias"], padding=1
        ).sigmoid()
        names = ("1x1_1", "3x3_1", "3x3_2", "3x3_3")
        branches = [
            gates[:, [k]] * cbr(x, f"{block}.conv_{n}", f"{block}.bn_conv_{n}", d)
            for k, (n, d) in enumerate(zip(names, (1, 1, 2, 5), strict=True))
        ]
        expected = cbr(torch.cat(branches, 1), f"{block}.conv", f"{block}.bn")
        got = decoder.blocks[0](torch.cat([decoder.ups[0](coarse, (6, 6, 6)), skip], 1))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_user_predicts_with_it(file: Path, tmp_path: Path) -> None:
    run = import_released("sasrnet", file, tmp_path / "run")
    assert run.recipe == load_run(tmp_path / "run").recipe == released_recipe("sasrnet")
    image = np.random.default_rng(0).uniform(-1200, 600, (1, 9, 10, 11)).astype(np.float32)
    write_image(tmp_path / "ct.nii.gz", image, Geometry.regular((9, 10, 11)))
    outcome = predict(run, tmp_path / "ct.nii.gz", tmp_path / "masks")
    assert outcome.done == 1
    assert read_labels(tmp_path / "masks" / "ct.nii.gz")[0].shape == (18, 20, 22)


def test_a_file_of_something_else_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    less = {name: value for name, value in state.items() if "offset_conv" not in name}
    torch.save(less, tmp_path / "less.pth")
    with pytest.raises(DataError, match="is not the released sasrnet .*gates.weight has no weight"):
        import_released("sasrnet", tmp_path / "less.pth", tmp_path / "run")
    torch.save({**state, "extra.weight": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(DataError, match="extra.weight unexpected"):
        load_released("sasrnet", tmp_path / "more.pth")
    assert not (tmp_path / "run").exists()


def test_only_known_networks_are_imported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'unet' has no released network"):
        import_released("unet", tmp_path / "x.pth", tmp_path / "run")
