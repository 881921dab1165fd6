"""SASR-Net on PraNet: its equations against NumPy, its size, and the rows of Table III."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy import ndarray

from finemask.errors import UsageError
from finemask.io.outputs import class_in_file_name
from finemask.losses.structure import structure_losses
from finemask.methods import create
from finemask.methods.describe import count_parameters
from finemask.methods.pranet import Config as PraNetConfig
from finemask.methods.pranet import PraNet
from finemask.methods.sasrnet_pranet import Config, SASRPraNet
from finemask.nn.scale_aware import ScaleAwareConv
from finemask.nn.scale_aware_pranet import TwinDecoder, trace
from finemask.nn.superres import ImageHead
from finemask.pairs.batches import Batch
from finemask.recipe import Recipe, Task

SMALL = {"encoder": "resnet18", "encoder_width": 4, "channel": 2}
TINY = Config(**SMALL, sr_width=4, fa_width=6)
TASK = Task(2, 1, 2, (2, 2))


def batch_for(task: Task, *sides: int) -> Batch:
    torch.manual_seed(3)
    hr = [n * s for n, s in zip(sides, task.scale, strict=True)]
    target = (torch.rand(2, task.foreground, *hr) > 0.8).float()
    return Batch(torch.randn(2, task.channels, *sides), torch.randn(2, task.channels, *hr), target)


def gram_distance(a: ndarray, b: ndarray, power: int = 2) -> float:
    """Eqs. 4 to 7 as printed, for ``(B, C, *S)``, averaged over the batch."""
    totals = []
    for x, y in zip(a.astype(float), b.astype(float), strict=True):
        x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
        totals.append((np.abs(x.T @ x - y.T @ y) ** power).mean())
    return float(np.mean(totals))


@pytest.mark.parametrize("power", [1, 2])
def test_equations_against_numpy(power: int) -> None:
    torch.manual_seed(0)
    method = SASRPraNet(TASK, dataclasses.replace(TINY, power=power)).eval()
    batch = batch_for(TASK, 64, 96)
    with torch.no_grad():
        parts = {name: float(part) for name, part in method.losses(batch).items()}
        image = method.super_resolve(batch.image_lr).double().numpy()
        p = method.deploy().probs(batch.image_lr).double().numpy()
        shared = method.lmsr.encoder(batch.image_lr)
        maps, f_lmsr, s_lmsr = trace(method.lmsr.decoder, shared)
        f_lisr, s_lisr = method.lisr_decoder.trace(shared, (64, 96))
        f_lisr = method.lisr_head.features(f_lisr)
        # Cells of 16 HR voxels are the voxels of the stage, those of 16 LR voxels two of them.
        fa = method.fa_lmsr(f_lmsr), F.avg_pool2d(method.fa_lisr(f_lisr), 16)
        sa = [
            F.avg_pool2d(
                torch.cat([F.interpolate(m, (8, 12), mode="bilinear") for m in scales], 1), 2
            )
            for scales in (s_lmsr, s_lisr)
        ]
        sides = method.lmsr.on_hr_grid(maps, batch.image_lr)
        structure = [float(sum(structure_losses(side, batch.target))) for side in sides]
    x, y = batch.image_hr.double().numpy(), batch.target.double().numpy()
    both, squares = (v.sum((1, 2, 3)) for v in (p * y, p**2 + y**2))
    wrong = (image - x) ** 2
    assert parts["L_LMSR"] == pytest.approx(np.mean(1 - (2 * both + 1) / (squares + 1)))
    assert parts["L_LISR"] == pytest.approx(
        (0.8 * wrong[y == 1].sum() + 0.2 * wrong[y == 0].sum()) / wrong.size, rel=1e-5
    )
    assert parts["L_FA"] == pytest.approx(gram_distance(*(f.numpy() for f in fa), power), rel=1e-3)
    assert parts["L_SA"] == pytest.approx(gram_distance(*(s.numpy() for s in sa), power), rel=1e-3)
    assert [parts[f"L_{k}"] for k in ("g", "5", "4", "3")] == pytest.approx(structure)


def test_size_by_formula() -> None:
    """One convolution of each stage becomes an SDC block; nothing of the twin ships."""

    def conv(c_in: int, c_out: int, side: int) -> int:
        return c_in * c_out * side**2 + 2 * c_out

    def sdc(c: int) -> int:
        return conv(c, c, 1) + 3 * conv(c, c, 3) + 4 * (9 * c + 1)

    more = sdc(256) - conv(256, 256, 5) + 2 * (sdc(64) - conv(64, 64, 3))
    with torch.device("meta"):
        task = Task(2, 3, 2, (2, 2))
        method, plain = SASRPraNet(task, Config()), PraNet(task, PraNetConfig())
    assert count_parameters(method.deploy()) == count_parameters(plain) + more == 30_866_715
    assert count_parameters(method) == 34_363_210


@pytest.mark.parametrize("label", SASRPraNet.ABLATIONS)
def test_rows_of_table_3(label: str) -> None:
    config = Config(**{**SASRPraNet.ABLATIONS[label], "encoder_width": 4, "channel": 2})
    assert config.encoder == ("res2net101" if "101" in label else "res2net50")
    method = SASRPraNet(TASK, config)
    ours = "Ours" in label
    assert sum(isinstance(m, ScaleAwareConv) for m in method.modules()) == 6 * ours
    learnt = {name for name, weight in method.weights().items() if weight}
    added = {"L_LMSR", "L_LISR", "L_FA", "L_SA"} if ours else set()
    assert learnt == {"L_g", "L_5", "L_4", "L_3"} | added


def test_rows_have_folders_of_their_own() -> None:
    for rows in (SASRPraNet.ABLATIONS, PraNet.ABLATIONS):
        assert len({class_in_file_name(label) for label in rows}) == len(rows)


def test_the_row_pranet_is_pranet() -> None:
    row = {**SASRPraNet.ABLATIONS["PraNet"], **SMALL}
    bare, plain = SASRPraNet(TASK, Config(**row)), PraNet(TASK, PraNetConfig(**SMALL))
    plain.network.load_state_dict(bare.lmsr.state_dict())
    batch = batch_for(TASK, 40, 64)
    theirs = {k: v for k, v in bare.losses(batch).items() if bare.weights()[k]}
    for name, part in plain.losses(batch).items():
        assert torch.equal(part, theirs.pop(name))
    assert theirs == {}
    assert torch.equal(*(m.eval().deploy()(batch.image_lr) for m in (bare, plain)))
    assert bare.super_resolve(batch.image_lr) is None


def test_affinities_teach_both_paths() -> None:
    method = SASRPraNet(TASK, TINY)
    parts = method.losses(batch_for(TASK, 64, 96))
    (parts["L_FA"] + parts["L_SA"]).backward()
    for part in (method.lmsr.decoder.ra_3.first, method.lisr_decoder.blocks, method.lmsr.encoder):
        assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in part.parameters())


def test_nothing_of_super_resolution_ships() -> None:
    shipped = SASRPraNet(TASK, TINY).deploy()
    assert not {TwinDecoder, ImageHead} & {type(module) for module in shipped.modules()}


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_cells_of_any_scale(scale: int) -> None:
    """At scale 4 the cells of the features are finer than the mask's finest stage."""
    task = Task(2, 1, 2, (scale, scale))
    parts = SASRPraNet(task, TINY).losses(batch_for(task, 32, 40))
    assert all(bool(part.isfinite()) for part in parts.values())


def test_the_chosen_reach_is_told_on_the_lr_grid() -> None:
    torch.manual_seed(0)
    method = SASRPraNet(TASK, TINY).eval()
    image = torch.randn(1, 1, 36, 52)
    segmenter = method.deploy()
    with torch.no_grad():
        maps = segmenter.explain(image)
        finest = trace(method.lmsr.decoder, method.lmsr.encoder(image))[2][-1]
    assert tuple(maps) == segmenter.explanations == ("reach1", "reach3", "reach5", "reach11")
    for k, told in enumerate(maps.values()):
        assert told.shape == (1, 1, 36, 52)
        # Between the centres of two voxels of stride 8 lies their mean.
        between = told[0, 0, :4, 7:9].mean()
        torch.testing.assert_close(between, finest[0, k, 0, :2].mean(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"dsr": False}, {"sdc": False}])
def test_affinities_without_what_they_compare_are_refused(options: dict[str, bool]) -> None:
    with pytest.raises(UsageError, match="switch fa and sa off too"):
        Config(**options)


def test_volumes_are_refused() -> None:
    with pytest.raises(UsageError, match="sasrnet_pranet is defined for 2-D images, these are 3-D"):
        create(Recipe("sasrnet_pranet", Task(3, scale=(2,))))
