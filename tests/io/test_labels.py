"""What the numbers of a mask mean is declared or evident, never guessed."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.io import (
    DataWarning,
    foreground_values,
    label_values,
    read_labels,
    write_image,
    write_labels,
)


def png(path: Path, rows: object) -> Path:
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.fault("F24")
def test_usual_binary_masks(tmp_path: Path, white: int, recwarn: pytest.WarningsRecorder) -> None:
    found, _ = read_labels(png(tmp_path / "a.png", [[0, white], [white, 0]]))
    assert found.tolist() == [[0, 1], [1, 0]]
    assert found.dtype == np.uint8
    assert not recwarn.list


@pytest.mark.fault("F54")
def test_other_binary_masks_are_read_with_a_line(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", [[0, 76]])
    with pytest.warns(DataWarning, match=r"a\.png: has the values 0 and 76; 76 was read"):
        assert read_labels(path)[0].tolist() == [[0, 1]]


@pytest.mark.parametrize(("fill", "expected"), [(0, 0), (1, 1), (255, 1)])
def test_empty_and_full_masks(tmp_path: Path, fill: int, expected: int) -> None:
    assert read_labels(png(tmp_path / "a.png", [[fill] * 3]))[0].tolist() == [[expected] * 3]


def test_one_pixel(tmp_path: Path) -> None:
    rows = np.zeros((50, 60))
    rows[7, 8] = 255
    assert np.argwhere(read_labels(png(tmp_path / "a.png", rows))[0]).tolist() == [[7, 8]]


def test_classes_without_a_gap(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", [[0, 1, 2, 3]])
    assert read_labels(path)[0].tolist() == [[0, 1, 2, 3]]
    assert label_values(path) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1, 2, 4]], r"labels with gaps \(0, 1, 2, 4\); declare"),
        ([[0, 100, 200]], "gaps"),
        ([[1, 2]], r"no background 0 \(its values are 1, 2\); declare"),
        ([[7, 7]], "no background 0"),
        ([range(0, 256, 2)], "looks like an image, not a mask .128 distinct values from 0 to 254"),
    ],
)
@pytest.mark.fault("F28")
def test_what_is_not_evident(tmp_path: Path, rows: object, message: str) -> None:
    path = png(tmp_path / "a.png", rows)
    with pytest.raises(DataError, match=message) as error:
        read_labels(path)
    assert error.value.subject == str(path)


@pytest.mark.fault("F28")
def test_declared_values_become_classes_in_their_order(tmp_path: Path) -> None:
    brats = {"background": 0, "edema": 2, "enhancing": 4, "necrosis": 1}
    path = png(tmp_path / "a.png", [[0, 1, 2, 4]])
    assert read_labels(path, brats)[0].tolist() == [[0, 3, 1, 2]]
    only_one = png(tmp_path / "b.png", [[0, 4]])
    assert read_labels(only_one, brats)[0].tolist() == [[0, 2]]
    no_background = png(tmp_path / "c.png", [[1, 4]])
    assert read_labels(no_background, brats)[0].tolist() == [[3, 2]]


def test_undeclared_values(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", [[0, 1, 3, 9]])
    with pytest.raises(DataError, match="undeclared values 3, 9; declared are 1, 2"):
        read_labels(path, {"a": 1, "b": 2})
    with pytest.raises(DataError, match="undeclared values 255"):
        read_labels(png(tmp_path / "b.png", [[0, 255]]), {"a": 1, "b": 2})


@pytest.mark.fault("F24")
def test_white_is_the_only_class_whatever_it_is_declared_as(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", [[0, 255]])
    assert read_labels(path, {"lesion": 1})[0].tolist() == [[0, 1]]
    with pytest.raises(DataError, match="undeclared values 1"):
        read_labels(png(tmp_path / "b.png", [[0, 1, 255]]), {"lesion": 255})


@pytest.mark.parametrize("labels", [{}, {"background": 0}, {"a": 1, "b": 1}])
def test_declarations_that_make_no_sense(labels: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="a value of its own"):
        foreground_values(labels)


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:120, :130]
    return np.hypot(rows - 60, columns - 70) < 35


@pytest.mark.parametrize("quality", [60, 90])
@pytest.mark.fault("F25")
def test_jpeg_masks_are_cut_at_mid_grey(tmp_path: Path, quality: int) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(disc().astype(np.uint8) * 255).save(path, quality=quality)
    pixels = np.asarray(Image.open(path))
    changed = int(((pixels != 0) & (pixels != 255)).sum())
    assert changed > 0
    with pytest.warns(DataWarning, match=f"mid-grey, {changed:,} of 15,600 pixels changed"):
        found = read_labels(path)[0]
    assert (found != disc()).sum() <= 5
    with pytest.warns(DataWarning, match="mid-grey"):
        np.testing.assert_array_equal(read_labels(path, {"lesion": 1})[0], found)


@pytest.mark.fault("F25")
def test_smoothed_masks_are_cut_at_mid_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    big = Image.fromarray(disc().astype(np.uint8) * 255)
    big.resize((390, 360), Image.Resampling.BICUBIC).save(path)
    with pytest.warns(DataWarning, match="mid-grey"):
        found = read_labels(path)[0]
    exact = disc().repeat(3, 0).repeat(3, 1)
    assert (found != exact).mean() < 0.005


def test_mid_grey_is_where_black_becomes_white(tmp_path: Path) -> None:
    ramp = np.arange(100, 156)
    path = png(tmp_path / "a.png", [np.r_[np.zeros(400), ramp, np.full(400, 255)]])
    with pytest.warns(DataWarning, match="56 of 856 pixels changed"):
        assert read_labels(path)[0][0, 400:456].tolist() == [int(v >= 128) for v in ramp]


@pytest.mark.fault("F27")
def test_an_image_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60))
    noise[0, :2] = 0, 255
    Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "a.jpg")
    for path in (png(tmp_path / "a.png", noise), tmp_path / "a.jpg"):
        with pytest.raises(DataError, match="looks like an image"):
            read_labels(path)
    hounsfield = np.random.default_rng(0).normal(-300, 400, (4, 5, 60)).round().astype(np.int16)
    write_image(tmp_path / "ct.nii.gz", hounsfield, Geometry.regular((4, 5, 60), (1.0, 1.0, 1.0)))
    with pytest.raises(DataError, match="looks like an image"):
        read_labels(tmp_path / "ct.nii.gz", {"lesion": 1})


@pytest.mark.fault("F26")
def test_floats_are_rounded_within_a_thousandth(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.array([[0, 0.9995, 2.0005]], np.float32))
    assert read_labels(path)[0].tolist() == [[0, 1, 2]]
    tifffile.imwrite(path, np.array([[0, 0.5, 0.75, 1]], np.float32))
    with pytest.raises(DataError, match=r"fractional labels such as 0\.5 \(2 voxels\).*soft mask"):
        read_labels(path)
    tifffile.imwrite(path, np.array([[0, np.nan]], np.float32))
    with pytest.raises(DataError, match="not finite"):
        read_labels(path)


def test_negative_labels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, -1]], np.int16))
    with pytest.raises(DataError, match="negative labels"):
        read_labels(tmp_path / "a.tif")
    assert read_labels(tmp_path / "a.tif", {"lesion": -1})[0].tolist() == [[0, 1]]


@pytest.mark.fault("F54")
def test_colours(tmp_path: Path) -> None:
    red = np.zeros((3, 4, 3), np.uint8)
    red[1, 2] = 128, 0, 0
    path = png(tmp_path / "a.png", red)
    with pytest.warns(DataWarning, match="#800000 was read as foreground"):
        assert np.argwhere(read_labels(path)[0]).tolist() == [[1, 2]]
    red[2, 2] = 0, 128, 0
    with pytest.raises(DataError, match="3 colours"):
        read_labels(png(path, red))
    grey = np.repeat([[[0], [255]]], 3, axis=2)
    assert read_labels(png(path, grey))[0].tolist() == [[0, 1]]


@given(
    classes=hnp.arrays(np.int64, (3, 4, 5), elements=st.integers(0, 3)),
    suffix=st.sampled_from([".png", ".bmp", ".tif", ".nii.gz", ".mha", ".nrrd"]),
    values=st.permutations([1, 7, 200, 254]),
)
@settings(max_examples=40, deadline=None)
def test_written_labels_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    classes: np.ndarray,
    suffix: str,
    values: list[int],
) -> None:
    path = tmp_path_factory.mktemp("labels") / f"a{suffix}"
    picture = suffix in (".png", ".bmp", ".tif")
    classes = classes[0] if picture else classes
    geometry = Geometry.regular(classes.shape, None if picture else (1.0, 2.0, 3.0))
    declared = dict(zip("abcd", values, strict=True))
    write_labels(path, classes, geometry, labels=declared)
    assert set(label_values(path)) <= {0, *values}
    found, where = read_labels(path, declared)
    np.testing.assert_array_equal(found, classes)
    assert where.shape == geometry.shape
    write_labels(path, classes > 1, geometry, overwrite=True)
    np.testing.assert_array_equal(read_labels(path)[0], classes > 1)
    write_labels(path, classes > 1, geometry, labels={"lesion": 1}, overwrite=True)
    np.testing.assert_array_equal(read_labels(path, {"lesion": 1})[0], classes > 1)


def test_binary_pictures_can_be_seen(tmp_path: Path) -> None:
    geometry = Geometry.regular((1, 2))
    write_labels(tmp_path / "a.png", np.array([[0, 1]]), geometry)
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 255]]
    write_labels(tmp_path / "b.png", np.array([[0, 1]]), geometry, labels={"a": 1, "b": 2})
    assert np.asarray(Image.open(tmp_path / "b.png")).tolist() == [[0, 1]]


@pytest.mark.fault("F36")
def test_many_labels_need_sixteen_bits(tmp_path: Path) -> None:
    classes = np.arange(300).reshape(15, 20)
    geometry = Geometry.regular((15, 20))
    names = {f"class {i}": i for i in range(1, 300)}
    for name in ("a.png", "a.tif", "a.mha"):
        write_labels(tmp_path / name, classes, geometry)
        found, _ = read_labels(tmp_path / name, names)
        np.testing.assert_array_equal(found, classes)
        assert found.dtype == np.uint16
    with pytest.raises(DataError, match="label 299"):
        write_labels(tmp_path / "a.bmp", classes, geometry)
    with pytest.raises(DataError, match="label 70000"):
        write_labels(tmp_path / "b.png", (classes > 0) * 70000, geometry)


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (np.array([[0.0, 1.0]]), None, "float64 labels"),
        (np.array([[0, -1]]), None, "labels from -1"),
        (np.array([[0, 2]]), {"lesion": 1}, "class 2, declared are 1"),
        (np.array([[0, 1]]), {"lesion": -1}, "correct the declaration"),
        (np.array([[0, 1, 1]]), None, "on a grid of"),
    ],
)
@pytest.mark.fault("F36")
def test_labels_that_cannot_be_written(
    tmp_path: Path, classes: np.ndarray, labels: dict | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_labels(tmp_path / "a.png", classes, Geometry.regular((1, 2)), labels=labels)
    assert list(tmp_path.iterdir()) == []


def test_jpeg_labels_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="would change the values"):
        write_labels(tmp_path / "a.jpg", np.array([[0, 1]]), Geometry.regular((1, 2)))


@pytest.mark.parametrize("labels", [None, {"background": 0, "core": 7, "rim": 9}])
def test_writing_costs_no_more_than_a_copy(tmp_path: Path, labels: dict[str, int] | None) -> None:
    """An index of eight bytes a voxel would not fit the memory that a large volume left."""
    classes = np.zeros((64, 64, 64), np.uint8)
    classes[8:40] = 2
    tracemalloc.start()
    try:
        write_labels(tmp_path / "a.nii", classes, Geometry.regular(classes.shape), labels=labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * classes.nbytes
