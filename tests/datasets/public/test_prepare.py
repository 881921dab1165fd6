"""Every public set in its official layout, generated: what comes out, pixel for pixel."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from public_trees import TREES, Truth, disc, noise

import finemask.datasets.public.writing as writing
from finemask.datasets import find_split, load_dataset, make_split
from finemask.datasets.public import PUBLIC, prepare_dataset
from finemask.errors import DataError, OutputError, UsageError


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Truth]]:
    folder = tmp_path_factory.mktemp("raw")
    return {name: (folder / name, make(folder / name)) for name, make in TREES.items()}


@pytest.fixture
def raw(raws: dict[str, tuple[Path, Truth]], tmp_path: Path) -> dict[str, Path]:
    """Copies that a test may break."""

    class Copies(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = Path(shutil.copytree(raws[name][0], tmp_path / "raw" / name))
            return self[name]

    return Copies()


def nearest(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at another size: the pixel in which each new centre lies."""
    sizes = zip(shape, mask.shape, strict=True)
    return mask[np.ix_(*(((np.arange(n) + 0.5) * m / n).astype(int) for n, m in sizes))]


def test_every_set_has_a_tree() -> None:
    assert list(TREES) == list(PUBLIC)


@pytest.mark.filterwarnings("ignore:.*the split leaks")
@pytest.mark.parametrize("name", PUBLIC)
def test_masks_come_out_pixel_for_pixel(
    name: str, raws: dict[str, tuple[Path, Truth]], tmp_path: Path
) -> None:
    folder, truth = raws[name]
    made = prepare_dataset(name, folder, tmp_path / "out")
    assert made.outcome.exit_code == 0
    dataset = load_dataset(tmp_path / "out")
    labelled = [entry for entry in dataset.entries if entry.labelled]
    assert sorted(entry.name for entry in labelled) == sorted(truth)
    assert dataset.dims == PUBLIC[name].dims
    for entry in labelled:
        case = dataset.read(entry)
        if entry.mask is not None:
            np.testing.assert_array_equal(case.truth, truth[entry.name], err_msg=entry.name)
    if labelled:  # DeepLesion has marks alone
        make_split(dataset).verify(dataset)
    for path in sorted((tmp_path / "out" / "splits").glob("*.json")):
        split = find_split(dataset, path.stem)
        assert split.train
        assert split.test
        assert described(path.stem, PUBLIC[name].splits)


def described(split: str, told: Mapping[str, str]) -> bool:
    """Whether the table tells of a split; ``fold1..5`` stands for five of them."""
    folds = [key.partition("1..")[0] for key in told if "1.." in key]
    return split in told or any(split.rstrip("0123456789") == fold for fold in folds)


@pytest.mark.parametrize("name", PUBLIC)
def test_an_empty_folder_gets_one_line_that_says_what_was_expected(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "raw" / "my_scans").mkdir(parents=True)
    with pytest.raises(DataError) as told:
        prepare_dataset(name, tmp_path / "raw", tmp_path / "out")
    line = str(told.value)
    assert "\n" not in line
    assert "found my_scans/" in line
    assert PUBLIC[name].title in line
    assert not (tmp_path / "out").exists()


def test_images_are_the_bytes_of_the_download(raw: dict[str, Path], tmp_path: Path) -> None:
    source = raw["isic2018"]
    prepare_dataset("isic2018", source, tmp_path / "linked")
    prepare_dataset("isic2018", source, tmp_path / "copied", copy=True)
    name = "ISIC_0000003.jpg"
    origin = source / "ISIC2018_Task1-2_Training_Input" / name
    linked, copied = (tmp_path / kind / "images" / name for kind in ("linked", "copied"))
    assert linked.samefile(origin)
    assert not copied.samefile(origin)
    assert copied.read_bytes() == origin.read_bytes()


def test_files_are_copied_where_links_are_impossible(
    raw: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(writing.os, "link", refuse)
    made = prepare_dataset("hrf", raw["hrf"], tmp_path / "out")
    assert made.outcome.done == 6
    origin = raw["hrf"] / "images" / "01_dr.JPG"
    assert (tmp_path / "out" / "images" / "01_dr.jpg").read_bytes() == origin.read_bytes()


def test_a_renamed_mask_is_named_with_what_is_there(raw: dict[str, Path], tmp_path: Path) -> None:
    masks = raw["hrf"] / "manual1"
    (masks / "02_g.tif").rename(masks / "02_g_vessels.tif")
    with pytest.raises(DataError) as told:
        prepare_dataset("hrf", raw["hrf"], tmp_path / "out")
    line = str(told.value)
    assert "lacks the mask of 02_g.JPG (found 5 others: 01_dr.tif" in line
    assert str(masks) in line


def test_a_damaged_mask_costs_its_case_only_and_can_be_mended(
    raw: dict[str, Path], tmp_path: Path
) -> None:
    mask = raw["hrf"] / "manual1" / "02_g.tif"
    whole = mask.read_bytes()
    mask.write_bytes(whole[:40])
    out = tmp_path / "out"
    made = prepare_dataset("hrf", raw["hrf"], out)
    assert (made.outcome.done, made.outcome.failed, made.outcome.exit_code) == (5, 1, 1)
    assert "02_g" in (out / "failures.csv").read_text()
    assert len(load_dataset(out)) == 5
    mask.write_bytes(whole)
    again = prepare_dataset("hrf", raw["hrf"], out, resume=True)
    assert (again.outcome.done, again.outcome.failed, again.outcome.skipped) == (1, 0, 5)
    assert len(load_dataset(out)) == 6
    assert not (out / "failures.csv").exists()


def test_what_a_stopped_call_wrote_is_kept_and_out_appears_whole(
    raw: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = writing.Writer.write

    def stop(self: writing.Writer, item: writing.Item) -> list[dict[str, object]]:
        if item.name == "02_dr":
            raise KeyboardInterrupt
        return written(self, item)

    out = tmp_path / "out"
    monkeypatch.setattr(writing.Writer, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset("hrf", raw["hrf"], out)
    assert not out.exists()
    monkeypatch.setattr(writing.Writer, "write", written)
    with pytest.raises(UsageError, match="left by a call that was stopped"):
        prepare_dataset("hrf", raw["hrf"], out)
    (tmp_path / "out.partial" / "masks" / "01_g.png").write_bytes(b"half")
    made = prepare_dataset("hrf", raw["hrf"], out, resume=True)
    assert (made.outcome.done, made.outcome.skipped) == (4, 2)
    assert not (tmp_path / "out.partial").exists()
    case = load_dataset(out).read(load_dataset(out).entry("01_g"))
    np.testing.assert_array_equal(case.truth, disc("01_g"))


def test_nothing_is_replaced_unless_asked(raw: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_dataset("drive", raw["drive"], out)
    with pytest.raises(UsageError, match="exists already"):
        prepare_dataset("drive", raw["drive"], out)
    prepare_dataset("drive", raw["drive"], out, overwrite=True)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("...")
    with pytest.raises(UsageError, match="no folder that finemask prepare wrote"):
        prepare_dataset("drive", raw["drive"], foreign, overwrite=True)
    with pytest.raises(UsageError, match="lies in"):
        prepare_dataset("drive", raw["drive"], raw["drive"] / "out")


def test_another_variant_is_made_anew(raw: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_dataset("busi", raw["busi"], out)
    made = prepare_dataset("busi", raw["busi"], out, variant="m2snet", resume=True)
    assert made.outcome.skipped == 0
    dataset = load_dataset(out)
    assert {dataset.read(e).geometry.shape for e in dataset.entries} == {(352, 352)}
    assert json.loads((out / "dataset.json").read_text())["variant"] == "m2snet"
    with pytest.raises(UsageError, match="choose original, m2snet"):
        prepare_dataset("busi", raw["busi"], out, variant="m3snet", resume=True)


def test_a_resized_form_keeps_image_and_mask_on_each_other(
    raw: dict[str, Path], tmp_path: Path
) -> None:
    mask = disc("ISIC_0000000")
    home = raw["isic2018"] / "ISIC2018_Task1-2_Training_Input"
    Image.fromarray(np.repeat(mask[..., None] * 255, 3, 2)).save(
        home / "ISIC_0000000.jpg", quality=100
    )
    prepare_dataset("isic2018", raw["isic2018"], tmp_path / "out", variant="sasrnet")
    dataset = load_dataset(tmp_path / "out")
    case = dataset.read(dataset.entry("ISIC_0000000"))
    assert case.geometry.shape == (640, 640)
    assert case.truth is not None
    np.testing.assert_array_equal(case.truth, nearest(mask, (640, 640)))
    agree = (case.image[0] > 127) == (case.truth > 0)
    assert agree.mean() > 0.97


def test_second_observers_are_readers(raw: dict[str, Path], tmp_path: Path) -> None:
    prepare_dataset("chase_db1", raw["chase_db1"], tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    entry = dataset.entry("Image_11R")
    readers = dataset.read(entry).readers
    assert readers is not None
    expected = [disc("Image_11R"), disc("second Image_11R")]
    np.testing.assert_array_equal(readers, expected)
    assert entry.group == "child_11"
    assert entry.split == "test"


def test_old_pictures_are_rewritten_without_a_change(raw: dict[str, Path], tmp_path: Path) -> None:
    prepare_dataset("stare", raw["stare"], tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    for key in ("im0001", "im0002"):
        image = dataset.read(dataset.entry(key)).image
        np.testing.assert_array_equal(np.moveaxis(image, 0, -1), noise(key))
    assert len(dataset) == 4


def test_the_cut_to_the_valid_area_is_that_of_the_mask(
    raw: dict[str, Path], tmp_path: Path
) -> None:
    prepare_dataset("prime_fp20", raw["prime_fp20"], tmp_path / "out", variant="ds2f")
    dataset = load_dataset(tmp_path / "out")
    case = dataset.read(dataset.entry("FP03"))
    assert case.geometry.shape == (1296, 1408)
    assert case.truth is not None
    inner = disc("FP03")[2:22, 4:30]
    np.testing.assert_array_equal(case.truth, nearest(inner, (1296, 1408)))


def test_the_preview_shows_where_the_masks_are(raw: dict[str, Path], tmp_path: Path) -> None:
    prepare_dataset("drive", raw["drive"], tmp_path / "out")
    with Image.open(tmp_path / "out" / "preview.png") as sheet:
        picture = np.asarray(sheet).astype(int)
    assert picture.shape == (2 * 240 + 4, 4 * 240 + 12, 3)  # five cases, four a row
    first = picture[:180, :240]  # 24 x 32 pixels, enlarged
    line = (first == (0, 230, 255)).all(axis=2)
    enlarged = Image.fromarray(disc("21")).resize((240, 180), Image.Resampling.NEAREST)
    truth = np.asarray(enlarged) > 0
    assert line.any()
    assert truth[line].all()
    rows, columns = np.nonzero(line)
    inside = np.nonzero(truth)
    assert (rows.min(), columns.max()) == (inside[0].min(), inside[1].max())


def test_a_full_disk_ends_the_call_at_once(
    raw: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = writing.Writer.write

    def fill(self: writing.Writer, item: writing.Item) -> list[dict[str, object]]:
        if item.name == "02_dr":
            raise OutputError(tmp_path, "is full", "free some space")
        return written(self, item)

    monkeypatch.setattr(writing.Writer, "write", fill)
    with pytest.raises(OutputError, match="is full, 3 cases are done") as told:
        prepare_dataset("hrf", raw["hrf"], tmp_path / "out")
    assert told.value.exit_code == 1
    assert not (tmp_path / "out").exists()
