"""Feature affinity against the L x L matrices it never builds, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from finemask.losses import affinity
from finemask.losses.affinity import feature_affinity


def naive(a: Tensor, b: Tensor, normalise: bool, power: int) -> Tensor:
    """The definition, in float64."""
    matrices = []
    for x in (a, b):
        x = x.double().flatten(2)
        if normalise:
            x = x / (x.square().sum(1, keepdim=True) + 1e-6).sqrt()
        matrices.append(x.transpose(1, 2) @ x)
    return (matrices[0] - matrices[1]).abs().pow(power).mean()


def value_and_gradients(loss, a: Tensor, b: Tensor) -> tuple[float, Tensor, Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    value = loss(a, b)
    return value.item(), *torch.autograd.grad(value, (a, b))


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (1, 3, 4, 5, 3), (2, 1, 9), (1, 16, 30, 30)])
@pytest.mark.parametrize("difference", [1.0, 1e-3])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("power", [1, 2])
def test_against_the_naive_matrices(
    shape: tuple[int, ...], difference: float, normalise: bool, power: int
) -> None:
    if normalise and shape[1] == 1:
        pytest.skip("the direction of a single channel is only its sign")
    torch.manual_seed(1)
    a = torch.randn(shape)
    b = a + difference * torch.randn(shape)
    value, da, db = value_and_gradients(
        lambda x, y: feature_affinity(x, y, normalise=normalise, power=power), a, b
    )
    expected, ea, eb = value_and_gradients(
        lambda x, y: naive(x, y, normalise, power), a.double(), b.double()
    )
    # A sign of the 1-norm flips where rounding crosses zero; 1e-3 apart that happens.
    tolerance = 1e-5 if power == 2 or difference == 1 else 1e-3
    assert value == pytest.approx(expected, rel=1e-5)
    assert relative_error(da, ea) < tolerance
    assert relative_error(db, eb) < tolerance


@pytest.mark.parametrize("power", [1, 2])
def test_blocks_and_rows_change_nothing(power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 101), torch.randn(2, 3, 101)
    whole = value_and_gradients(lambda x, y: feature_affinity(x, y, power=power), a, b)
    monkeypatch.setattr(affinity, "BLOCK", 7)
    monkeypatch.setattr(affinity, "ROW_ELEMENTS", 1000)
    parts = value_and_gradients(lambda x, y: feature_affinity(x, y, power=power), a, b)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    for got, expected in zip(parts[1:], whole[1:], strict=True):
        torch.testing.assert_close(got, expected)


def test_a_long_sum_of_near_equals_keeps_its_digits() -> None:
    """At 300 000 positions and one channel the closed form in float64 is the reference."""
    torch.manual_seed(0)
    a = torch.rand(1, 1, 300_000)
    b = a + 1e-3 * torch.randn_like(a)
    u, v = (a.double() - b.double()).flatten(), (a.double() + b.double()).flatten()
    expected = ((u @ u) * (v @ v) + (u @ v) ** 2) / 2 / a.numel() ** 2
    assert float(feature_affinity(a, b)) == pytest.approx(float(expected), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.booleans(), st.sampled_from([1, 2]))
def test_rotating_the_channels_is_no_difference(seed: int, normalise: bool, power: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(1, 4, 12, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
    b = torch.einsum("ij,bjl->bil", turn, a)
    assert float(feature_affinity(a, b, normalise=normalise, power=power)) < 1e-5
    c = torch.randn(1, 4, 12, generator=generator)
    here = feature_affinity(a, c, normalise=normalise, power=power)
    there = feature_affinity(b, c, normalise=normalise, power=power)
    torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-4)


def test_lengths_count_only_without_normalisation() -> None:
    a, b = torch.randn(1, 4, 12), torch.randn(1, 4, 12)
    same = feature_affinity(5 * a, b, normalise=True)
    torch.testing.assert_close(same, feature_affinity(a, b, normalise=True), atol=1e-5, rtol=1e-4)
    assert float(feature_affinity(5 * a, b)) > 10 * float(feature_affinity(a, b))


def test_pooling_compares_the_same_places_at_two_resolutions() -> None:
    coarse = torch.randn(2, 3, 4, 6)
    fine = coarse.repeat_interleave(4, 2).repeat_interleave(2, 3)
    assert float(feature_affinity(coarse, fine, grid=(4, 6))) < 1e-10
    assert float(feature_affinity(coarse, fine, grid=(2, 3))) < 1e-10


def test_the_batch_is_averaged() -> None:
    a, b = torch.randn(3, 4, 12), torch.randn(3, 4, 12)
    for power in (1, 2):
        each = [feature_affinity(a[[n]], b[[n]], power=power) for n in range(3)]
        whole = feature_affinity(a, b, power=power)
        torch.testing.assert_close(whole, torch.stack(each).mean())


@pytest.mark.parametrize("power", [1, 2])
def test_the_second_map_alone_may_learn(power: int) -> None:
    a, b = torch.randn(1, 4, 12), torch.randn(1, 4, 12, requires_grad=True)
    (2 * feature_affinity(a, b, power=power)).backward()
    assert b.grad is not None
    (expected,) = torch.autograd.grad(2 * naive(a, b, False, power), b)
    torch.testing.assert_close(b.grad, expected.float(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("power", [1, 2])
def test_gradients_are_finite_where_features_vanish(power: int) -> None:
    a = torch.zeros(1, 3, 10, requires_grad=True)
    feature_affinity(a, torch.randn(1, 3, 10), normalise=True, power=power).backward()
    assert a.grad is not None
    assert bool(a.grad.isfinite().all())


def test_autocast_does_not_reach_the_matrices() -> None:
    a = torch.randn(1, 4, 50)
    b = a + 1e-3 * torch.randn_like(a)
    expected = float(feature_affinity(a, b))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(feature_affinity(a, b)) == expected
