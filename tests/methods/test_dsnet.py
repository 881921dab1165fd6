"""DSNet: its losses against NumPy, its players, its teacher and every row of its ablations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from finemask.errors import UsageError
from finemask.methods import default_recipe
from finemask.methods.describe import count_parameters, describe
from finemask.methods.dsnet import Config, DSNet, PixelCritic
from finemask.nn.blocks import resize
from finemask.nn.outputs import foreground_probs, log_odds
from finemask.pairs.batches import Batch
from finemask.recipe import Task

TINY = Config(width=4, depth=3, teacher_width=4, teacher_blocks=1, teacher_kernel=3, critic_width=4)
TASK = Task(2, 1, 2, (4, 4))


def batch_for(task: Task, *sides: int) -> Batch:
    torch.manual_seed(3)
    hr = [n * s for n, s in zip(sides, task.scale, strict=True)]
    soft = torch.rand(2, task.foreground, *hr) / task.foreground
    mask = (torch.rand(2, task.foreground, *hr) > 0.8).float()
    image_lr, image_hr = torch.rand(2, task.channels, *sides), torch.rand(2, task.channels, *hr)
    return Batch(image_lr, image_hr, soft, mask=mask)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_the_networks_losses_against_numpy() -> None:
    torch.manual_seed(0)
    method, batch = DSNet(TASK, TINY).eval(), batch_for(TASK, 6, 8)
    with torch.no_grad():
        parts = {name: float(part) for name, part in method.losses(batch).items()}
        z = method.network(batch.image_lr)
        verdict = method.judge(batch, torch.tanh(z)).numpy()
    z, y, soft = (t.double().numpy() for t in (z, batch.mask, batch.target))
    x = sigmoid(z)
    overlaps = [
        1 - (2 * (a * b).sum() + 1) / ((a * a).sum() + (b * b).sum() + 1)
        for a, b in zip(x, y, strict=True)
    ]
    assert parts["L_Seg"] == pytest.approx(np.mean(overlaps), rel=1e-5)
    assert parts["L_Soft"] == pytest.approx(
        np.abs(np.tanh(z) - (soft - 0.5) / 0.5).mean(), rel=1e-5
    )
    assert parts["L_GAN"] == pytest.approx(-np.log(sigmoid(verdict)).mean(), rel=1e-5)
    assert method.weights() == {"L_Seg": 0.5, "L_Soft": 100.0, "L_GAN": 1.0, "L_D": 1.0}


def test_the_critics_loss_against_numpy() -> None:
    torch.manual_seed(0)
    method, batch = DSNet(TASK, TINY).eval(), batch_for(TASK, 6, 8)
    with torch.no_grad():
        loss = method.losses(batch, "critic")["L_D"]
        image = resize(batch.image_lr, batch.target.shape[2:])
        made = torch.tanh(method.network(batch.image_lr))
        real, fake = (
            sigmoid(method.critic(torch.cat([image, y], 1)).double().numpy())
            for y in (2 * batch.target - 1, made)
        )
    value = np.log(real).mean() + np.log(1 - fake).mean()
    assert float(loss) == pytest.approx(-value / 2, rel=1e-5)


def test_without_a_mask_of_its_own_the_soft_mask_is_cut_at_half() -> None:
    method, batch = DSNet(TASK, TINY).eval(), batch_for(TASK, 6, 8)
    cut = dataclasses.replace(batch, mask=(batch.target >= 0.5).float())
    bare = dataclasses.replace(batch, mask=None)
    assert torch.equal(method.losses(bare)["L_Seg"], method.losses(cut)["L_Seg"])
    assert not torch.equal(method.losses(bare)["L_Seg"], method.losses(batch)["L_Seg"])


def test_log_odds_are_what_a_sigmoid_makes_the_class_of() -> None:
    torch.manual_seed(0)
    for maps in (1, 4):
        logits = 3 * torch.randn(2, maps, 5, 6)
        torch.testing.assert_close(torch.sigmoid(log_odds(logits)), foreground_probs(logits))


def test_the_players_step_their_own_weights_and_nobody_the_teachers() -> None:
    method, batch = DSNet(TASK, TINY), batch_for(TASK, 6, 8)
    groups = {
        player: [p for group in method.parameter_groups(player) for p in group.parameters]
        for player in method.players
    }
    mine = {player: {id(p) for p in group} for player, group in groups.items()}
    assert not mine["network"] & mine["critic"]
    assert mine["critic"] == {id(p) for p in method.critic.parameters()}
    teachers = {id(p) for p in method.teacher.parameters()}
    assert teachers
    assert not teachers & (mine["network"] | mine["critic"])
    method.losses(batch, "critic")["L_D"].backward()
    assert all(p.grad is None for p in method.network.parameters())


def test_the_teacher_rests_whatever_the_pupil_does() -> None:
    method, batch = DSNet(TASK, TINY).train(), batch_for(TASK, 6, 8)
    assert not any(part.training for part in method.teacher.modules())
    assert method.network.encoder.training
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    method.losses(batch)["L_Soft"].backward()
    method.deploy().train()(batch.image_lr)
    assert all(torch.equal(before[k], v) for k, v in method.teacher.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in method.teacher.parameters())
    assert any(name.startswith("network.teacher.") for name in method.state_dict())


@pytest.mark.parametrize("label", DSNet.ABLATIONS)
def test_every_row_of_the_ablations_learns_and_ships(label: str) -> None:
    config = dataclasses.replace(TINY, **DSNet.ABLATIONS[label])
    method, batch = DSNet(TASK, config), batch_for(TASK, 6, 8)
    named = {name for player in method.players for name in method.losses(batch, player)}
    assert named == set(method.weights())
    assert method.deploy()(batch.image_lr).shape == (2, 1, 24, 32)
    assert ("critic" in method.players) == bool(config.w_gan) == hasattr(method, "critic")
    assert (method.teacher is None) == (config.transfer == "none")
    assert method.makes_image() == (method.super_resolve(batch.image_lr) is not None)
    drtm = method.network.drtm
    assert (drtm is not None) == (config.transfer == "drtm")
    if drtm is not None:
        assert isinstance(drtm.detail, nn.Identity) != config.dtm
        assert (drtm.select is None) != config.csf


def test_what_the_backbone_sees() -> None:
    batch = batch_for(TASK, 6, 8)
    for transfer in ("none", "image"):
        method = DSNet(TASK, dataclasses.replace(TINY, transfer=transfer)).eval()
        seen = method.network.transfer(batch.image_lr)
        expected = (
            resize(batch.image_lr, (24, 32))
            if transfer == "none"
            else method.teacher(batch.image_lr)
        )
        torch.testing.assert_close(seen, expected)


def test_a_row_without_a_critic_starts_from_the_same_weights() -> None:
    torch.manual_seed(5)
    whole = DSNet(TASK, TINY).network.state_dict()
    torch.manual_seed(5)
    part = DSNet(TASK, dataclasses.replace(TINY, w_gan=0.0)).network.state_dict()
    assert whole.keys() == part.keys()
    assert all(torch.equal(whole[k], part[k]) for k in whole)


def test_the_pixel_critic_sees_one_pixel_and_the_other_its_neighbours() -> None:
    for kernel, sees in ((1, 0), (3, 3)):
        critic = PixelCritic(2, 4, 2, kernel).eval()
        pair = torch.rand(1, 2, 15, 15, requires_grad=True)
        critic(pair)[0, 0, 7, 7].backward()
        rows = pair.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        assert int((rows - 7).abs().max()) == sees
    assert count_parameters(PixelCritic(2, 64, 2)) == 2 * 64 + 64 + 64 * 128 + 2 * 128 + 128 + 1


def test_the_cost_is_told_with_and_without_the_teacher() -> None:
    task = Task(2, 1, 2, (4, 4))
    recipe = default_recipe("dsnet", task)
    whole = describe("dsnet", recipe, (16, 16))
    config = dict(recipe.config)
    alone = describe(
        "dsnet", dataclasses.replace(recipe, config=config | {"transfer": "none"}), (16, 16)
    )
    teacher = describe("srgan", default_recipe("srgan", task), (16, 16))
    assert whole.parameters_teacher == teacher.parameters_inference
    assert whole.macs_teacher == teacher.macs_inference
    assert (alone.parameters_teacher, alone.macs_teacher) == (0, 0)
    assert whole.macs_inference - whole.macs_teacher > alone.macs_inference


@pytest.mark.parametrize("wrong", [{"depth": 1}, {"width": 0}, {"dilation": 0}])
def test_options_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="config"):
        dataclasses.replace(TINY, **wrong)
