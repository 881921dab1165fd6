from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finemask.datasets import load_dataset, make_phantoms
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io import write_image


def test_a_folder_of_images_and_masks(tree: Any) -> None:
    dataset = load_dataset(tree.folder("a", "b"))
    assert [e.name for e in dataset.entries] == ["a", "b"]
    assert (dataset.layout, dataset.dims, dataset.channels) == ("folder", 2, 1)
    assert dataset.labels == {"lesion": 255}
    case = dataset.read(dataset.entry("b"))
    assert (case.name, case.group, case.image.shape) == ("b", "b", (1, 12, 16))
    assert case.truth is not None
    assert case.truth.sum() == 9


def test_optional_folders_and_groups(tree: Any) -> None:
    tree.folder("a", "b")
    for reader, size in (("anna", 2), ("bert", 0)):
        tree.mask(f"masks_{reader}/a.png", size=size)
    tree.mask("soft/a.png")
    tree.image("images_lr/a.png", 9)
    tree.text("groups.csv", "case,group\na,p1\nb,p1\nz,p9\n")
    dataset = load_dataset(tree.root)
    first, second = dataset.entries
    assert [p.parent.name for p in first.readers] == ["masks_anna", "masks_bert"]
    assert (first.group, second.group) == ("p1", "p1")
    assert first.soft is not None
    assert second.soft is None
    assert any("unknown cases: z" in note for note in dataset.notes)
    assert any("soft/ lacks 1 of 2 cases: b" in note for note in dataset.notes)
    case = dataset.read(first)
    assert case.readers is not None
    assert case.readers.sum(axis=(1, 2)).tolist() == [4, 0]
    lr = dataset.read_lr(first)
    assert lr is not None
    assert lr.truth is None
    assert dataset.read_lr(second) is None


def test_readers_alone_are_a_labelled_set(tree: Any) -> None:
    tree.image("images/a.png", 0)
    tree.mask("masks_1/a.png")
    dataset = load_dataset(tree.root)
    assert dataset.entries[0].labelled
    assert dataset.read(dataset.entries[0]).truth is None


def test_a_foreign_table_is_ignored_with_a_note(tree: Any) -> None:
    tree.folder("a")
    tree.text("manifest.csv", "case_id,image,mask,patient\na,images/a.png,masks/a.png,p7\n")
    dataset = load_dataset(tree.root)
    assert dataset.layout == "folder"
    assert [note for note in dataset.notes if "manifest.csv" in note and "patient" in note]


def test_images_without_masks(tree: Any) -> None:
    tree.image("a.png", 0)
    dataset = load_dataset(tree.root)
    assert [e.name for e in dataset.entries] == ["a"]
    assert dataset.labels == {}
    assert not dataset.entries[0].labelled


def test_a_case_without_a_mask_is_noted(tree: Any) -> None:
    tree.folder("a", "b")
    (tree.root / "masks" / "b.png").unlink()
    dataset = load_dataset(tree.root)
    assert any("masks/ lacks 1 of 2 cases: b" in note for note in dataset.notes)
    assert dataset.read(dataset.entry("b")).truth is None


def test_dicom_series_in_subfolders(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    source = shared("DICOM") / "brain_MR_PGBM-002_hippocampus_crop"
    for name in ("one", "two"):
        shutil.copytree(source, tmp_path / "series" / name)
    dataset = load_dataset(tmp_path / "series")
    assert [e.name for e in dataset.entries] == ["one", "two"]
    assert dataset.dims == 3
    assert len(load_dataset(tmp_path / "series" / "one")) == 1


def test_nnunet_with_two_channels_and_a_labelled_test_part(tree: Any) -> None:
    tree.nnunet("x", "y", channels=2)
    for channel in range(2):
        tree.image(f"imagesTs/z_{channel:04d}.nii.gz", 90 + channel)
    dataset = load_dataset(tree.root)
    assert (dataset.layout, dataset.channels, dataset.dims) == ("nnunet", 2, 3)
    assert dataset.labels == {"tumour": 1}
    assert [(e.name, e.split, e.labelled) for e in dataset.entries] == [
        ("x", None, True),
        ("y", None, True),
        ("z", None, False),
    ]
    assert dataset.read(dataset.entry("x")).image.shape == (2, 6, 8, 10)
    tree.mask("labelsTs/z.nii.gz")
    assert [e.split for e in load_dataset(tree.root).entries] == ["train", "train", "test"]


def test_the_decathlon_form_of_nnunet(tree: Any) -> None:
    tree.nnunet(labels={"0": "background", "1": "front", "2": "back"}, modality={"0": "MRI"})
    tree.image("imagesTr/h_001.nii.gz", 0)
    tree.mask("labelsTr/h_001.nii.gz", values=(1, 2))
    dataset = load_dataset(tree.root)
    assert dataset.labels == {"front": 1, "back": 2}
    assert [e.name for e in dataset.entries] == ["h_001"]


def test_manifest_columns(tree: Any) -> None:
    tree.mask("readers/a1.png")
    tree.image("lr/a.png", 7)
    manifest = tree.manifest(
        {
            "a": {
                "group": "p1",
                "split": "Training",
                "rater_1": "readers/a1.png",
                "spacing_mm": "0.5x0.25",
                "diameter_mm": "3.5",
                "image_lr": "lr/a.png",
                "site": "north",
            },
            "b": {"split": "test"},
        }
    )
    dataset = load_dataset(manifest)
    assert load_dataset(tree.root).entries == dataset.entries, "the folder finds its manifest"
    first, second = dataset.entries
    assert (first.group, first.split, first.diameter_mm) == ("p1", "train", 3.5)
    assert (second.group, second.split, second.spacing_mm) == ("b", "test", ())
    assert any("site" in note for note in dataset.notes)
    case = dataset.read(first)
    assert case.geometry.spacing == (0.5, 0.25)
    assert case.readers is not None


def test_a_manifest_for_prediction_needs_no_mask(tree: Any) -> None:
    tree.image("images/a.png", 0)
    tree.text("m.csv", "case;image\nscan;images/a.png\n")
    assert [e.name for e in load_dataset(tree.root / "m.csv").entries] == ["scan"]


def test_three_time_points_are_no_colour(tree: Any) -> None:
    tree.folder("a", "b", "c", suffix=".nii.gz")
    tree.image("images/b.nii.gz", 5, channels=3)
    with pytest.raises(DataError, match=r"1 channels or time points a case, but not in b \(3\)"):
        load_dataset(tree.root)


def test_tables_of_phantoms_are_not_noted(tmp_path: Path) -> None:
    out = make_phantoms(tmp_path / "phantoms", cases=2, size=64)
    assert (out / "recist.csv").is_file()
    assert load_dataset(out).notes == ()


def test_grey_among_colour_is_read_as_colour(tree: Any) -> None:
    tree.folder("a")
    tree.image("images/b.png", 5, channels=3)
    tree.mask("masks/b.png")
    dataset = load_dataset(tree.root)
    assert dataset.channels == 3
    grey = dataset.read(dataset.entry("a")).image
    assert grey.shape[0] == 3
    assert (grey == grey[:1]).all()
    assert any("1 grey and 1 colour" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([(1,), (1,)], {"lesion": 1}),
        ([(76,), (76,)], {"lesion": 76}),
        ([(1,), (255,)], {"lesion": 1}),
        ([(1,), (1, 2)], {"class_1": 1, "class_2": 2}),
        ([(2,), (1,)], {"class_1": 1, "class_2": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*was read as foreground")
def test_labels_are_taken_from_the_whole_set(tree: Any, values: Any, labels: Any) -> None:
    for name, inside in zip("ab", values, strict=True):
        tree.image(f"images/{name}.nii.gz", ord(name))
        tree.mask(f"masks/{name}.nii.gz", values=inside)
    dataset = load_dataset(tree.root)
    assert dataset.labels == labels
    found = [set(np.unique(dataset.read(e).truth).tolist()) - {0} for e in dataset.entries]
    order = list(labels.values())
    expected = [{order.index(v) + 1 if v in order else 1 for v in inside} for inside in values]
    assert found == expected


@pytest.mark.fault("F28")
def test_labels_with_gaps_are_declared_or_refused(tree: Any) -> None:
    tree.image("images/a.nii.gz", 0)
    tree.mask("masks/a.nii.gz", values=(1, 4))
    with pytest.raises(DataError, match="values 1, 4, which may mean anything"):
        load_dataset(tree.root)
    tree.text("dataset.json", '{"labels": {"background": 0, "core": 4, "rim": 1}}')
    dataset = load_dataset(tree.root)
    assert dataset.labels == {"rim": 1, "core": 4}
    assert set(np.unique(dataset.read(dataset.entries[0]).truth)) == {0, 1, 2}


def test_a_large_set_is_sampled_evenly(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come in runs: eight cases of one site, then eight of another with a second class."""
    for index in range(16):
        tree.image(f"images/c{index:02d}.nii.gz", index)
        tree.mask(f"masks/c{index:02d}.nii.gz", values=(1, 2) if index > 7 else (1,))
    monkeypatch.setattr("finemask.datasets.load.VOXELS_LOOKED_AT", 3 * 480)
    assert load_dataset(tree.root).labels == {"class_1": 1, "class_2": 2}


def test_a_value_never_declared_is_refused_on_reading(tree: Any) -> None:
    tree.image("images/a.nii.gz", 0)
    tree.mask("masks/a.nii.gz", values=(1, 2))
    tree.text("dataset.json", '{"labels": {"background": 0, "lesion": 1}}')
    dataset = load_dataset(tree.root)
    with pytest.raises(DataError, match=r"a\.nii\.gz.*undeclared"):
        dataset.read(dataset.entries[0])


def spoil_unpaired(tree: Any) -> None:
    tree.folder("a", "b")
    (tree.root / "masks" / "b.png").rename(tree.root / "masks" / "b_mask.png")


def spoil_twins(tree: Any) -> None:
    tree.folder("a", suffix=".nii.gz")
    tree.image("images/a.png", 3)


def spoil_case_folding(tree: Any) -> None:
    tree.folder("a")
    tree.image("images/A.png", 3)


def spoil_name(tree: Any) -> None:
    tree.folder("benign (1)")


def spoil_dimension(tree: Any) -> None:
    tree.folder("a")
    tree.image("images/b.nii.gz", 3)


def spoil_link(tree: Any) -> None:
    tree.folder("a")
    outside = tree.root.parent / "outside.png"
    shutil.copy(tree.root / "images" / "a.png", outside)
    (tree.root / "images" / "b.png").symlink_to(outside)


def spoil_channel(tree: Any) -> None:
    tree.nnunet("x", "y", channels=2)
    (tree.root / "imagesTr" / "y_0001.nii.gz").unlink()


def spoil_extra_channel(tree: Any) -> None:
    tree.nnunet("x", channels=2, channel_names={"0": "CT"})


def spoil_nnunet_mask(tree: Any) -> None:
    tree.nnunet("x")
    tree.mask("labelsTr/w.nii.gz")


def spoil_description(tree: Any) -> None:
    tree.nnunet("x")
    (tree.root / "dataset.json").unlink()


def spoil_regions(tree: Any) -> None:
    tree.nnunet("x", labels={"background": 0, "whole": [1, 2]})


def spoil_ignored(tree: Any) -> None:
    tree.nnunet("x", labels={"background": 0, "tumour": 1, "ignore": 2})


def spoil_traversal(tree: Any) -> None:
    tree.manifest({"a": {"image": "../a.png"}})


def spoil_absolute(tree: Any) -> None:
    tree.manifest({"a": {"mask": "/etc/passwd"}})


def spoil_missing(tree: Any) -> None:
    tree.manifest({"a": {"image": "images/nowhere.png"}})


def spoil_split(tree: Any) -> None:
    tree.manifest({"a": {"split": "fold7"}})


def spoil_half_a_split(tree: Any) -> None:
    tree.manifest({"a": {"split": "train"}, "b": {}})


def spoil_spacing(tree: Any) -> None:
    tree.manifest({"a": {"spacing_mm": "0.5x-1"}})


def spoil_repeated_case(tree: Any) -> None:
    tree.folder("a", "b")
    tree.text("manifest.csv", "case,image\na,images/a.png\na,images/b.png\n")


def spoil_upper_case(tree: Any) -> None:
    tree.folder("a", "b")
    tree.text("manifest.csv", "case,image\nAb,images/a.png\naB,images/b.png\n")


def spoil_columns(tree: Any) -> None:
    tree.text("manifest.csv", "id,file\na,a.png\n")


def spoil_everything(tree: Any) -> None:
    tree.text("notes.txt", "no data here")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_unpaired, r"masks: has 1 files without an image of that name: b_mask"),
        (spoil_twins, r"a\.png: has the same case name as a\.nii\.gz"),
        (spoil_case_folding, r"a\.png: has the same case name as A\.png"),
        (spoil_name, r"benign \(1\)\.png: .*no safe case name"),
        (spoil_dimension, r"mixes cases 1 in 2-D \(a\) and 1 in 3-D \(b\)"),
        (spoil_link, r"b\.png: is a link that leaves the data set"),
        (spoil_channel, r"case y lacks channel _0001"),
        (spoil_extra_channel, r"case x has channel _0001, dataset\.json names 1"),
        (spoil_nnunet_mask, r"masks without an image: w"),
        (spoil_description, r"no dataset\.json"),
        (spoil_regions, r"regions"),
        (spoil_ignored, r"ignore label"),
        (spoil_traversal, r"row 2 \(a\) names image \.\./a\.png, outside"),
        (spoil_absolute, r"names mask /etc/passwd, outside"),
        (spoil_missing, r"images/nowhere\.png, which does not exist"),
        (spoil_split, r"has split fold7; write train, val or test"),
        (spoil_half_a_split, r"gives no split to b"),
        (spoil_spacing, r"has spacing_mm 0\.5x-1"),
        (spoil_repeated_case, r"gives case a, and a\.png gives case a"),
        (spoil_upper_case, r"gives case aB, and a\.png gives case Ab"),
        (spoil_columns, r"has the columns id, file, needs at least case,image"),
        (spoil_everything, r"holds no image"),
    ],
)
def test_what_must_be_mended_is_named(
    tree: Any, spoil: Callable[[Any], None], message: str
) -> None:
    spoil(tree)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(tree.root)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_follows_contents_not_places(tree: Any, tmp_path: Path) -> None:
    root = tree.folder("a", "b")
    before = load_dataset(root).fingerprint()
    moved = shutil.copytree(root, tmp_path / "moved")
    assert load_dataset(moved).fingerprint() == before
    (moved / "masks" / "b.png").unlink()
    type(tree)(moved).mask("masks/b.png", size=2)
    assert load_dataset(moved).fingerprint() != before


REAL = [
    ("DRIVE", 20, 2, 3, {"lesion": 255}),
    ("BUSI", 90, 2, 3, {"lesion": 255}),
    ("LIDC_IDRI_multirater", 230, 2, 1, {"lesion": 255}),
    ("MSD_Task04_Hippocampus", 120, 3, 1, {"class_1": 1, "class_2": 2}),
    ("LA2018_atrial_MR", 10, 3, 1, {"lesion": 1}),
    ("ISBI2012_EM_membrane", 20, 2, 1, {"lesion": 255}),
    ("ISIC2018_skin_512", 100, 2, 3, {"lesion": 255}),
    ("COVID19_CT_infection", 50, 2, 1, {"lesion": 255}),
    ("polyp", 32, 2, 3, {"lesion": 255}),
]


@pytest.mark.parametrize(("name", "cases", "dims", "channels", "labels"), REAL)
def test_real_sets_load_and_read(
    shared: Callable[[str], Path], name: str, cases: int, dims: int, channels: int, labels: Any
) -> None:
    dataset = load_dataset(shared(name))
    assert (len(dataset), dataset.dims, dataset.channels) == (cases, dims, channels)
    assert dataset.labels == labels
    case = dataset.read(dataset.entries[0])
    assert case.image.shape[0] == channels
    if name.startswith("LIDC"):
        assert case.readers is not None
        assert len(case.readers) == 4
    else:
        assert case.truth is not None
        assert set(np.unique(case.truth)) == set(range(len(labels) + 1))


def test_a_misnamed_mask_folder_is_noted(tmp_path: Path) -> None:
    """Nothing may pass in silence: a user who wrote mask/ wants to hear of masks/."""
    for folder in ("images", "mask"):
        write_image(
            tmp_path / folder / "a.png", np.ones((1, 8, 8), np.float32), Geometry.regular((8, 8))
        )
    notes = " ".join(load_dataset(tmp_path).notes)
    assert "masks/" in notes
    assert "ignored: mask" in notes


def test_a_manifest_names_further_channels(tmp_path: Path) -> None:
    for name, value in (("flair", 1), ("t1", 2), ("t2", 3)):
        image = np.full((3, 4), value, np.uint8)
        write_image(tmp_path / f"{name}.png", image, Geometry.regular((3, 4)))
    (tmp_path / "manifest.csv").write_text(
        "case,image_3,image,image_2\na,t2.png,flair.png,t1.png\n"
    )
    dataset = load_dataset(tmp_path)
    assert dataset.channels == 3
    assert not dataset.notes or "unknown" not in dataset.notes[0]
    assert dataset.read(dataset.entries[0]).image[:, 0, 0].tolist() == [1, 2, 3]
