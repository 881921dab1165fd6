"""MSNet and M2SNet: published counts, the loss and its parts, two rates, any encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finemask.datasets import make_phantoms
from finemask.errors import DataError, UsageError
from finemask.losses.structure import structure_losses
from finemask.methods import create, default_recipe
from finemask.methods.describe import count_macs, count_parameters
from finemask.methods.m2snet import Config, M2SNet, MSNet, SingleScaleConfig
from finemask.nn.outputs import foreground_probs
from finemask.pairs.batches import Batch
from finemask.recipe import Task
from finemask.training.loop import train
from finemask.training.setup import make_optimiser

RGB = Task(2, 3, 2, (1, 1))
TINY = Config(encoder="resnet18", encoder_width=4, width=4, lossnet_width=2, lossnet_size=32)


def batch_for(task: Task, *sides: int) -> Batch:
    torch.manual_seed(3)
    hr = [n * s for n, s in zip(sides, task.scale, strict=True)]
    target = torch.zeros(2, task.foreground, *hr)
    target[:, 0, : hr[0] // 2, : hr[1] // 2] = 1
    return Batch(torch.randn(2, task.channels, *sides), torch.randn(2, task.channels, *hr), target)


def cost(method: type[MSNet], *sides: int, **options: object) -> tuple[float, ...]:
    """Weights, and billions of multiply-adds of the convolutions at each side."""
    with torch.device("meta"):
        network = method(RGB, method.config_type(**options))
        segmenter = network.deploy()
        macs = [count_macs(network, segmenter, (side, side)) / 1e9 for side in sides]
    return count_parameters(network), *macs


@pytest.mark.parametrize(("method", "weights"), [(MSNet, 27_692_329), (M2SNet, 27_692_585)])
def test_published_counts(method: type[MSNet], weights: int) -> None:
    """Filters of ones add two gains and offsets, and no convolution."""
    assert cost(method, 256, 352) == pytest.approx((weights, 8.91, 16.84), abs=0.01)


@pytest.mark.parametrize(
    ("context", "millions", "giga"), [("aspp", 29.2, 13.8), ("dense_aspp", 29.6, 17.5)]
)
def test_heavier_contexts_cost_about_what_the_paper_says(
    context: str, millions: float, giga: float
) -> None:
    """Table 8; the widths within are not told."""
    assert cost(M2SNet, 256, context=context) == pytest.approx((millions * 1e6, giga), rel=0.03)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_loss_is_the_sum_of_its_parts(weighted: bool) -> None:
    """Eq. (4), with LossNet at the released weight."""
    config = replace(TINY, weighted_bce=weighted)
    method, batch = M2SNet(Task(), config).eval(), batch_for(Task(), 16, 24)
    with torch.no_grad():
        parts = method.losses(batch)
        logits = method.deploy()(batch.image_lr)
        assert method.lossnet is not None
        seen = method.lossnet(foreground_probs(logits), batch.target)
    expected = structure_losses(logits, batch.target, weighted_bce=weighted)
    assert (parts["L_wIoU"], parts["L_wBCE"], parts["L_LossNet"]) == (*expected, seen)
    assert list(method.weights().values()) == [1.0, 1.0, 0.1]


def test_without_a_weight_there_is_no_lossnet() -> None:
    method = MSNet(Task(), SingleScaleConfig(**{**vars(TINY), "context": "none", "w_lossnet": 0.0}))
    assert method.equip() == {}
    assert set(method.losses(batch_for(Task(), 16, 24))) == set(method.weights())
    assert method.lossnet is None


def test_prediction_needs_no_file_of_lossnet() -> None:
    method = M2SNet(Task(), replace(TINY, lossnet_weights="gone.pth"))
    assert method.deploy()(torch.zeros(1, 1, 16, 16)).shape == (1, 1, 32, 32)
    assert not [name for name in method.state_dict() if "lossnet" in name]
    with pytest.raises(DataError, match=r"gone\.pth"):
        method.equip()


def test_two_learning_rates_are_two() -> None:
    """Every weight of the encoder in one group, every other one in the second."""
    method = M2SNet(Task(), TINY)
    settings = default_recipe("m2snet", Task()).train
    encoder, rest = make_optimiser(method, "network", settings).param_groups
    assert (encoder["factor"], rest["factor"]) == (0.1, 1.0)
    assert (encoder["nesterov"], rest["momentum"]) == (True, 0.9)
    inside = {id(p) for p in method.network.encoder.parameters()}
    assert {id(p) for p in encoder["params"]} == inside
    assert {id(p) for p in rest["params"]} == {id(p) for p in method.parameters()} - inside


@pytest.mark.parametrize("name", ["resnet34", "res2net50", "vgg16"])
def test_any_encoder_serves(name: str) -> None:
    with torch.device("meta"):
        config = replace(TINY, encoder=name)  # type: ignore[arg-type]
        network = M2SNet(Task(2, 1, 3, (2, 2)), config).deploy()
        assert network(torch.empty(1, 1, 40, 72)).shape == (1, 3, 80, 144)


def test_every_row_of_the_ablations_is_a_network_of_its_own() -> None:
    for method in (MSNet, M2SNet):
        configs = [method.config_type(**changes) for changes in method.ABLATIONS.values()]
        assert len(set(configs)) == len(configs)
        with torch.device("meta"):
            for config in configs:
                method(Task(), config)
    assert M2SNet.config_type(**M2SNet.ABLATIONS["MSNet"]).context == "none"


def test_names_decide_the_default() -> None:
    """MSNet is M2SNet without filters."""
    assert not create(default_recipe("msnet", Task())).network.pyramid.filters
    assert len(create(default_recipe("m2snet", Task())).network.pyramid.filters) == 2


@pytest.mark.parametrize(
    "options", [{"order": 5}, {"width": 0}, {"sides": (0,)}, {"sides": (4,)}, {"edge_window": 8}]
)
def test_impossible_networks_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Config(**options)  # type: ignore[arg-type]


def test_a_run_names_what_lossnet_is_made_of(tmp_path: Path) -> None:
    """The recipe trains as it is, at several sizes; LossNet is in the record."""
    data = make_phantoms(tmp_path / "data", kind="ultrasound", cases=4, size=(64, 64))
    tiny = [f"config.{key}={getattr(TINY, key)}" for key in ("encoder", "encoder_width", "width")]
    tiny += ["config.lossnet_width=2", "config.lossnet_size=16", "config.edge_window=7"]
    quick = ["steps=2", "batch_size=2", "validate_cases=1"]
    run = train(data, tmp_path / "run", method="m2snet", settings=[*tiny, *quick])
    meta = json.loads((run.path / "checkpoints/best/meta.json").read_text())
    assert "random" in meta["equipment"]["LossNet"]
    assert (run.recipe.train.schedule, run.recipe.train.nesterov) == ("triangle", True)
