"""Files are whole or absent, and names are safe."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finemask.errors import DataError
from finemask.io import atomic_write, check_name, sha256, write_json, write_text
from finemask.io.files import digests


def write_half(path: Path, overwrite: bool = False) -> None:
    with atomic_write(path, overwrite) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_an_exception_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "a.bin", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


@pytest.mark.fault("F84")
def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one")
    with pytest.raises(DataError, match=r"a\.txt: exists already; .*--overwrite"):
        write_text(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text() == "one"
    write_text(tmp_path / "a.txt", "two", overwrite=True)
    assert (tmp_path / "a.txt").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def write_late() -> None:
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_bytes(b"mine")
            (tmp_path / "a").write_bytes(b"theirs")

    with pytest.raises(DataError, match="exists"):
        write_late()
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_shows_before_the_end(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "sub" / "a.nii.gz") as temporary:
        temporary.write_bytes(b"x")
        assert not (tmp_path / "sub" / "a.nii.gz").exists()
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".nii.gz")
    assert (tmp_path / "sub" / "a.nii.gz").read_bytes() == b"x"


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"), atomic_write(tmp_path / "a"):
        pass


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"a\.txt: cannot be written \("):
        write_text(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        write_text(tmp_path / "folder", "x", overwrite=True)


def test_only_old_drafts_of_our_own_are_removed(tmp_path: Path) -> None:
    killed = "import os, signal\nfrom finemask.io import atomic_write\n"
    killed += f"with atomic_write({str(tmp_path / 'a.txt')!r}) as file:\n"
    killed += "    file.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    subprocess.run([sys.executable, "-c", killed], check=False)
    (left,) = tmp_path.iterdir()
    old = left.rename(left.with_name(left.name.replace("a.txt", "b.nii.gz")))
    young = tmp_path / ".finemask-0123abcd-a.txt"
    foreign = [tmp_path / n for n in (".0123abcd-a.txt", ".finemask-notes", "finemask-0123abcd-a")]
    folder, link = tmp_path / ".finemask-0123abcd-d", tmp_path / ".finemask-0123abcd-link"
    for file in (young, *foreign):
        file.write_text("x")
    folder.mkdir()
    link.symlink_to(foreign[0])
    two_days_ago = time.time() - 2 * 24 * 3600
    for file in (old, *foreign, folder):
        os.utime(file, (two_days_ago, two_days_ago))
    write_text(tmp_path / "a.txt", "whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "a.txt", young, *foreign, folder, link}


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"finemask" * 10000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"finemask" * 10000).hexdigest()


@pytest.mark.parametrize(
    "name", ["", "../a", "a/b", "a\\b", ".hidden", "-o", "a b", "a\n", "é", "x" * 129, "a:b"]
)
@pytest.mark.fault("F85")
def test_unsafe_names(name: str) -> None:
    with pytest.raises(DataError, match="no safe case name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "case_01.2-left", "9", "x" * 128])
def test_safe_names(name: str) -> None:
    assert check_name(name) == name


def test_digests_of_gzip_are_made_in_one_reading(tmp_path: Path) -> None:
    whole = os.urandom(700_000)
    packed = gzip.compress(whole[:300_000], 1) + gzip.compress(whole[300_000:], 9) + bytes(512)
    (tmp_path / "a.gz").write_bytes(packed)
    found = digests(tmp_path / "a.gz", unpack=True)
    assert found.stored == hashlib.sha256(packed).hexdigest()
    assert found.unpacked == hashlib.sha256(whole).hexdigest()
    assert digests(tmp_path / "a.gz") is found
    (tmp_path / "b.gz").write_bytes(packed[:200_000])
    assert digests(tmp_path / "b.gz").stored == hashlib.sha256(packed[:200_000]).hexdigest()
    assert digests(tmp_path / "b.gz", unpack=True).flaw == "its compressed data end early"
    (tmp_path / "c.gz").write_bytes(packed[:-512] + b"no member")
    assert "incorrect header" in digests(tmp_path / "c.gz", unpack=True).flaw
    (tmp_path / "d").write_bytes(whole)
    assert digests(tmp_path / "d", unpack=True).unpacked == found.unpacked
    with pytest.raises(DataError, match="cannot be read"):
        digests(tmp_path / "absent")
