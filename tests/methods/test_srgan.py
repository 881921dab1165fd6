"""SRGAN: two phases, its losses against NumPy, and what it learns from images alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from finemask.methods.srgan import SRGAN, Config, ImageCritic
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names
from finemask.nn.lossnet import MEAN, SD
from finemask.pairs.batches import Batch
from finemask.recipe import Task

TINY = Config(width=4, blocks=1, kernel=3, critic_width=4, content_width=2, content_level=3)


def batch_for(task: Task, side: int = 8) -> Batch:
    torch.manual_seed(1)
    hr = [side * f for f in task.scale]
    image = torch.rand(2, task.channels, *hr)
    lr = torch.nn.functional.avg_pool2d(image, task.scale)
    return Batch(lr, image, image.new_empty((2, 0, *hr)))


def build(channels: int = 1, scale: int = 4, **options: object) -> tuple[SRGAN, Batch]:
    torch.manual_seed(0)
    task = Task(2, channels, 1, (scale, scale))
    return SRGAN(task, dataclasses.replace(TINY, **options)), batch_for(task)


def test_the_generator_learns_alone_and_then_against_the_critic() -> None:
    method, batch = build(pretrain=0.5)
    assert method.turn(0.0) == method.turn(0.49) == ("generator",)
    assert set(method.losses(batch)) == {"L_MSE"}
    assert method.turn(0.5) == ("generator", "critic")
    assert set(method.losses(batch)) == {"L_adv", "L_VGG"}
    assert set(method.losses(batch, "critic")) == {"L_D"}
    assert set(method.weights()) == {"L_MSE", "L_adv", "L_VGG", "L_D"}
    plain, _ = build(pretrain=1.0)
    assert plain.turn(0.99) == ("generator",)
    assert set(plain.weights()) == {"L_MSE"}


def test_losses_against_numpy() -> None:
    method, batch = build(w_pixel=1.0)
    method.eval()
    with torch.no_grad():
        made, true = method.generator(batch.image_lr), batch.image_hr
        parts = {k: float(v) for k, v in method.losses(batch).items()}
        parts |= {k: float(v) for k, v in method.losses(batch, "critic").items()}
        real, fake = (method.critic(x).double().numpy() for x in (true, made))
        seen = [method.vgg.features(x)[-1].double().numpy() / 12.75 for x in (made, true)]
    error = np.square(made.double().numpy() - true.double().numpy()).mean()
    assert parts["L_pixel"] == pytest.approx(error, rel=1e-5)
    assert parts["L_VGG"] == pytest.approx(np.square(seen[0] - seen[1]).mean(), rel=1e-4)
    d_real, d_fake = (1 / (1 + np.exp(-v)) for v in (real, fake))
    assert parts["L_adv"] == pytest.approx(-np.log(d_fake).mean(), rel=1e-5)
    expected = -(np.log(d_real).mean() + np.log(1 - d_fake).mean()) / 2
    assert parts["L_D"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_every_weight_of_the_player_learns(channels: int, share: float) -> None:
    method, batch = build(channels)
    for player in method.turn(share):
        method.zero_grad()
        weights, parts = method.weights(), method.losses(batch, player)
        torch.stack([weights[n] * p for n, p in parts.items()]).sum().backward()
        for name, p in getattr(method, player).named_parameters():
            assert p.grad is not None, name
            assert float(p.grad.abs().sum()) > 0, name
    grouped = {id(p) for player in method.players
               for group in method.parameter_groups(player) for p in group.parameters}  # fmt: skip
    assert grouped == {id(p) for p in method.parameters()}, "the judge that is no player is frozen"


def test_what_ships_is_the_generator() -> None:
    method, batch = build()
    shipped = method.eval().deploy()
    assert torch.equal(shipped(batch.image_lr), method.super_resolve(batch.image_lr))
    assert {id(p) for p in shipped.parameters()} == {id(p) for p in method.generator.parameters()}
    assert not any(name.startswith("vgg") for name in method.state_dict())


def test_the_critic_takes_windows_of_any_size() -> None:
    critic = ImageCritic(1, 4, 4, 2)
    assert [m.stride[0] for m in critic.stages if hasattr(m, "stride")] == [1, 2] * 4
    for sides in ((24, 24), (40, 56)):
        assert critic(torch.rand(2, 1, *sides)).shape == (2, 1)


def test_the_content_loss_looks_through_a_file_of_public_weights(tmp_path: Path) -> None:
    torch.manual_seed(4)
    encoder = make_encoder("vgg16", 3, width=2, levels=5)
    own, file = encoder.state_dict(), tmp_path / "vgg16.safetensors"
    save_file({theirs: own[ours] for ours, theirs in public_names(encoder).items()}, file)
    method, batch = build(content_weights=str(file), content_level=5)
    assert method.equip() == {"VGG": str(file)}
    made, true = (x.expand(-1, 3, -1, -1) for x in (batch.image_hr.flip(2), batch.image_hr))
    mean, sd = (torch.tensor(v)[:, None, None] for v in (MEAN, SD))
    with torch.no_grad():
        levels = [encoder((x - mean) / sd)[-1] for x in (made, true)]
        found = method.content(batch.image_hr.flip(2), batch.image_hr)
    expected = (levels[0] - levels[1]).square().mean() / 12.75**2
    torch.testing.assert_close(found, expected)
    plain, _ = build()
    assert "random" in plain.equip()["VGG"]
    assert build(w_content=0.0)[0].equip() == {}


def test_thirty_steps_bring_the_image_closer() -> None:
    method, batch = build(skip=True)
    method.turn(0.0)
    optimiser = torch.optim.Adam(method.generator.parameters(), 1e-2)
    course = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = method.losses(batch)["L_MSE"]
        loss.backward()
        optimiser.step()
        course.append(loss.item())
    assert course[-1] < 0.8 * course[0]
