"""The released PFSegs load by a complete map of names, and their graphs give the same maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from finemask.errors import DataError
from finemask.methods.released import find_released, load_released, released_recipe
from finemask.runs import import_released

SGM = {"pfseg": "ssgm", "pfseg_2021": "high_freq_extract"}


def weights_of(name: str) -> dict[str, Tensor]:
    """Random weights under the released names, in the shapes of Figures 3 and 4."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def put(key: str, *shape: int, bias: bool = True) -> None:
        fan = shape[1] * shape[2] ** 3
        weights[f"{key}.weight"] = torch.randn(shape, generator=generator) / fan**0.5
        if bias:
            weights[f"{key}.bias"] = torch.randn(shape[0], generator=generator) * 0.1

    def res(key: str, a: int, b: int) -> None:
        put(f"{key}.conv.0", b, a, 3, 3, 3)
        put(f"{key}.conv.3", b, b, 3, 3, 3)
        put(f"{key}.residual_upsampler.0", b, a, 1, 1, 1, bias=False)

    def multi(key: str, a: int, b: int) -> None:
        put(f"{key}.conv3x3", b, a, 3, 3, 3)
        put(f"{key}.conv5x5", b // 2, a, 5, 5, 5)
        put(f"{key}.conv7x7", b // 2, a, 7, 7, 7)
        put(f"{key}.conv_2.2", b, 2 * b, 3, 3, 3)
        put(f"{key}.residual_upsampler.0", b, a, 1, 1, 1, bias=False)

    block = multi if name == "pfseg" else res
    widths = (1, 32, 32, 64, 128, 256)
    for k in range(5):
        block(f"conv{k + 1}", widths[k], widths[k + 1])
    for k, (a, b) in enumerate(((1, 16), (16, 32), (32, 64), (64, 64))):
        block(f"{SGM[name]}.{2 * k}", a, b)
    for branch in ("seg", "sr"):
        for number, (a, b) in enumerate(((320, 128), (128, 64), (64, 32), (32, 32)), 6):
            put(f"up{number}_{branch}.deconv.0", a, b, 4, 4, 4)
            weights[f"up{number}_{branch}.deconv.0.bias"] = torch.zeros(b) + 0.01
            res(f"conv{number}_{branch}", 2 * b, b)
        put(f"up10_{branch}.deconv.0", 32, 32, 4, 4, 4)
        res(f"conv10_{branch}", 32, 16)
        put(f"conv11_{branch}", 1, 16, 1, 1, 1)
    return weights


def forward(w: dict[str, Tensor], name: str, x: Tensor, guidance: Tensor) -> list[Tensor]:
    """The released graph, layer by layer, by its own names."""

    def conv(key: str, y: Tensor, padding: int = 1) -> Tensor:
        return F.conv3d(y, w[f"{key}.weight"], w.get(f"{key}.bias"), padding=padding)

    def shortcut(key: str, y: Tensor) -> Tensor:
        return F.instance_norm(conv(f"{key}.residual_upsampler.0", y, 0))

    def res(key: str, y: Tensor) -> Tensor:
        z = F.leaky_relu(F.instance_norm(conv(f"{key}.conv.0", y)))
        return F.leaky_relu(F.instance_norm(conv(f"{key}.conv.3", z)) + shortcut(key, y))

    def multi(key: str, y: Tensor) -> Tensor:
        parts = [conv(f"{key}.conv{s}x{s}", y, s // 2) for s in (3, 5, 7)]
        z = F.leaky_relu(F.instance_norm(torch.cat(parts, 1)))
        return F.leaky_relu(F.instance_norm(conv(f"{key}.conv_2.2", z)) + shortcut(key, y))

    def up(key: str, y: Tensor) -> Tensor:
        weight, bias = w[f"{key}.deconv.0.weight"], w[f"{key}.deconv.0.bias"]
        return F.leaky_relu(F.conv_transpose3d(y, weight, bias, stride=2, padding=1))

    block = multi if name == "pfseg" else res
    levels = [block("conv1", x)]
    for k in range(2, 6):
        levels.append(block(f"conv{k}", F.max_pool3d(levels[-1], 2)))
    code = block(f"{SGM[name]}.0", guidance)
    for k in (2, 4, 6):
        code = block(f"{SGM[name]}.{k}", F.max_pool3d(code, 2))
    maps = []
    for branch in ("seg", "sr"):
        y = torch.cat([levels[-1], code], 1)
        for number in range(6, 10):
            y = torch.cat([up(f"up{number}_{branch}", y), levels[9 - number]], 1)
            y = res(f"conv{number}_{branch}", y)
        y = res(f"conv10_{branch}", up(f"up10_{branch}", y))
        maps.append(conv(f"conv11_{branch}", y, 0))
    return [maps[0], maps[1].relu()]


@pytest.mark.parametrize("name", ["pfseg", "pfseg_2021"])
def test_the_released_network_gives_its_maps(name: str, tmp_path: Path) -> None:
    weights = weights_of(name)
    save_file(weights, tmp_path / "weights.safetensors")
    method = load_released(name, tmp_path / "weights.safetensors").eval()
    image, guidance = torch.rand(1, 1, 32, 16, 16), torch.rand(1, 1, 16, 8, 8)
    with torch.no_grad():
        logits, resolved = forward(weights, name, image, guidance)
        torch.testing.assert_close(method.deploy()(image, guidance), logits, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            method.super_resolve(image, guidance), resolved, rtol=1e-3, atol=1e-3
        )
    total = sum(value.numel() for value in weights.values())
    assert total == (29_161_426 if name == "pfseg" else 14_655_042)


def test_a_run_of_the_older_network_is_one_of_pfseg(tmp_path: Path) -> None:
    weights = weights_of("pfseg_2021")
    save_file(weights, tmp_path / "weights.safetensors")
    run = import_released("pfseg_2021", tmp_path / "weights.safetensors", tmp_path / "run")
    assert run.recipe.method == "pfseg"
    assert run.method.guide.mode == "central"
    assert run.segmenter.window == (64, 96, 96)
    assert released_recipe("pfseg").config["msres"] == "all"


def test_another_file_is_refused(tmp_path: Path) -> None:
    weights = weights_of("pfseg_2021")
    del weights["conv10_sr.conv.3.bias"]
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match=r"srt\.head\.2\.body\.1\.bias has no weight"):
        load_released("pfseg_2021", tmp_path / "weights.safetensors")
    assert "PFSeg" in find_released("pfseg").source
