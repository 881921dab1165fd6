"""Faulty images beside sound ones, through the whole of ``predict``.

Each fault costs its own case and nothing else: one line that names the file,
no output, no draft left behind, the sound cases as if it had not been there.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from builders.command import finemask
from builders.dicom import EVEN, VALUES, enhanced, save, series, slice_tags, upright
from builders.runs import untrained
from PIL import Image, PngImagePlugin
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless, RLELossless

from finemask.cli import MOST_LINES
from finemask.geometry import Geometry
from finemask.io import read_image, read_labels, write_image

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 900, (6, 8, 10)).astype(np.int16)
GRID = Geometry.regular(VOLUME.shape, (2.0, 0.6, 0.5))
PICTURE = RNG.integers(0, 256, (16, 20)).astype(np.uint8)

FIELDS = {"dim": 40, "pixdim": 76, "scl_slope": 112, "scl_inter": 116, "sform": 252, "srow": 280}
"""Offsets in a NIfTI header."""


def nifti(path: Path, field: str = "", kind: str = "", *values: float) -> Path:
    """A sound file, or one with numbers written over a field of its header."""
    plain = path.with_name("plain.nii")
    write_image(plain, VOLUME, GRID, overwrite=True)
    data = bytearray(plain.read_bytes())
    if field:
        struct.pack_into(f"<{len(values)}{kind}", data, FIELDS[field], *values)
    plain.unlink()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def cut(path: Path, keep: int) -> Path:
    path.write_bytes(path.read_bytes()[:keep])
    return path


def flipped(path: Path, at: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return path


def metaimage(path: Path, old: str = "", new: str = "", compressed: bool = False) -> Path:
    image = sitk.GetImageFromArray(VOLUME)
    sitk.WriteImage(image, str(path), compressed)
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))
    return path


def outside(path: Path) -> Path:
    (path.parent.parent / "secret.raw").write_bytes(VOLUME.tobytes())
    metaimage(path, f"= {path.stem}.raw", "= ../secret.raw")
    path.with_suffix(".raw").unlink()
    return path


def nrrd_outside(path: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path))
    text = path.read_text().replace(f"data file: {path.stem}.raw", "data file: ../secret.raw")
    path.write_text(text)
    path.with_suffix(".raw").unlink()
    return path


def with_localiser(folder: Path) -> Path:
    series(folder, EVEN)
    save(folder / "odd.dcm", slice_tags(VALUES[0, :, :7], InstanceNumber=9))
    return folder


def two_series(folder: Path) -> Path:
    series(folder, EVEN)
    for index, place in enumerate(EVEN[:2]):
        other = slice_tags(VALUES[index], SeriesInstanceUID="9.8", ImagePositionPatient=[*place])
        save(folder / f"other{index}.dcm", other)
    return folder


def compressed_by_the_unknown(folder: Path) -> Path:
    for path in series(folder, EVEN).iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        save(path, dataset)
    return folder


def cut_slice(folder: Path) -> Path:
    series(folder, EVEN)
    return cut(folder / "IM003.dcm", -60).parent


def damaged_slices(folder: Path) -> Path:
    """Every slice with the mark of DICOM and nothing sound behind it."""
    for path in series(folder, EVEN).iterdir():
        data = path.read_bytes()
        path.write_bytes(data[:132] + b"\x02\0\0\0UL\x02\0" + data[140:])
    return folder


def damaged_first_slice(folder: Path) -> Path:
    series(folder, EVEN)
    first = folder / "IM000.dcm"
    first.write_bytes(first.read_bytes()[:132] + bytes(50))
    return folder


def cut_frame(path: Path) -> Path:
    dataset = enhanced(VALUES, EVEN)
    dataset.compress(RLELossless)
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=6))
    dataset.PixelData = encapsulate([frame[: 40 + i] for i, frame in enumerate(frames)])
    return save(path, dataset)


def cut_jpegls(path: Path) -> Path:
    dataset = enhanced(VALUES, EVEN)
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = encapsulate([b"\xff\xd8" + bytes(20)] * 6)
    return save(path, dataset)


@dataclass(frozen=True)
class Fault:
    """A faulty case: how it is made and what is said of it."""

    name: str
    make: Callable[[Path], object]
    says: str

    def __str__(self) -> str:
        return self.name


def case(number: str, name: str, make: Callable[[Path], object], says: str) -> object:
    return pytest.param(Fault(name, make, says), id=f"{number} {name}")


TILTED = [np.array([0.0, 0.5 * i, 2.5 * i]) for i in range(6)]
MISSING, UNEVEN = [30, 32.5, 35, 40, 42.5, 45], [30, 32.5, 35, 38, 40.5, 43]
VOLUMES = [
    case("F03", "f03a.nii.gz", lambda p: nifti(p, "srow", "f", *[0] * 3 + [1] * 9), "spacing|span"),
    case("F03", "f03b.nii.gz", lambda p: nifti(p, "srow", "f", *[1] * 12), "do not span space"),
    case("F10", "f10.nii", lambda p: nifti(p, "dim", "h", 5, 2, 3, 4, 2, 10), "has 5 axes"),
    case("F13", "f13.nii", lambda p: nifti(p, "scl_slope", "f", 2, np.nan), "intercept nan"),
    case("F14", "f14.nii.gz", lambda p: cut(nifti(p), -30), "is truncated"),
    case("F15", "f15.nii.gz", lambda p: flipped(nifti(p), -7), "is corrupt"),
    case("F17", "f17a.nii", lambda p: nifti(p, "dim", "h", 3, *[32767] * 3), "more than the limit"),
    case("F17", "f17b.nii.gz", lambda p: nifti(p, "dim", "h", 3, 10, 8, 0), "no voxels along"),
    case("F17", "f17c.nii", lambda p: nifti(p, "dim", "h", 3, 10, 8, 7), "is truncated"),
    case("F18", "f18.mha", lambda p: cut(metaimage(p, compressed=True), 400), "is truncated"),
    case("F19", "f19a.mha", lambda p: metaimage(p, "Spacing = 1", "Spacing = 0"), "spacing is"),
    case("F19", "f19b.nii", lambda p: nifti(p, "srow", "f", np.nan), "not finite"),
    case("F22", "f22a.mhd", outside, "outside its folder"),
    case("F22", "f22b.nhdr", nrrd_outside, "outside its folder"),
    case("F23", "f23", with_localiser, r"unlike the rest are slices 9 \(odd\.dcm\)"),
    case("F37", "f37", lambda p: series(p, upright(MISSING)), r"lacks slices.*3 \(.*and 4 \("),
    case("F37", "f37f.dcm", lambda p: save(p, enhanced(VALUES, upright(MISSING))), "lacks slices"),
    case("F39", "f39", lambda p: series(p, upright(UNEVEN)), "unevenly spaced slices"),
    case("F41", "f41", lambda p: series(p, TILTED), r"is tilted.*11\.3 degrees"),
    case("F42", "f42", two_series, r"holds 2 series: 1\.2\.3 \(6 slices\), 9\.8 \(2 slices\)"),
    case("F46", "f46a.dcm", cut_frame, "cannot be decoded"),
    case("F46", "f46b.dcm", cut_jpegls, "end mark|no decoder"),
    case("F47", "f47", compressed_by_the_unknown, r"\.dcm: has the unsupported encoding MPEG2"),
    case("F48", "f48", cut_slice, r"IM003\.dcm"),
    case("F48", "f48b", damaged_slices, r"cannot be decoded \(BytesLength"),
    case("F48", "f48c", damaged_first_slice, r"IM000\.dcm|cannot be decoded"),
]  # fmt: skip


def png_with_text(path: Path) -> Path:
    """Half a kilobyte that unpacks to 64 MB of text."""
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", "x", zip=True)
    Image.fromarray(PICTURE).save(path, pnginfo=about)
    data = path.read_bytes()
    body = b"Comment\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + body))
    path.write_bytes(data[:33] + chunk + data[33:])
    return path


def png_bomb(path: Path) -> Path:
    Image.fromarray(PICTURE).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 90000, 90000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(path, exif=exif)


def pages(path: Path) -> None:
    tifffile.imwrite(path, np.stack([PICTURE] * 3), metadata={"axes": "ZYX"})


def truncated(path: Path) -> None:
    Image.fromarray(PICTURE).save(path)
    cut(path, 200)


PICTURES = [
    case("F53", "f53.tif", lambda p: tifffile.imwrite(p, PICTURE + 1j), "complex"),
    case("F55", "f55.png", png_bomb, "claims more than the .* pixels"),
    case("F56", "f56a.png", png_with_text, "cannot be decoded .*MAX_TEXT_CHUNK"),
    case("F56", "f56b.png", lambda p: Image.fromarray(PICTURE).save(p, "GIF"), "is no PNG"),
    case("F57", "f57.jpg", turned, r"orientation 6\).*auto-orient"),
    case("F58", "f58.tif", pages, "holds 3 pages"),
    case("F48", "f48.png", truncated, "is truncated|cannot be decoded"),
]


@dataclass(frozen=True)
class Cohort:
    """What one call of ``predict`` on sound and faulty cases left and said."""

    out: Path
    clean: Path
    code: int
    said: str
    errors: tuple[str, ...]
    failures: dict[str, str]
    manifest: dict[str, dict]


def predicted(folder: Path, faults: list, sound: list[Path], dims: int) -> Cohort:
    run, inside = untrained(folder / "run", dims), folder / "in"
    for fault in (parameter.values[0] for parameter in faults):
        fault.make(inside / fault.name)
    code, _, problem = finemask("predict", run, *sound, "--out", folder / "clean")
    assert code == 0, problem
    code, said, err = finemask("predict", run, inside, "--out", folder / "out")
    with open(folder / "out" / "failures.csv", encoding="utf-8", newline="") as file:
        failures = {row["file"]: row["error"] for row in csv.DictReader(file)}
    manifest = json.loads((folder / "out" / "manifest.json").read_text())["cases"]
    errors = tuple(line for line in err.splitlines() if line.startswith("error: "))
    assert "Traceback" not in err
    return Cohort(folder / "out", folder / "clean", code, said, errors, failures, manifest)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "in").mkdir()
    sound = [nifti(folder / "in" / "sound1.nii.gz"), series(folder / "in" / "sound2", EVEN)]
    return predicted(folder, VOLUMES, sound, 3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "in").mkdir()
    sound = [folder / "in" / f"sound{i}.png" for i in (1, 2)]
    for index, path in enumerate(sound):
        write_image(path, np.roll(PICTURE, index), Geometry.regular(PICTURE.shape))
    return predicted(folder, PICTURES, sound, 2)


def check(cohort: Cohort, fault: Fault) -> None:
    """One line that says what is wrong, in every place where failures are told; no output."""
    lines = [line for line in cohort.errors if re.search(rf"/{re.escape(fault.name)}\b", line)]
    told = [text for file, text in cohort.failures.items() if file == fault.name]
    assert len(told) == 1
    assert len(lines) <= 1, "a terminal shows the first ones only"
    for text in (*lines, *told):
        assert re.search(fault.says, text), text
        assert "; " in text
    stem = fault.name.partition(".")[0]
    outputs = [p.name for p in cohort.out.iterdir() if p.name.partition(".")[0] == stem]
    assert outputs == []


@pytest.mark.parametrize("fault", VOLUMES)
@pytest.mark.fault(
    "F03", "F10", "F13", "F14", "F15", "F17", "F18", "F19", "F22", "F23", "F37", "F39", "F41",
    "F42", "F46", "F47", "F48", "F87",
)  # fmt: skip
def test_a_faulty_volume_costs_only_itself(volumes: Cohort, fault: Fault) -> None:
    check(volumes, fault)


@pytest.mark.parametrize("fault", PICTURES)
@pytest.mark.fault("F53", "F55", "F56", "F57", "F58", "F87")
def test_a_faulty_picture_costs_only_itself(pictures: Cohort, fault: Fault) -> None:
    check(pictures, fault)


@pytest.mark.parametrize("kind", ["volumes", "pictures"])
def test_sound_cases_are_as_if_alone_and_counts_add_up(
    kind: str, request: pytest.FixtureRequest
) -> None:
    cohort: Cohort = request.getfixturevalue(kind)
    faults = VOLUMES if kind == "volumes" else PICTURES
    assert cohort.code == 1
    assert f"2 done, {len(faults)} failed, 0 skipped of {len(faults) + 2}" in cohort.said
    assert len(cohort.failures) == len(faults)
    more = len(faults) - MOST_LINES
    assert len(cohort.errors) == (MOST_LINES + 1 if more > 0 else len(faults))
    assert more <= 0 or f"{more} more cases failed" in cohort.errors[-1]
    masks = sorted(p.name for p in cohort.clean.iterdir() if p.name.startswith("sound"))
    assert len(masks) == 2
    for name in masks:
        assert (cohort.out / name).read_bytes() == (cohort.clean / name).read_bytes()
    left = {p.name for p in cohort.out.iterdir()}
    assert left == {*masks, "failures.csv", "manifest.json"}
    status = [entry["status"] for entry in cohort.manifest.values()]
    assert (status.count("done"), status.count("failed")) == (2, len(faults))


@pytest.mark.parametrize("fault", [VOLUMES[4], PICTURES[1]])
def test_nothing_but_faults_is_code_3(tmp_path: Path, fault: object) -> None:
    wrong: Fault = fault.values[0] if not isinstance(fault, Fault) else fault
    run = untrained(tmp_path / "run", 3 if "nii" in wrong.name else 2)
    wrong.make(tmp_path / wrong.name)
    code, said, err = finemask("predict", run, tmp_path / wrong.name, "--out", tmp_path / "out")
    assert code == 3
    assert "0 done, 1 failed" in said
    assert err.count("error: ") == 1
    assert not list((tmp_path / "out").glob(f"{wrong.name.partition('.')[0]}*"))


@pytest.mark.fault("F51")
def test_nothing_in_a_file_decides_where_outputs_go(tmp_path: Path) -> None:
    """Identifiers that are paths, and a DICOMDIR that points elsewhere, name no file of ours."""
    evil = "../../evil"
    folder = tmp_path / "home" / "in" / "ct"
    series(
        folder, EVEN, SeriesInstanceUID=evil, StudyInstanceUID=evil, PatientID=evil,
        PatientName=evil, FrameOfReferenceUID="1.2.5", SeriesDescription=evil,
    )  # fmt: skip
    index = pydicom.Dataset()
    index.DirectoryRecordSequence = [pydicom.Dataset()]
    index.DirectoryRecordSequence[0].ReferencedFileID = ["..", "..", "evil.dcm"]
    index.file_meta = slice_tags(VALUES[0]).file_meta
    save(folder / "DICOMDIR", index)
    run = untrained(tmp_path / "home" / "run", 3)
    before = set(tmp_path.rglob("*"))
    for format in ("nifti", "dicom-seg"):
        out = tmp_path / "home" / "out" / format
        code, _, err = finemask("predict", run, folder, "--out", out, "--format", format)
        assert code == 0, err
        made = {p.name for p in out.iterdir()}
        assert made == {"manifest.json", "ct.nii.gz" if format == "nifti" else "ct.dcm"}
    new = set(tmp_path.rglob("*")) - before
    assert all(p.is_relative_to(tmp_path / "home" / "out") for p in new)


BOMBS = """
import re, sys, time
from pathlib import Path
from finemask.errors import DataError
from finemask.io import read_header, read_image
for path in sys.argv[1:]:
    start = time.monotonic()
    for read in (read_header, read_image):
        try:
            read(path)
        except DataError as error:
            refused = str(error)
    print(f"{time.monotonic() - start:.1f} s: {refused}")
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells its memory there")
@pytest.mark.fault("F17", "F51", "F55", "F56")
def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    """Headers that claim gigabytes and data that unpack to them: ten seconds, 500 MB at most."""
    shape = {"Rows": 16000, "Columns": 16000}
    zeros = tmp_path / "zeros.nii.gz"
    zeros.write_bytes(gzip.compress(gzip.decompress(nifti(zeros).read_bytes()) + bytes(2**28)))
    bombs = [
        nifti(tmp_path / "a.nii", "dim", "h", 3, *[800] * 3),
        nifti(tmp_path / "a.nii.gz", "dim", "h", 3, *[800] * 3),
        metaimage(tmp_path / "a.mha", "DimSize = 10 8 6", "DimSize = 800 800 800"),
        metaimage(tmp_path / "b.mha", "DimSize = 10 8 6", "DimSize = 800 800 800", compressed=True),
        png_bomb(tmp_path / "a.png"), png_with_text(tmp_path / "b.png"),
        series(tmp_path / "ct", EVEN[:2], **shape),
        save(tmp_path / "a.dcm", enhanced(VALUES[:2], EVEN[:2], **shape)), zeros,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, *map(str, bombs)], capture_output=True, text=True, check=True
    )
    *lines, megabytes = done.stdout.splitlines()
    assert len(lines) == len(bombs)
    for line, path in zip(lines, bombs, strict=True):
        assert path.name in line
        assert float(line.split()[0]) < 10, line
    assert int(megabytes) < 500


@pytest.mark.fault("F12")
def test_rescaled_values_are_not_lost_on_saving_again(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", "scl_slope", "f", 0.5, -100)
    array, geometry = read_image(path)
    np.testing.assert_array_equal(array[0], VOLUME * 0.5 - 100)
    write_image(tmp_path / "b.nii", array, geometry)
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii")[0], array)


@pytest.mark.fault("F59")
def test_scoring_changes_no_prediction(tmp_path: Path) -> None:
    """One of another size is refused, and every file stays as it was."""
    for folder, shape in (("pred", (8, 9)), ("truth", (16, 20))):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.eye(*shape, dtype=np.uint8) * 255).save(tmp_path / folder / "a.png")
    Image.fromarray(np.eye(16, 20, dtype=np.uint8) * 255).save(tmp_path / "truth" / "b.png")
    Image.fromarray(np.eye(16, 20, dtype=np.uint8) * 255).save(tmp_path / "pred" / "b.png")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.png")}
    code, _, err = finemask(
        "evaluate", tmp_path / "pred", tmp_path / "truth", "--out", tmp_path / "scores"
    )
    assert code == 1
    assert "its shape is (8, 9), not (16, 20)" in err
    assert {p: p.read_bytes() for p in before} == before
    assert read_labels(tmp_path / "pred" / "a.png")[0].shape == (8, 9)
