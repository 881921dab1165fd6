"""The public data sets, by name: one reader and one entry here. Long because they are many."""

from __future__ import annotations

from finemask.datasets.public import pictures, retina_vessels
from finemask.datasets.public.records import PublicSet
from finemask.errors import UsageError

ASK = "research use, cite; no explicit licence"

PUBLIC: dict[str, PublicSet] = {
    "isic2018": PublicSet(
        title="ISIC 2018 task 1",
        task="skin lesions",
        modality="dermoscopy",
        dims=2,
        classes=("lesion",),
        readers="1",
        terms="CC BY-NC 4.0 or CC-0, by image",
        home="challenge.isic-archive.com, 2018, task 1",
        layout="ISIC2018_Task1-2_Training_Input/, ISIC2018_Task1_Training_GroundTruth/, and the "
        "same of Validation and Test",
        splits={
            "official": "training, validation and test of the challenge",
            "sasrnet": "1617/539/538 of training and validation, drawn (the list is not published)",
        },
        variants={"sasrnet": "640 x 640"},
        read=pictures.read_isic,
    ),
    "busi": PublicSet(
        title="BUSI",
        task="breast lesions",
        modality="ultrasound",
        dims=2,
        classes=("lesion",),
        readers="1",
        terms="CC BY 4.0 (the article); CC-0 where it is re-distributed",
        home="scholar.cu.edu.eg/?q=afahmy, Dataset BUSI (Al-Dhabyani 2020)",
        layout="benign/, malignant/, normal/ with 'benign (1).png', 'benign (1)_mask.png'",
        splits={"m2snet_fold1..4": "four folds, drawn; images of one patient may be in several"},
        variants={"m2snet": "352 x 352"},
        read=pictures.read_busi,
    ),
    "goals2022": PublicSet(
        title="GOALS 2022",
        task="retinal layers",
        modality="OCT round the disc",
        dims=2,
        classes=("RNFL", "GCIPL", "choroid"),
        readers="1, merged from several",
        terms="research use after registration",
        home="ichallenges.grand-challenge.org, GOALS",
        layout="GOALS2022-Train/Train/Image/ and Layer_Masks/; other Image/ folders without masks",
        variants={"m2snet": "352 x 352"},
        read=pictures.read_goals,
    ),
    "drive": PublicSet(
        title="DRIVE",
        task="vessels",
        modality="fundus",
        dims=2,
        classes=("vessel",),
        readers="1; 2 for the test half",
        terms=ASK,
        home="drive.grand-challenge.org",
        layout="training/ and test/ with images/, 1st_manual/, in test/ 2nd_manual/",
        splits={"official": "its halves of 20"},
        read=retina_vessels.read_drive,
    ),
    "chase_db1": PublicSet(
        title="CHASE_DB1",
        task="vessels",
        modality="fundus",
        dims=2,
        classes=("vessel",),
        readers="2",
        terms="CC BY 4.0",
        home="Kingston University, research data repository, CHASE_DB1",
        layout="Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png in one folder",
        splits={"first20": "10 children to train, 4 to test"},
        read=retina_vessels.read_chase,
    ),
    "stare": PublicSet(
        title="STARE",
        task="vessels",
        modality="fundus",
        dims=2,
        classes=("vessel",),
        readers="2",
        terms=ASK,
        home="cecas.clemson.edu/~ahoover/stare, blood vessels",
        layout="im0001.ppm, im0001.ah.ppm, im0001.vk.ppm (or .gz), in one folder or three",
        read=retina_vessels.read_stare,
    ),
    "hrf": PublicSet(
        title="HRF",
        task="vessels",
        modality="fundus",
        dims=2,
        classes=("vessel",),
        readers="1",
        terms="CC BY 4.0",
        home="www5.cs.fau.de, high-resolution fundus image database",
        layout="images/01_dr.JPG, manual1/01_dr.tif",
        splits={"ds2f_fold1..5": "KFold(5, seed 66) over the file names"},
        variants={"ds2f": "1752 x 1168 (width x height)"},
        read=retina_vessels.read_hrf,
    ),
    "prime_fp20": PublicSet(
        title="PRIME-FP20",
        task="vessels",
        modality="ultra-widefield fundus",
        dims=2,
        classes=("vessel",),
        readers="1",
        terms="CC BY 4.0",
        home="IEEE DataPort, PRIME-FP20",
        layout="Images_FP_PRIME-FP20/ImgFP01_PRIME-FP20.tif, Labels_.../LabelFP01_..., Masks_...",
        splits={"ds2f_fold1..5": "KFold(5, seed 66) over the file names"},
        variants={"ds2f": "cut to the valid area, 1408 x 1296 (width x height)"},
        read=retina_vessels.read_prime,
    ),
    "fives": PublicSet(
        title="FIVES",
        task="vessels",
        modality="fundus",
        dims=2,
        classes=("vessel",),
        readers="1, of two that agreed",
        terms="CC BY 4.0",
        home="figshare, FIVES (Jin 2022)",
        layout="train/Original/1_A.png, train/Ground truth/1_A.png, and test/",
        splits={"ds2f": "the official 600 and 200"},
        read=retina_vessels.read_fives,
    ),
}


def find_public(name: str) -> PublicSet:
    """A public set by its name.

    Raises:
        UsageError: When there is none; the message names all.
    """
    if name not in PUBLIC:
        raise UsageError(name, f"is none of the sets {', '.join(PUBLIC)}", "correct the name")
    return PUBLIC[name]
