"""Outlines of LIDC-IDRI as voxels, readings as nodules, and the forms that the papers use."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from public_trees import (
    PIXEL_MM,
    SCAN,
    box_ring,
    diamond,
    diamond_ring,
    hounsfield,
    lidc_idri,
    lidc_xml,
)

from finemask.datasets import find_split, load_dataset
from finemask.datasets.public import prepare_dataset
from finemask.datasets.public.lidc_xml import (
    Region,
    clustered,
    enclosed,
    read_readings,
    region_of,
)
from finemask.errors import DataError
from finemask.geometry import Geometry

GRID = Geometry.regular((9, 40, 48), (2.0, 0.7, 0.7))


def region(reader: int, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Region:
    return Region(reader, start, np.ones(shape, bool))


def names(clusters: list[list[Region]]) -> list[list[int]]:
    return [[r.reader for r in cluster] for cluster in clusters]


@pytest.mark.fault("F92")
def test_an_outline_lies_outside_the_nodule_even_where_it_steps_diagonally() -> None:
    np.testing.assert_array_equal(enclosed(np.array(diamond_ring(15, 20, 4)), SCAN[1:]),
                                  diamond(15, 20, 4).astype(bool))  # fmt: skip
    inside = enclosed(np.array(box_ring(5, 7, 9, 8)), SCAN[1:])
    assert inside.sum() == 5 * 2
    assert inside[5:10, 7:9].all()


def test_an_outline_with_gaps_is_closed_by_lines() -> None:
    corners = [(10, 10), (10, 16), (14, 16), (14, 10)]
    assert enclosed(np.array(corners), SCAN[1:]).sum() == 3 * 5


def test_an_outline_round_nothing_encloses_nothing() -> None:
    assert not enclosed(np.array([(5, 5), (5, 6), (6, 6), (6, 5)]), SCAN[1:]).any()


def test_a_hole_is_cut_out_whatever_comes_first(tmp_path: Path) -> None:
    hole = (-96.0, "b", False, box_ring(15, 20, 15, 21))
    whole = (-96.0, "b", True, diamond_ring(15, 20, 4))
    masks = []
    for outlines in ([hole, whole], [whole, hole]):
        (tmp_path / "a.xml").write_text(lidc_xml("1.2", [[outlines]]))
        found = read_readings(tmp_path / "a.xml")
        assert found is not None
        made = region_of(found.nodules[0], GRID, {"b": 2})
        assert made is not None
        assert made.start == (2, 11, 16)
        masks.append(made.mask)
    np.testing.assert_array_equal(*masks)
    assert masks[0].sum() == diamond(15, 20, 4).sum() - 2
    assert not masks[0][0, 4, 4:6].any()


def test_points_and_lesions_that_are_no_nodules_are_no_readings(tmp_path: Path) -> None:
    point = (-96.0, "b", True, [(20, 5)])
    (tmp_path / "a.xml").write_text(lidc_xml("1.2", [[[point]], []]))
    found = read_readings(tmp_path / "a.xml")
    assert found is not None
    assert (found.readers, found.nodules) == (2, ())


def test_a_slice_is_found_by_its_height_where_its_number_is_unknown(tmp_path: Path) -> None:
    outline = (6.0, "unknown", True, diamond_ring(15, 20, 4))
    (tmp_path / "a.xml").write_text(lidc_xml("1.2", [[[outline]]]))
    found = read_readings(tmp_path / "a.xml")
    assert found is not None
    upright = Geometry.from_affine(
        GRID.shape,
        np.array([[0, 0, 0.7, 0], [0, 0.7, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]),
    )
    made = region_of(found.nodules[0], upright, {})
    assert made is not None
    assert made.start[0] == 3
    far = (600.0, "unknown", True, diamond_ring(15, 20, 4))
    (tmp_path / "a.xml").write_text(lidc_xml("1.2", [[[far]]]))
    found = read_readings(tmp_path / "a.xml")
    assert found is not None
    with pytest.raises(DataError, match="on no slice of its scan"):
        region_of(found.nodules[0], upright, {})


def test_readings_that_touch_or_nearly_touch_are_one_nodule() -> None:
    near = [region(0, (2, 5, 5), (1, 4, 4)), region(1, (3, 6, 6), (2, 4, 4))]
    far = region(2, (7, 30, 30), (1, 3, 3))
    assert names(clustered([*near, far], GRID.spacing)) == [[0, 1], [2]]


def test_two_nodules_of_one_reader_stay_two_though_another_lies_between() -> None:
    left, right = region(0, (2, 5, 5), (1, 4, 4)), region(0, (2, 5, 12), (1, 4, 4))
    between = region(1, (2, 5, 7), (1, 4, 4))  # overlaps the left one, 1.4 mm from the right
    assert names(clustered([left, right, between], GRID.spacing)) == [[0, 1], [0]]


def test_the_distance_is_reduced_step_by_step_not_to_nothing_at_once() -> None:
    left, right = region(0, (2, 5, 5), (1, 4, 4)), region(0, (2, 5, 12), (1, 4, 4))
    between = region(1, (2, 5, 7), (1, 4, 4))  # overlaps the left one, 1.4 mm from the right
    beside = region(2, (2, 9, 12), (1, 3, 4))  # 0.7 mm from the right one
    found = names(clustered([left, right, between, beside], GRID.spacing))
    assert found == [[0, 1], [0, 2]]


def test_what_one_reader_drew_in_two_parts_of_one_nodule_is_put_together() -> None:
    parts = [region(0, (2, 5, 5), (1, 4, 2)), region(0, (2, 5, 9), (1, 4, 2))]
    whole = region(1, (2, 5, 5), (1, 4, 6))
    clusters = clustered([*parts, whole], GRID.spacing)
    assert names(clusters) == [[0, 1]]
    assert clusters[0][0].mask[0, 0].tolist() == [True, True, False, False, True, True]


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<LidcReadMessage>")
    with pytest.raises(DataError, match="is no sound XML"):
        read_readings(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text("<plist/>")
    with pytest.raises(DataError, match="of the kind plist, needs LidcReadMessage"):
        read_readings(tmp_path / "a.xml")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    lidc_idri(root)
    return root


def test_whole_scans_have_a_mask_of_each_of_four_readers(raw: Path, tmp_path: Path) -> None:
    prepare_dataset("lidc_idri", raw, tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    case = dataset.read(dataset.entry("LIDC-IDRI-0002"))
    np.testing.assert_array_equal(case.image[0], hounsfield("LIDC-IDRI-0002"))
    assert case.readers is not None
    first, second, third, fourth = case.readers
    assert first[6, 30:34, 30:37].all()
    assert not first[6, 34].any()
    assert third[6, 31:34, 30:37].all()
    assert not third[6, 30].any()
    assert second[7, 5:9, 40:44].all()
    assert not fourth[7].any()
    for mask, radius in zip(case.readers, (4, 4, 5, 6), strict=True):
        np.testing.assert_array_equal(mask[2], diamond(15, 20, radius))
        assert not mask[3, 15, 20:22].any()


def test_dsnets_pictures_are_slices_of_what_four_readers_saw(raw: Path, tmp_path: Path) -> None:
    prepare_dataset("lidc_idri", raw, tmp_path / "out", variant="dsnet")
    dataset = load_dataset(tmp_path / "out")
    assert [entry.name for entry in dataset.entries if entry.group == "LIDC-IDRI-0001"] == [
        f"LIDC-IDRI-0001_n01_s{k:02d}" for k in (0, 1, 2)
    ]
    case = dataset.read(dataset.entry("LIDC-IDRI-0003_n01_s00"))
    assert case.geometry.shape == (64, 64)
    assert case.geometry.spacing == (PIXEL_MM, PIXEL_MM)
    assert case.truth is not None
    assert case.readers is not None
    rows, columns = np.nonzero(case.truth)
    assert (rows.mean(), columns.mean()) == (32, 32)  # the middle of the nodule
    inner = np.s_[32 - 6 : 32 + 7]
    np.testing.assert_array_equal(case.truth[inner, inner], diamond(15, 20, 5)[9:22, 14:27])
    assert [int(mask.sum()) for mask in case.readers] == [
        int(diamond(15, 20, radius).sum()) for radius in (4, 4, 5, 6)
    ]
    scan = hounsfield("LIDC-IDRI-0003")
    np.testing.assert_array_equal(case.image[0, inner, inner], scan[2, 9:22, 14:27])
    assert case.image[0, 0, 0] == -1024  # beyond the scan
    with pytest.warns(UserWarning, match="the split leaks"):
        assert find_split(dataset, "dsnet").train
    assert not find_split(dataset, "patients").leak


def test_sasrnets_volumes_are_of_1_mm_round_every_nodule(raw: Path, tmp_path: Path) -> None:
    alone = tmp_path / "raw" / "LIDC-IDRI-0001"
    shutil.copytree(raw / "LIDC-IDRI" / "LIDC-IDRI-0001", alone)
    prepare_dataset("lidc_idri", alone.parent, tmp_path / "out", variant="sasrnet")
    dataset = load_dataset(tmp_path / "out")
    assert len(dataset) == 3
    entry = dataset.entry("LIDC-IDRI-0001_n01")
    case = dataset.read(entry)
    assert case.geometry.shape == (96, 96, 96)
    assert case.geometry.spacing == (1.0, 1.0, 1.0)
    # The middle of the nodule, slice 3, row 15, column 20, is the middle of the cube.
    places = [
        np.rint(middle + (np.arange(96) - 47.5) / step).astype(int)
        for middle, step in zip((3, 15, 20), (2.0, PIXEL_MM, PIXEL_MM), strict=True)
    ]
    within = [(p >= 0) & (p < n) for p, n in zip(places, SCAN, strict=True)]
    drawn = np.zeros(SCAN, np.uint8)
    drawn[2:5] = diamond(15, 20, 5)
    drawn[3, 15, 20:22] = 0
    expected = np.zeros((96, 96, 96), np.uint8)
    expected[np.ix_(*within)] = drawn[np.ix_(*(p[w] for p, w in zip(places, within, strict=True)))]
    np.testing.assert_array_equal(case.truth, expected)
    assert case.image[0, 0, 0, 0] == -1024
    volume = drawn.sum() * 2.0 * PIXEL_MM**2
    assert entry.diameter_mm == pytest.approx((6 / np.pi * volume) ** (1 / 3), rel=1e-3)
    lone = dataset.read(dataset.entry("LIDC-IDRI-0001_n03"))
    assert lone.truth is not None
    assert lone.readers is not None
    np.testing.assert_array_equal(lone.truth, lone.readers[1])  # the one who saw it
    assert not lone.readers[[0, 2, 3]].any()


def test_readings_of_other_scans_are_told(raw: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(raw / "LIDC-IDRI" / "LIDC-IDRI-0001", tmp_path / "raw/LIDC-IDRI-0001")
    xml = next(alone.rglob("*.xml"))
    xml.write_text(xml.read_text().replace("14519.1<", "14519.77<"))
    with pytest.raises(DataError, match="1 series and 1 readings, of which none belong together"):
        prepare_dataset("lidc_idri", tmp_path / "raw", tmp_path / "out")
    xml.unlink()
    with pytest.raises(DataError, match=r"lacks any readings \(.xml\), which LIDC-IDRI has"):
        prepare_dataset("lidc_idri", tmp_path / "raw", tmp_path / "out")
