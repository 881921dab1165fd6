"""The manifest is trusted by checksum only, and is never half written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from finemask.errors import DataError, UsageError
from finemask.inference.ledger import Ledger, Outcome

MADE_BY = {"model_sha256": "0" * 64, "scale": (2, 2)}


def make_files(folder: Path) -> tuple[Path, Path]:
    source, mask = folder / "a.nii", folder / "out" / "a.png"
    source.write_text("image")
    mask.parent.mkdir(exist_ok=True)
    mask.write_text("mask")
    return source, mask


def test_done_means_the_same_bytes_by_the_same_model(tmp_path: Path) -> None:
    source, mask = make_files(tmp_path)
    Ledger(mask.parent, MADE_BY).record_done("a", [source], [mask], 1.5)
    again = Ledger(mask.parent, MADE_BY)
    assert again.is_done("a", [source], [mask])
    assert not again.is_done("b", [source], [mask])
    assert not again.is_done("a", [source], [mask, mask.with_name("a_probs.png")])
    assert not Ledger(mask.parent, {**MADE_BY, "scale": (3, 3)}).is_done("a", [source], [mask])
    mask.write_text("masq")
    assert not again.is_done("a", [source], [mask])
    mask.unlink()
    assert not again.is_done("a", [source], [mask])
    mask.write_text("mask")
    source.write_text("other")
    assert not again.is_done("a", [source], [mask])


def test_failures_are_listed_and_later_cleared(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, MADE_BY)
    error = DataError("x.png", "is empty", "copy it again")
    ledger.record_failure("=1+1", Path("x.png"), error)
    ledger.close()
    with open(tmp_path / "failures.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {"case": "'=1+1", "file": "x.png", "error": "x.png: is empty; copy it again"}
    assert not Ledger(tmp_path, MADE_BY).is_done("=1+1", [], [])
    Ledger(tmp_path, MADE_BY).close()
    assert not (tmp_path / "failures.csv").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"cases": 3}', '{"cases": {"a": {}}}', '{"cases": {"a": 1}}']
)
def test_a_foreign_manifest_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="no manifest"):
        Ledger(tmp_path, MADE_BY)
    assert (tmp_path / "manifest.json").read_text() == text


def test_the_manifest_is_json_with_the_version(tmp_path: Path) -> None:
    source, mask = make_files(tmp_path)
    Ledger(mask.parent, MADE_BY).record_done("a", [source], [mask], 1.5)
    value = json.loads((mask.parent / "manifest.json").read_text())
    assert set(value) == {"finemask", "cases"}
    assert value["cases"]["a"]["seconds"] == 1.5
    assert value["cases"]["a"]["inputs"][0]["path"] == "../a.nii"


@pytest.mark.parametrize(
    ("done", "failed", "skipped", "code"),
    [(3, 0, 0, 0), (0, 0, 3, 0), (2, 1, 0, 1), (0, 1, 2, 1), (0, 2, 0, 3), (0, 0, 0, 0)],
)
def test_exit_codes(done: int, failed: int, skipped: int, code: int) -> None:
    assert Outcome(done, failed, skipped).exit_code == code
