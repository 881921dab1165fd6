"""Files of weights: two formats, nested or not, and nothing in them is run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from finemask.errors import DataError
from finemask.nn.weights import read_weights

WEIGHTS = {"a.weight": torch.arange(3.0), "b": torch.ones(2, 2)}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[k], WEIGHTS[k]) for k in found)


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save(tmp_path: Path, nest: str | None, prefix: str, zipped: bool) -> None:
    weights = {prefix + name: value for name, value in WEIGHTS.items()}
    path = tmp_path / "w.pth"
    whole = weights if nest is None else {nest: weights, "epoch": 7}
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(path))


class Trap:
    """Makes a folder when it is unpickled by somebody careless."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"a": torch.ones(1), "b": Trap(sprung)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w\.pth: .*never run; save its state dict") as caught:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
    assert not sprung.exists()
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert sprung.exists(), "the trap must work"


@pytest.mark.parametrize("content", [b"", b"abc", b"\x80\x02", b"PK\x03\x04" + bytes(90)])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_is_no_file_of_weights(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"w.{suffix}: .*(is|neither)"):
        read_weights(path)


@pytest.mark.parametrize("cut", [1, 10, 100, 300])
def test_a_file_cut_short(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "w.pth"
    torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"w\.pth"):
        read_weights(path)


@pytest.mark.parametrize("content", [torch.ones(2), {}, {"epoch": 3}, [torch.ones(1)]])
def test_a_file_without_names_and_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match="holds no state dict"):
        read_weights(tmp_path / "w.pth")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        with pytest.raises(DataError, match=f"{name}: cannot be read .No such file"):
            read_weights(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(tmp_path)
