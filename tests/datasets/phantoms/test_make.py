"""Phantoms are reproducible, cover two decades of size, and are data sets that load."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from finemask.datasets import load_dataset
from finemask.datasets.phantoms import Phantom, make_phantom, make_phantoms
from finemask.errors import DataError, UsageError

SMALL: dict[str, tuple[int, ...]] = {
    "skin": (80, 96),
    "ultrasound": (80, 96),
    "vessels": (96, 104),
    "layers": (80, 96),
    "nodules": (18, 40, 44),
}


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum()))


@pytest.fixture(scope="module")
def phantoms() -> dict[str, list[Phantom]]:
    return {kind: [make_phantom(kind, n, 1, SMALL[kind]) for n in range(4)] for kind in SMALL}


@pytest.mark.parametrize("kind", SMALL)
def test_same_seed_and_number_give_the_same_phantom(kind: str, phantoms) -> None:
    again = make_phantom(kind, 2, 1, SMALL[kind])
    first = phantoms[kind][2]
    for name in ("image", "truth", "soft", "readers"):
        np.testing.assert_array_equal(getattr(first.case, name), getattr(again.case, name))
    assert first.recist == again.recist
    assert first.case.geometry == again.case.geometry


@pytest.mark.parametrize("kind", SMALL)
def test_number_and_seed_change_every_detail_of_the_picture(kind: str, phantoms) -> None:
    def detail(phantom: Phantom) -> np.ndarray:
        image = phantom.case.image[0]
        middle = tuple(slice(n // 4, -(n // 4)) for n in image.shape)
        return (image - gaussian_filter(image, 1.5))[middle].ravel()

    first = detail(phantoms[kind][0])
    for other in (phantoms[kind][1], make_phantom(kind, 0, 2, SMALL[kind])):
        assert abs(np.corrcoef(first, detail(other))[0, 1]) < 0.3


@pytest.mark.parametrize("kind", SMALL)
def test_case_is_whole(kind: str, phantoms) -> None:
    channels, low, high = {
        "skin": (3, 0, 255),
        "ultrasound": (1, 0, 255),
        "vessels": (3, 0, 255),
        "layers": (1, 0, 255),
        "nodules": (1, -1024, 3071),
    }[kind]
    for phantom in phantoms[kind]:
        case = phantom.case
        assert case.truth is not None
        assert case.soft is not None
        assert case.image.shape == (channels, *SMALL[kind])
        assert case.image.dtype == np.float32
        assert np.isfinite(case.image).all()
        assert low <= case.image.min() < case.image.max() <= high
        np.testing.assert_array_equal(case.image, np.rint(case.image))
        assert case.truth.any()
        for number, share in enumerate(case.soft, start=1):
            np.testing.assert_array_equal(case.truth == number, share >= 0.5)
        assert 0 <= case.soft.min() < case.soft.max() <= 1
        assert ((case.soft > 0) & (case.soft < 1)).any(), "borders need partial volume"
        assert case.soft.sum() == pytest.approx((case.truth > 0).sum(), rel=0.2)


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind != "layers"])
def test_readers_agree_mostly_and_not_wholly(kind: str, phantoms) -> None:
    scores = [
        dice(phantom.case.truth, mask)
        for phantom in phantoms[kind]
        for mask in phantom.case.readers
        if mask.any()
    ]
    assert 0.6 < np.mean(scores) < 0.97
    assert np.std(scores) > 0.01


@pytest.mark.parametrize("kind", ["skin", "ultrasound"])
def test_areas_cover_two_decades(kind: str) -> None:
    areas = [make_phantom(kind, n, 0, 128).case.truth.sum() for n in range(14)]
    assert 30 < max(areas) / min(areas) < 150
    low, high = np.log10(min(areas)), np.log10(max(areas))
    thirds = np.histogram(np.log10(areas), bins=np.linspace(low, high + 1e-9, 4))[0]
    assert thirds.min() >= 2, "sizes are spread evenly in the logarithm"


def test_recist_end_points_lie_on_the_truth(phantoms) -> None:
    for kind in ("skin", "ultrasound", "nodules"):
        for phantom in phantoms[kind]:
            assert phantom.recist
            for mark in phantom.recist:
                assert 0.5 <= mark.short_diameter <= mark.long_diameter
                truth = phantom.case.truth if mark.slice is None else phantom.case.truth[mark.slice]
                inside, outside = np.argwhere(truth), np.argwhere(truth == 0)
                for x, y in (
                    (mark.long_x1, mark.long_y1),
                    (mark.long_x2, mark.long_y2),
                    (mark.short_x1, mark.short_y1),
                    (mark.short_x2, mark.short_y2),
                ):
                    for pixels in (inside, outside):
                        assert np.linalg.norm(pixels - [y, x], axis=1).min() <= 1.01


def test_lesions_is_ultrasound() -> None:
    one, other = (make_phantom(kind, 0, 0, 64).case for kind in ("lesions", "ultrasound"))
    assert one.name == other.name == "phantom_ultrasound_000"
    np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"kind": "brains", "number": 0}, "brains"),
        ({"kind": "skin", "number": -1}, "-1"),
        ({"kind": "skin", "number": 0, "size": 12}, "12"),
        ({"kind": "nodules", "number": 0, "size": (64, 64)}, "3 numbers"),
    ],
)
def test_impossible_wishes_are_refused(arguments, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        make_phantom(**arguments)


@pytest.mark.parametrize("kind", SMALL)
def test_folder_loads_as_the_same_cases(kind: str, tmp_path: Path, phantoms) -> None:
    out = make_phantoms(tmp_path / "set", kind, cases=2, seed=1, size=SMALL[kind])
    dataset = load_dataset(out)
    assert [entry.name for entry in dataset.entries] == [p.case.name for p in phantoms[kind][:2]]
    assert list(dataset.labels.values()) == ([1, 2, 3] if kind == "layers" else [1])
    for entry, phantom in zip(dataset.entries, phantoms[kind], strict=False):
        case = dataset.read(entry)
        np.testing.assert_array_equal(case.image, phantom.case.image)
        np.testing.assert_array_equal(case.truth, phantom.case.truth)
        np.testing.assert_array_equal(case.readers, phantom.case.readers)
        assert case.geometry.matches(phantom.case.geometry)
    assert "no patient" in (out / "README.txt").read_text()
    assert json.loads((out / "dataset.json").read_text())["seed"] == 1


def test_recist_table_holds_every_mark(tmp_path: Path, phantoms) -> None:
    size = SMALL["nodules"]
    out = make_phantoms(tmp_path / "set", "nodules", cases=2, seed=1, size=size)
    with open(out / "recist.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    marks = [mark for phantom in phantoms["nodules"][:2] for mark in phantom.recist]
    assert [(r["case"], int(r["slice"]), float(r["long_x1"])) for r in rows] == [
        (m.case, m.slice, m.long_x1) for m in marks
    ]


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    out = make_phantoms(tmp_path / "set", "ultrasound", cases=2, size=64)
    before = (out / "images" / "phantom_ultrasound_000.png").read_bytes()
    with pytest.raises(DataError, match="overwrite"):
        make_phantoms(out, "ultrasound", cases=1, seed=5, size=64)
    assert (out / "images" / "phantom_ultrasound_000.png").read_bytes() == before
    make_phantoms(out, "ultrasound", cases=1, seed=5, size=64, overwrite=True)
    assert len(list((out / "images").iterdir())) == 1
    assert (out / "images" / "phantom_ultrasound_000.png").read_bytes() != before


def test_a_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "patients").mkdir()
    (tmp_path / "patients" / "scan.txt").write_text("precious")
    with pytest.raises(DataError, match="no phantoms"):
        make_phantoms(tmp_path / "patients", cases=1, size=64, overwrite=True)
    assert (tmp_path / "patients" / "scan.txt").read_text() == "precious"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("finemask.io.write_labels", fail)
    with pytest.raises(OSError, match="disk full"):
        make_phantoms(tmp_path / "set", cases=1, size=64)
    assert not list(tmp_path.iterdir())
