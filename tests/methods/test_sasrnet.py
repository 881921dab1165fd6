"""SASR-Net: its equations against NumPy, its published size, and every row of its ablations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import nn

from finemask.errors import UsageError
from finemask.methods.base import Segmenter
from finemask.methods.describe import count_macs, count_parameters
from finemask.methods.released.sasrnet import GRAPH
from finemask.methods.sasrnet import Config, SASRNet
from finemask.methods.unet import Config as UNetConfig
from finemask.methods.unet import UNet
from finemask.nn.blocks import Style
from finemask.nn.scale_aware import ScaleAwareConv, ScaleAwareDecoder
from finemask.nn.superres import ImageHead, MaskHead
from finemask.nn.unet import UNetEncoder
from finemask.pairs.batches import Batch
from finemask.recipe import Task

TINY = Config(width=4, depth=3, sr_width=4, fa_width=6, fa_stride=4, sa_stride=4)
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
    method = SASRNet(TASK, dataclasses.replace(TINY, power=power)).eval()
    batch = batch_for(TASK, 16, 24)
    with torch.no_grad():
        parts = {name: float(part) for name, part in method.losses(batch).items()}
        image = method.super_resolve(batch.image_lr).double().numpy()
        p = method.deploy().probs(batch.image_lr).double().numpy()
        shared = method.encoder(batch.image_lr)
        f_lmsr, s_lmsr = method.lmsr_decoder.with_maps(shared)
        f_lisr, s_lisr = method.lisr_decoder.with_maps(shared)
        f_lisr = method.lisr_head.features(f_lisr)
        # The projections before the pooling, as the paper has them; cells of 4 HR voxels.
        fa = F.avg_pool2d(method.fa_lmsr(f_lmsr), 2), F.avg_pool2d(method.fa_lisr(f_lisr), 4)
        sa = [
            F.avg_pool2d(
                torch.cat([F.interpolate(m, (16, 24), mode="bilinear") for m in maps], 1), 4
            )
            for maps in (s_lmsr, s_lisr)
        ]
    x, y = batch.image_hr.double().numpy(), batch.target.double().numpy()
    both, squares = (v.sum((1, 2, 3)) for v in (p * y, p**2 + y**2))
    wrong = (image - x) ** 2
    assert parts["L_LMSR"] == pytest.approx(np.mean(1 - (2 * both + 1) / (squares + 1)))
    assert parts["L_ce"] == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), 1e-5)
    assert parts["L_LISR"] == pytest.approx(
        (0.8 * wrong[y == 1].sum() + 0.2 * wrong[y == 0].sum()) / wrong.size, rel=1e-5
    )
    assert parts["L_FA"] == pytest.approx(gram_distance(*(f.numpy() for f in fa), power), rel=1e-3)
    assert parts["L_SA"] == pytest.approx(gram_distance(*(s.numpy() for s in sa), power), rel=1e-3)


def test_the_published_network_has_its_published_size() -> None:
    """spec_000: 8,341,389 weights at inference, 13,232,350 in training, about 52 GMAC at 48."""
    with torch.device("meta"):
        method = SASRNet(Task(3, 1, 2, (2,)), Config(**GRAPH))
        shipped = method.deploy()
        assert count_macs(method, shipped, (48, 48, 48)) == pytest.approx(52e9, rel=0.01)
    assert count_parameters(shipped) == 8_341_389
    assert count_parameters(method) == 13_232_350


def test_equation_8_sums_what_is_switched_on() -> None:
    full = Config(w_ce=0.0)
    assert SASRNet(TASK, full).weights() == {"L_LMSR": 1, "L_LISR": 1, "L_FA": 1, "L_SA": 1}
    weights = SASRNet(TASK, dataclasses.replace(TINY, w_lisr=0.5, w_fa=0.3, w_sa=0.2)).weights()
    assert weights == {"L_LMSR": 1, "L_ce": 1, "L_LISR": 0.5, "L_FA": 0.3, "L_SA": 0.2}


ROWS = {
    "baseline": (0, []),
    "SDC": (2, []),
    "DSR": (0, ["L_LISR"]),
    "SDC+DSR": (4, ["L_LISR"]),
    "SDC+DSR+FA": (4, ["L_FA", "L_LISR"]),
    "SDC+DSR+SA": (4, ["L_LISR", "L_SA"]),
    "SDC+DSR+FA+SA": (4, ["L_FA", "L_LISR", "L_SA"]),
}
"""Table IV: SDC blocks in all (two a decoder of three levels), losses beside the mask's."""


@pytest.mark.parametrize("label", ROWS)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_row_of_table_4_learns_and_answers(label: str, dims: int) -> None:
    assert set(SASRNet.ABLATIONS) == set(ROWS)
    task = Task(dims, 1, 2, (2,))
    method = SASRNet(task, dataclasses.replace(TINY, **SASRNet.ABLATIONS[label]))
    batch = batch_for(task, *(8, 12, 8)[:dims])
    parts = method.losses(batch)
    blocks, losses = ROWS[label]
    assert sorted(set(parts) - {"L_LMSR", "L_ce"}) == losses
    assert set(parts) == set(method.weights())
    torch.stack([method.weights()[name] * part for name, part in parts.items()]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert sum(isinstance(m, ScaleAwareConv) for m in method.modules()) == blocks
    assert method.deploy()(batch.image_lr).shape == batch.target.shape
    assert (method.super_resolve(batch.image_lr) is not None) == ("DSR" in label)
    assert method.makes_image() == ("DSR" in label)


def test_the_first_row_is_the_unet_without_its_fine_head() -> None:
    """LR in and LR out: the same decoder, a head of the LR grid, and no weight to enlarge it."""
    changes = SASRNet.ABLATIONS["baseline"]
    method = SASRNet(TASK, dataclasses.replace(TINY, head="interpolate", **changes))
    unet = UNet(TASK, UNetConfig(width=4, depth=3, head="interpolate"))
    assert [p.shape for p in method.parameters()] == [p.shape for p in unet.parameters()]
    unet.load_state_dict(dict(zip(unet.state_dict(), method.state_dict().values(), strict=True)))
    batch = batch_for(TASK, 8, 12)
    assert torch.equal(method.deploy()(batch.image_lr), unet.deploy()(batch.image_lr))
    logits = method.lmsr_head(method.lmsr_decoder(method.encoder(batch.image_lr)))
    assert logits.shape[2:] == batch.image_lr.shape[2:]
    share = F.avg_pool2d(batch.target, 2)
    expected = F.binary_cross_entropy_with_logits(logits, share)
    torch.testing.assert_close(method.losses(batch)["L_ce"], expected)


@pytest.mark.parametrize("changes", [{"dsr": False}, {"sdc": False}, {"dsr": False, "fa": False}])
def test_affinity_without_its_paths_is_refused(changes: dict[str, bool]) -> None:
    with pytest.raises(UsageError, match="switch fa and sa off too"):
        Config(**changes)


@pytest.mark.parametrize("loss", ["L_FA", "L_SA"])
def test_affinities_couple_both_decoders(loss: str) -> None:
    method = SASRNet(TASK, TINY)
    method.losses(batch_for(TASK, 16, 24))[loss].backward()
    for part in (method.encoder, method.lmsr_decoder, method.lisr_decoder):
        reached = [p for p in part.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert len(reached) > len(list(part.parameters())) / 2
    assert all(p.grad is None for p in method.lmsr_head.parameters())


@pytest.mark.parametrize("stride", [1, 3, 4096])
@pytest.mark.parametrize("scale", [(2, 2), (1, 2, 2), (4, 4)])
def test_any_pooling_is_compared(stride: int, scale: tuple[int, ...]) -> None:
    """From every HR voxel to one cell for the whole image."""
    task = Task(len(scale), 1, 2, scale)
    method = SASRNet(task, dataclasses.replace(TINY, fa_stride=stride, sa_stride=stride))
    parts = method.losses(batch_for(task, *(5, 8, 9)[: len(scale)]))
    assert all(bool(parts[name].isfinite()) and parts[name] > 0 for name in ("L_FA", "L_SA"))


def test_full_resolution_is_each_voxel() -> None:
    method = SASRNet(TASK, dataclasses.replace(TINY, fa_stride=1)).eval()
    f_lmsr, f_lisr = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 12, 12)
    with torch.no_grad():
        a = method.fa_lmsr(F.interpolate(f_lmsr, (12, 12), mode="bilinear")).numpy()
        b = method.fa_lisr(f_lisr).numpy()
        got = float(method.affinity_of_features(f_lmsr, f_lisr))
    assert got == pytest.approx(gram_distance(a, b), rel=1e-4)


def test_outputs_are_compared_as_released() -> None:
    """Logits projected to the image's channels, normalised, rectified; the image as it is."""
    task = Task(2, 3, 2, (2, 2))
    method = SASRNet(task, dataclasses.replace(TINY, fa_on="outputs")).eval()
    batch = batch_for(task, 8, 12)
    with torch.no_grad():
        logits, image = method.deploy()(batch.image_lr), method.super_resolve(batch.image_lr)
        cells = F.avg_pool2d(method.fa_lmsr(logits), 4), F.avg_pool2d(image, 4)
        got = float(method.losses(batch)["L_FA"])
    assert got == pytest.approx(gram_distance(*(c.numpy() for c in cells)), rel=1e-3)
    assert not hasattr(method, "fa_lisr")


@pytest.mark.parametrize("dims", [2, 3])
def test_shipping_costs_what_a_unet_with_sdc_blocks_costs(dims: int) -> None:
    task, widths, style = Task(dims, 1, 2, (2,)), (4, 8, 16), Style(dims)
    with torch.device("meta"):
        plain = nn.Sequential(
            UNetEncoder(1, widths, style),
            ScaleAwareDecoder(widths, style),
            MaskHead(4, 2, task.scale),
        )
        method = SASRNet(task, TINY)
        shipped, other = method.deploy(), Segmenter(plain, task)
        assert count_parameters(shipped) == count_parameters(other)
        sides = (32,) * dims
        assert count_macs(method, shipped, sides) == count_macs(method, other, sides)


@pytest.mark.parametrize("scale", [(2, 2), (3, 3), (1, 2, 2)])
def test_nothing_of_super_resolution_ships(scale: tuple[int, ...]) -> None:
    task = Task(len(scale), 2, 3, scale)
    full = SASRNet(task, TINY)
    alone = SASRNet(task, dataclasses.replace(TINY, fa=False, sa=False))
    shipped = full.deploy()
    assert {k: v.shape for k, v in shipped.state_dict().items()} == {
        k: v.shape for k, v in alone.deploy().state_dict().items()
    }
    kinds = [type(module) for module in shipped.modules()]
    assert ImageHead not in kinds
    assert kinds.count(ScaleAwareDecoder) == 1
    assert not any(m is n for m in shipped.modules() for n in (full.fa_lmsr, full.fa_lisr))


def test_dropout_is_the_decoders_alone() -> None:
    method = SASRNet(TASK, dataclasses.replace(TINY, dropout=0.5))
    assert not any(isinstance(m, nn.Dropout2d) for m in method.encoder.modules())
    x = torch.randn(1, 1, 16, 16)
    assert not torch.equal(method.deploy()(x), method.deploy()(x))
    assert torch.equal(method.eval().deploy()(x), method.deploy()(x))
