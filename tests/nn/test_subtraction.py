"""Filters of ones against dense convolutions, units and sums against NumPy, the pyramid's shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finemask.nn.blocks import enlarge
from finemask.nn.subtraction import (
    LEVELS,
    AdditiveDecoder,
    OnesFilter,
    SubtractionPyramid,
    SubtractionUnit,
)

WIDTH = 4
SIDES = ((2, 3), (4, 6), (8, 12), (16, 24), (16, 24))


def levels(width: int = WIDTH, samples: int = 2) -> list[Tensor]:
    """Rectified features of five levels, coarsest first."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(samples, width, *s, generator=generator).relu() for s in SIDES]


class DenseOnes(nn.Module):
    """The released filter: a dense convolution with ones, batch norm, ReLU."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.register_buffer("ones", torch.ones(width, width, side, side))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(F.conv2d(x, self.ones, padding=self.ones.shape[-1] // 2)))


@pytest.mark.parametrize("side", [3, 5])
def test_the_filter_equals_the_dense_convolution(side: int) -> None:
    """Values, gradients, running statistics with the unbiased variance, and prediction."""
    torch.manual_seed(0)
    ours, theirs = OnesFilter(64, side), DenseOnes(64, side)
    nn.init.normal_(theirs.norm.weight)
    nn.init.normal_(theirs.norm.bias)
    ours.load_state_dict({"weight": theirs.norm.weight, "bias": theirs.norm.bias}, strict=False)
    for _ in range(3):
        here = torch.randn(2, 64, 9, 11).relu().requires_grad_()
        there = here.detach().clone().requires_grad_()
        out, expected = ours(here), theirs(there)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
        slope = torch.randn_like(out)
        out.backward(slope)
        expected.backward(slope)
        torch.testing.assert_close(here.grad, there.grad, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours.weight.grad, theirs.norm.weight.grad, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(ours.bias.grad, theirs.norm.bias.grad, atol=1e-3, rtol=1e-4)
    for name in ("running_mean", "running_var"):
        kept = getattr(theirs.norm, name)
        torch.testing.assert_close(getattr(ours, name).expand(64), kept, atol=1e-3, rtol=1e-5)
    x = torch.randn(1, 64, 7, 7).relu()
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-5, rtol=1e-5)


def test_channels_stay_apart_in_the_depthwise_reading() -> None:
    x = torch.randn(2, 3, 6, 7)
    filter_ = OnesFilter(3, 5, "depthwise")
    expected = F.conv2d(x, torch.ones(3, 1, 5, 5), padding=2, groups=3)
    torch.testing.assert_close(filter_(x), expected, atol=1e-5, rtol=1e-5)
    assert not filter_.state_dict()


def test_an_image_normalised_by_itself_is_the_same_in_any_batch() -> None:
    """As an instance norm behind the dense convolution; in learning as in prediction."""
    torch.manual_seed(0)
    filter_, x = OnesFilter(8, 3, "dense_in"), torch.rand(3, 8, 9, 11)
    nn.init.normal_(filter_.weight)
    nn.init.normal_(filter_.bias)
    dense = F.conv2d(x, torch.ones(8, 8, 3, 3), padding=1)
    expected = F.instance_norm(dense, weight=filter_.weight, bias=filter_.bias).relu()
    torch.testing.assert_close(filter_(x), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(filter_.eval()(x[1:2], 0), expected[1:2], atol=1e-5, rtol=1e-4)
    assert set(filter_.state_dict()) == {"weight", "bias"}


def test_half_precision_is_left_for_the_sums() -> None:
    """1600 terms of about 3 are beyond what bfloat16 can add up."""
    x = 3 + torch.rand(2, 64, 8, 8).bfloat16()
    filter_ = OnesFilter(64, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = filter_(x)
    assert out.dtype == torch.bfloat16
    exact = OnesFilter(64, 5)(x.float())
    torch.testing.assert_close(out.float(), exact, atol=0.02, rtol=0.01)


def test_each_place_predicts_with_its_own_statistics() -> None:
    """Large and small sums take turns; in evaluation each is still normalised as it was learnt."""
    filter_ = OnesFilter(WIDTH, 3, places=2)
    small, large = torch.rand(2, WIDTH, 8, 8), 50 * torch.rand(2, WIDTH, 8, 8)
    for _ in range(200):
        learnt = filter_(small, 0), filter_(large, 1)
    filter_.eval()
    for place, x in enumerate((small, large)):
        torch.testing.assert_close(filter_(x, place), learnt[place], atol=0.02, rtol=0.02)


def test_a_single_value_is_normalised_as_in_prediction() -> None:
    filter_ = OnesFilter(WIDTH, 3)
    x = torch.rand(1, WIDTH, 1, 1)
    with torch.no_grad():
        out = filter_(x)
        assert torch.equal(out, filter_.eval()(x))
    assert float(out[0, 0]) == pytest.approx(float(x.sum()), rel=1e-4)


def convolved(x: np.ndarray, unit: SubtractionUnit) -> np.ndarray:
    """3x3 convolution, batch norm by its running statistics and ReLU, one image, in NumPy."""
    block = unit.block
    w, b = (p.detach().double().numpy() for p in (block.conv.weight, block.conv.bias))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    y = np.einsum("chwij,ocij->ohw", windows, w) + b[:, None, None]
    norm = block.norm
    mean, var, gain, shift = (
        t.detach().double().numpy()[:, None, None]
        for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return np.maximum((y - mean) / np.sqrt(var + norm.eps) * gain + shift, 0)


def box(x: np.ndarray, side: int) -> np.ndarray:
    """Sum over the surroundings, a channel at a time."""
    r = side // 2
    padded = np.pad(x, ((0, 0), (r, r), (r, r)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
    return windows.sum((3, 4))


@pytest.mark.parametrize("sides", [(), (3, 5)])
@pytest.mark.parametrize("mode", ["subtract", "add"])
def test_units_against_numpy(sides: tuple[int, ...], mode: str) -> None:
    """Eq. (1) without filters, Eq. (2) as printed with them; addition for the ablation."""
    torch.manual_seed(0)
    unit = SubtractionUnit(WIDTH, mode).eval()  # type: ignore[arg-type]
    unit.block.norm.running_mean.normal_()
    unit.block.norm.running_var.uniform_(0.5, 2)
    deeper, shallower = torch.rand(1, WIDTH, 3, 4), torch.rand(1, WIDTH, 6, 8)
    filters = [OnesFilter(WIDTH, side, "depthwise") for side in sides]
    a, b = (x[0].double().numpy() for x in (enlarge(deeper, (6, 8)), shallower))
    compare = (lambda p, q: np.abs(p - q)) if mode == "subtract" else np.add
    total = compare(a, b) + sum(compare(box(a, side), box(b, side)) for side in sides)
    with torch.no_grad():
        out = unit(deeper, shallower, filters)[0].numpy()
    np.testing.assert_allclose(out, convolved(total, unit), atol=1e-4)


def test_what_two_levels_share_is_gone() -> None:
    """Equal features have no difference; the unit answers as to nothing at all."""
    unit = SubtractionUnit(WIDTH).eval()
    x = torch.rand(1, WIDTH, 4, 4)
    assert torch.equal(unit(x, x), unit(torch.zeros_like(x), torch.zeros_like(x)))


@pytest.mark.parametrize(("order", "units"), [(0, 0), (1, 4), (2, 7), (3, 9), (4, 10)])
def test_each_order_adds_a_row(order: int, units: int) -> None:
    pyramid, features = SubtractionPyramid(WIDTH, order), levels()
    assert len(pyramid.units) == units
    rows = pyramid.rows(features)
    assert [len(row) for row in rows] == [LEVELS - n for n in range(order + 1)]
    for n, row in enumerate(rows):
        assert [x.shape[2:] for x in row] == [x.shape[2:] for x in features[n:]]
    enhanced = pyramid(features)
    assert [x.shape for x in enhanced] == [x.shape for x in features[1:]]


NAMES = (("54", "43", "32", "21"), ("543", "432", "321"), ("5432", "4321"), ("54321",))
"""Units by the levels that they span, coarsest first; each ends on the grid of its last level."""


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("own", [True, False])
def test_enhanced_features_are_the_sums_of_their_grid(order: int, own: bool) -> None:
    """Eq. (3): a level's own feature, and every difference that ends on its grid."""
    pyramid, features = SubtractionPyramid(WIDTH, order, own=own).eval(), levels()
    with torch.no_grad():
        rows, enhanced = pyramid.rows(features), pyramid(features)
        named = [pair for n in range(order) for pair in zip(NAMES[n], rows[n + 1], strict=True)]
        for k, level in enumerate("4321"):
            terms = [x.numpy() for name, x in named if name.endswith(level)]
            terms += [features[1 + k].numpy()] * own
            expected = pyramid.enhance_blocks[1 + k](torch.from_numpy(np.sum(terms, axis=0)))
            torch.testing.assert_close(enhanced[k], expected, atol=1e-3, rtol=1e-4)


def test_without_units_the_levels_pass() -> None:
    features = levels()
    for out, x in zip(SubtractionPyramid(WIDTH, 0)(features), features[1:], strict=True):
        assert torch.equal(out, x)


@pytest.mark.parametrize("context", ["none", "ones", "aspp", "dense_aspp"])
def test_every_weight_of_a_pyramid_learns(context: str) -> None:
    torch.manual_seed(0)
    pyramid = SubtractionPyramid(WIDTH, context=context)  # type: ignore[arg-type]
    decoder = AdditiveDecoder(WIDTH, 1)
    features = levels()
    decoder([features[0], *pyramid(features)]).square().sum().backward()
    for part in (pyramid, decoder):
        for name, p in part.named_parameters():
            assert p.grad is not None, name


def test_all_units_share_two_filters() -> None:
    """256 weights more than without filters, and twenty places."""
    plain = SubtractionPyramid(64, context="none")
    many = SubtractionPyramid(64)
    more = sum(p.numel() for p in many.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == 2 * 2 * 64
    assert [f.running_mean.numel() for f in many.filters] == [20, 20]
    used = [unit.places for unit in many.units]
    assert sorted(p for pair in used for p in pair) == list(range(20))


def test_the_decoder_adds_level_by_level() -> None:
    """Three convolution blocks, then a plain convolution on the finest sum."""
    torch.manual_seed(0)
    decoder, features = AdditiveDecoder(WIDTH, 1).eval(), levels()
    x = features[0]
    for block, skip in zip(decoder.blocks, features[1:4], strict=True):
        x = block(F.interpolate(x, skip.shape[2:], mode="bilinear") + skip)
    expected = decoder.output(x + features[4])
    torch.testing.assert_close(decoder(features), expected)
