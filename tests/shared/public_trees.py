"""Small trees in the official layouts, of generated images; each tells what must come out.

``TREES[name](folder)`` writes the download of a public set and returns, by
case, the class numbers that its mask must have. Images are seeded noise, and
masks are discs and rectangles whose place depends on the case alone.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Truth = dict[str, NDArray[np.uint8]]
SIZE = (24, 32)
RED = (255, 0, 0)


def rng_of(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))


def disc(name: str, shape: tuple[int, ...] = SIZE, radius: float = 5.0) -> NDArray[np.uint8]:
    """A disc (ball) of ones at a place that the name decides."""
    rng = rng_of(f"disc {name}")
    centre = [rng.uniform(radius, n - radius) for n in shape]
    grid = np.indices(shape)
    away = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))
    return (away <= radius**2).astype(np.uint8)


def noise(name: str, channels: int = 3, shape: tuple[int, ...] = SIZE) -> NDArray[np.uint8]:
    size = (*shape, channels) if channels > 1 else shape
    return rng_of(f"noise {name}").integers(0, 256, size, dtype=np.uint8)


def save(path: Path, array: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_palette(path: Path, indices: NDArray[np.uint8], colours: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette(colours)
    picture.save(path)


def isic2018(root: Path) -> Truth:
    """JPEG images; the masks are 0 and 255, one with the grey fringe of resampling."""
    truth: Truth = {}
    for part, numbers in (("Training", range(6)), ("Validation", (6, 7)), ("Test", (8, 9))):
        for number in numbers:
            key = f"ISIC_{number:07d}"
            truth[key] = disc(key)
            mask = truth[key] * 255
            if number == 1:
                mask = np.where(mask > 0, 250, 3).astype(np.uint8)
                mask[0, :3] = (90, 60, 30)
            save(root / f"ISIC2018_Task1-2_{part}_Input" / f"{key}.jpg", noise(key))
            save(root / f"ISIC2018_Task1_{part}_GroundTruth" / f"{key}_segmentation.png", mask)
        (root / f"ISIC2018_Task1-2_{part}_Input" / "ATTRIBUTION.txt").write_text("cite")
    return truth


def busi(root: Path) -> Truth:
    """Names with blanks; one image has two mask files; normal ones are black."""
    truth: Truth = {}
    home = root / "Dataset_BUSI_with_GT"
    for kind, numbers in (("benign", (1, 2, 3)), ("malignant", (1, 2)), ("normal", (1,))):
        for number in numbers:
            key = f"{kind} ({number})"
            save(home / kind / f"{key}.png", noise(key))
            mask = np.zeros(SIZE, np.uint8) if kind == "normal" else disc(key)
            save(home / kind / f"{key}_mask.png", mask * 255)
            if key == "benign (2)":
                more = disc("second lesion", radius=3)
                save(home / kind / f"{key}_mask_1.png", more * 255)
                mask = mask | more
            truth[f"{kind}_{number}"] = mask
    return truth


def goals2022(root: Path) -> Truth:
    """Layers as 0, 80 and 160 on 255; one image of the later rounds has no mask."""
    truth: Truth = {}
    home = root / "GOALS2022-Train" / "Train"
    for number in range(1, 5):
        key = f"{number:04d}"
        stored = np.full(SIZE, 255, np.uint8)
        stored[4 + number : 8 + number], stored[8 + number : 10 + number] = 0, 80
        stored[12 + number : 16 + number] = 160
        save(home / "Image" / f"{key}.png", noise(key))
        save(home / "Layer_Masks" / f"{key}.png", stored)
        truth[key] = np.select([stored == 0, stored == 80, stored == 160], [1, 2, 3]).astype("u1")
    save(root / "GOALS2022-Validation" / "Image" / "0101.png", noise("0101"))
    return truth


def drive(root: Path) -> Truth:
    """TIFF images, GIF masks (one a palette picture), the second observer in the test half."""
    truth: Truth = {}
    for part, numbers in (("training", (21, 22, 23)), ("test", (1, 2))):
        for number in numbers:
            key = f"{number:02d}"
            truth[key] = disc(key)
            save(root / part / "images" / f"{key}_{part}.tif", noise(key))
            (root / part / "1st_manual").mkdir(parents=True, exist_ok=True)
            Image.fromarray(truth[key] * 255).save(
                root / part / "1st_manual" / f"{key}_manual1.gif"
            )
            if part == "test":
                save_palette(
                    root / part / "2nd_manual" / f"{key}_manual2.gif",
                    disc(f"second {key}"),
                    [0, 0, 0, 255, 255, 255],
                )
            save(root / part / "mask" / f"{key}_{part}_mask.gif", np.full(SIZE, 255, np.uint8))
    return truth


def chase_db1(root: Path) -> Truth:
    """One folder; 1-bit masks of two observers; children 1 to 14, two eyes each."""
    truth: Truth = {}
    for child in (1, 2, 11, 14):
        for eye in "LR":
            key = f"Image_{child:02d}{eye}"
            truth[key] = disc(key)
            save(root / f"{key}.jpg", noise(key))
            for who, mask in (("1stHO", truth[key]), ("2ndHO", disc(f"second {key}"))):
                Image.fromarray(mask * 255).convert("1").save(root / f"{key}_{who}.png")
    return truth


def stare(root: Path) -> Truth:
    """PPM, one of them packed; an image that nobody marked."""
    truth: Truth = {}
    folders = {"": "stare-images", ".ah": "labels-ah", ".vk": "labels-vk"}
    for folder in folders.values():
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3, 77):
        key = f"im{number:04d}"
        truth[key] = disc(key)
        pictures = {"": noise(key), ".ah": truth[key] * 255, ".vk": disc(f"second {key}") * 255}
        for ending, array in pictures.items():
            stream = io.BytesIO()
            Image.fromarray(array).save(stream, "PPM")
            data = stream.getvalue()
            name = f"{key}{ending}.ppm" + (".gz" if number == 2 else "")
            (root / folders[ending] / name).write_bytes(
                gzip.compress(data) if number == 2 else data
            )
    Image.fromarray(noise("im0200")).save(root / "stare-images" / "im0200.ppm")
    return truth


def hrf(root: Path) -> Truth:
    """Upper-case JPEG names and TIFF masks."""
    truth: Truth = {}
    for number in (1, 2):
        for kind in ("dr", "g", "h"):
            key = f"{number:02d}_{kind}"
            truth[key] = disc(key)
            ending = "jpg" if kind == "h" else "JPG"
            save(root / "images" / f"{key}.{ending}", noise(key), format="JPEG")
            save(root / "manual1" / f"{key}.tif", truth[key] * 255)
            save(root / "mask" / f"{key}_mask.tif", np.full(SIZE, 255, np.uint8))
    return truth


def prime_fp20(root: Path) -> Truth:
    """A valid area that is smaller than the picture."""
    truth: Truth = {}
    for number in range(1, 7):
        key = f"FP{number:02d}"
        truth[key] = disc(key)
        valid = np.zeros(SIZE, np.uint8)
        valid[2:22, 4:30] = 255
        for folder, stem, array, ending in (
            ("Images", "Img", noise(key), "tif"),
            ("Labels", "Label", truth[key] * 255, "png"),
            ("Masks", "Mask", valid, "png"),
        ):
            path = root / "PRIME-FP20" / f"{folder}_FP_PRIME-FP20" / f"{stem}{key}_PRIME-FP20"
            save(path.with_suffix(f".{ending}"), array)
    return truth


def fives(root: Path) -> Truth:
    """The same numbers in both halves."""
    truth: Truth = {}
    for part, keys in (("train", ("1_A", "2_D", "3_G", "4_N")), ("test", ("1_A", "2_N"))):
        for key in keys:
            name = f"{part}_{key}"
            truth[name] = disc(name)
            save(root / "FIVES" / part / "Original" / f"{key}.png", noise(name))
            save(root / "FIVES" / part / "Ground truth" / f"{key}.png", truth[name] * 255)
    return truth


TREES: dict[str, Callable[[Path], Truth]] = {
    "isic2018": isic2018,
    "busi": busi,
    "goals2022": goals2022,
    "drive": drive,
    "chase_db1": chase_db1,
    "stare": stare,
    "hrf": hrf,
    "prime_fp20": prime_fp20,
    "fives": fives,
}
"""Every public set; a test compares this with the registry."""
