"""Files, folders and data sets become one list of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.inference.inputs import find_sources
from finemask.io import write_image

GRID = Geometry.regular((4, 6, 5), spacing=(3.0, 1.0, 1.0))


def picture(path: Path, value: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((4, 6), value, np.uint8)
    image[0, 0] = 0
    write_image(path, image, Geometry.regular((4, 6)))
    return path


def names(*inputs: Path) -> list[str]:
    return [source.name for source in find_sources(inputs)]


def test_files_and_folders_mix(tmp_path: Path) -> None:
    for name in ("b", "a"):
        picture(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "notes.txt").write_text("")
    assert names(tmp_path / "in", picture(tmp_path / "z.1.png")) == ["a", "b", "z.1"]


def test_channels_of_an_nnunet_folder_are_one_case(tmp_path: Path) -> None:
    for channel in range(2):
        image = np.full(GRID.shape, channel, np.float32)
        path = tmp_path / "imagesTr" / f"case_7_000{channel}.nii.gz"
        write_image(path, image, GRID)
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (source,) = find_sources([tmp_path])
    assert source.name == "case_7"
    assert len(source.files) == 2
    assert source.read().image.mean(axis=(1, 2, 3)).tolist() == [0, 1]


def test_a_broken_mask_does_not_spoil_its_image(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(b"no mask")
    (source,) = find_sources([tmp_path])
    case = source.read()
    assert case.image.max() == 7
    assert case.truth is None


def test_the_lr_image_of_a_case_is_at_hand(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", 9)
    picture(tmp_path / "images_lr" / "a.png", 3)
    (source,) = find_sources([tmp_path])
    lr_case = source.read_lr()
    assert lr_case is not None
    assert lr_case.image.max() == 3
    (alone,) = find_sources([tmp_path / "images" / "a.png"])
    assert alone.read_lr() is None


def test_a_manifest_gives_the_names(tmp_path: Path) -> None:
    picture(tmp_path / "scans" / "x17.png")
    (tmp_path / "manifest.csv").write_text("case,image,mask\npatient,scans/x17.png,\n")
    assert names(tmp_path / "manifest.csv") == names(tmp_path) == ["patient"]


@pytest.mark.parametrize("name", ["missing.nii.gz", "empty", "manifest.csv"])
def test_what_cannot_be_used_is_a_source_that_fails(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "manifest.csv").write_text("a,b\n1,2\n")
    (source,) = find_sources([tmp_path / name])
    with pytest.raises(DataError):
        source.read()


def test_one_name_twice_is_refused_whatever_the_case(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="same name"):
        find_sources([picture(tmp_path / "1" / "a.png"), picture(tmp_path / "2" / "A.png")])
