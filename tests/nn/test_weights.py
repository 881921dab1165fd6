"""Files of weights: two formats, nested or not, and nothing in them is run."""

from __future__ import annotations

import json
import os
import stat
import struct
import warnings
import zipfile
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


@pytest.mark.fault("F77")
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


def archive(path: Path, *, name: str = "w/data/9", packed: bool = False, link: bool = False,
            times: int = 1) -> Path:  # fmt: skip
    """A sound file of torch.save with a member that it would never have."""
    torch.save(WEIGHTS, path)
    with zipfile.ZipFile(path, "a") as file:
        member = zipfile.ZipInfo(name)
        member.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        if link:
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
        for _ in range(times):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a name comes twice
                file.writestr(member, bytes(1000))
    return path


@pytest.mark.fault("F79")
@pytest.mark.parametrize(
    "odd",
    [
        {"name": "../outside"},
        {"name": "w/../../outside"},
        {"name": "/etc/outside"},
        {"name": "\\\\host\\outside"},
        {"packed": True},
        {"link": True},
        {"times": 2},
    ],
)
def test_archives_are_checked_member_by_member(tmp_path: Path, odd: dict[str, object]) -> None:
    path = archive(tmp_path / "w.pth", **odd)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="members that torch.save does not make"):
        read_weights(path)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]
    assert same(read_weights(archive(tmp_path / "w.pth")))


def test_an_old_reader_of_pickles_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth")
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(DataError, match=r"use PyTorch 2\.10 or later"):
        read_weights(tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.safetensors"))


HEADERS = {
    "longer than the file": (1 << 40, b"{}"),
    "no JSON": (6, b"{'a':1"),
    "offsets outside": (None, {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 40]}}),
    "offsets that overlap": (
        None,
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"},
    ),
    "offsets backwards": (None, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}),
    "a shape of another size": (
        None,
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}},
    ),
    "an unknown type": (None, {"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}}),
}


@pytest.mark.fault("F83")
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_false_headers_of_safetensors_are_refused(
    tmp_path: Path, header: tuple[int | None, object]
) -> None:
    length, content = header
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    length = len(text) if length is None else length
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(4))
    with pytest.raises(DataError, match="is no readable safetensors file"):
        read_weights(tmp_path / "w.safetensors")
