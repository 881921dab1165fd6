"""Maps of probabilities scored as the polyp field does, from files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finemask.errors import UsageError
from finemask.evaluation.cohort import evaluate
from finemask.geometry import Geometry
from finemask.io import write_image, write_labels, write_probs
from finemask.metrics import cut_everywhere, minmax, s_measure

SHAPE = (30, 40)
PICTURE = Geometry.regular(SHAPE)
ROWS, COLUMNS = np.mgrid[:30, :40]


def disc(radius: float, centre: tuple[int, int] = (14, 18)) -> np.ndarray:
    return (ROWS - centre[0]) ** 2 + (COLUMNS - centre[1]) ** 2 <= radius**2


def grey(radius: float, level: float) -> np.ndarray:
    """An 8-bit map that fades around a disc and nowhere exceeds a level."""
    distance = np.hypot(ROWS - 14, COLUMNS - 18)
    return np.round(255 * level / (1 + np.exp(distance - radius))).astype(np.uint8)


TRUTHS = {"clip1_a": disc(5), "clip1_b": disc(7, (12, 20)), "clip2_a": disc(9)}
MAPS = {"clip1_a": grey(4, 1.0), "clip1_b": grey(7, 0.4), "clip2_a": grey(9, 0.9)}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    rows = ["case,image,mask,group"]
    for name, mask in TRUTHS.items():
        write_labels(tmp_path / f"truth/{name}.png", mask.astype(np.uint8), PICTURE)
        write_image(tmp_path / f"images/{name}.png", MAPS[name], PICTURE)
        rows.append(f"{name},images/{name}.png,truth/{name}.png,{name.split('_')[0]}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    return tmp_path / "data.csv"


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    for name, values in MAPS.items():
        write_image(tmp_path / f"maps/{name}.png", values, PICTURE)
    return tmp_path / "maps"


def test_grey_pictures_are_scored_as_the_field_publishes_them(maps, truth, tmp_path) -> None:
    result = evaluate(maps, truth, tmp_path / "out", protocol="polyp_pranet")
    assert (result.scored, result.failed) == (3, 0)
    curves = {name: cut_everywhere(minmax(MAPS[name] / 255), TRUTHS[name]) for name in MAPS}
    for score in result.scores:
        stretched = minmax(MAPS[score.case] / 255)
        assert score.values["dice_256"] == pytest.approx(curves[score.case].dice.mean())
        assert score.values["s_measure"] == s_measure(stretched, TRUTHS[score.case])
        assert score.values["mae"] != pytest.approx(score.values["mae_minmax"])
    alignment = np.mean([c.alignment for c in curves.values()], axis=0)
    told = json.loads((tmp_path / "out/summary.json").read_text())
    assert told["curves"]["lesion"]["e_256"]["max"] == pytest.approx(alignment.max())
    assert told["scores"]["e_256"]["lesion"]["all"]["mean"] == pytest.approx(alignment.mean())
    assert told["protocol"]["stretched_to_0_1"] is True
    assert "e_256_max" in result.text()
    page = (tmp_path / "out/report.html").read_text()
    for words in ("Over 256 thresholds", "mDice (256)", "stretched to [0, 1]", "Mean of groups"):
        assert words in page


def test_the_raw_protocol_leaves_a_weak_map_weak(maps, truth) -> None:
    raw, stretched = (
        {s.case: s for s in evaluate(maps, truth, protocol=name).scores}
        for name in ("polyp_m2snet_raw", "polyp_m2snet")
    )
    assert raw["clip1_b"].values["iou_half"] == pytest.approx(0, abs=1e-5)  # nowhere above 0.4
    assert stretched["clip1_b"].values["iou_half"] > 0.5
    assert raw["clip1_b"].values["dice_soft"] < stretched["clip1_b"].values["dice_soft"]
    assert "mae_minmax" not in raw["clip1_b"].values


def test_our_probabilities_are_maps_with_or_without_their_masks(truth, tmp_path) -> None:
    for name, values in MAPS.items():
        write_probs(tmp_path / f"ours/{name}_probs.png", (values / 255)[None], PICTURE)
    alone = evaluate(tmp_path / "ours", truth, protocol="polyp_pranet")
    assert (alone.scored, alone.failed) == (3, 0)
    for name in MAPS:
        write_labels(tmp_path / f"ours/{name}.png", np.zeros(SHAPE, np.uint8), PICTURE)
    beside = evaluate(tmp_path / "ours", truth, protocol="polyp_pranet")
    assert beside.mean("dice_256") == alone.mean("dice_256") > 0.5


def test_every_clip_weighs_the_same_in_the_mean_of_groups(maps, truth) -> None:
    result = evaluate(maps, truth, protocol="polyp_m2snet", group="group")
    value = {s.case: s.values["dice_soft"] for s in result.scores}
    cell = result.summary["scores"]["dice_soft"]["lesion"]["all"]
    first = (value["clip1_a"] + value["clip1_b"]) / 2
    assert cell["groups"] == 2
    assert cell["group_mean"] == pytest.approx((first + value["clip2_a"]) / 2)
    assert cell["mean"] == pytest.approx(np.mean(list(value.values())))


@pytest.mark.fault("F59")
def test_maps_are_never_resized_and_colours_are_no_probability(maps, truth) -> None:
    write_image(maps / "clip1_a.png", np.zeros((15, 20), np.uint8), Geometry.regular((15, 20)),
                overwrite=True)  # fmt: skip
    colours = np.stack([MAPS["clip1_b"], MAPS["clip1_b"] // 2, MAPS["clip1_b"]])
    write_image(maps / "clip1_b.png", colours, PICTURE, overwrite=True)
    same = np.stack([MAPS["clip2_a"]] * 3)
    write_image(maps / "clip2_a.png", same, PICTURE, overwrite=True)
    result = evaluate(maps, truth, protocol="polyp_pranet")
    reasons = {f.case: str(f.error) for f in result.failures}
    assert set(reasons) == {"clip1_a", "clip1_b"}
    assert "not lie on the grid of the truth" in reasons["clip1_a"]
    assert "is in colour" in reasons["clip1_b"]
    failed = {s.case: s.values["e_256"] for s in result.scores if s.failed}
    assert failed == {"clip1_a": 0, "clip1_b": 0}


def test_several_classes_have_a_map_each(tmp_path) -> None:
    both = np.where(disc(5), 1, np.where(disc(9), 2, 0)).astype(np.uint8)
    labels = {"core": 1, "rim": 2}
    write_labels(tmp_path / "data/masks/a.png", both, PICTURE, labels=labels)
    write_image(tmp_path / "data/images/a.png", both * 90, PICTURE)
    declared = {"labels": {"background": 0, **labels}}
    (tmp_path / "data/dataset.json").write_text(json.dumps(declared))
    for k, name in enumerate(labels, start=1):
        probs = np.where(both == k, 0.8, 0.1)[None]
        write_probs(tmp_path / f"maps/a_probs_{name}.png", probs, PICTURE)
    write_labels(tmp_path / "masks/a.png", both, PICTURE, labels=labels)
    for folder in ("maps", "masks"):
        out = tmp_path / "out" if folder == "maps" else None
        result = evaluate(tmp_path / folder, tmp_path / "data", out, protocol="polyp_pranet")
        assert {s.label: s.values["iou_256"] for s in result.scores} == {
            "core": pytest.approx(1, abs=0.01), "rim": pytest.approx(1, abs=0.01),
        }  # fmt: skip


def test_volumes_are_refused_and_layers_are_scored(tmp_path, truth) -> None:
    volume = np.zeros((6, 8, 10), np.uint8)
    volume[2:4, 3:6, 2:7] = 1
    for folder in ("pred3", "truth3"):
        write_labels(tmp_path / folder / "a.nii.gz", volume, Geometry.regular(volume.shape))
    with pytest.raises(UsageError, match="is a volume, protocol layers is defined on pictures"):
        evaluate(tmp_path / "pred3", tmp_path / "truth3", protocol="layers")
    for name, mask in TRUTHS.items():
        moved = np.roll(mask, 1, axis=0).astype(np.uint8)
        write_labels(tmp_path / f"layers/{name}.png", moved, PICTURE)
    result = evaluate(tmp_path / "layers", truth, protocol="layers")
    assert result.mean("med_column") == 1
    assert result.mean("columns_missing") == 0
