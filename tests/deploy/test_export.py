"""What is exported is the run's network, or nothing is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from finemask.cli import app
from finemask.deploy import export as exporting
from finemask.deploy.export import export
from finemask.deploy.exported import load_exported
from finemask.deploy.runtimes import foreground_probs
from finemask.deploy.spec import Check, read_spec
from finemask.deploy.verify import INT8_LOSS, refuse_if_unlike
from finemask.errors import DataError, FinemaskError, UsageError
from finemask.inference.model import Machine
from finemask.nn import outputs
from finemask.runs import Run, load_run


def test_the_folder_tells_all_that_prediction_needs(exported_of: Callable[..., Path]) -> None:
    folder = exported_of(2, "onnx")
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.onnx"]
    spec = read_spec(folder)
    assert spec.task.scale == (2, 2)
    assert (spec.stride, spec.threshold, spec.probabilities) == (4, 0.1, "sigmoid")
    assert spec.training.data_fingerprint == "ab" * 32
    assert {(c.backend, c.precision) for c in spec.checks} == {
        ("onnx", "32-true"),
        ("openvino", "32-true"),
        ("openvino", "bf16-mixed"),
    }
    exact = [c for c in spec.checks if c.precision == "32-true"]
    assert all(0 < c.logits_error < 1e-3 and c.mask_dice > 0.999 for c in exact)
    assert "a phantom and noise" in spec.card


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("dims", [2, 3])
def test_any_size_and_batch_gives_the_logits_of_torch(
    run_of: Callable[[int], Path], exported_of: Callable[..., Path], dims: int, kind: str
) -> None:
    run, exported = load_run(run_of(dims)), load_exported(exported_of(dims, kind))
    network = exported.network(Machine(backend=kind))
    generator = torch.Generator().manual_seed(0)
    for batch, *sides in ((1, 8, 12, 20), (3, 20, 8, 8)):
        image = torch.randn(batch, 1, *sides[:dims], generator=generator)
        with torch.inference_mode():
            expected = run.segmenter(image).numpy()
        np.testing.assert_allclose(network.logits(image.numpy()), expected, atol=2e-4)


def other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the next export write another network."""
    write = exporting.write_graph

    def wrong(segmenter: Any, *rest: Any) -> list[str]:
        with torch.no_grad():
            for weight in segmenter.parameters():
                weight += 0.05 * torch.randn_like(weight)
        try:
            return write(segmenter, *rest)
        finally:
            reloaded = load_run(exporting_run[0]).segmenter.state_dict()
            segmenter.load_state_dict(reloaded)

    exporting_run: list[Path] = []
    real = exporting.load_run
    monkeypatch.setattr(exporting, "load_run", lambda p: exporting_run.append(p) or real(p))
    monkeypatch.setattr(exporting, "write_graph", wrong)


def test_another_network_is_refused_and_what_was_there_stays(
    run_of: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(run_of(2), out)
    before = (out / "model.onnx").read_bytes()
    other_weights(monkeypatch)
    with pytest.raises(DataError, match=r"gave another network than the run's \(on a phantom and"):
        export(run_of(2), out, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "model.onnx").read_bytes() == before
    with pytest.raises(DataError, match="logits differ"):
        export(run_of(2), tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_nothing_else_is_written_over(run_of: Callable[[int], Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="no exported folder"):
        export(run_of(2), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_it_is_compared_on_validation_cases_of_the_data(
    run_of: Callable[[int], Path], data: Path, tmp_path: Path
) -> None:
    exported = export(run_of(2), tmp_path / "out", data=data, licence="CC BY 4.0")
    check = exported.spec.checks[0]
    assert check.images == "validation cases phantom_ultrasound_003, phantom_ultrasound_004"
    assert check.cases == 2
    assert check.dice[0] == pytest.approx(check.dice[1], abs=1e-3)
    assert "Licence: CC BY 4.0." in exported.spec.card
    assert str(tmp_path) not in (tmp_path / "out" / "model.json").read_text()


def test_data_of_another_run_is_refused(run_of: Callable[[int], Path], tmp_path: Path) -> None:
    from finemask.datasets import make_phantoms

    make_phantoms(tmp_path / "other", "vessels", 2, size=64)
    with pytest.raises(FinemaskError, match="has none of the val cases"):
        export(run_of(2), tmp_path / "out", data=tmp_path / "other")
    assert not (tmp_path / "out").exists()


def test_eight_bits_are_fitted_to_training_cases(
    run_of: Callable[[int], Path],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finemask.deploy.verify.INT8_LOSS", 0.2)  # these weights know nothing
    exported = export(run_of(2), tmp_path / "int8", data=data, int8=True)
    assert exported.spec.numbers == "int8"
    assert exported.sha256() == exported.spec.files["model.onnx"]
    check = exported.spec.checks[0]
    assert check.logits_error > 1e-3
    assert check.mask_dice > 0.8
    monkeypatch.setattr("finemask.deploy.verify.INT8_LOSS", -1.0)
    with pytest.raises(DataError, match=r"int8: costs -?0\.\d+ Dice, more than"):
        export(run_of(2), tmp_path / "refused", data=data, int8=True)
    assert not (tmp_path / "refused").exists()
    with pytest.raises(UsageError, match="there are none"):
        export(run_of(2), tmp_path / "none", int8=True)


def test_the_limits_of_what_is_accepted() -> None:
    def check(logits: float, masks: float, dice: tuple[float, ...] = ()) -> Check:
        return Check("onnx", "32-true", "x", 1, logits, masks, dice)

    refuse_if_unlike(check(1e-3, 0.9999), "float32")
    for bad in (check(0.1, 1.0), check(0.0, 0.99)):
        with pytest.raises(DataError):
            refuse_if_unlike(bad, "float32")
    refuse_if_unlike(check(0.5, 0.9, (0.9, 0.9 - 0.9 * INT8_LOSS)), "int8")
    refuse_if_unlike(check(0.5, 0.9, (0.8, 0.9)), "int8")
    for bad in (check(0.5, 1.0, (0.9, 0.89)), check(0.5, 0.99)):
        with pytest.raises(DataError, match="Dice"):
            refuse_if_unlike(bad, "int8")


@pytest.mark.parametrize("maps", [1, 4])
def test_probabilities_are_those_of_torch(maps: int) -> None:
    logits = np.random.default_rng(0).normal(0, 60, (maps, 5, 6)).astype(np.float32)
    expected = outputs.foreground_probs(torch.from_numpy(logits[None]))[0].numpy()
    found = foreground_probs(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_part_that_cannot_be_written_is_an_error_of_one_line(
    run_of: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(image)

    run = load_run(run_of(2))
    run.segmenter.network = Odd()
    with pytest.raises(DataError, match="cannot be written as ONNX") as told:
        export(run, tmp_path / "out")
    assert "\n" not in str(told.value)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_command(
    run_of: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run_of(2)), "--to", "openvino", "--out", str(tmp_path / "x")]
    app(words, standalone_mode=False)
    assert "masks agree with Dice 1.0000" in capsys.readouterr().out
    values = json.loads((tmp_path / "x" / "model.json").read_text())
    assert sorted(values["files"]) == ["model.bin", "model.xml"]
    assert isinstance(load_run(run_of(2)), Run)
