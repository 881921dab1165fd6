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


def lidc_slices(root: Path) -> Truth:
    """Slices that others cut, with four readers each; two agree in part."""
    truth: Truth = {}
    for patient in range(1, 6):
        for nodule in (0, 10):
            folder = root / "LIDC-IDRI-slices" / f"LIDC-IDRI-{patient:04d}" / f"nodule-{nodule}"
            for k in (0, 1):
                key = f"LIDC-IDRI-{patient:04d}_nodule-{nodule}_s{k:02d}"
                save(folder / "images" / f"slice-{k}.png", noise(key, 1))
                for reader in range(4):
                    mask = disc(key) if reader < 2 else disc(f"{key} {reader}", radius=3)
                    mask = mask if reader < 3 else np.zeros_like(mask)
                    save(folder / f"mask-{reader}" / f"slice-{k}.png", mask * 255)
                truth[key] = disc(key)
    return truth


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


def polyps(root: Path) -> Truth:
    """One training set, five test sets; a mask with JPEG's fringe."""
    truth: Truth = {}
    folders = {"train": "TrainDataset", "cvc300": "TestDataset/CVC-300"}
    folders |= {
        name.lower().replace("cvc-", ""): f"TestDataset/{name}"
        for name in ("CVC-ClinicDB", "CVC-ColonDB", "Kvasir")
    }
    folders["etis"] = "TestDataset/ETIS-LaribPolypDB"
    for name, folder in folders.items():
        inside = ("image", "mask") if name == "train" else ("images", "masks")
        for number in range(6 if name == "train" else 2):
            key = f"{name}_{number}"
            truth[key] = disc(key)
            save(root / folder / inside[0] / f"{number}.png", noise(key))
            mask = truth[key] * 255
            if number == 1:
                mask = np.clip(mask.astype(int) + noise(key, 1) % 9 - 4, 0, 255).astype(np.uint8)
            save(root / folder / inside[1] / f"{number}.png", mask)
    return truth


def polyp_videos(root: Path) -> Truth:
    """Clips with frames and truths in the two ways that the package lays them out."""
    truth: Truth = {}
    clips = [
        *((f"VPS-TrainSet/CVC-ColonDB-300/Train/{c}", "{}", "cvc300", c) for c in (0, 1)),
        *((f"VPS-TrainSet/CVC-ClinicDB-612/Train/{c}", "{}", "cvc612", c) for c in (1, 5)),
        ("VPS-TestSet/CVC-ColonDB-300", "{}/3", "cvc300", 3),
        ("VPS-TestSet/CVC-ClinicDB-612-Valid", "{}/2", "cvc612", 2),
        ("VPS-TestSet/CVC-ClinicDB-612-Test", "{}/6", "cvc612", 6),
    ]
    for folder, inside, video, clip in clips:
        for frame in (1, 2):
            key = f"{video}_{clip}_{frame}"
            truth[key] = disc(key)
            save(root / folder / inside.format("Frame") / f"{frame}.jpg", noise(key))
            save(root / folder / inside.format("GT") / f"{frame}.png", truth[key] * 255)
    return truth


def idrid(root: Path) -> Truth:
    """Red masks in every form they are met in, overlapping, some of them missing."""
    truth: Truth = {}
    home = root / "A. Segmentation"
    kinds = {"MA": ("1. Microaneurysms", 1), "HE": ("2. Haemorrhages", 4)}
    kinds |= {"EX": ("3. Hard Exudates", 3), "SE": ("4. Soft Exudates", 2)}
    for part, numbers in (("a. Training Set", (1, 2, 3, 4)), ("b. Testing Set", (55, 56))):
        for number in numbers:
            key = f"IDRiD_{number:02d}"
            save(home / "1. Original Images" / part / f"{key}.jpg", noise(key))
            classes = np.zeros(SIZE, np.uint8)
            for kind in ("HE", "EX", "SE", "MA"):  # what comes last wins
                folder, label = kinds[kind]
                if kind == "SE" and number % 2:
                    continue
                mask = disc(f"{key} {kind}", radius=6)
                classes[mask > 0] = label
                path = (
                    home / "2. All Segmentation Groundtruths" / part / folder / f"{key}_{kind}.tif"
                )
                if kind == "MA":
                    save(path, mask * 76)
                elif kind == "EX":
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture = Image.fromarray(mask, mode="P")
                    picture.putpalette([0, 0, 0, *RED])
                    picture.save(path)
                else:
                    red = np.zeros((*SIZE, 4), np.uint8)
                    red[..., 0], red[..., 3] = mask * 255, 255
                    save(path, red)
            truth[key] = classes
            (home / "2. All Segmentation Groundtruths" / part / "4. Soft Exudates").mkdir(
                parents=True, exist_ok=True
            )
    return truth


def ddr(root: Path) -> Truth:
    """Other names in the validation part; pictures of several sizes."""
    truth: Truth = {}
    home = root / "DDR-dataset" / "lesion_segmentation"
    parts = {"train": (1, 2, 3), "valid": (4,), "test": (5, 6)}
    for part, numbers in parts.items():
        for number in numbers:
            key = f"007-{number:04d}-100"
            shape = (SIZE[0] + number, SIZE[1])
            save(home / part / "image" / f"{key}.jpg", noise(key, shape=shape))
            label = "segmentation label" if part == "valid" else "label"
            classes = np.zeros(shape, np.uint8)
            for kind, value in (("HE", 4), ("EX", 3), ("SE", 2), ("MA", 1)):
                mask = disc(f"{key} {kind}", shape, 6)
                classes[mask > 0] = value
                save(home / part / label / kind / f"{key}.tif", mask * 255)
            truth[key] = classes
    return truth


def cityscapes(root: Path) -> Truth:
    """Label numbers of 34 kinds; the test's are blank."""
    truth: Truth = {}
    known = {7: 1, 8: 2, 11: 3, 26: 14, 33: 19}
    cities = {"aachen": "train", "bochum": "train", "lindau": "val", "bonn": "test"}
    for city, part in cities.items():
        for frame in (0, 1):
            key = f"{city}_{frame:06d}_000019"
            stored = rng_of(key).choice([0, 4, 7, 8, 11, 26, 29, 33], SIZE).astype(np.uint8)
            save(root / "leftImg8bit" / part / city / f"{key}_leftImg8bit.png", noise(key))
            save(root / "gtFine" / part / city / f"{key}_gtFine_labelIds.png", stored)
            save(root / "gtFine" / part / city / f"{key}_gtFine_color.png", noise(key))
            if part != "test":
                classes = np.zeros(SIZE, np.uint8)
                for value, label in known.items():
                    classes[stored == value] = label
                truth[key] = classes
    return truth


VOLUME = (10, 16, 12)
SPACING = (2.0, 0.75, 1.0)


def volume(path: Path, array: NDArray[Any], spacing: tuple[float, ...] = SPACING) -> None:
    """A NIfTI whose file runs to the left, as many do: not the canonical orientation."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing[2], spacing[1], spacing[0], 1.0])
    affine[:3, 3] = (40, -30, 20)
    nibabel.save(nibabel.Nifti1Image(np.transpose(array), affine), path)


def intensities(name: str, shape: tuple[int, ...] = VOLUME) -> NDArray[np.int16]:
    return rng_of(f"volume {name}").integers(0, 900, shape).astype(np.int16)


def brats2020(root: Path) -> Truth:
    """Label 4 and no 3; one case whose labels have another name."""
    truth: Truth = {}
    for number in (1, 2, 3, 4, 355):
        key = f"BraTS20_Training_{number:03d}"
        folder = root / "MICCAI_BraTS2020_TrainingData" / key
        for kind in ("flair", "t1", "t1ce", "t2"):
            volume(folder / f"{key}_{kind}.nii.gz", intensities(f"{key} {kind}"))
        stored = disc(f"{key} edema", VOLUME, 5) * 2
        stored[disc(f"{key} core", VOLUME, 3) > 0] = 1
        stored[disc(f"{key} enhancing", VOLUME, 3) > 0] = 4
        name = "W39_1998.09.19_Segm.nii" if number == 355 else f"{key}_seg.nii.gz"
        volume(folder / name, stored)
        truth[key] = np.where(stored == 4, 3, stored).astype(np.uint8)
    (root / "MICCAI_BraTS2020_TrainingData" / "name_mapping.csv").write_text("Grade\n")
    return truth


def covid19_slices(root: Path) -> Truth:
    """A hundred slices (here eight) along the third axis of one file."""
    stored = np.zeros((8, 16, 12), np.uint8)
    for k in range(8):
        stored[k] = disc(f"ground glass {k}", (16, 12), 4)
        stored[k][disc(f"consolidation {k}", (16, 12), 2) > 0] = 2
    volume(root / "tr_im.nii.gz", intensities("tr_im", stored.shape) - 1000)
    volume(root / "tr_mask.nii.gz", stored.astype(np.float64))
    volume(root / "val_im.nii.gz", intensities("val_im", (2, 16, 12)))
    # The file runs to the left and to the front: a radiologist sees the front at the top.
    return {f"slice_{k:03d}": stored[k, ::-1] for k in range(8)}


def covid19_scans(root: Path) -> Truth:
    """Scans in Hounsfield units and in grey values."""
    truth: Truth = {}
    for number in range(1, 5):
        name = f"coronacases_{number:03d}" if number < 3 else f"radiopaedia_{number}_85506_1"
        image = intensities(name, (7, 16, 12))
        image = image - 1000 if number < 3 else image % 256
        mask = disc(name, (7, 16, 12), 3)
        volume(root / "COVID-19-CT-Seg_20cases" / f"{name}.nii.gz", image)
        volume(root / "Infection_Mask" / f"{name}.nii.gz", mask)
        volume(root / "Lung_Mask" / f"{name}.nii.gz", mask)
        truth[name] = mask
    return truth


def covid19(root: Path) -> Truth:
    """Both sets in one folder; every second infected slice of the scans."""
    truth = covid19_slices(root / "slices")
    truth = {key: (mask > 0).astype(np.uint8) for key, mask in truth.items()}
    for name, mask in covid19_scans(root / "scans").items():
        infected = [k for k in range(len(mask)) if mask[k].any()]
        truth |= {f"{name}_{k:03d}": mask[k, ::-1] for k in infected[::2]}
    return truth


def isbi2012(root: Path) -> Truth:
    """Stacks of pages; membranes are black."""
    import tifffile

    root.mkdir(parents=True, exist_ok=True)
    masks = {f"train_{k:02d}": disc(f"membrane {k}") for k in range(10)}
    images = np.stack([noise(name, 1) for name in masks])
    labels = np.stack([255 * (1 - mask) for mask in masks.values()]).astype(np.uint8)
    tifffile.imwrite(root / "train-volume.tif", images)
    tifffile.imwrite(root / "train-labels.tif", labels)
    tifffile.imwrite(root / "test-volume.tif", images[:2])
    return masks


def promise12(root: Path) -> Truth:
    """Headers with data files beside them, in parts of the training data."""
    import SimpleITK

    truth: Truth = {}
    for number in range(8):
        key = f"Case{number:02d}"
        folder = root / f"TrainingData_Part{1 + number // 4}"
        folder.mkdir(parents=True, exist_ok=True)
        truth[key] = disc(key, VOLUME, 3)
        for name, array in ((key, intensities(key)), (f"{key}_segmentation", truth[key])):
            picture = SimpleITK.GetImageFromArray(array)
            picture.SetSpacing(SPACING[::-1])
            SimpleITK.WriteImage(picture, str(folder / f"{name}.mhd"))
    return truth


def liver_mr(root: Path) -> Truth:
    """Two labels of the liver's own make: 0 and 63, as the CHAOS challenge stores it."""
    truth: Truth = {}
    for number in range(5):
        key = f"patient_{number}"
        truth[key] = disc(key, VOLUME, 3)
        volume(root / "images" / f"{key}.nii.gz", intensities(key))
        volume(root / "masks" / f"{key}.nii.gz", truth[key] * 63)
    return truth


def decathlon(root: Path) -> Truth:
    """Labels named by their numbers, images to predict, and an archive's litter."""
    import json

    truth: Truth = {}
    home = root / "Task04_Hippocampus"
    for number in range(1, 7):
        key = f"hippocampus_{number:03d}"
        truth[key] = disc(key, VOLUME, 4)
        truth[key][disc(f"{key} posterior", VOLUME, 3) > 0] = 2
        volume(home / "imagesTr" / f"{key}.nii.gz", intensities(key))
        volume(home / "labelsTr" / f"{key}.nii.gz", truth[key])
        (home / "imagesTr" / f"._{key}.nii.gz").write_bytes(b"litter")
    volume(home / "imagesTs" / "hippocampus_101.nii.gz", intensities("test"))
    told = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "front", "2": "back"}}
    (home / "dataset.json").write_text(json.dumps(told))
    return truth


def nnunet(root: Path) -> Truth:
    """Two channels, labelled test cases."""
    import json

    truth: Truth = {}
    for part, numbers in (("Tr", range(4)), ("Ts", range(4, 6))):
        for number in numbers:
            key = f"case_{number}"
            truth[key] = disc(key, VOLUME, 4)
            for channel in (0, 1):
                name = f"{key}_{channel:04d}.nii.gz"
                volume(root / f"images{part}" / name, intensities(f"{key} {channel}"))
            volume(root / f"labels{part}" / f"{key}.nii.gz", truth[key])
    told = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "lesion": 1}}
    (root / "dataset.json").write_text(json.dumps({**told, "file_ending": ".nii.gz"}))
    return truth


def deeplesion(root: Path) -> Truth:
    """Rows of ``DL_info.csv``; the picture of one is missing. There are no masks."""
    columns = (
        "File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,"
        "Bounding_boxes,Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,"
        "Possibly_noisy,Slice_range,Spacing_mm_px_,Image_size,DICOM_windows,Patient_gender,"
        "Patient_age,Train_Val_Test"
    )
    rows = [columns]
    for patient in range(1, 13):
        for slice_ in (10, 20):
            series = f"{patient:06d}_01_01"
            x, y = 40 + patient, 50 + slice_ / 2
            long, short = 12 + patient / 2, 8
            points = (x - long / 2, y, x + long / 2, y, x, y - short / 2, x, y + short / 2)
            box = (x - long / 2 - 5, y - short / 2 - 5, x + long / 2 + 5, y + short / 2 + 5)
            cells = [
                *(f"{series}_{slice_:03d}.png", patient, 1, 1, slice_),
                *(_told(points), _told(box), _told((long, short)), '"0.5, 0.5, 0.5"'),
                *(5 if patient != 3 else 2, int(patient == 4), '"1, 30"', '"0.8, 0.8, 5"'),
                *('"96, 112"', '"-1000, 400"', "F", 50, 1 + (patient > 6) + (patient > 9)),
            ]
            rows.append(",".join(map(str, cells)))
            if (patient, slice_) != (5, 20):
                path = root / "Images_png" / series / f"{slice_:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                hu = rng_of(f"ct {series} {slice_}").integers(-1000, -700, (112, 96))
                grid = np.indices(hu.shape)
                inside = ((grid[1] - x) * 2 / long) ** 2 + ((grid[0] - y) * 2 / short) ** 2 <= 1
                hu[inside] += 800
                Image.fromarray((hu + 32768).astype(np.uint16)).save(path)
    (root / "DL_info.csv").write_text("\n".join(rows) + "\n")
    return {}


def _told(numbers: tuple[float, ...]) -> str:
    return '"' + ", ".join(f"{n:g}" for n in numbers) + '"'


SCAN = (9, 40, 48)
SLICE_MM, PIXEL_MM = 2.0, 0.7
Ring = list[tuple[int, int]]


def box_ring(top: int, left: int, bottom: int, right: int) -> Ring:
    """The outline just outside a rectangle of pixels, its ends included."""
    t, l, b, r = top - 1, left - 1, bottom + 1, right + 1  # noqa: E741  # four sides
    return [
        *((t, c) for c in range(l, r)),
        *((k, r) for k in range(t, b)),
        *((b, c) for c in range(r, l, -1)),
        *((k, l) for k in range(b, t, -1)),
    ]


def diamond_ring(row: int, column: int, radius: int) -> Ring:
    """The outline just outside the pixels at most ``radius`` steps from a centre: all diagonal."""
    n = radius + 1
    corners = [(-n, 0), (0, n), (n, 0), (0, -n)]
    ring: Ring = []
    for (r0, c0), (r1, c1) in zip(corners, corners[1:] + corners[:1], strict=True):
        steps = ((k * (r1 - r0) // n, k * (c1 - c0) // n) for k in range(n))
        ring += [(row + r0 + down, column + c0 + along) for down, along in steps]
    return ring


def diamond(row: int, column: int, radius: int) -> NDArray[np.uint8]:
    rows, columns = np.indices(SCAN[1:])
    return (abs(rows - row) + abs(columns - column) <= radius).astype(np.uint8)


def lidc_xml(series: str, sessions: list[list[list[tuple[float, str, bool, Ring]]]]) -> str:
    """Readings as the archive writes them: sessions of nodules of outlines."""

    def roi(z: float, uid: str, inclusion: bool, ring: Ring) -> str:
        edges = "".join(
            f"<edgeMap><xCoord>{c}</xCoord><yCoord>{r}</yCoord></edgeMap>" for r, c in ring
        )
        return (
            f"<roi><imageZposition>{z:.6f} </imageZposition><imageSOP_UID>{uid}</imageSOP_UID>"
            f"<inclusion>{str(inclusion).upper()}</inclusion>{edges}</roi>"
        )

    def nodule(number: int, outlines: list[tuple[float, str, bool, Ring]]) -> str:
        rois = "".join(roi(*outline) for outline in outlines)
        large = any(len(outline[3]) > 1 for outline in outlines)
        told = "<characteristics><subtlety>4</subtlety></characteristics>" if large else ""
        return (
            f"<unblindedReadNodule><noduleID>Nodule {number:03d}</noduleID>{told}{rois}"
            "</unblindedReadNodule>"
        )

    body = "".join(
        "<readingSession><annotationVersion>3.12</annotationVersion>"
        "<servicingRadiologistID>anon</servicingRadiologistID>"
        + "".join(nodule(k, outlines) for k, outlines in enumerate(nodules, 1))
        + "<nonNodule><nonNoduleID>7</nonNoduleID><imageZposition>-94.0</imageZposition><locus>"
        "<xCoord>3</xCoord><yCoord>3</yCoord></locus></nonNodule></readingSession>"
        for nodules in sessions
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><LidcReadMessage uid="1.3.6" '
        'xmlns="http://www.nih.gov"><ResponseHeader><Version>1.8.1</Version>'
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>{body}</LidcReadMessage>"
    )


def dicom_slice(path: Path, values: NDArray[Any], series: str, k: int) -> str:
    """One CT slice in Hounsfield units; returns its SOPInstanceUID."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    uid = f"{series}.{k + 1}"
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    tags = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    tags.SOPClassUID, tags.SOPInstanceUID = meta.MediaStorageSOPClassUID, uid
    tags.Modality, tags.SeriesInstanceUID = "CT", series
    tags.StudyInstanceUID, tags.InstanceNumber = f"{series}.0", k + 1
    tags.ImagePositionPatient = [-20.0, -15.0, -100.0 + SLICE_MM * k]
    tags.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    tags.PixelSpacing, tags.SliceThickness = [PIXEL_MM, PIXEL_MM], SLICE_MM
    tags.Rows, tags.Columns = values.shape
    tags.SamplesPerPixel, tags.PhotometricInterpretation = 1, "MONOCHROME2"
    tags.BitsAllocated, tags.BitsStored, tags.HighBit = 16, 16, 15
    tags.PixelRepresentation, tags.RescaleSlope, tags.RescaleIntercept = 0, 1, -1024
    tags.PixelData = (values.astype(np.int32) + 1024).astype("<u2").tobytes()
    tags.save_as(path, enforce_file_format=True)
    return uid


def hounsfield(patient: str) -> NDArray[np.int16]:
    return rng_of(f"scan {patient}").integers(-1000, 400, SCAN).astype(np.int16)


def lidc_idri(root: Path) -> Truth:
    """Five patients: a nodule of all four readers with a hole, one of two, one of one reader.

    Readings of the first patients lie beside the slices, of the others apart, one of them with
    a radiograph's. Nodules below 3 mm are points.
    """
    truth: Truth = {}
    for number in range(1, 6):
        patient = f"LIDC-IDRI-{number:04d}"
        series = f"1.3.6.1.4.1.14519.{number}"
        folder = root / "LIDC-IDRI" / patient / f"{series}.0" / series
        uids = [
            dicom_slice(folder / f"{k + 1:06d}.dcm", slice_, series, k)
            for k, slice_ in enumerate(hounsfield(patient))
        ]

        def at(k: int, ring: Ring, inclusion: bool = True, uids: list[str] = uids) -> Any:
            return (-100.0 + SLICE_MM * k, uids[k], inclusion, ring)

        hole = at(3, box_ring(15, 20, 15, 21), inclusion=False)
        sessions = [
            [[at(k, diamond_ring(15, 20, radius)) for k in (2, 3, 4)] + [hole]]
            for radius in (4, 4, 5, 6)
        ]
        sessions[0].append([at(6, box_ring(30, 30, 33, 36))])
        sessions[2].append([at(6, box_ring(31, 30, 33, 36))])
        sessions[1].append([at(7, box_ring(5, 40, 8, 43))])
        sessions[3].append([at(7, [(20, 5)])])
        marked = np.zeros(SCAN, np.uint8)
        for k in (2, 3, 4):
            marked[k] = diamond(15, 20, 5)  # two of four reach so far
        marked[3, 15, 20:22] = 0
        marked[6, 31:34, 30:37] = 1
        truth[patient] = marked
        text = lidc_xml(series, sessions)
        apart = root / "tcia-lidc-xml" / "157" / f"{number}.xml"
        path = folder / "069.xml" if number < 3 else apart
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    apart.with_name("cxr.xml").write_text('<IdriReadMessage xmlns="http://www.nih.gov"/>')
    return truth


TREES: dict[str, Callable[[Path], Truth]] = {
    tree.__name__: tree
    for tree in (
        *(lidc_idri, lidc_slices, deeplesion, isic2018, polyps, polyp_videos, busi, goals2022),
        *(drive, chase_db1, stare, hrf, prime_fp20, fives, idrid, ddr, cityscapes),
        *(brats2020, covid19_slices, covid19_scans, covid19, isbi2012, promise12, liver_mr),
        *(decathlon, nnunet),
    )
}
"""Every public set; a test compares this with the registry."""
