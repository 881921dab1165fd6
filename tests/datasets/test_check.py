from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finemask.datasets import check_dataset
from finemask.geometry import Geometry
from finemask.io import write_image, write_labels


def lines(report: Any) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in report.text().splitlines()}


def test_a_sound_set_on_one_screen(tree: Any) -> None:
    report = check_dataset(tree.folder(*"abcd"))
    assert report.ok
    shown = lines(report)
    assert shown["cases"] == "4, 4 read, 0 failed"
    assert shown["size"].startswith("12 x 16")
    assert shown["class 1"] == f"lesion = 255: {9 / 192:.2%} of the voxels, in 4 cases"
    assert shown["lesions"].startswith("4; equivalent diameter")
    assert "3.39 px" in shown["lesions"], "2 sqrt(9 / pi)"
    assert shown["split"] == "drawn: 2 train, 1 val, 1 test"
    assert len(report.text().splitlines()) < 25
    assert json.loads(json.dumps(report.to_dict()))["summary"]["cases"] == shown["cases"]


def test_sizes_of_volumes_are_millimetres(tree: Any) -> None:
    geometry = Geometry.regular((6, 8, 10), spacing=(2.0, 0.5, 0.5))
    mask = np.zeros((6, 8, 10), np.uint8)
    mask[0, 0, 0] = mask[2:4, 2:6, 2:6] = 1  # 1 and 32 voxels of 0.5 mm3
    write_image(tree.image("images/a.nii.gz", 0), mask + 5, geometry, overwrite=True)
    write_labels(tree.root / "masks" / "a.nii.gz", mask, geometry)
    facts = check_dataset(tree.root).cases[0]
    assert [lesion.voxels for lesion in facts.lesions[0]] == [32, 1]
    diameters = [lesion.diameter for lesion in facts.lesions[0]]
    assert diameters == pytest.approx([(6 * 16 / np.pi) ** (1 / 3), (3 / np.pi) ** (1 / 3)])
    assert any("lesions of at most 4 voxels" in flaw for flaw in facts.flaws)


@pytest.mark.fault("F30")
def test_every_faulty_case_is_named_and_the_rest_is_read(tree: Any) -> None:
    tree.folder(*"abcd", suffix=".nii.gz")
    broken = tree.root / "images" / "b.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    geometry = Geometry.regular((6, 8, 10), (2.0, 0.5, 0.5), origin=(0.0, 0.25, 0.0))
    shifted = np.zeros(geometry.shape, np.uint8)
    write_labels(tree.root / "masks" / "c.nii.gz", shifted, geometry, overwrite=True)
    tree.mask("masks/z.nii.gz")
    report = check_dataset(tree.root)
    assert not report.ok
    subjects = sorted(Path(problem.subject).name for problem in report.problems)
    assert subjects == ["b.nii.gz", "c.nii.gz", "masks"]
    assert [case.name for case in report.cases] == ["a", "d"]
    assert lines(report)["cases"] == "4, 2 read, 2 failed"
    assert lines(report)["problems"] == "3"


def test_oddities_are_notes_not_problems(tree: Any) -> None:
    tree.folder("a", "b", "c")
    flat = np.full((12, 16), 7, np.uint8)
    write_image(tree.root / "images" / "b.png", flat, Geometry.regular((12, 16)), overwrite=True)
    tree.mask("masks_1/a.png")
    tree.mask("masks_2/a.png")
    (tree.root / "masks" / "c.png").unlink()
    tree.mask("masks/c.png", size=0)
    report = check_dataset(tree.root)
    assert report.ok
    notes = "\n".join(report.notes)
    assert "nearly constant: 1 cases (b)" in notes
    assert "two readers drew exactly the same: 1 cases (a)" in notes
    assert "no lesion in 1 cases (c)" in notes


@pytest.mark.fault("F73")
def test_a_copy_across_declared_parts_is_a_problem(tree: Any) -> None:
    tree.manifest({n: {"split": s} for n, s in zip("abc", ("train", "val", "test"), strict=True)})
    image = tree.root / "images" / "a.png"
    (tree.root / "images" / "c.png").write_bytes(image.read_bytes())
    report = check_dataset(tree.root)
    assert ["one image into several parts" in str(p) for p in report.problems] == [True]


def test_equal_voxels_in_other_files_are_seen(tree: Any) -> None:
    """The same volume as NIfTI and MHA: no byte alike, yet one image."""
    tree.folder(*"abcdefgh", suffix=".nii.gz")
    from finemask.io import read_image

    array, geometry = read_image(tree.root / "images" / "a.nii.gz")
    found = set()
    for twin in "bcdefgh":
        kept = (tree.root / "images" / f"{twin}.nii.gz").read_bytes()
        (tree.root / "images" / f"{twin}.nii.gz").unlink()
        write_image(tree.root / "images" / f"{twin}.mha", array, geometry)
        report = check_dataset(tree.root)
        said = [*report.notes, *map(str, report.problems)]
        assert sum("same voxels" in line for line in said) == 1
        found.add(report.ok)
        (tree.root / "images" / f"{twin}.mha").unlink()
        (tree.root / "images" / f"{twin}.nii.gz").write_bytes(kept)
    assert found == {True, False}, "a note in one part, a problem across parts"


def test_what_cannot_be_listed_is_one_problem(tmp_path: Path) -> None:
    report = check_dataset(tmp_path / "nowhere")
    assert [str(p) for p in report.problems] == [
        f"{tmp_path / 'nowhere'}: does not exist; check the path"
    ]
    assert "could not be listed" in report.text()


def test_readers_warnings_become_notes(tree: Any) -> None:
    tree.image("images/a.nii.gz", 0)
    tree.mask("masks/a.nii.gz", values=(1,))
    tree.image("images/b.nii.gz", 1, channels=1)
    geometry = Geometry.regular((6, 8, 10), spacing=(2.0, 0.5, 0.5))
    array = np.ones((6, 8, 10), np.float32) * np.arange(10, dtype=np.float32)
    array[0, 0, 0] = np.nan
    write_image(tree.root / "images" / "b.nii.gz", array, geometry, overwrite=True)
    report = check_dataset(tree.root)
    assert any("not finite" in note for note in report.notes)


@pytest.mark.parametrize("name", ["DRIVE", "MSD_Task04_Hippocampus"])
def test_real_sets_are_sound(shared: Callable[[str], Path], name: str) -> None:
    report = check_dataset(shared(name))
    assert report.ok
    assert len(report.text().splitlines()) < 25
