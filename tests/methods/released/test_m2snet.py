"""The released MSNet and M2SNet: their graph written out with the released names, against ours."""

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
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names
from finemask.recipe import Recipe

State = Mapping[str, Tensor]
WIDTHS = {5: 2048, 4: 1024, 3: 512, 2: 256}


def chain(first: int, last: int) -> str:
    """``x5_x4_x3`` for the unit from level 5 to level 3."""
    return "_".join(f"x{level}" for level in range(first, last - 1, -1))


def synthetic(name: str) -> dict[str, Tensor]:
    """A state dict of the released graph, drawn at random."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def norm(key: str, same: bool = False) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            spread = torch.rand(64) / 2 + (part in ("weight", "running_var"))
            if same and part.startswith("running"):
                size = 300 if part == "running_mean" else 300**2
                spread = (size * spread[:1]).expand(64).clone()
            state[f"{key}.{part}"] = spread
        state[f"{key}.num_batches_tracked"] = torch.tensor(5)

    def block(key: str, c_in: int = 64) -> None:
        state[f"{key}.0.weight"] = torch.randn(64, c_in, 3, 3) / (9 * c_in) ** 0.5
        state[f"{key}.0.bias"] = torch.randn(64)
        norm(f"{key}.1")

    encoder = make_encoder("res2net50", 3)
    for ours, theirs in public_names(encoder).items():
        state[f"resnet.{theirs}"] = encoder.state_dict()[ours]
    state["resnet.fc.weight"], state["resnet.fc.bias"] = torch.ones(1000, 2048), torch.ones(1000)
    for level, c_in in WIDTHS.items():
        block(f"x{level}_dem_1", c_in)
    block("x5_dem_5", WIDTHS[5])
    block("x5_dem_4")
    for span in range(1, 5):
        for last in range(1, 6 - span):
            block(chain(last + span, last))
    for key in ("level3", "level2", "level1", "output4", "output3", "output2"):
        block(key)
    state["output1.0.weight"], state["output1.0.bias"] = (
        torch.randn(1, 64, 3, 3) / 24,
        torch.ones(1),
    )
    if name == "m2snet":
        for side in (3, 5):
            norm(f"conv_{side}.norm", same=True)
    return state


def written_out(s: State, levels: Mapping[int, Tensor]) -> Tensor:
    """The released head on x1 to x5, with its dense filters, before the last resize."""

    def normalised(key: str, x: Tensor) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(x, *(s[f"{key}.{part}"] for part in parts)))

    def block(key: str, x: Tensor) -> Tensor:
        return normalised(
            f"{key}.1", F.conv2d(x, s[f"{key}.0.weight"], s[f"{key}.0.bias"], padding=1)
        )

    def up(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)

    def ones(side: int, x: Tensor) -> Tensor:
        filter_ = torch.ones(64, 64, side, side)
        return normalised(f"conv_{side}.norm", F.conv2d(x, filter_, padding=side // 2))

    def unit(first: int, last: int, a: Tensor, b: Tensor) -> Tensor:
        a = up(a, b)
        total = (a - b).abs()
        for side in (3, 5) if "conv_3.norm.weight" in s else ():
            total = total + (ones(side, a) - ones(side, b)).abs()
        return block(chain(first, last), total)

    known = {(k, k): block(f"x{k}_dem_1", levels[k]) for k in WIDTHS} | {(1, 1): levels[1]}
    for span in range(1, 5):
        for last in range(5 - span, 0, -1):
            deeper = known[last + span, last + 1]
            if span == 4:
                deeper = block("x5_dem_4", deeper)
            known[last + span, last] = unit(last + span, last, deeper, known[last + span - 1, last])
    sums = {k: torch.stack([known[n, k] for n in range(k + 1, 6)]).sum(0) for k in (1, 2, 3, 4)}
    x = block("output4", up(block("x5_dem_5", levels[5]), sums[4]) + sums[4])
    for k in (3, 2, 1):
        enhanced = block(f"level{k}", sums[k])
        x = up(x, enhanced) + enhanced
        if k > 1:
            x = block(f"output{k}", x)
    return F.conv2d(x, s["output1.0.weight"], s["output1.0.bias"], padding=1)


@pytest.mark.parametrize(("name", "weights"), [("msnet", 27_692_329), ("m2snet", 27_692_585)])
def test_the_whole_graph_is_the_released_one(name: str, weights: int, tmp_path: Path) -> None:
    state = synthetic(name)
    torch.save(state, tmp_path / "released.pth")
    method = load_released(name, tmp_path / "released.pth").eval()
    assert count_parameters(method) == weights
    network, image = method.network, torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        levels = dict(enumerate(network.encoder(image), start=1))
        expected = written_out(state, levels)
        resized = F.interpolate(expected, (64, 96), mode="bilinear", align_corners=False)
        got = method.deploy()(image)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(got, resized, atol=1e-4 * float(expected.std()), rtol=1e-4)


def test_another_file_is_refused(tmp_path: Path) -> None:
    torch.save(synthetic("m2snet"), tmp_path / "m2snet.pth")
    with pytest.raises(DataError, match=r"conv_3\.norm\.weight unexpected"):
        load_released("msnet", tmp_path / "m2snet.pth")


@pytest.mark.parametrize("name", ["msnet", "m2snet"])
def test_its_recipe_is_the_released_one(name: str) -> None:
    recipe = released_recipe(name)
    assert recipe.config["own"] is False
    assert recipe.config["encoder_factor"] == 1.0
    assert Recipe.from_dict(recipe.to_dict()) == recipe
