"""What `finemask info` says of images and segmentations: grids, and nothing of a patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.dicom import EVEN, VALUES, enhanced, save, series

from finemask.errors import DataError
from finemask.info import describe_path
from finemask.io import read_image, write_segmentation


def test_dicom_in_frames_and_slices(tmp_path: Path) -> None:
    tags = {"PatientName": "Token^Name", "PatientID": "token-id", "FrameOfReferenceUID": "1.2.5"}
    folder = series(tmp_path / "ct", EVEN, **tags)
    said = describe_path(folder)
    assert "6 x 8 x 10" in said
    assert "2.5 x 0.7 x 0.5 mm" in said
    frames = describe_path(save(tmp_path / "a.dcm", enhanced(VALUES, EVEN, **tags)))
    assert "DICOM, multi-frame" in frames
    assert "2.5 x 0.7 x 0.5 mm" in frames
    geometry = read_image(folder)[1]
    mask = np.zeros((2, *geometry.shape), bool)
    mask[0, :3], mask[1, 4] = True, True
    write_segmentation(tmp_path / "m.dcm", mask, geometry, folder, ["lesion", "rim"])
    seg = describe_path(tmp_path / "m.dcm")
    assert "DICOM SEG, binary" in seg
    assert "lesion, share 0.5" in seg
    assert "rim, share 0.1667" in seg
    write_segmentation(
        tmp_path / "p.dcm", mask * np.float32(0.2), geometry, folder, ["lesion", "rim"]
    )
    assert "lesion, mean 0.1" in describe_path(tmp_path / "p.dcm")
    for text in (said, frames, seg):
        assert "token" not in text.lower()


def test_a_damaged_segmentation_is_told(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN, FrameOfReferenceUID="1.2.5")
    geometry = read_image(folder)[1]
    path = tmp_path / "m.dcm"
    write_segmentation(path, np.ones((1, *geometry.shape), bool), geometry, folder, ["lesion"])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"m\.dcm"):
        describe_path(path)
