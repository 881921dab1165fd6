"""The encoders: known sizes, levels at their strides for any image, options that shrink them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finemask.nn.encoders import ENCODERS, EncoderName, make_encoder

PARAMETERS = {
    # Published counts of the classifiers less their last layer of 1000 classes.
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "res2net50": 25_718_352 - 2_049_000,
    "res2net101": 45_225_920 - 2_049_000,
    "vgg16": 14_714_688,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_size_is_that_of_the_public_networks(name: EncoderName) -> None:
    with torch.device("meta"):
        encoder = make_encoder(name, 3)
    assert sum(p.numel() for p in encoder.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ENCODERS)
def test_levels_have_the_widths_and_strides_they_state(name: EncoderName) -> None:
    encoder = make_encoder(name, 5, width=8)
    with torch.no_grad():
        features = encoder(torch.randn(2, 5, 64, 97))
    assert len(features) == len(encoder.widths) == len(encoder.strides) == 5
    for level, width, stride in zip(features, encoder.widths, encoder.strides, strict=True):
        assert tuple(level.shape) == (2, width, -(-64 // stride), -(-97 // stride))


@settings(max_examples=15)
@given(
    st.sampled_from(["resnet18", "res2net50", "vgg16"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
)
def test_any_size_works_in_training_too(name: EncoderName, h: int, w: int, train: bool) -> None:
    encoder = make_encoder(name, 1, width=4).train(train)
    features = encoder(torch.randn(1, 1, h, w))
    for level, stride in zip(features, encoder.strides, strict=True):
        assert tuple(level.shape[2:]) == (-(-h // stride), -(-w // stride))
        assert bool(level.isfinite().all())
    sum(level.square().sum() for level in features).backward()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "res2net50"])
def test_the_pooled_stem_may_be_the_finest_level(name: EncoderName) -> None:
    torch.manual_seed(0)
    encoder = make_encoder(name, 3, width=8).eval()
    pooled = make_encoder(name, 3, width=8, finest="pool").eval()
    pooled.load_state_dict(encoder.state_dict())
    image = torch.randn(1, 3, 33, 64)
    (stem, *stages), (finest, *same) = encoder(image), pooled(image)
    assert pooled.strides == (4, 4, 8, 16, 32)
    assert torch.equal(finest, torch.nn.functional.max_pool2d(stem, 3, 2, 1))
    assert all(map(torch.equal, stages, same))


@pytest.mark.parametrize("name", ["resnet34", "res2net50", "vgg16"])
def test_fewer_levels_are_the_first_ones(name: EncoderName) -> None:
    whole, part = (make_encoder(name, 1, width=4, levels=n).eval() for n in (5, 4))
    names = part.state_dict().keys()
    assert not any(key.startswith(f"stages.{len(part.stages)}") for key in names)
    part.load_state_dict({key: whole.state_dict()[key] for key in names})
    image = torch.randn(1, 1, 32, 32)
    assert all(map(torch.equal, part(image), whole(image)[:4]))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("largest", [8, 16])
def test_dilation_puts_features_between_those_of_the_strided_network(
    name: EncoderName, largest: int
) -> None:
    torch.manual_seed(0)
    strided = make_encoder(name, 1, width=4).eval()
    dilated = make_encoder(name, 1, width=4, output_stride=largest).eval()
    dilated.load_state_dict(strided.state_dict())
    assert dilated.strides == (2, 4, 8, min(16, largest), largest)
    image = torch.randn(1, 1, 97, 130)
    with torch.no_grad():
        for here, there, fine, coarse in zip(
            dilated(image), strided(image), dilated.strides, strided.strides, strict=True
        ):
            step = coarse // fine
            torch.testing.assert_close(here[:, :, ::step, ::step], there, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_signals_neither_grow_nor_fade_at_the_start(name: EncoderName) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        features = make_encoder(name, 3, width=16)(torch.randn(2, 3, 64, 64))
    assert all(0.1 < float(level.std()) < 10 for level in features)
