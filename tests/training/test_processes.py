"""Several processes: a signal reaches all, and one that dies is told in one line."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file
from torch.multiprocessing.spawn import ProcessExitedException

from finemask.datasets import make_phantoms
from finemask.training import loop
from finemask.training.loop import train
from finemask.training.processes import launch
from finemask.training.standing import Interrupted, TrainingError

QUICK = ("validate_every=2", "log_every=2", "batch_size=2", "crop=32x32", "config.width=4",
         "config.depth=2", "warmup_steps=0")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    return make_phantoms(folder, kind="ultrasound", cases=6, seed=2, size=(48, 48))


def state(run: Path) -> dict[str, object]:
    """What must be the same whether a run was stopped or not."""
    last = run / "checkpoints" / "last"
    standing = json.loads((last / "meta.json").read_text())["standing"]
    del standing["seconds"]
    tensors = load_file(last / "model.safetensors") | load_file(last / "state.safetensors")
    return {"standing": standing, "log": (run / "log.csv").read_text()} | {
        name: value.numpy().tobytes() for name, value in tensors.items()
    }


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    real, count = loop.step_player, iter(range(1, 10_000))

    def stepping(*arguments: object, **options: object) -> dict[str, float]:
        if next(count) == number:
            act()
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "step_player", stepping)


@pytest.mark.fault("F67", "F68")
@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, "want of memory"), (signal.SIGBUS, r"\(/dev/shm\)")]
)
def test_a_reading_process_that_dies_loses_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cause: str
) -> None:
    settings = (*QUICK, "steps=6", "workers=2")
    whole = train(data, tmp_path / "whole", settings=settings)

    def kill() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, number)

    with monkeypatch.context() as patched:
        at_step(patched, 4, kill)
        with pytest.raises(TrainingError, match=cause) as found:
            train(data, tmp_path / "parts", settings=settings)
    assert "--resume" in str(found.value)
    assert "\n" not in str(found.value)
    resumed = train(data, tmp_path / "parts", resume=True)
    assert state(resumed.path) == state(whole.path)


def command(data: Path, out: Path) -> list[str]:
    settings = [x for s in (*QUICK, "steps=4000") for x in ("--set", s)]
    words = ["train", str(data), "--out", str(out), "--accelerator", "cpu", "--devices", "2"]
    return [sys.executable, "-m", "finemask", *words, *settings, "--quiet"]


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def is_training(pid: int) -> bool:
    """Whether a process is there and is one of ours."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
def test_a_signal_reaches_every_process(data: Path, tmp_path: Path) -> None:
    """One line, no process left, and a checkpoint to go on from."""
    out = tmp_path / "run"
    process = subprocess.Popen(command(data, out), stderr=subprocess.PIPE, text=True)
    last, end = out / "checkpoints" / "last" / "meta.json", time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    ranks = [pid for pid in children_of(process.pid) if is_training(pid)]
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert len(ranks) == 2
    (line,) = [line for line in said.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: {out}: stopped after step ")
    assert line.endswith("; go on with --resume")
    assert "Traceback" not in said
    assert process.returncode == 1
    assert not any(is_training(pid) for pid in ranks)
    step = json.loads(last.read_text())["step"]
    resumed = train(data, out, resume=True, settings=[f"train.steps={step + 2}"])
    assert json.loads((resumed.path / last.relative_to(out)).read_text())["step"] == step + 2


@pytest.mark.fault("F67")
@pytest.mark.parametrize("stopped", [False, True])
def test_a_training_process_that_dies_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    def die(_function: object) -> None:
        if stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        raise ProcessExitedException("ended by SIGKILL", 1, 123, -9, "SIGKILL")

    fabric = Fabric(accelerator="cpu", devices=1)
    monkeypatch.setattr(fabric, "launch", die)
    wanted = "stopped before" if stopped else "process 2 of 2 died, .*SIGKILL; .*--resume"
    with pytest.raises(Interrupted if stopped else TrainingError, match=wanted):
        launch(fabric, print, tmp_path, devices=2)


@pytest.mark.fault("F61")
def test_the_loss_scaler_of_float16_goes_on_where_it_was(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def half(*_: object) -> Fabric:
        scaler = torch.amp.GradScaler("cpu", growth_interval=3)
        return Fabric(
            accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)]
        )

    monkeypatch.setattr(loop, "make_fabric", half)
    settings = (*QUICK, "steps=12", "precision=16-mixed")
    whole = train(data, tmp_path / "whole", settings=settings)
    meta = json.loads((whole.path / "checkpoints" / "last" / "meta.json").read_text())
    assert meta["standing"]["scaler"]["scale"] == 2.0 ** (16 + 12 // 3)
    with monkeypatch.context() as patched:
        at_step(patched, 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(data, tmp_path / "parts", settings=settings)
    resumed = train(data, tmp_path / "parts", resume=True)
    assert state(resumed.path) == state(whole.path)
