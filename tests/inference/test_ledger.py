"""The manifest is trusted by checksum only, and is never half written."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from finemask.case import Case
from finemask.errors import DataError, UsageError
from finemask.inference.inputs import Source
from finemask.inference.ledger import Ledger
from finemask.outcome import Outcome

MADE_BY = {"model_sha256": "0" * 64, "scale": (2, 2)}


def nothing() -> Case:
    raise AssertionError("a ledger reads no image")


def make_files(folder: Path) -> tuple[Source, Path]:
    image, mask = folder / "in" / "a.nii", folder / "out" / "a.png"
    for path in (image, mask):
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.suffix)
    return Source("a", image, image.parent, (image,), nothing), mask


def test_done_means_the_same_bytes_by_the_same_model(tmp_path: Path) -> None:
    source, mask = make_files(tmp_path)
    Ledger(mask.parent, MADE_BY).record_done(source, [mask], 1.5)
    whole = mask.read_text()
    again = Ledger(mask.parent, MADE_BY)
    assert again.is_done(source, [mask])
    assert not again.is_done(replace(source, name="b"), [mask])
    assert not again.is_done(replace(source, spacing_mm=(3.0, 1.0, 1.0)), [mask])
    assert not again.is_done(source, [mask, mask.with_name("a_probs.png")])
    assert not Ledger(mask.parent, {**MADE_BY, "scale": (3, 3)}).is_done(source, [mask])
    mask.write_text("masq")
    assert not again.is_done(source, [mask])
    mask.unlink()
    assert not again.is_done(source, [mask])
    mask.write_text(whole)
    assert again.is_done(source, [mask])
    source.path.write_text("other")
    assert not again.is_done(source, [mask])


def test_failures_are_listed_and_later_cleared(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, MADE_BY)
    error = DataError("x.png", "is empty", "copy it again")
    broken = Source("=1+1", Path("x.png"), Path(), (), nothing)
    ledger.record_failure(broken, error)
    ledger.close()
    with open(tmp_path / "failures.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {"case": "'=1+1", "file": "x.png", "error": "x.png: is empty; copy it again"}
    assert not Ledger(tmp_path, MADE_BY).is_done(broken, [])
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
    ledger = Ledger(mask.parent, MADE_BY)
    ledger.record_done(source, [mask], 1.5)
    assert [p.name for p in mask.parent.iterdir() if "manifest" in p.name] == ["manifest.jsonl"]
    ledger.close()
    assert [p.name for p in mask.parent.iterdir() if "manifest" in p.name] == ["manifest.json"]
    value = json.loads((mask.parent / "manifest.json").read_text())
    assert set(value) == {"finemask", "cases"}
    assert value["cases"]["a"]["seconds"] == 1.5
    assert value["cases"]["a"]["inputs"][0]["path"] == "a.nii"


def test_no_file_names_a_home(tmp_path: Path) -> None:
    source, mask = make_files(tmp_path)
    ledger = Ledger(mask.parent, MADE_BY)
    second = Path("/home/me/masks/b.png")
    ledger.record_failure(source, DataError(source.path, f"differs from {second}", "redo it"))
    ledger.close()
    told = "a.nii: differs from b.png; redo it"
    assert json.loads(ledger.path.read_text())["cases"]["a"]["error"] == told
    text = (mask.parent / "failures.csv").read_text()
    assert text == f"case,file,error\na,a.nii,{told}\n"


@pytest.mark.parametrize(
    ("done", "failed", "skipped", "code"),
    [(3, 0, 0, 0), (0, 0, 3, 0), (2, 1, 0, 1), (0, 1, 2, 1), (0, 2, 0, 3), (0, 0, 0, 0)],
)
def test_exit_codes(done: int, failed: int, skipped: int, code: int) -> None:
    assert Outcome(done, failed, skipped).exit_code == code


def entries(folder: Path, name: str = "manifest.json") -> dict[str, str]:
    return {n: c["status"] for n, c in json.loads((folder / name).read_text())["cases"].items()}


def test_what_a_stopped_call_did_is_known_from_its_journal(tmp_path: Path) -> None:
    """A killed process leaves the journal, at worst with half a line at its end."""
    source, mask = make_files(tmp_path)
    Ledger(mask.parent, MADE_BY).record_done(source, [mask], 1.5)
    with open(mask.parent / "manifest.jsonl", "a") as file:
        file.write('{"case": "b", "stat')
    again = Ledger(mask.parent, MADE_BY)
    assert again.is_done(source, [mask])
    again.record_failure(replace(source, name="b"), DataError("b", "is empty", "copy it"))
    again.close()
    assert entries(mask.parent) == {"a": "done", "b": "failed"}


def test_a_journal_without_a_line_is_begun(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").touch()
    Ledger(tmp_path, MADE_BY).close()
    assert entries(tmp_path) == {}


def test_shards_keep_their_own_files_and_a_whole_call_merges_them(tmp_path: Path) -> None:
    source, mask = make_files(tmp_path)
    first, second = (Ledger(mask.parent, MADE_BY, (i, 2)) for i in (1, 2))
    first.record_done(source, [mask], 1.5)
    second.record_failure(replace(source, name="b"), DataError("b", "is empty", "copy it"))
    first.close()
    second.close()
    assert entries(mask.parent, "manifest_1of2.json") == {"a": "done"}
    assert entries(mask.parent, "manifest_2of2.json") == {"b": "failed"}
    assert (mask.parent / "failures_2of2.csv").exists()
    assert Ledger(mask.parent, MADE_BY, (2, 3)).is_done(source, [mask])
    whole = Ledger(mask.parent, MADE_BY)
    assert whole.is_done(source, [mask])
    whole.close()
    assert entries(mask.parent) == {"a": "done", "b": "failed"}
    assert [p.name for p in mask.parent.glob("manifest*")] == ["manifest.json"]
