"""Public files: met on both sides, first convolutions for any image, errors that name the weight.

That the names and the numbers are the public ones is checked in tests/golden.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from finemask.errors import DataError
from finemask.nn.encoders import ENCODERS, Encoder, EncoderName, make_encoder
from finemask.nn.encoders.released import fill, load_released, public_names

FILE = Path("file.pth")


def tiny(name: EncoderName, channels: int = 3, seed: int = 0, levels: int = 5) -> Encoder:
    torch.manual_seed(seed)
    return make_encoder(name, channels, width=4, levels=levels).eval()


def as_public(encoder: Encoder) -> dict[str, Tensor]:
    names = public_names(encoder)
    return {names[key]: value for key, value in encoder.state_dict().items()}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_public_file_decides_every_weight(name: EncoderName, tmp_path: Path) -> None:
    source, other = tiny(name), tiny(name, seed=1)
    classifier = {"fc.weight": torch.ones(2, 2), "head.fc.bias": torch.ones(2)}
    torch.save(as_public(source) | classifier, tmp_path / "w.pth")
    load_released(other, tmp_path / "w.pth")
    assert all(map(torch.equal, source.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("name", ["resnet18", "res2net50", "vgg16"])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_grey_image_is_seen_as_the_same_image_in_every_channel(
    name: EncoderName, channels: int
) -> None:
    """Intensities keep their meaning: nothing is scaled by the number of channels."""
    rgb, other = tiny(name), tiny(name, channels, seed=1)
    fill(other, as_public(rgb), FILE)
    grey = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        pairs = zip(
            rgb(grey.repeat(1, 3, 1, 1)), other(grey.repeat(1, channels, 1, 1)), strict=True
        )
    for there, here in pairs:
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
@pytest.mark.parametrize("levels", [2, 4])
def test_fewer_levels_take_what_they_need(name: EncoderName, levels: int) -> None:
    whole, part = tiny(name), tiny(name, seed=1, levels=levels)
    fill(part, as_public(whole), FILE)
    image = torch.randn(1, 3, 32, 32)
    assert all(map(torch.equal, part(image), whole(image)[:levels]))


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_the_levels_that_are_there_must_be_whole(name: EncoderName) -> None:
    given = as_public(tiny(name, levels=3))
    with pytest.raises(DataError, match="missing"):
        fill(tiny(name), given, FILE)
    fill(tiny(name, levels=3), given, FILE)


def test_counters_may_be_absent() -> None:
    given = as_public(tiny("resnet18"))
    encoder = tiny("resnet18", seed=1)
    fill(encoder, {k: v for k, v in given.items() if "num_batches" not in k}, FILE)
    assert torch.equal(encoder.stem.conv.weight, given["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet18", "res2net50", "vgg16"])
def test_every_other_weight_must_be_met_on_both_sides(name: EncoderName) -> None:
    given = as_public(tiny(name))
    for key in given:
        if "num_batches" not in key:
            rest = {k: v for k, v in given.items() if k != key}
            with pytest.raises(DataError, match=rf"{key} missing; 1 in all"):
                fill(tiny(name), rest, FILE)
            break
    with pytest.raises(DataError, match=r"file\.pth: .*layer9\.0\.conv1\.weight unexpected"):
        fill(tiny(name), given | {"layer9.0.conv1.weight": torch.ones(1)}, FILE)


def test_other_shapes_and_numbers_are_refused() -> None:
    given = as_public(tiny("resnet18"))
    key = "layer3.0.conv1.weight"
    with pytest.raises(DataError, match=rf"{key} is \(1, 2\), needs \(16, 8, 3, 3\)"):
        fill(tiny("resnet18"), given | {key: torch.ones(1, 2)}, FILE)
    with pytest.raises(DataError, match=f"{key} is not finite"):
        fill(tiny("resnet18"), given | {key: given[key] * torch.inf}, FILE)


@pytest.mark.parametrize(
    ("file", "encoder"),
    [
        ("resnet18", "resnet34"),
        ("resnet34", "resnet18"),
        ("resnet50", "res2net50"),
        ("res2net50", "res2net101"),
        ("vgg16", "resnet18"),
    ],
)
def test_the_file_of_another_encoder_changes_nothing(
    file: EncoderName, encoder: EncoderName
) -> None:
    network = tiny(encoder)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(DataError, match=r"does not fit .*in all\); give a public file") as caught:
        fill(network, as_public(tiny(file)), FILE)
    assert len(str(caught.value)) < 400
    assert all(map(torch.equal, before.values(), network.state_dict().values()))
