"""Eqs. 17 and 18 of paper 001 against NumPy, and that either side pulls its own way."""

from __future__ import annotations

import numpy as np
import torch

from finemask.losses.adversarial import critic_loss, gan_value, generator_loss


def test_the_value_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 2, 1, 5, 6).double()
    d_real, d_fake = (1 / (1 + np.exp(-v.numpy())) for v in (real, fake))
    value = np.log(d_real).mean() + np.log(1 - d_fake).mean()
    np.testing.assert_allclose(float(gan_value(real, fake)), value, rtol=1e-6)
    np.testing.assert_allclose(float(critic_loss(real, fake)), -value / 2, rtol=1e-6)
    np.testing.assert_allclose(float(generator_loss(fake)), -np.log(d_fake).mean(), rtol=1e-6)


def test_the_critic_wants_what_the_network_does_not() -> None:
    fake = torch.tensor([-1.0, 2.0], requires_grad=True)
    critic_loss(torch.zeros(2), fake).backward()
    critics = fake.grad.clone()
    fake.grad = None
    generator_loss(fake).backward()
    assert bool((critics > 0).all()), "the critic lowers its verdict on fakes"
    assert bool((fake.grad < 0).all()), "the network raises it"


def test_a_sure_critic_is_finite_and_still_teaches() -> None:
    fake = torch.tensor([-80.0], requires_grad=True)
    generator_loss(fake).backward()
    assert float(fake.grad) == -1.0
    assert bool(torch.isfinite(critic_loss(torch.tensor([500.0]), torch.tensor([-500.0]))))
