"""Predicting from an exported folder: the same masks, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from numpy import ndarray

from finemask.deploy.export import export
from finemask.deploy.exported import load_exported
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.inference.cohort import predict
from finemask.inference.model import Machine, Network
from finemask.inference.probe import fastest
from finemask.info import describe_path
from finemask.io import read_labels, read_probs, write_image
from finemask.runs import load_run

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning_fabric", "safetensors"):
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Block())
"""


def images(folder: Path, dims: int) -> Path:
    """Noise in an oblique grid, or as pictures."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    if dims == 2:
        for name, shape in (("a", (21, 34)), ("b", (3, 50))):
            write_image(folder / f"{name}.png", rng.integers(0, 255, shape).astype(np.uint8),
                        Geometry.regular(shape))  # fmt: skip
        return folder
    affine = np.array([[0.0, 0.8, 0, 3], [-0.8, 0, 0, 5], [0, 0, 2.0, 7], [0, 0, 0, 1]])
    shape = (14, 22, 17)
    volume = rng.normal(size=(1, *shape)).astype(np.float32)
    write_image(folder / "ct.nii.gz", volume, Geometry.from_affine(shape, affine))
    return folder


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("dims", [2, 3])
def test_masks_probabilities_and_grids_are_those_of_the_run(
    run_of: Callable[[int], Path],
    exported_of: Callable[..., Path],
    tmp_path: Path,
    dims: int,
    kind: Any,
) -> None:
    source, suffix = images(tmp_path / "in", dims), ".png" if dims == 2 else ".nii.gz"
    for grid in ("hr", "source"):
        options: dict[str, Any] = {"grid": grid, "probs": True, "overwrite": True}
        ours = predict(run_of(dims), source, tmp_path / "ours", **options)
        theirs = predict(exported_of(dims, kind), source, tmp_path / "theirs", **options)
        assert ours.failures == theirs.failures == ()
        names = sorted(p.name for p in (tmp_path / "ours").glob(f"*{suffix}"))
        assert names == sorted(p.name for p in (tmp_path / "theirs").glob(f"*{suffix}"))
        for name in names:
            first, second = tmp_path / "ours" / name, tmp_path / "theirs" / name
            if "_probs" in name:
                (a, on_a), (b, on_b) = read_probs(first), read_probs(second)
                np.testing.assert_allclose(a, b, atol=1e-4)
            else:
                (a, on_a), (b, on_b) = read_labels(first), read_labels(second)
                assert 0 < np.count_nonzero(a) < a.size
                assert np.mean(a == b) > 0.999
            assert on_a == on_b


@pytest.mark.parametrize("name", ["pfseg", "vnet"])
def test_guidance_and_the_grid_that_is_read_are_those_of_the_run(
    make_run: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    """PFSeg is shown a window of the HR image, V-Net patches of it."""
    run = make_run(tmp_path / "run", name, window=16, dims=3, scale=(2,))
    exported = export(run, tmp_path / "exported")
    guide = {"cut": "crop", "mode": "selective", "parts": 4} if name == "pfseg" else {}
    assert exported.spec.guide == guide
    assert (exported.spec.reads, exported.spec.patches) == (("lr", "hr")[not guide], not guide)
    source = images(tmp_path / "in", 3)
    ours, theirs = (tmp_path / which for which in ("ours", "theirs"))
    for model, out in ((run, ours), (exported, theirs)):
        assert predict(model, source, out, probs=True, grid="source").failures == ()
    (a, _), (b, _) = (read_probs(out / "ct_probs.nii.gz") for out in (ours, theirs))
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert a.std() > 1e-3


@pytest.mark.parametrize(
    ("guide", "said"),
    [({"cut": "os.system"}, "guide: is 'os.system'"), ({"cut": "crop", "x": 1}, "unknown key x")],
)
def test_a_guide_that_is_not_known_is_told(
    exported_of: Callable[..., Path], tmp_path: Path, guide: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        load_exported(damaged(exported_of(2, "onnx"), tmp_path / "x", guide=guide))


def test_slabs_and_resume_work_alike(
    run_of: Callable[[int], Path], exported_of: Callable[..., Path], tmp_path: Path
) -> None:
    shape = (40, 60, 60)
    volume = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    write_image(tmp_path / "ct.nii.gz", volume, Geometry.regular(shape))
    small = {"max_memory_bytes": 14 * 2**20, "backend": "onnx"}
    exported = load_exported(exported_of(3, "onnx"))
    machine = exported.choose(Machine(backend="onnx"))
    seen = []
    network = exported.network(machine)
    real = network.logits
    network.logits = lambda *a: seen.append(a[0].shape) or real(*a)  # type: ignore[method-assign]
    out = tmp_path / "out"
    assert predict(exported, tmp_path / "ct.nii.gz", out, **small).failures == ()  # type: ignore[arg-type]
    assert len(seen) > 1
    # What torch did can be gone on with from the export: the weights are the same.
    again = predict(run_of(3), tmp_path / "ct.nii.gz", out, resume=True)
    assert (again.done, again.skipped) == (0, 1)
    with pytest.raises(DataError, match="smallest tile"):
        raise predict(exported, tmp_path / "ct.nii.gz", tmp_path / "no", max_memory_bytes=10**6,
                      backend="onnx").failures[0]  # fmt: skip


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_torch_is_neither_needed_nor_imported(
    exported_of: Callable[..., Path], tmp_path: Path, backend: str
) -> None:
    source, folder = images(tmp_path / "in", 2), exported_of(2, "onnx")
    words = ["predict", folder, source, "--out", tmp_path / "out", "--backend", backend, "-q"]
    script = (
        f"{BLOCKED}sys.argv = ['finemask', *{[str(w) for w in words]!r}]\n"
        "from finemask.cli import main\ntry: main()\n"
        "finally: print('LOADED', sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 done, 0 failed" in done.stdout
    loaded = done.stdout.rpartition("LOADED")[2]
    assert "'torch'" not in loaded
    assert f"'{'onnxruntime' if backend == 'onnx' else 'openvino'}'" in loaded
    assert (tmp_path / "out" / "b.png").exists()


def damaged(folder: Path, out: Path, **changes: Any) -> Path:
    shutil.copytree(folder, out)
    values = json.loads((out / "model.json").read_text())
    for name, value in changes.items():
        if value is None:
            del values[name]
        else:
            values[name] = value
    (out / "model.json").write_text(json.dumps(values))
    return out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 9}, "format 9, this version reads format 1"),
        ({"stride": None}, "lacks stride"),
        ({"threshold": "0.5"}, "damaged .*threshold: is '0.5'"),
        ({"threshold": 0.0}, "impossible threshold"),
        ({"window": [8]}, "impossible window"),
        ({"module": "os.system"}, "damaged .*unknown key module"),
        ({"files": {"../model.onnx": "00"}}, "does not list model.onnx"),
        ({"files": {"model.onnx": "00"}}, "checksum differs"),
        ({"probabilities": "tanh"}, "damaged .*probabilities"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_description_is_told(
    exported_of: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said) as told:
        load_exported(damaged(exported_of(2, "onnx"), tmp_path / "x", **changes))
    assert "\n" not in str(told.value)


def test_a_cut_graph_or_no_export_is_told(exported_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = damaged(exported_of(2, "openvino"), tmp_path / "x")
    whole = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(whole[:-4])
    with pytest.raises(DataError, match=r"model\.bin: is missing or damaged"):
        load_exported(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        predict(folder, tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match=r"holds no model\.json"):
        load_exported(tmp_path)


def test_options_that_do_not_fit_are_told_before_any_image_is_read(
    run_of: Callable[[int], Path],
    exported_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, out = images(tmp_path / "in", 2), tmp_path / "out"
    onnx, openvino = exported_of(2, "onnx"), exported_of(2, "openvino")
    for folder, options, said in (
        (openvino, {"backend": "onnx"}, "--backend: is onnx, .* is run by openvino"),
        (onnx, {"backend": "torch"}, "is run by onnx or openvino"),
        (run_of(2), {"backend": "onnx"}, "is a run, which torch runs; export it first"),
        (onnx, {"backend": "onnx", "precision": "bf16-mixed"}, "--precision: is bf16-mixed"),
        (onnx, {"device": "cuda"}, "--device: is 'cuda'"),
        (onnx, {"sr": True}, "--sr"),
        (onnx, {"explain": True}, "--explain"),
    ):
        with pytest.raises(UsageError, match=said):
            predict(folder, source, out, **options)  # type: ignore[arg-type]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package openvino, which is not installed"):
        predict(openvino, source, out)
    with pytest.raises(UsageError, match="needs the package onnxruntime or openvino"):
        predict(onnx, source, out)
    assert not out.exists()


class Slow(Network):
    """Takes its time."""

    def __init__(self, seconds: float, log: list[float]) -> None:
        super().__init__((2, 2), 1, stride=4)
        self.seconds, self.log = seconds, log

    def forward(self, tile: Float[ndarray, " c *t"], guidance: Any = None) -> Any:
        import time

        time.sleep(self.seconds)
        self.log.append(self.seconds)
        return np.zeros((1, *(2 * n for n in tile.shape[1:])), np.float32)

    def activation_bytes(self, *shapes: Any) -> tuple[int, int]:
        return 0, 0


@pytest.mark.parametrize(
    ("seconds", "best"), [((0.02, 0.002), 1), ((0.002, 0.02), 0), ((0.02, 0.0195), 0), ((1.0,), 0)]
)
def test_the_clearly_fastest_is_chosen_and_the_only_one_not_measured(
    exported_of: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    seconds: tuple[float, ...],
    best: int,
) -> None:
    exported = load_exported(exported_of(2, "onnx"))
    machines = [Machine(max_memory_bytes=k + 1) for k in range(len(seconds))]
    log: list[float] = []
    monkeypatch.setattr(
        type(exported), "network", lambda _, m: Slow(seconds[m.max_memory_bytes - 1], log)
    )
    assert fastest(exported, machines) is machines[best]
    assert bool(log) == (len(seconds) > 1)


def test_reduced_precision_is_chosen_only_where_it_was_checked(
    exported_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = load_exported(exported_of(3, "openvino"))
    offered: list[list[str]] = []
    monkeypatch.setattr(
        "finemask.deploy.exported.fastest",
        lambda _, choices: offered.append([m.precision for m in choices]) or choices[0],
    )
    for loss in (0.0, 0.01):
        checks = tuple(replace(c, dice=(0.9, 0.9 - loss)) for c in exported.spec.checks)
        model = replace(exported, spec=replace(exported.spec, checks=checks))
        assert model.choose(Machine(precision="auto")).backend == "openvino"
    assert offered == [["32-true", "bf16-mixed"], ["32-true"]]


def test_a_run_in_torch_chooses_too(run_of: Callable[[int], Path]) -> None:
    run = load_run(run_of(2))
    assert run.choose(Machine()).backend == "torch"
    assert run.choose(Machine(precision="auto")).precision in ("32-true", "bf16-mixed")


def test_info_reads_it_whole(exported_of: Callable[..., Path], tmp_path: Path) -> None:
    told = describe_path(exported_of(2, "onnx"))
    assert "scale 2x2" in told
    assert "openvino bf16-mixed" in told
    folder = damaged(exported_of(2, "onnx"), tmp_path / "x", files={"model.onnx": "00"})
    with pytest.raises(DataError, match="checksum differs"):
        describe_path(folder)
