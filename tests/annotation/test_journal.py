"""The journal: a line a case, cut-off lines passed over, files of others left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finemask.annotation.journal import FILE, Journal
from finemask.errors import UsageError
from finemask.io.journal import checksums

ROWS = {"rows": [{"case": "a"}], "cases": [], "failures": []}


def record(journal: Journal, out: Path, name: str, source: Path, made_by: str = "x") -> Path:
    output = out / f"{name}.txt"
    output.write_text(name)
    line = {"inputs": checksums(source.parent, [source]), "outputs": checksums(out, [output])}
    journal.record(name, {"made_by": made_by, **line, **ROWS})
    return output


def test_done_means_the_same_bytes_made_the_same_way(tmp_path: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out"
    source.write_text("image")
    journal = Journal(out, keep=False)
    output = record(journal, out, "a", source)
    journal.close()
    again = Journal(out, keep=True)
    assert again.is_done("a", "x", [source])
    assert not again.is_done("a", "y", [source])
    assert not again.is_done("b", "x", [source])
    output.write_text("b")
    assert not again.is_done("a", "x", [source])
    output.write_text("a")
    source.write_text("another")
    assert not again.is_done("a", "x", [source])
    source.unlink()
    assert not again.is_done("a", "x", [source])


def test_a_case_that_failed_is_done_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, keep=False)
    journal.record("a", {"made_by": "x", "inputs": [], "outputs": [], **ROWS, "rows": []})
    assert not journal.is_done("a", "x", [])


def test_the_last_line_counts_and_a_cut_off_one_does_not(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_text("image")
    out = tmp_path / "out"
    journal = Journal(out, keep=False)
    record(journal, out, "a", source, "x")
    record(journal, out, "a", source, "y")
    journal.close()
    with open(out / FILE, "a") as file:
        file.write('{"case": "a", "made_by": "z", "inp')
    again = Journal(out, keep=True)
    assert again.is_done("a", "y", [source])
    record(again, out, "b", source)
    again.close()
    assert set(Journal(out, keep=True).lines) == {"a", "b"}


def test_beginning_anew_removes_what_was_made_and_nothing_else(tmp_path: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out"
    source.write_text("image")
    journal = Journal(out, keep=False)
    output = record(journal, out, "a", source)
    journal.close()
    mine = out / "mine.txt"
    mine.write_text("mine")
    # A journal that somebody changed does not lead out of the folder.
    line = {"case": "b", "made_by": "x", "inputs": [], "outputs": [{"path": "../a.png"}], **ROWS}
    with open(out / FILE, "a") as file:
        file.write(json.dumps(line) + "\n")
    Journal(out, keep=False).close()
    assert not output.exists()
    assert mine.exists()
    assert source.exists()
    assert len((out / FILE).read_text().splitlines()) == 1


def test_what_is_left_of_an_earlier_way_goes(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_text("image")
    out = tmp_path / "out"
    journal = Journal(out, keep=False)
    output = record(journal, out, "a", source)
    journal.record("a", {"made_by": "y", "inputs": [], "outputs": [], **ROWS})
    assert not output.exists()


@pytest.mark.parametrize("text", ["[]\n", '{"kind": "diary"}\n', "dear\n"])
def test_a_foreign_file_is_no_journal(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match="is no journal"):
        Journal(tmp_path, keep=True)
    assert (tmp_path / FILE).read_text() == text
