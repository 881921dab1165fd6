"""Checkpoints survive crashes and tell when they are damaged."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from finemask.errors import DataError
from finemask.io import sha256
from finemask.training import checkpoint as module
from finemask.training.checkpoint import (
    load_checkpoint,
    load_weights,
    pack_optimiser,
    save_checkpoint,
    unpack_optimiser,
    verify_checkpoint,
)

META = {
    "score": 0.5,
    "threshold": 0.5,
    "window_lr": [32, 32],
    "lr_spacing_mm": [],
    "metric": "dice",
    "versions": {"torch": torch.__version__},
    "data_fingerprint": "abc",
}


def save(folder: Path, step: int) -> None:
    weights = {"weight": torch.full((2, 2), float(step))}
    save_checkpoint(folder, weights, {**META, "step": step}, {"random": torch.get_rng_state()})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "last", 3)
    found = load_checkpoint(tmp_path / "last")
    assert found.step == 3
    assert found.weights()["weight"].eq(3).all()
    assert torch.equal(found.state()["random"], torch.get_rng_state())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_found(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path / "last", 1)
    path = tmp_path / "last" / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-5])
    else:
        path.unlink()
    with pytest.raises(DataError, match=name):
        load_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 1}', '{"step": -1, "sha256": {}}'])
def test_bad_metadata_is_one_line(tmp_path: Path, text: str) -> None:
    save(tmp_path / "last", 1)
    (tmp_path / "last" / "meta.json").write_text(text)
    with pytest.raises(DataError, match="meta.json"):
        verify_checkpoint(tmp_path / "last")


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", "high"), ("threshold", 0), ("score", []), ("versions", None)]
)
def test_metadata_of_the_wrong_kind_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    save(tmp_path / "last", 1)
    path = tmp_path / "last" / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match=key):
        verify_checkpoint(tmp_path / "last")


BAD = (None, True, -1, 10**30, "x", [], [1], {}, {"a": 1}, [[1.0], [2.0]], [["a", "b"], [1, 2]],
       float("nan"), float("inf"), [[0.0, 1.0], [1.0, 1.0]], [0, 4], [1, 2, 3, 4])  # fmt: skip


@pytest.mark.parametrize("key", [*META, "step", "sha256", "equipment"])
def test_metadata_of_a_stranger_fits_its_schema_or_is_refused(tmp_path: Path, key: str) -> None:
    """Whatever a value is: it means what it says, or one line says that it does not."""
    save(tmp_path / "last", 1)
    path = tmp_path / "last" / "meta.json"
    meta, refused = json.loads(path.read_text()), 0
    for value in BAD:
        path.write_text(json.dumps({**meta, key: value}))
        try:
            found = verify_checkpoint(tmp_path / "last").meta[key]
        except DataError:
            refused += 1
        else:
            assert json.dumps(found) == json.dumps(value)
    assert refused >= len(BAD) - 4


@pytest.mark.fault("F83")
def test_a_sound_checksum_of_a_false_file_is_one_line(tmp_path: Path) -> None:
    """A stranger's checkpoint may well have the checksums of what is in it."""
    save(tmp_path / "last", 1)
    (tmp_path / "last" / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    meta = json.loads((tmp_path / "last" / "meta.json").read_text())
    meta["sha256"]["model.safetensors"] = sha256(tmp_path / "last" / "model.safetensors")
    (tmp_path / "last" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="is no readable safetensors file"):
        load_checkpoint(tmp_path / "last").weights()


@pytest.mark.fault("F63")
def test_too_little_space_is_seen_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "last", 1)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(DataError, match="space"):
        save(tmp_path / "last", 2)
    assert load_checkpoint(tmp_path / "last").step == 1


@pytest.mark.fault("F80")
def test_a_checksum_list_cannot_name_other_files(tmp_path: Path) -> None:
    save(tmp_path / "last", 1)
    path = tmp_path / "last" / "meta.json"
    meta = json.loads(path.read_text())
    meta["sha256"]["../../etc/passwd"] = "0"
    path.write_text(json.dumps(meta))
    with pytest.raises(DataError, match="does not describe"):
        verify_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("crash_at", range(4))
@pytest.mark.fault("F62")
def test_a_crash_at_any_rename_leaves_one_that_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """``os.replace`` and the flushes before it are the only moments that matter."""
    save(tmp_path / "last", 1)
    real, calls = os.replace, iter(range(100))

    def crashing(source: Path, target: Path) -> None:
        if next(calls) == crash_at:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(module.os, "replace", crashing)
    with contextlib.suppress(KeyboardInterrupt):
        save(tmp_path / "last", 2)
    assert load_checkpoint(tmp_path / "last").step in (1, 2)
    monkeypatch.undo()
    save(tmp_path / "last", 3)
    assert load_checkpoint(tmp_path / "last").step == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]


@pytest.mark.fault("F63")
def test_disk_full_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "last", 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(DataError, match="No space"):
        save(tmp_path / "last", 2)
    assert load_checkpoint(tmp_path / "last").step == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"weight is \(3, 2\), needs \(2, 2\)"):
        load_weights(nn.Linear(2, 2, bias=False), {"weight": torch.zeros(3, 2)}, tmp_path)
    with pytest.raises(DataError, match="bias missing; extra unexpected"):
        load_weights(
            nn.Linear(2, 2), {"weight": torch.zeros(2, 2), "extra": torch.zeros(1)}, tmp_path
        )


@pytest.mark.fault("F82")
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimiser_goes_on_exactly(kind: type[torch.optim.Optimizer]) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Linear(3, 1)
        extra = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return net, kind(net.parameters(), lr=0.1, **extra)  # type: ignore[call-arg]

    def step(net: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        net(torch.arange(3.0)).square().sum().backward()
        optimiser.step()

    net, optimiser = make()
    for _ in range(3):
        step(net, optimiser)
    tensors, groups = pack_optimiser("network", optimiser)
    tensors = {name: value.clone() for name, value in tensors.items()}
    other, resumed = make()
    other.load_state_dict(net.state_dict())
    unpack_optimiser("network", resumed, tensors, json.loads(json.dumps(groups)))
    step(net, optimiser)
    step(other, resumed)
    assert torch.equal(net.weight, other.weight)  # type: ignore[arg-type]
