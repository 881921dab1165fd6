"""Real data of ``../shared/data``, given back its official layout, through the readers.

What lies there was renamed, converted or thinned out; ``docs/datasets.md`` tells what differs.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from public_trees import diamond_ring, lidc_xml

from finemask.datasets import load_dataset
from finemask.datasets.public import prepare_dataset
from finemask.io import read_image, read_labels
from finemask.io.dicom import read_tags

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no real data in {DATA}")
MOST = 4
"""Cases of each set: one after another is the same again."""


def rows(name: str, table: str = "manifest.csv") -> Iterator[dict[str, str]]:
    with (DATA / name / table).open(newline="") as file:
        yield from list(csv.DictReader(file))[:MOST]


def put(source: Path, target: Path) -> None:
    """Copy a picture, converted to what the official name promises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == target.suffix:
        shutil.copyfile(source, target)
    else:
        with Image.open(source) as picture:
            picture.save(target)


def truth_of(path: Path) -> np.ndarray:
    return read_labels(path, {"lesion": 255})[0]


def check(name: str, raw: Path, out: Path, expected: dict[str, tuple[Path, np.ndarray]]) -> None:
    """Images and masks of the new data set are those of the real files."""
    made = prepare_dataset(name, raw, out)
    assert made.outcome.exit_code == 0
    dataset = load_dataset(out)
    for case, (image, mask) in expected.items():
        read = dataset.read(dataset.entry(case))
        grey_or_colour = np.broadcast_to(read_image(image)[0], read.image.shape)
        np.testing.assert_array_equal(read.image, grey_or_colour, err_msg=case)
        np.testing.assert_array_equal(read.truth, mask, err_msg=case)


def test_drive(tmp_path: Path) -> None:
    """PNG there, TIFF and GIF here; the test half is not there."""
    expected = {}
    for row in rows("DRIVE"):
        image, mask = (DATA / "DRIVE" / row[key] for key in ("image", "mask"))
        home, case = tmp_path / "raw" / "training", row["case_id"]
        put(image, home / "images" / f"{case}_training.tif")
        put(mask, home / "1st_manual" / f"{case}_manual1.gif")
        expected[case] = (image, truth_of(mask))
    test = tmp_path / "raw" / "test" / "images"
    put(image, test / "01_test.tif")
    check("drive", tmp_path / "raw", tmp_path / "out", expected)


def test_busi(tmp_path: Path) -> None:
    """Other names there, grey instead of RGB, and one mask an image."""
    expected = {}
    for row in rows("BUSI"):
        image, mask = (DATA / "BUSI" / row[key] for key in ("image", "mask"))
        kind, number = row["case_id"].split("_")
        stem = tmp_path / "raw" / kind / f"{kind} ({number})"
        put(image, stem.with_name(f"{stem.name}.png"))
        put(mask, stem.with_name(f"{stem.name}_mask.png"))
        expected[row["case_id"]] = (image, truth_of(mask))
    for kind in {"malignant", "normal"} - {case.split("_")[0] for case in expected}:
        stem = tmp_path / "raw" / kind / f"{kind} (1)"
        put(image, stem.with_name(f"{stem.name}.png"))
        put(mask, stem.with_name(f"{stem.name}_mask.png"))
    check("busi", tmp_path / "raw", tmp_path / "out", expected)


def test_isic(tmp_path: Path) -> None:
    """Squeezed to 512 x 512 there; names are the official ones."""
    expected = {}
    for row in rows("ISIC2018_skin_512"):
        image, mask = (DATA / "ISIC2018_skin_512" / row[key] for key in ("image", "mask"))
        case = row["case_id"]
        put(image, tmp_path / "raw/ISIC2018_Task1-2_Training_Input" / f"{case}.jpg")
        put(
            mask,
            tmp_path / "raw/ISIC2018_Task1_Training_GroundTruth" / f"{case}_segmentation.png",
        )
        expected[case] = (image, truth_of(mask))
    check("isic2018", tmp_path / "raw", tmp_path / "out", expected)


def test_isbi(tmp_path: Path) -> None:
    """Single slices there; here pages of two stacks. Membranes are black in both."""
    import tifffile

    expected, images, masks = {}, [], []
    for k, row in enumerate(rows("ISBI2012_EM_membrane")):
        image, mask = (DATA / "ISBI2012_EM_membrane" / row[key] for key in ("image", "mask"))
        images.append(np.asarray(Image.open(image).convert("L")))
        masks.append(np.asarray(Image.open(mask).convert("L")))
        expected[f"train_{k:02d}"] = (image, (masks[-1] == 0).astype(np.uint8))
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw" / "train-volume.tif", np.stack(images))
    tifffile.imwrite(tmp_path / "raw" / "train-labels.tif", np.stack(masks))
    check("isbi2012", tmp_path / "raw", tmp_path / "out", expected)
    share = np.mean([mask.mean() for _, mask in expected.values()])
    assert 0.15 < share < 0.3  # membranes, not cells


def test_polyps(tmp_path: Path) -> None:
    """Two of the five test sets, numbered anew; no training images, so test ones stand in."""
    expected = {}
    folders = {"colondb": "CVC-ColonDB", "clinicdb": "CVC-ClinicDB"}
    with (DATA / "polyp" / "manifest.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for row in table:
        name, number = row["case_id"].split("_")
        if int(number) > 2:
            continue
        image, mask = (DATA / "polyp" / row[key] for key in ("image", "mask"))
        for home in (tmp_path / "raw/TestDataset" / folders[name], tmp_path / "raw/TrainDataset"):
            put(image, home / "images" / f"{int(number)}.png")
            put(mask, home / "masks" / f"{int(number)}.png")
        expected[f"{name}_{int(number)}"] = (image, truth_of(mask))
    check("polyps", tmp_path / "raw", tmp_path / "out", expected)


def test_hippocampus(tmp_path: Path) -> None:
    """Bytes and names are the official ones; only dataset.json and the test images are missing."""
    expected = {}
    home = tmp_path / "raw" / "Task04_Hippocampus"
    for row in rows("MSD_Task04_Hippocampus"):
        image, mask = (DATA / "MSD_Task04_Hippocampus" / row[key] for key in ("image", "mask"))
        put(image, home / "imagesTr" / image.name)
        put(mask, home / "labelsTr" / mask.name)
        labels = read_labels(mask, {"Anterior": 1, "Posterior": 2})[0]
        expected[row["case_id"]] = (image, labels)
    told = {"modality": {"0": "MRI"}}
    told |= {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}
    (home / "dataset.json").write_text(json.dumps(told))
    check("decathlon", tmp_path / "raw", tmp_path / "out", expected)


def test_nodules_of_four_readers(tmp_path: Path) -> None:
    """One slice a nodule there, in folders by reader; here a folder a nodule and reader."""
    expected = {}
    for row in rows("LIDC_IDRI_multirater"):
        patient, nodule = row["case_id"].split("_")
        home = tmp_path / "raw" / patient / nodule
        image = DATA / "LIDC_IDRI_multirater" / row["image"]
        masks = [DATA / "LIDC_IDRI_multirater" / row[f"mask_rater{r}"] for r in range(4)]
        name = f"slice-{row['best_slice']}.png"
        put(image, home / "images" / name)
        for reader, mask in enumerate(masks):
            put(mask, home / f"mask-{reader}" / name)
        votes = np.sum([truth_of(mask) for mask in masks], axis=0)
        case = f"{row['case_id']}_s{int(row['best_slice']):02d}"
        expected[case] = (image, (votes >= 2).astype(np.uint8))
    check("lidc_slices", tmp_path / "raw", tmp_path / "out", expected)


def test_rows_of_deeplesion_on_blank_slices(tmp_path: Path) -> None:
    """Official rows; their images are not there, so slices of air of the right size stand in."""
    table = DATA / "DeepLesion" / "DL_info_subset.csv"
    (tmp_path / "raw").mkdir()
    shutil.copyfile(table, tmp_path / "raw" / "DL_info.csv")
    with table.open(newline="") as file:
        told = list(csv.DictReader(file))
    for name in {row["File_name"] for row in told}:
        series, _, number = name.rpartition("_")
        path = tmp_path / "raw" / "Images_png" / series / number
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray(np.full((512, 512), 32768 - 1024, np.uint16)).save(path)
    made = prepare_dataset("deeplesion", tmp_path / "raw", tmp_path / "out")
    assert made.outcome.exit_code == 0
    dataset = load_dataset(tmp_path / "out")
    assert len(dataset) == len({row["File_name"] for row in told})
    with (tmp_path / "out" / "recist.csv").open(newline="") as file:
        marks = list(csv.DictReader(file))
    assert len(marks) == len(told)
    for mark, row in zip(marks[:20], told, strict=False):
        x1, y1, x2, y2 = (float(mark[c]) for c in ("long_x1", "long_y1", "long_x2", "long_y2"))
        long = float(row["Lesion_diameters_Pixel_"].split(",")[0])
        assert np.hypot(x2 - x1, y2 - y1) == pytest.approx(long, abs=0.01)
        assert mark["group"] == row["Patient_index"]


def test_a_real_dicom_series_in_the_layout_of_lidc(tmp_path: Path) -> None:
    """A brain for a chest, with outlines that were made up: only the DICOM is real."""
    series = DATA / "DICOM" / "brain_MR_PGBM-003_T1post"
    home = tmp_path / "raw" / "LIDC-IDRI-0001" / "study" / "series"
    shutil.copytree(series, home)
    tags = sorted(
        (read_tags(path) for path in home.glob("*.dcm")),
        key=lambda t: float(t.ImagePositionPatient[2]),
    )
    middle = tags[10]
    outline = (
        float(middle.ImagePositionPatient[2]),
        str(middle.SOPInstanceUID),
        True,
        diamond_ring(150, 140, 6),
    )
    (home / "069.xml").write_text(lidc_xml(str(middle.SeriesInstanceUID), [[[outline]]] * 4))
    made = prepare_dataset("lidc_idri", tmp_path / "raw", tmp_path / "out")
    assert made.outcome.exit_code == 0, made.outcome.failures
    dataset = load_dataset(tmp_path / "out")
    case = dataset.read(dataset.entries[0])
    assert case.truth is not None
    assert case.truth.sum() == 2 * 6 * 7 + 1
    (number,) = np.unique(np.nonzero(case.truth)[0])
    assert case.image[0, number].shape == (int(middle.Rows), int(middle.Columns))
    assert case.geometry.spacing[1:] == pytest.approx([float(v) for v in middle.PixelSpacing])
