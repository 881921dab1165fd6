"""PraNet: its published size, its loss against NumPy, and that the best of four maps ships."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from finemask.errors import UsageError
from finemask.losses.structure import WINDOW
from finemask.methods import create
from finemask.methods.describe import count_macs, count_parameters
from finemask.methods.pranet import Config, PraNet
from finemask.nn.encoders import Encoder, EncoderName
from finemask.pairs.batches import Batch
from finemask.recipe import Recipe, Task

TINY = Config(encoder="resnet18", encoder_width=4, channel=2)
CLASSIFIER = 2048 * 1000 + 1000


def batch_for(task: Task, *sides: int) -> Batch:
    torch.manual_seed(3)
    hr = [n * s for n, s in zip(sides, task.scale, strict=True)]
    target = (torch.rand(2, task.foreground, *hr) > 0.8).float()
    return Batch(torch.randn(2, task.channels, *sides), torch.randn(2, task.channels, *hr), target)


@pytest.mark.parametrize(
    ("encoder", "parameters"), [("res2net50", 30_498_319), ("res2net101", 50_005_887)]
)
def test_the_published_size(encoder: EncoderName, parameters: int) -> None:
    """Others print 32.55 M for Res2Net-50: with the classifier that is never used."""
    with torch.device("meta"):
        method = PraNet(Task(2, 3, 2, (1, 1)), Config(encoder=encoder))
    assert count_parameters(method) == count_parameters(method.deploy()) == parameters
    if encoder == "res2net50":
        assert round((parameters + CLASSIFIER) / 1e6, 2) == 32.55


def test_the_cost_of_the_papers_input() -> None:
    with torch.device("meta"):
        method = PraNet(Task(2, 3, 2, (1, 1)), Config())
        macs = count_macs(method, method.deploy(), (352, 352))
    assert macs == pytest.approx(13.00e9, rel=1e-3)


def structure_loss_in_numpy(logits: Tensor, target: Tensor, window: int) -> float:
    """As printed, for masks of 0 and 1: means over the surroundings count zeros beyond the edge."""
    losses = []
    for z, y in zip(logits[:, 0].double().numpy(), target[:, 0].double().numpy(), strict=True):
        half, (h, w) = window // 2, y.shape
        padded = np.pad(y, half)
        mean = sum(padded[i : i + h, j : j + w] for i in range(window) for j in range(window))
        weight = 1 + 5 * np.abs(mean / window**2 - y)
        p = 1 / (1 + np.exp(-z))
        entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p))
        both, either = (weight * p * y).sum(), (weight * (p + y)).sum()
        iou = 1 - (both + 1) / (either - both + 1)
        losses.append(iou + (weight * entropy).sum() / weight.sum())
    return float(np.mean(losses))


def test_each_map_is_supervised_on_the_hr_grid() -> None:
    task = Task(2, 1, 2, (2, 2))
    torch.manual_seed(0)
    method = PraNet(task, TINY).eval()
    batch = batch_for(task, 24, 40)
    with torch.no_grad():
        parts = method.losses(batch)
        maps = method.network.decoder(method.network.encoder(batch.image_lr))
        sides = method.network.on_hr_grid(maps, batch.image_lr)
    assert [tuple(m.shape[2:]) for m in maps] == [(3, 5), (1, 2), (2, 3), (3, 5)]
    assert list(parts) == list(method.weights()) == ["L_g", "L_5", "L_4", "L_3"]
    for part, side in zip(parts.values(), sides, strict=True):
        expected = structure_loss_in_numpy(side, batch.target, WINDOW)
        assert float(part) == pytest.approx(expected, rel=1e-5)


def test_equal_weights_unless_told_otherwise() -> None:
    assert set(PraNet(Task(), TINY).weights().values()) == {1.0}
    config = Config(encoder="resnet18", encoder_width=4, channel=2, w_side=0.0)
    assert PraNet(Task(), config).weights() == {"L_g": 0.0, "L_5": 0.0, "L_4": 0.0, "L_3": 1.0}


@pytest.mark.parametrize("classes", [2, 3])
def test_the_best_map_ships(classes: int) -> None:
    task = Task(2, 3, classes, (2, 2))
    method = PraNet(task, TINY).eval()
    batch = batch_for(task, 32, 64)
    with torch.no_grad():
        maps = method.network.decoder(method.network.encoder(batch.image_lr))
        best = method.network.on_hr_grid(maps, batch.image_lr)[-1]
        assert torch.equal(method.deploy()(batch.image_lr), best)
    assert method.deploy().stride == 32


def test_the_answer_starts_near_the_prior() -> None:
    torch.manual_seed(0)
    task = Task(2, 1, 2, (2, 2))
    network = PraNet(task, TINY).eval().network
    global_map = network.decoder(network.encoder(torch.zeros(1, 1, 64, 64)))[0]
    assert torch.sigmoid(global_map).mean().item() == pytest.approx(0.1, abs=1e-6)


def test_the_encoder_takes_public_weights() -> None:
    method = PraNet(Task(2, 3), TINY)
    assert isinstance(method.public_encoder(), Encoder)
    assert {id(p) for p in method.public_encoder().parameters()} < {
        id(p) for p in method.parameters()
    }


def test_volumes_are_refused() -> None:
    with pytest.raises(UsageError, match="pranet is defined for 2-D images, these are 3-D"):
        create(Recipe("pranet", Task(3, scale=(2,))))


@pytest.mark.parametrize("option", ["encoder_width", "channel"])
def test_impossible_networks_are_refused(option: str) -> None:
    with pytest.raises(UsageError, match=option):
        create(Recipe("pranet", config={option: 0}))
