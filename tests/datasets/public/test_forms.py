"""The forms of public sets that the papers use: sizes, regions, crops and slices."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from public_trees import (
    SIZE,
    SPACING,
    TREES,
    VOLUME,
    cityscapes,
    deeplesion,
    disc,
    intensities,
    noise,
    rng_of,
    volume,
)

from finemask.annotation.cohort import soften
from finemask.datasets import Split, find_split, load_dataset
from finemask.datasets.public import prepare_dataset
from finemask.datasets.public.grids import onto
from finemask.errors import DataError
from finemask.geometry import Geometry


def prepared(name: str, tmp_path: Path, variant: str | None = None) -> Path:
    TREES[name](tmp_path / "raw")
    made = prepare_dataset(name, tmp_path / "raw", tmp_path / "out", variant=variant)
    assert made.outcome.exit_code == 0
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("variant", "values"),
    [("whole_tumour", (1, 2, 4)), ("tumour_core", (1, 4)), ("enhancing_tumour", (4,))],
)
def test_regions_of_a_brain_tumour_are_forms(
    variant: str, values: tuple[int, ...], tmp_path: Path
) -> None:
    out = prepared("brats2020", tmp_path, variant)
    dataset = load_dataset(out)
    case = dataset.read(dataset.entry("BraTS20_Training_355"))
    stored = disc("BraTS20_Training_355 edema", VOLUME, 5) * 2
    stored[disc("BraTS20_Training_355 core", VOLUME, 3) > 0] = 1
    stored[disc("BraTS20_Training_355 enhancing", VOLUME, 3) > 0] = 4
    np.testing.assert_array_equal(case.truth, np.isin(stored, values))
    assert case.image.shape == (4, *VOLUME)
    np.testing.assert_array_equal(case.image[3], intensities("BraTS20_Training_355 t2"))


def test_pfsegs_brain_is_cut_and_resized_in_one_step(tmp_path: Path) -> None:
    """On the grid of BraTS itself: 240 x 240 x 155 becomes 192 x 192 x 128 over its extent."""
    key = "BraTS20_Training_001"
    folder = tmp_path / "raw" / key
    stored = np.zeros((155, 240, 240), np.uint8)
    stored[70:100, 100:140, 24:60] = 2
    stored[80:90, 110:120, 40:50] = 4
    ramp = np.broadcast_to(np.arange(155, dtype=np.int16)[:, None, None], stored.shape)
    for kind in ("flair", "t1", "t1ce", "t2"):
        volume(folder / f"{key}_{kind}.nii.gz", ramp, (1.0, 1.0, 1.0))
    volume(folder / f"{key}_seg.nii.gz", stored, (1.0, 1.0, 1.0))
    prepare_dataset("brats2020", tmp_path / "raw", tmp_path / "out", variant="pfseg")
    dataset = load_dataset(tmp_path / "out")
    case = dataset.read(dataset.entry(key))
    assert case.image.shape == (1, 128, 192, 192)
    assert case.geometry.spacing == pytest.approx((155 / 128, 1.0, 1.0))
    slices = ((np.arange(128) + 0.5) * 155 / 128 - 0.5).clip(0, 154)
    assert case.image[0, :, 5, 5] == pytest.approx(slices, abs=0.5)
    nearest = np.rint((np.arange(128) + 0.5) * 155 / 128 - 0.5).astype(int)
    expected = (stored > 0)[nearest][:, 24:216, 24:216]
    np.testing.assert_array_equal(case.truth, expected)


def test_pfsegs_liver_is_the_middle_of_the_slices_that_hold_it(tmp_path: Path) -> None:
    mask = np.zeros((30, 20, 24), np.uint8)
    mask[10:18, 5:15, 6:18] = 1
    volume(tmp_path / "raw" / "images" / "a.nii.gz", intensities("a", mask.shape), (3.0, 1.5, 1.5))
    volume(tmp_path / "raw" / "masks" / "a.nii.gz", mask, (3.0, 1.5, 1.5))
    prepare_dataset("liver_mr", tmp_path / "raw", tmp_path / "out", variant="pfseg")
    dataset = load_dataset(tmp_path / "out")
    case = dataset.read(dataset.entries[0])
    assert case.image.shape == (1, 128, 192, 192)
    assert case.geometry.spacing == pytest.approx((1.5, 1.5, 1.5))
    assert case.truth is not None
    held = np.flatnonzero(case.truth.any(axis=(1, 2)))
    assert (held[0], held[-1]) == (56, 71)  # sixteen slices in the middle of 128
    rows = np.flatnonzero(case.truth.any(axis=(0, 2)))
    assert (rows[0], rows[-1]) == (86 + 5, 86 + 14)
    other = tmp_path / "raw" / "masks" / "a.nii.gz"
    volume(other, mask * 63 + 63, (3.0, 1.5, 1.5))
    made = prepare_dataset("liver_mr", tmp_path / "raw", tmp_path / "again")
    assert "has the labels 63, 126, needs one besides 0" in str(made.outcome.failures[0])


def test_classes_on_another_grid_are_those_of_the_nearest_voxel() -> None:
    grid = Geometry.regular((2, 2), (1.0, 1.0))
    labels = np.array([[1, 2], [3, 4]], np.uint8)
    fine = onto(labels, grid, grid.refined((2, 2)), True)
    np.testing.assert_array_equal(fine, np.repeat(np.repeat(labels, 2, 0), 2, 1))
    assert onto(labels, grid, grid.cropped((-1, 0), (2, 2)), True).tolist() == [[0, 0], [1, 2]]


def test_prostate_slices_are_pictures_of_their_patient(tmp_path: Path) -> None:
    out = prepared("promise12", tmp_path, "dsnet")
    dataset = load_dataset(out)
    truth = disc("Case03", VOLUME, 3)
    held = np.flatnonzero(truth.any(axis=(1, 2)))
    mine = [entry for entry in dataset.entries if entry.group == "Case03"]
    assert [entry.name for entry in mine] == [f"Case03_{k:03d}" for k in held]
    case = dataset.read(mine[0])
    # LPS without rotation: rows run to the back, columns to the patient's left, as on a screen.
    np.testing.assert_array_equal(case.truth, truth[held[0]])
    np.testing.assert_array_equal(case.image[0], intensities("Case03")[held[0]])
    assert case.geometry.spacing == SPACING[1:]
    split = find_split(dataset, "dsnet")
    patient = {entry.name: entry.group for entry in dataset.entries}
    parts = [{patient[name] for name in split.part(p)} for p in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_m2snets_mixture_brings_both_sets_to_one_window(tmp_path: Path) -> None:
    TREES["covid19"](tmp_path / "raw")
    prepare_dataset("covid19", tmp_path / "raw", tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    image = intensities("tr_im", (8, 16, 12)) - 1000
    grey = np.rint((image[2, ::-1] + 1250.0).clip(0, 1500) / 1500 * 255)
    np.testing.assert_array_equal(dataset.read(dataset.entry("slice_002")).image[0], grey)
    name = next(e.name for e in dataset.entries if e.name.startswith("radiopaedia_3"))
    scan = intensities("radiopaedia_3_85506_1", (7, 16, 12)) % 256
    slice_ = scan[int(name[-3:]), ::-1]
    np.testing.assert_array_equal(dataset.read(dataset.entry(name)).image[0], slice_)
    assert {e.group for e in dataset.entries if e.name.startswith("corona")} == {
        "coronacases_001",
        "coronacases_002",
    }


def test_ds2fs_vessels_are_at_its_size_with_its_folds(tmp_path: Path) -> None:
    out = prepared("hrf", tmp_path, "ds2f")
    dataset = load_dataset(out)
    case = dataset.read(dataset.entry("02_g"))
    assert case.geometry.shape == (1168, 1752)
    names = ["01_dr", "01_g", "01_h", "02_dr", "02_g", "02_h"]
    order = np.arange(6)
    np.random.RandomState(66).shuffle(order)
    tested = [find_split(dataset, f"ds2f_fold{k}").test for k in range(1, 6)]
    assert tested[0] == tuple(sorted(names[i] for i in order[:2]))
    assert sorted(name for fold in tested for name in fold) == names


def test_cells_are_black_in_the_labels_of_membranes_and_not_here(tmp_path: Path) -> None:
    dataset = load_dataset(prepared("isbi2012", tmp_path))
    case = dataset.read(dataset.entry("train_04"))
    np.testing.assert_array_equal(case.truth, disc("membrane 4"))
    np.testing.assert_array_equal(case.image[0], noise("train_04", 1))
    split = find_split(dataset, "dsnet")
    assert [len(split.part(p)) for p in ("train", "val", "test")] == [7, 2, 1]


def test_a_class_that_a_set_does_not_define_is_named(tmp_path: Path) -> None:
    cityscapes(tmp_path / "raw")
    path = next((tmp_path / "raw" / "gtFine").rglob("aachen*labelIds.png"))
    from PIL import Image

    Image.fromarray(np.full(SIZE, 99, np.uint8)).save(path)
    made = prepare_dataset("cityscapes", tmp_path / "raw", tmp_path / "out")
    assert made.outcome.failed == 1
    assert "has the values 99" in str(made.outcome.failures[0])


def test_marks_come_out_as_marks_with_slices_in_hounsfield_units(tmp_path: Path) -> None:
    dataset = load_dataset(prepared("deeplesion", tmp_path))
    assert len(dataset) == 23  # of one of 24 slices the picture is missing
    case = dataset.read(dataset.entry("000002_01_01_010"))
    first = rng_of("ct 000002_01_01 10").integers(-1000, -700, (112, 96))[0, 0]
    assert case.image[0, 0, 0] == first
    assert case.image[0, 55, 42] >= -200  # within the lesion
    assert case.geometry.spacing == (0.8, 0.8)
    rows = list(csv.DictReader((tmp_path / "out" / "recist.csv").open()))
    row = next(row for row in rows if row["case"] == "000002_01_01_010")
    assert [float(row[c]) for c in ("long_x1", "long_y1", "long_x2", "long_y2")] == [
        42 - 6.5,
        55,
        42 + 6.5,
        55,
    ]
    assert (row["window_low"], row["window_high"]) == ("-1000", "400")
    assert {entry.group for entry in dataset.entries if entry.split == "test"} == {"10", "11", "12"}


def test_lnsm_is_crops_of_lung_nodules_and_becomes_soft_masks(tmp_path: Path) -> None:
    crops = prepared("deeplesion", tmp_path, "dsnet")
    dataset = load_dataset(crops)
    patients = {entry.group for entry in dataset.entries}
    assert patients == {str(p) for p in range(1, 13)} - {"3", "4"}  # no lung, noisy
    row = next(csv.DictReader((crops / "recist.csv").open()))
    centre = (float(row["long_x1"]) + float(row["long_x2"])) / 2, float(row["long_y1"])
    assert np.abs(np.array(centre) - 32).max() <= 0.5
    for name in ("patients", "dsnet"):
        split = Split.load(crops / "splits" / f"{name}.json")
        assert sum(len(split.part(p)) for p in ("train", "val", "test")) == len(dataset)
        assert bool(split.leak) == (name == "dsnet")
    made = soften(crops, tmp_path / "lnsm", "recist", scale=(4,), window=(-1000, 400))
    assert made.outcome.exit_code == 0
    soft = load_dataset(tmp_path / "lnsm")
    assert [e.name for e in soft.entries] == [e.name for e in dataset.entries]
    assert [e.split for e in soft.entries] == [e.split for e in dataset.entries]
    case = soft.read(soft.entries[0])
    assert case.geometry.shape == (256, 256)
    assert case.truth is not None
    assert case.soft is not None
    grid = np.indices((256, 256)) / 4
    x, y = centre[0] + 0.375, centre[1] + 0.375
    ellipse = ((grid[1] - x) * 2 / 12.5) ** 2 + ((grid[0] - y) * 2 / 8) ** 2 <= 1
    dice = 2 * (ellipse & (case.truth > 0)).sum() / (ellipse.sum() + case.truth.sum())
    assert dice > 0.8
    np.testing.assert_array_equal(case.truth > 0, case.soft[0] >= 0.5)
    found = find_split(soft, "patients")
    assert found.train == Split.load(crops / "splits" / "patients.json").train


def test_a_partial_download_says_what_is_missing(tmp_path: Path) -> None:
    deeplesion(tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw" / "Images_png")
    with pytest.raises(DataError, match=r"has none of the 24 images of DL_info.csv"):
        prepare_dataset("deeplesion", tmp_path / "raw", tmp_path / "out")


def test_decathlon_volumes_are_linked_as_they_are(tmp_path: Path) -> None:
    out = prepared("decathlon", tmp_path)
    origin = tmp_path / "raw/Task04_Hippocampus/labelsTr/hippocampus_002.nii.gz"
    assert (out / "masks" / "hippocampus_002.nii.gz").samefile(origin)
    assert load_dataset(out).labels == {"front": 1, "back": 2}
    assert nibabel.load(out / "images" / "hippocampus_002.nii.gz").shape == VOLUME[::-1]


def test_layers_stay_classes_at_another_size(tmp_path: Path) -> None:
    truth = TREES["goals2022"](tmp_path / "raw")
    prepare_dataset("goals2022", tmp_path / "raw", tmp_path / "out", variant="m2snet")
    dataset = load_dataset(tmp_path / "out")
    case = dataset.read(dataset.entry("0002"))
    places = (((np.arange(352) + 0.5) * n / 352).astype(int) for n in SIZE)
    np.testing.assert_array_equal(case.truth, truth["0002"][np.ix_(*places)])
