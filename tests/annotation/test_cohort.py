"""Data sets of Soft Masks, end to end on phantoms: what is written, and what never stops it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from finemask import soften
from finemask.datasets import load_dataset, make_phantoms
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.io import (
    DataWarning,
    read_case,
    read_header,
    read_image,
    read_probs,
    write_image,
    write_labels,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantoms(tmp_path_factory.mktemp("two") / "set", "ultrasound", cases=4, size=48)


@pytest.fixture(scope="module")
def nodules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes, in which there are two nodules on one slice."""
    folder = tmp_path_factory.mktemp("three") / "set"
    return make_phantoms(folder, "nodules", cases=2, seed=1, size=(16, 24, 24))


def copy_of(data: Path, folder: Path) -> Path:
    for path in data.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files(out: Path) -> dict[str, bytes]:
    """Images, masks and soft masks: everything but what tells of times."""
    kinds = ("images", "masks", "soft", "trimaps", "contact_sheet")
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name.split("/")[0] in kinds}


@pytest.mark.parametrize("origin", ["mask", "raters", "recist"])
def test_a_2d_set_of_each_kind_trains_at_once(lesions: Path, tmp_path: Path, origin: str) -> None:
    from finemask.training.loop import train

    made = soften(lesions, tmp_path / "soft", origin, scale=(2,), trimaps=True)
    assert made.outcome.text() == "4 done, 0 failed, 0 skipped of 4"
    data = load_dataset(tmp_path / "soft")
    assert len(data) == 4
    assert dict(data.labels) == {"lesion": 1}
    case = data.read(data.entries[0])
    assert case.image.shape == case.soft.shape == (1, 96, 96)
    assert ((case.soft[0] >= 0.5) == case.truth).all()
    assert ((case.soft > 0) & (case.soft < 1)).any()
    trimap = read_probs(tmp_path / "soft" / "trimaps" / f"{case.name}.png")[0]
    assert set(np.unique(trimap.round(3))) == {0.0, 0.5, 1.0}
    rows = table(tmp_path / "soft" / "quality.csv")
    assert [row["case"] for row in rows] == [entry.name for entry in data.entries]
    assert {row["readers"] for row in rows} == {"4" if origin == "raters" else ""}
    assert all(0.5 < float(row["agreement"]) <= 1 for row in rows)
    assert (tmp_path / "soft" / "contact_sheet_001.png").is_file()
    assert not (tmp_path / "soft" / "failures.csv").exists()
    run = train(
        tmp_path / "soft", tmp_path / "run", scale=(2,),
        settings=["pairs.target=soft", "steps=2", "validate_cases=1", "config.width=4"],
    )  # fmt: skip
    assert run.meta["step"] in (1, 2)


def test_shards_do_every_image_once_and_a_last_call_writes_the_tables(
    lesions: Path, tmp_path: Path
) -> None:
    soften(lesions, tmp_path / "whole", "mask")
    out = tmp_path / "shared"
    parts = [soften(lesions, out, "mask", shard=(i, 3)) for i in (1, 2, 3)]
    assert [p.outcome.done for p in parts] == [2, 1, 1]
    assert not (out / "manifest.csv").exists()
    with pytest.raises(UsageError, match="exists already"):
        soften(lesions, out, "mask", shard=(2, 3))
    made = soften(lesions, out, "mask", resume=True)
    assert (made.outcome.done, made.outcome.skipped) == (0, 4)
    assert files(out) == files(tmp_path / "whole")
    assert (out / "manifest.csv").read_text() == (tmp_path / "whole/manifest.csv").read_text()
    assert {p.name for p in out.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}
    assert soften(lesions, out, "mask", resume=True).outcome.skipped == 4


def test_what_does_not_fit_the_memory_is_refused_from_its_header(
    lesions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finemask.annotation.work.available_bytes", lambda: 24 * 48 * 48 * 4)
    assert soften(lesions, tmp_path / "fits", "mask", scale=(2,)).outcome.done == 4
    monkeypatch.setattr("finemask.annotation.work.available_bytes", lambda: 24 * 48 * 48 * 4 - 1)
    monkeypatch.setattr("finemask.annotation.products.read_case", None)
    made = soften(lesions, tmp_path / "none", "mask", scale=(2,))
    assert made.outcome.exit_code == 3
    assert all("GiB of memory" in str(error) for error in made.outcome.failures)


def test_an_image_that_does_not_change_is_the_same_in_a_file_of_its_own(
    lesions: Path, tmp_path: Path
) -> None:
    soften(lesions, tmp_path / "soft", "mask")
    for image in (tmp_path / "soft" / "images").iterdir():
        source = lesions / "images" / image.name
        assert (read_image(image)[0] == read_image(source)[0]).all()
        assert read_header(image).dtype == read_header(source).dtype
        assert image.stat().st_nlink == 1
        assert read_header(tmp_path / "soft" / "soft" / image.name).dtype == np.uint16


def test_3d_readers_keep_their_geometry(nodules: Path, tmp_path: Path) -> None:
    soften(nodules, tmp_path / "soft", "raters", scale=(1, 2, 2))
    data = load_dataset(tmp_path / "soft")
    case, entry = data.read(data.entries[0]), data.entries[0]
    source = read_case(nodules / "images" / f"{entry.name}.nii.gz")
    assert case.geometry.matches(source.geometry.refined((1, 2, 2)))
    assert read_header(entry.soft).dtype == np.float32
    assert case.soft.shape == (1, 16, 48, 48)
    assert dict(data.labels) == {"nodule": 1}
    (row,) = [r for r in table(tmp_path / "soft" / "quality.csv") if r["case"] == entry.name]
    assert row["unit"] == "mm"
    assert 0 < float(row["band_mm"]) < 3
    assert json.loads((tmp_path / "soft" / "dataset.json").read_text())["readers"] == [4]


@pytest.mark.fault("F91")
def test_marks_on_a_volume_become_slices_in_millimetres(nodules: Path, tmp_path: Path) -> None:
    marks = table(nodules / "recist.csv")
    made = soften(nodules, tmp_path / "soft", "recist", window=(-1000, 400))
    assert made.outcome.done == len(marks)
    slices = {(mark["case"], int(mark["slice"])) for mark in marks}
    data = load_dataset(tmp_path / "soft")
    assert [e.name for e in data.entries] == sorted(f"{c}_s{k:03d}" for c, k in slices)
    assert {entry.group for entry in data.entries} == {case for case, _ in slices}
    for row, entry in zip(table(tmp_path / "soft" / "quality.csv"), data.entries, strict=True):
        case = data.read(entry)
        assert case.geometry.spacing == pytest.approx((0.7, 0.7))
        source = read_image(nodules / "images" / f"{row['image_case']}.nii.gz")[0]
        assert (case.image[0] == source[0, int(row["slice"])]).all()
        assert float(row["long_axis"]) == pytest.approx(
            max(float(m["long_diameter"]) for m in marks
                if (m["case"], m["slice"]) == (row["image_case"], row["slice"])), rel=1e-3
        )  # fmt: skip


def test_a_crop_round_each_mark(nodules: Path, tmp_path: Path) -> None:
    soften(nodules, tmp_path / "soft", "recist", crop=16, scale=(2,))
    data = load_dataset(tmp_path / "soft")
    assert len(data) == len(table(nodules / "recist.csv"))
    for entry in data.entries:
        case = data.read(entry)
        assert case.image.shape[1] >= 32
        assert case.geometry.spacing == pytest.approx((0.35, 0.35))
        middle = [n // 2 for n in case.geometry.shape]
        near = tuple(slice(n - 8, n + 8) for n in middle)
        assert case.truth[near].any() or 0 in middle


def test_a_crop_has_its_mark_in_the_middle_and_ends_with_the_image(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1, 100, 120)).astype(np.uint8)
    write_image(tmp_path / "set" / "images" / "a.png", picture, Geometry.regular((100, 120)))
    rows = [
        "a,62,50,72,50,67,47,67,54",  # rows 47 to 54, columns 62 to 72
        "a,1,95,11,95,6,92,6,98",  # at a corner
        "a,30,40,90,40,60,20,60,60",  # longer than the crop
    ]
    ends = "long_x1,long_y1,long_x2,long_y2,short_x1,short_y1,short_x2,short_y2"
    (tmp_path / "set" / "recist.csv").write_text("\n".join([f"case,{ends}", *rows]) + "\n")
    soften(tmp_path / "set", tmp_path / "soft", "recist", crop=32)
    first, second, third = (
        read_image(tmp_path / "soft" / "images" / f"a_l{k}.png")[0] for k in (1, 2, 3)
    )
    assert (first == picture[:, 35:67, 52:84]).all() or (first == picture[:, 35:67, 51:83]).all()
    assert (second == picture[:, 68:, :32]).all()
    assert third.shape == (1, 90, 90)


def write_deeplesion(nodules: Path, root: Path) -> int:
    """The official layout, made of phantoms: 16-bit PNG, HU + 32768, a folder a series."""
    columns = "File_name,Patient_index,Key_slice_index,Measurement_coordinates,Spacing_mm_px_,"
    lines = [columns + "DICOM_windows,Possibly_noisy,Train_Val_Test"]
    for number, mark in enumerate(table(nodules / "recist.csv")):
        patient = 1 + number % 2
        series = f"{patient:06d}_01_{number:02d}"
        hu, _ = read_image(nodules / "images" / f"{mark['case']}.nii.gz")
        stored = (hu[0, int(mark["slice"])] + 32768).astype(np.uint16)
        path = root / "Images_png" / series / f"{int(mark['slice']):03d}.png"
        write_image(path, stored[None], Geometry.regular(stored.shape))
        axes = [mark[f"{a}_{xy}{e}"] for a in ("long", "short") for e in (1, 2) for xy in "xy"]
        lines.append(
            f'{series}_{int(mark["slice"]):03d}.png,{patient},{mark["slice"]},"{", ".join(axes)}",'
            f'"0.7, 0.7, 1.25","-1000, 400",{int(number == 0)},{1 + number % 3}'
        )
    (root / "DL_info.csv").write_text("\n".join(lines) + "\n")
    return len(lines) - 1


def test_deeplesion_in_its_official_layout(nodules: Path, tmp_path: Path) -> None:
    count = write_deeplesion(nodules, tmp_path / "deep")
    made = soften(tmp_path / "deep", tmp_path / "soft", "recist")
    assert made.outcome.done == count
    data = load_dataset(tmp_path / "soft")
    assert {entry.split for entry in data.entries} <= {"train", "val", "test"}
    assert {entry.group for entry in data.entries} == {"1", "2"}
    case = data.read(data.entries[0])
    assert case.image.min() < -500  # Hounsfield units again
    assert case.geometry.spacing == (0.7, 0.7)
    rows = table(tmp_path / "soft" / "quality.csv")
    assert sum("possibly_noisy" in row["flags"] for row in rows) == 1
    # The folder of the images may be named instead of the one above it.
    again = soften(tmp_path / "deep" / "Images_png", tmp_path / "again", "recist", jobs=1)
    assert again.outcome.done == count
    assert files(tmp_path / "again") == files(tmp_path / "soft")


def test_parallel_equals_serial(lesions: Path, tmp_path: Path) -> None:
    serial = soften(lesions, tmp_path / "one", "recist", trimaps=True)
    parallel = soften(lesions, tmp_path / "two", "recist", trimaps=True, jobs=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert (tmp_path / "one" / "manifest.csv").read_text() == (
        tmp_path / "two" / "manifest.csv"
    ).read_text()
    assert [row.case for row in serial.rows] == [row.case for row in parallel.rows]
    sheets = [(tmp_path / n / "contact_sheet_001.png").read_bytes() for n in ("one", "two")]
    assert sheets[0] == sheets[1]


@pytest.mark.fault("F70")
def test_a_killed_call_is_taken_up_again(lesions: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    soften(lesions, whole, "raters")
    code = "import sys, finemask; finemask.soften(sys.argv[1], sys.argv[2], 'raters')"
    out = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", code, str(lesions), str(out)]) as process:
        journal, start = out / "soften.jsonl", time.monotonic()
        while time.monotonic() - start < 120 and process.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= 2:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    with open(journal, "ab") as file:
        file.write(b'{"case": "phantom_ultra')
    made = soften(lesions, out, "raters", resume=True)
    assert made.outcome.skipped >= 1
    assert made.outcome.done + made.outcome.skipped == 4
    assert files(out) == files(whole)
    assert len(made.rows) == 4


def test_resuming_trusts_checksums_and_settings_only(lesions: Path, tmp_path: Path) -> None:
    data, out = copy_of(lesions, tmp_path / "data"), tmp_path / "soft"
    soften(data, out, "mask")
    names = [entry.name for entry in load_dataset(out).entries]
    (out / "soft" / f"{names[0]}.png").write_bytes(b"half")
    (out / "masks" / f"{names[1]}.png").unlink()
    write_labels(
        data / "masks" / f"{names[2]}.png",
        read_case(data / "images" / f"{names[2]}.png").image[0] < 90,
        Geometry.regular((48, 48)), overwrite=True,
    )  # fmt: skip
    assert soften(data, out, "mask", resume=True).outcome.text().startswith("3 done, 0 failed, 1")
    assert soften(data, out, "mask", resume=True).outcome.skipped == 4
    assert soften(data, out, "mask", resume=True, radius=3).outcome.done == 4
    # What is not made any more goes.
    soften(data, out, "recist", overwrite=True, crop=32)
    assert len(list((out / "masks").iterdir())) == len(table(data / "recist.csv"))
    assert all("_l" in path.name for path in (out / "soft").iterdir())


def break_marks(data: Path, **cells: str) -> None:
    """Change some cells of the first mark."""
    rows = table(data / "recist.csv")
    write_marks(data, [rows[0] | cells, *rows[1:]])


def write_marks(data: Path, rows: list[dict[str, str]]) -> None:
    with open(data / "recist.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


BAD_MARKS = {
    "has long_x1 'nan', needs a number": {"long_x1": "nan"},
    "has a long axis from": {"long_y2": "900"},
    "has a short axis of 0.2 px": {
        "short_x1": "1", "short_y1": "1", "short_x2": "1.2", "short_y2": "1",
    },
    "has a short axis that misses the long axis": {
        "short_x1": "1", "short_y1": "1", "short_x2": "1", "short_y2": "9",
    },
    "is on the image nobody, which": {"case": "nobody"},
    "is no safe case name": {"case": "../images/x"},
    "lacks long_x1": {"slice": "3", "long_x1": ""},
}  # fmt: skip


def test_a_bad_mark_costs_only_itself(lesions: Path, tmp_path: Path) -> None:
    data, out = copy_of(lesions, tmp_path / "data"), tmp_path / "soft"
    rows = [row | {"long_diameter": "", "short_diameter": ""} for row in table(data / "recist.csv")]
    bad = [rows[0] | cells | {"lesion": str(k)} for k, cells in enumerate(BAD_MARKS.values(), 10)]
    write_marks(data, [*rows, *bad])
    made = soften(data, out, "recist")
    assert made.outcome.text() == "4 done, 7 failed, 0 skipped of 11"
    assert made.outcome.exit_code == 1
    told = {row["error"] for row in table(out / "failures.csv")}
    for number, said in enumerate(BAD_MARKS, start=6):
        (line,) = [line for line in told if said in line]
        assert line.startswith(f"recist.csv row {number}")
    assert str(tmp_path) not in (out / "failures.csv").read_text()
    assert len(load_dataset(out)) == 4
    # And again, from the journal.
    again = soften(data, out, "recist", resume=True)
    assert again.outcome.text() == "0 done, 7 failed, 4 skipped of 11"


def test_exchanged_axes_are_softened_with_a_warning(lesions: Path, tmp_path: Path) -> None:
    data = copy_of(lesions, tmp_path / "data")
    first = table(data / "recist.csv")[0]
    turn = {"long": "short", "short": "long"}
    swapped = {
        f"{axis}_{end}": first[f"{turn[axis]}_{end}"]
        for axis in turn
        for end in ("x1", "y1", "x2", "y2", "diameter")
    }
    break_marks(data, **swapped)
    with pytest.warns(DataWarning, match="they were exchanged"):
        made = soften(data, tmp_path / "soft", "recist")
    assert made.outcome.failed == 0
    soften(lesions, tmp_path / "straight", "recist")
    assert files(tmp_path / "soft") == files(tmp_path / "straight")


def test_one_bad_mark_of_a_slice_is_missed_there(nodules: Path, tmp_path: Path) -> None:
    data = copy_of(nodules, tmp_path / "data")
    rows = table(data / "recist.csv")
    break_marks(data, slice=rows[1]["slice"], case=rows[1]["case"], long_x1="500", lesion="9",
                long_diameter="", short_diameter="")  # fmt: skip
    made = soften(data, tmp_path / "soft", "recist")
    assert made.outcome.failed == 1
    assert made.outcome.done == len(rows) - 1
    assert [row.flags for row in made.rows if "marks_missing" in row.flags]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"slice": ""}, "is on a volume and names no slice"),
        ({"slice": "16"}, "is on slice 16 of a volume of 16"),
        ({"spacing_x": "0.9"}, "has pixels of 0.7 x 0.9 mm, its image 0.7 x 0.7"),
    ],
)
def test_bad_marks_on_volumes(
    nodules: Path, tmp_path: Path, cells: dict[str, str], said: str
) -> None:
    data = copy_of(nodules, tmp_path / "data")
    break_marks(data, **cells, long_diameter="", short_diameter="")
    made = soften(data, tmp_path / "soft", "recist")
    assert made.outcome.failed == 1
    assert said in str(made.outcome.failures[0])


@pytest.mark.fault("F87")
def test_a_damaged_image_and_a_foreign_grid_cost_only_themselves(
    lesions: Path, tmp_path: Path
) -> None:
    data = copy_of(lesions, tmp_path / "data")
    names = sorted(p.name for p in (data / "images").iterdir())
    image = data / "images" / names[0]
    image.write_bytes(image.read_bytes()[:300])
    small = np.zeros((32, 32), np.uint8)
    write_labels(
        data / "masks_reader2" / names[1], small, Geometry.regular((32, 32)), overwrite=True
    )
    made = soften(data, tmp_path / "soft", "raters")
    assert made.outcome.text() == "2 done, 2 failed, 0 skipped of 4"
    said = [str(error) for error in made.outcome.failures]
    assert names[0] in said[0]
    assert "does not lie on the grid of" in said[1]
    assert soften(data, tmp_path / "masks", "mask").outcome.failed == 1


def test_readers_on_turned_grids_are_turned_back(nodules: Path, tmp_path: Path) -> None:
    data = copy_of(nodules, tmp_path / "data")
    path = sorted((data / "masks_reader1").iterdir())[0]
    case = read_case(data / "images" / path.name, truth=path).turned((1, 0, 2), (2,))
    write_labels(path, case.truth, case.geometry, overwrite=True)
    soften(data, tmp_path / "turned", "raters", method="mean")
    soften(nodules, tmp_path / "straight", "raters", method="mean")
    assert files(tmp_path / "turned") == files(tmp_path / "straight")


def test_a_soft_mask_among_hard_ones_is_refused(lesions: Path, tmp_path: Path) -> None:
    data = copy_of(lesions, tmp_path / "data")
    path = sorted((data / "masks_reader1").iterdir())[0]
    ramp = np.tile(np.arange(48, dtype=np.uint8) * 4, (48, 1))
    write_image(path, ramp[None], Geometry.regular((48, 48)), overwrite=True)
    made = soften(data, tmp_path / "soft", "raters")
    (error,) = made.outcome.failures
    assert "has 48 values from 0 to 188, as a soft mask" in str(error)


def test_copied_readers_are_warned_of(lesions: Path, tmp_path: Path) -> None:
    data = copy_of(lesions, tmp_path / "data")
    path = sorted((data / "masks_reader1").iterdir())[0]
    (data / "masks_reader2" / path.name).write_bytes(path.read_bytes())
    with pytest.warns(DataWarning, match="two of its readers drew exactly the same"):
        made = soften(data, tmp_path / "soft", "raters")
    assert "identical_readers" in made.rows[0].flags


def test_groups_and_spacing_of_a_manifest_are_kept(lesions: Path, tmp_path: Path) -> None:
    data = copy_of(lesions, tmp_path / "data")
    (data / "dataset.json").unlink()
    lines = ["case,image,mask,group,split,spacing_mm"]
    for number, path in enumerate(sorted((data / "images").iterdir())):
        part = ("train", "train", "val", "test")[number]
        name = f"c{number}"
        lines.append(f"{name},images/{path.name},masks/{path.name},p{number // 2},{part},0.5x0.25")
    (data / "manifest.csv").write_text("\n".join(lines) + "\n")
    soften(data, tmp_path / "soft", "mask", scale=(2,))
    entries = load_dataset(tmp_path / "soft").entries
    assert [e.group for e in entries] == ["p0", "p0", "p1", "p1"]
    assert [e.split for e in entries] == ["train", "train", "val", "test"]
    assert {e.spacing_mm for e in entries} == {(0.25, 0.125)}
    assert all(e.diameter_mm for e in entries)


@pytest.mark.parametrize(
    ("method", "origin"),
    [("dilation", "mask"), ("resampling", "raters"), ("mean", "raters"), ("dilation", "recist")],
)
def test_the_baselines(lesions: Path, tmp_path: Path, method: str, origin: str) -> None:
    made = soften(lesions, tmp_path / "soft", origin, method=method, trimaps=True)
    assert made.outcome.done == 4
    assert {row.method for row in made.rows} == {method}
    assert not (tmp_path / "soft" / "trimaps").exists()
    data = load_dataset(tmp_path / "soft")
    case = data.read(data.entries[0])
    if method == "dilation":
        assert {float(v) for v in np.unique(case.soft.round(3))} == {0.0, 0.5, 1.0}
    if method == "dilation" and origin == "mask":
        assert made.rows[0].agreement == 1


def test_a_class_is_chosen_by_name(lesions: Path, tmp_path: Path) -> None:
    data = copy_of(lesions, tmp_path / "data")
    (data / "dataset.json").write_text('{"labels": {"background": 0, "core": 1, "rim": 2}}')
    for path in (data / "masks").iterdir():
        mask = read_case(data / "images" / path.name, truth=path).truth
        mask[24:][mask[24:] > 0] = 2
        write_labels(
            path, mask, Geometry.regular((48, 48)), labels={"core": 1, "rim": 2}, overwrite=True
        )
    with pytest.raises(UsageError, match=r"has 2 classes \(core, rim\).*--label"):
        soften(data, tmp_path / "soft", "mask")
    with pytest.raises(UsageError, match="--label: is 'edge'"):
        soften(data, tmp_path / "soft", "mask", label="edge")
    soften(data, tmp_path / "soft", "mask", label="rim")
    made = load_dataset(tmp_path / "soft")
    assert dict(made.labels) == {"rim": 1}
    assert not made.read(made.entries[0]).truth[:20].any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"origin": "reader"}, "--from: is 'reader'"),
        ({"method": "blur"}, "--method: is 'blur'"),
        ({"method": "mean"}, "--method: is mean, of several readers"),
        ({"radius": 0}, "--radius: is 0"),
        ({"epsilon": -1.0}, "--epsilon: is -1"),
        ({"window": (400, -1000)}, "--window: is"),
        ({"scale": (0,)}, "--scale: is"),
        ({"scale": (1, 2, 2)}, "--scale: is 1x2x2; give one number, or one for each of 2 axes"),
        ({"origin": "recist", "scale": (1, 2)}, "one number for both axes of a slice"),
        ({"crop": 64}, "--crop: is for --from recist"),
        ({"origin": "recist", "crop": -1}, "--crop: is -1"),
        ({"jobs": 0}, "--jobs: is 0"),
        ({"marks": "recist.csv"}, "--marks: is for --from recist"),
    ],
)
def test_options_are_checked_before_anything_is_read(
    lesions: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        soften(lesions, tmp_path / "soft", **({"origin": "mask"} | changes))
    assert not (tmp_path / "soft").exists()


def test_nothing_is_written_over_that_soften_did_not_write(lesions: Path, tmp_path: Path) -> None:
    data = copy_of(lesions, tmp_path / "data")
    for out in (data, data / "soft", tmp_path):
        with pytest.raises(UsageError, match="choose another folder"):
            soften(data, out, "mask", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="exists already"):
        soften(data, tmp_path / "mine", "mask")
    with pytest.raises(UsageError, match="is no folder that finemask soften wrote"):
        soften(data, tmp_path / "mine", "mask", overwrite=True)
    (tmp_path / "mine" / "soften.jsonl").write_text('{"case": "a"}\n')
    with pytest.raises(UsageError, match="is no journal of finemask soften"):
        soften(data, tmp_path / "mine", "mask", overwrite=True)


def test_what_is_missing_is_told_with_what_there_is(lesions: Path, tmp_path: Path) -> None:
    data = copy_of(lesions, tmp_path / "data")
    for path in list((data / "masks").iterdir()):
        path.unlink()
    (data / "masks").rmdir()
    with pytest.raises(UsageError, match="has no masks/.*take --from raters or --from recist"):
        soften(data, tmp_path / "soft", "mask")
    with pytest.raises(UsageError, match="has no table of marks"):
        soften(data / "images", tmp_path / "soft", "recist")
    with pytest.raises(DataError, match="does not exist"):
        soften(tmp_path / "nowhere", tmp_path / "soft", "recist")
    (data / "recist.csv").write_text((data / "recist.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="has no rows"):
        soften(data, tmp_path / "soft", "recist")


def test_when_nothing_can_be_done_the_code_is_3(lesions: Path, tmp_path: Path) -> None:
    data = copy_of(lesions, tmp_path / "data")
    for path in (data / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    made = soften(data, tmp_path / "soft", "recist")
    assert made.outcome.exit_code == 3
    assert not (tmp_path / "soft" / "manifest.csv").exists()
    assert len(table(tmp_path / "soft" / "failures.csv")) == 4


def test_real_readers(tmp_path: Path) -> None:
    source = SHARED / "LIDC_IDRI_multirater"
    if not source.is_dir():
        pytest.skip("the real data LIDC_IDRI_multirater are not beside the repository")
    few = table(source / "manifest.csv")[:4]
    lines = ["case,image,group,rater_1,rater_2,rater_3,rater_4"]
    for row in few:
        paths = [row["image"], *(row[f"mask_rater{r}"] for r in range(4))]
        for path in paths:
            target = tmp_path / "lidc" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((source / path).read_bytes())
        lines.append(",".join([row["case_id"], paths[0], row["patient"], *paths[1:]]))
    (tmp_path / "lidc" / "manifest.csv").write_text("\n".join(lines) + "\n")
    made = soften(tmp_path / "lidc", tmp_path / "soft", "raters", scale=(4,))
    assert made.outcome.done == 4
    assert {row.readers for row in made.rows} == {4}
    drawn = [row.agreement for row in made.rows if "no_consensus" not in row.flags]
    assert min(drawn) > 0.7


def test_real_key_slices(tmp_path: Path) -> None:
    source = SHARED / "DeepLesion"
    if not source.is_dir():
        pytest.skip("the real data DeepLesion are not beside the repository (../shared/data)")
    marks = [m for m in table(source / "key_slices_overlay_recist.csv")
             if m["case_id"] == "000001_03_01_088"]  # fmt: skip
    (tmp_path / "images").mkdir()
    image = source / "key_slices_jpg" / "000001_03_01_088.jpg"
    (tmp_path / "images" / image.name).write_bytes(image.read_bytes())
    ends = [f"{a}_{xy}{e}" for a in ("long", "short") for e in (1, 2) for xy in "xy"]
    rows = [",".join([m["case_id"], *(m[e] for e in ends)]) for m in marks]
    (tmp_path / "recist.csv").write_text("\n".join(["case," + ",".join(ends), *rows]) + "\n")
    made = soften(tmp_path, tmp_path.parent / f"{tmp_path.name}-soft", "recist", crop=64)
    assert made.outcome.done == 1
    assert made.rows[0].agreement > 0.7
    assert os.listdir(made.out / "masks") == ["000001_03_01_088_l1.png"]
