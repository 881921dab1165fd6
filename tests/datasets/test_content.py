from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finemask.datasets.content import content_hash, file_hash, joined, pixel_hash
from finemask.errors import DataError

pairs = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), max_size=12)


@given(pairs)
def test_joined_groups_are_the_connected_ones(cases: list[tuple[str, str]]) -> None:
    found = joined(cases)
    reach = {group: {group} for group, _ in cases}
    for _ in reach:
        for group, content in cases:
            for other, same in cases:
                if same == content:
                    reach[group] |= reach[other]
    for group, connected in reach.items():
        for _ in range(len(reach)):
            connected |= {far for near in tuple(connected) for far in reach[near]}
        assert found[group] == min(connected)


def test_a_changed_file_is_hashed_anew(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before = file_hash(path)
    path.write_bytes(b"other")
    assert file_hash(path) != before


def test_a_series_is_its_slices_whatever_they_are_called(tmp_path: Path) -> None:
    for folder, names in (("x", ("1", "2")), ("y", ("b", "a"))):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, (b"first", b"second"), strict=True):
            (tmp_path / folder / name).write_bytes(content)
    assert file_hash(tmp_path / "x") == file_hash(tmp_path / "y")
    (tmp_path / "y" / "c").write_bytes(b"third")
    assert file_hash(tmp_path / "x") != file_hash(tmp_path / "y")


def test_grey_saved_as_colour_is_the_same_image() -> None:
    grey = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert pixel_hash(grey) == pixel_hash(np.repeat(grey, 3, axis=0))
    assert pixel_hash(grey) != pixel_hash(grey.reshape(1, 4, 3))


@pytest.mark.fault("F14")
def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match=r"a\.nii\.gz: cannot be read whole"):
        content_hash(tmp_path / "a.nii.gz")
