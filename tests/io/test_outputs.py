"""Folders that we write: checked beforehand, and naming nobody's home."""

from __future__ import annotations

from pathlib import Path

import pytest

from finemask.errors import DataError, UsageError
from finemask.io.outputs import check_writable, error_within, path_within


def test_a_folder_to_come_is_checked_without_being_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_found_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(UsageError, match="cannot be written"):
            check_writable(place)
    assert (tmp_path / "file").read_text() == "mine"


def test_shared_files_name_no_home() -> None:
    root = Path("/home/ada/study")
    assert path_within(root, root / "images" / "a.png") == "images/a.png"
    assert path_within(root, "/home/grace/b.png") == "b.png"
    told = error_within(root, DataError(root / "c.png", "is cut short", "copy it again"))
    assert told == "c.png: is cut short; copy it again"
    elsewhere = error_within(root, DataError("/home/grace/d.png", "beside /home/ada/e.png", "look"))
    assert "/home" not in elsewhere
