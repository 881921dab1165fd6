"""Forty planted names, dates and numbers of patients: none comes out of any command.

They stand in headers, comments, private tags, EXIF, archive headers and, for the second
half of the tests, in the names of files and folders, where pseudonyms replace them.
"""

from __future__ import annotations

import base64
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import finemask.cli
from finemask.datasets import make_phantoms
from finemask.geometry import Geometry
from finemask.inference.cohort import predict
from finemask.io import write_image
from finemask.methods import create, default_recipe
from finemask.pseudonyms import Pseudonyms
from finemask.recipe import Task
from finemask.runs import Run

PLANTED = [f"zq{number:02}planted" for number in range(40)]
"""Letters and digits, as every header field can hold them."""


@pytest.fixture
def tokens() -> Iterator[str]:
    return iter(PLANTED)


def plant_dicom(folder: Path, token: Iterator[str]) -> None:
    """A series of four slices with a patient in standard, private and sequence tags."""
    folder.mkdir(parents=True)
    series, frame = generate_uid(), generate_uid()
    who = {name: next(token) for name in (
        "PatientName", "PatientID", "OtherPatientIDs", "PatientAddress", "PatientComments",
        "AccessionNumber", "InstitutionName", "ReferringPhysicianName", "OperatorsName",
        "StudyDescription", "SeriesDescription", "ProtocolName", "StationName",
        "DeviceSerialNumber")}  # fmt: skip
    private = next(token)
    for k in range(4):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
            CTImageStorage,
            generate_uid(),
        )
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(str(folder / f"{k}.dcm"), {}, file_meta=meta, preamble=bytes(128))
        for name, value in who.items():
            setattr(file, name, value)
        file.PatientBirthDate = "19010203"
        file.private_block(0x0029, "FINEMASK TEST", create=True).add_new(1, "LO", private)
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        file.SeriesInstanceUID, file.FrameOfReferenceUID = series, frame
        file.StudyInstanceUID, file.Modality, file.InstanceNumber = series, "CT", k + 1
        file.Rows = file.Columns = 16
        file.PixelSpacing, file.SliceThickness = [1.0, 1.0], 2.0
        file.ImagePositionPatient = [0.0, 0.0, 2.0 * k]
        file.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 1
        pixels = np.random.default_rng(k).integers(0, 400, (16, 16)).astype(np.int16)
        file.PixelData = pixels.tobytes()
        file.save_as(folder / f"{k}.dcm", enforce_file_format=True)


def plant_nifti(path: Path, token: Iterator[str]) -> None:
    """Free text in every field that has room for it, an extension, and names in the gzip header."""
    grid = Geometry.regular((8, 16, 16), (2.0, 1.0, 1.0))
    image = np.random.default_rng(7).integers(0, 300, grid.shape).astype(np.int16)
    plain = path.with_suffix("").with_suffix(".nii")
    write_image(plain, image, grid)
    content = bytearray(plain.read_bytes())
    for at, room in ((14, 18), (148, 80), (228, 24), (328, 16)):  # db_name, descrip, aux, intent
        content[at : at + room] = next(token).encode().ljust(room, b"\0")[:room]
    note = next(token).encode().ljust(24, b"\0")
    extension = bytes([1, 0, 0, 0]) + struct.pack("<ii", 8 + len(note), 6) + note
    content[108:112] = struct.pack("<f", 352 + len(extension) - 4)
    whole = bytes(content[:348]) + extension + bytes(content[352:])
    packed = zlib.compress(whole)[2:-4]
    names = next(token).encode() + b"\0" + next(token).encode() + b"\0"
    head = b"\x1f\x8b\x08\x18" + bytes(4) + b"\0\xff"  # with a file name and a comment
    path.write_bytes(head + names + packed + struct.pack("<II", zlib.crc32(whole), len(whole)))
    plain.unlink()


def plant_nrrd(path: Path, token: Iterator[str]) -> None:
    write_image(
        path, np.ones((8, 16, 16), np.int16), Geometry.regular((8, 16, 16), (2.0, 1.0, 1.0))
    )
    head, _, body = path.read_bytes().partition(b"\n\n")
    more = f"\n# {next(token)}\ncontent: {next(token)}\npatient:={next(token)}"
    path.write_bytes(head + more.encode() + b"\n\n" + body)


def plant_mha(path: Path, token: Iterator[str]) -> None:
    write_image(
        path, np.ones((8, 16, 16), np.int16), Geometry.regular((8, 16, 16), (2.0, 1.0, 1.0))
    )
    content = path.read_bytes()
    at = content.index(b"ElementDataFile")
    more = f"Comment = {next(token)}\nPatientName = {next(token)}\n"
    path.write_bytes(content[:at] + more.encode() + content[at:])


def plant_pictures(folder: Path, token: Iterator[str]) -> None:
    """The first pictures of a data set, saved again with text, EXIF and tags."""
    png, tif, jpg = sorted(folder.glob("*.png"))[:3]
    info, exif = PngImagePlugin.PngInfo(), Image.Exif()
    exif[0x013B], exif[0x010E] = next(token), next(token)  # artist, description
    info.add_text("Comment", next(token))
    info.add_text("Patient", next(token), zip=True)
    info.add_itxt("Study", next(token))
    Image.open(png).save(png, pnginfo=info, exif=exif)
    pixels = np.asarray(Image.open(tif))
    tags = [(tag, "s", 0, next(token), True) for tag in (315, 316, 269)]  # artist, host, document
    tifffile.imwrite(tif.with_suffix(".tif"), pixels, description=next(token),
                     software=next(token), extratags=tags)  # fmt: skip
    tif.unlink()
    exif[0x013B] = next(token)
    Image.open(jpg).convert("L").save(
        jpg.with_suffix(".jpg"), quality=95, exif=exif, comment=next(token)
    )
    jpg.unlink()


def told(path: Path) -> list[bytes]:
    """What somebody finds in a file who looks: as it is, unpacked, and in embedded pictures."""
    content = path.read_bytes()
    found = [content, content.replace(b"\0", b"")]
    if content[:2] == b"\x1f\x8b":
        found.append(zlib.decompressobj(wbits=31).decompress(content))
    found += map(base64.b64decode, re.findall(rb"base64,([A-Za-z0-9+/=]+)", content))
    texts = re.finditer(rb"zTXt[^\0]*\0\0", content)
    found += [zlib.decompressobj().decompress(content[text.end() :]) for text in texts]
    return found


def leaks(*places: Path, said: str = "") -> dict[str, str]:
    """Where each planted word was found: in contents, in names, or on the terminal."""
    found = {word: "terminal" for word in PLANTED if word in said.lower()}
    for place in places:
        for path in place.rglob("*"):
            name = path.relative_to(place).as_posix().lower()
            found |= {word: f"the name {path}" for word in PLANTED if word in name}
            for content in told(path) if path.is_file() else ():
                lowered = content.lower()
                found |= {word: str(path) for word in PLANTED if word.encode() in lowered}
    return found


def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["finemask", *map(str, words), "--quiet"])
    with pytest.raises(SystemExit) as ended:
        finemask.cli.main()
    return int(ended.value.code or 0), "".join(capfd.readouterr())


def untrained() -> Run:
    """A network in three dimensions that has learnt nothing, and makes images too."""
    recipe = default_recipe("dsrl", Task(dims=3, channels=1, classes=2, scale=(2, 2, 2)))
    recipe = recipe.with_settings(["config.width=4", "config.depth=2", "config.sr_width=4"])
    method = create(recipe).eval()
    segmenter = method.deploy().eval()
    segmenter.window = (4, 8, 8)
    return Run(Path("run"), recipe, method, segmenter, 0.5, {"lr_spacing_mm": [], "window_lr": []})


@pytest.mark.fault("F49")
def test_headers_of_volumes_come_out_nowhere(
    tmp_path: Path, tokens: Iterator[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """DICOM, NIfTI, NRRD and MetaImage: masks, probabilities and images without a word of them."""
    volumes = tmp_path / "in"
    plant_dicom(volumes / "series", tokens)
    plant_nifti(volumes / "nifti.nii.gz", tokens)
    plant_nrrd(volumes / "nrrd.nrrd", tokens)
    plant_mha(volumes / "meta.mha", tokens)
    (volumes / "broken.nii.gz").write_bytes((volumes / "nifti.nii.gz").read_bytes()[:-30])
    inputs = [volumes / "series", *sorted(p for p in volumes.iterdir() if p.is_file())]
    places = [tmp_path / kind for kind in ("nifti", "nrrd", "mha")]
    for place in places:
        outcome = predict(untrained(), inputs, place, probs=True, sr=True, format=place.name)
        assert (outcome.done, outcome.failed) == (4, 1)
    planted = [w for w in PLANTED if any(w.encode() in c.lower() for p in volumes.rglob("*")
                                         if p.is_file() for c in told(p))]  # fmt: skip
    assert len(planted) == 27
    assert leaks(*places, said="".join(capfd.readouterr())) == {}


@pytest.mark.slow
@pytest.mark.fault("F49", "F50")
@pytest.mark.parametrize("named", [False, True])
def test_pictures_and_names_of_patients_come_out_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], named: bool
) -> None:
    """Every command that writes cases; with names in files and folders under pseudonyms."""
    data = make_phantoms(tmp_path / "data", kind="ultrasound", cases=12, seed=1, size=(48, 48))
    for path in data.iterdir():
        if path.name not in ("images", "masks"):
            path.unlink() if path.is_file() else None
    for folder in [p for p in data.iterdir() if p.is_dir() and p.name not in ("images", "masks")]:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    token = iter(PLANTED)
    plant_pictures(data / "images", token)
    names = list(token) if named else []
    for name, image in zip(names, sorted((data / "images").iterdir())[1:], strict=False):
        mask = data / "masks" / f"{image.stem}.png"
        image.rename(image.with_name(f"{name}{image.suffix}"))
        mask.rename(mask.with_name(f"{name}.png"))
    groups = [p.stem for p in sorted((data / "images").iterdir())]
    lines = [f"{g},{PLANTED[-1] if named and k < 3 else g}" for k, g in enumerate(groups)]
    (data / "groups.csv").write_text("\n".join(["case,group", *lines]) + "\n")
    secret = ["--pseudonymise", tmp_path / "key"] if named else []
    asked = [*secret, "--mapping", tmp_path / "who.csv"] if named else []
    tiny = [w for s in ("crop=32x32", "batch_size=2", "config.width=4", "config.depth=2", "steps=2",
                        "validate_cases=2") for w in ("--set", s)]  # fmt: skip
    run = tmp_path / "run"
    code, said = call(monkeypatch, capfd, "train", data, "--out", run, *tiny, *asked)
    assert code == 0, said
    bad = data / "images" / (f"{names[-2]}.png" if named else "bad.png")
    bad.write_bytes(b"no picture")
    first = next((data / "masks").iterdir())
    shutil.copyfile(first, data / "masks" / f"{bad.stem}.png")
    images = data / "images"
    wanted = {
        "masks": (["predict", run, images, "--probs", "--mode", "matched"], 1),
        "scores": (["evaluate", tmp_path / "masks", data / "masks"], 1),
        "soft": (["soften", data, "SOFT", "--from", "mask"], 1),
        "comparison": (["compare", data, "--methods", "unet", *tiny], 0),
    }
    if not named:  # a training in a process of its own, which once is enough
        del wanted["comparison"]
    heard = [said]
    for place, (words, expected) in wanted.items():
        if place == "comparison":
            bad.unlink()
            (data / "masks" / f"{bad.stem}.png").unlink()
        out = [tmp_path / place]
        words = [out[0] if w == "SOFT" else w for w in words]
        words += [] if "soften" in words else ["--out", *out]
        code, said = call(monkeypatch, capfd, *words, *secret)
        assert code == expected, f"{place}: {said}"
        heard.append(said)
    places = [run, *(tmp_path / place for place in wanted)]
    assert leaks(*places, said="".join(heard)) == {}
    assert [p for place in places for p in place.rglob("*") if p.name == "key"] == []
    if named:
        key = (tmp_path / "key").read_text().strip()
        assert not any(key.encode() in p.read_bytes() for place in places for p in place.rglob("*")
                       if p.is_file())  # fmt: skip
        mapping = (tmp_path / "who.csv").read_text()
        known = Pseudonyms(key.encode())
        assert all(f"{known(name)},{name}" in mapping for name in names[:8])
        masks = {p.stem for p in (tmp_path / "masks").glob("*.png")}
        assert {known(name) for name in names[:8]} <= masks
