"""From files to masks: true geometry, nothing overwritten, one bad case costs only itself."""

from __future__ import annotations

import csv
import errno
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.dicom import EVEN, VALUES, save, series, slice_tags
from jaxtyping import TypeCheckError
from numpy.typing import NDArray
from torch import Tensor, nn

from finemask.case import Case
from finemask.datasets import Split
from finemask.errors import DataError, OutputError, UsageError
from finemask.geometry import Geometry
from finemask.inference.cohort import Prediction, predict, predict_case
from finemask.inference.torch_backend import weights_sha256
from finemask.io import read_image, read_labels, read_probs, write_image
from finemask.methods.base import Method, Segmenter
from finemask.recipe import PairSettings, PrepareSettings, Recipe, Task
from finemask.runs import Run


class Bright(nn.Module):
    """Finds what is brighter than half of the range, voxel by voxel: geometry and nothing else."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.scale, self.outputs = task.scale, 1 if task.foreground == 1 else task.classes
        self.level = nn.Parameter(torch.tensor(0.5))

    def forward(self, image: Tensor) -> Tensor:
        mean = image.mean(1, keepdim=True)
        for axis, factor in enumerate(self.scale, 2):
            mean = mean.repeat_interleave(factor, axis)
        logits = 40 * (mean - self.level)
        rest = [torch.full_like(logits, -40) for _ in range(self.outputs - 2)]
        return logits if self.outputs == 1 else torch.cat([0 * logits, *rest, logits], 1)


class BrightMethod(Method):
    """A method around `Bright` that also enlarges the image."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, None)
        self.network = Bright(task)

    def losses(self, batch: object, player: str = "network") -> dict[str, Tensor]:
        return {}

    def weights(self) -> dict[str, float]:
        return {}

    def deploy(self) -> Segmenter:
        return Segmenter(self.network, self.task, stride=4)

    def super_resolve(self, image_lr: Tensor) -> Tensor:
        for axis, factor in enumerate(self.task.scale, 2):
            image_lr = image_lr.repeat_interleave(factor, axis)
        return image_lr


class MaskOnly(BrightMethod):
    super_resolve = Method.super_resolve


def make_run(
    dims: int = 2,
    scale: tuple[int, ...] = (2,),
    method: Callable[[Task], Method] = BrightMethod,
    prepare: PrepareSettings | None = None,
    **task: Any,
) -> Run:
    recipe = Recipe(
        task=Task(dims=dims, scale=scale, **task),
        prepare=prepare or PrepareSettings(normalise="minmax"),
    )
    made = method(recipe.task)
    return Run(
        Path("run"), recipe, made, made.deploy().eval(), 0.5, {"lr_spacing_mm": [], "window_lr": []}
    )


def rotated(degrees: float) -> NDArray[Any]:
    a = np.radians(degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return about_z @ about_x


AXIAL = np.array([[0.0, 0, -1], [0, -1, 0], [1, 0, 0]])
GRIDS = {
    "axial": AXIAL,
    "flipped": AXIAL * [-1, 1, -1],
    "sagittal": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "oblique": rotated(25) @ AXIAL,
    "oblique and turned": rotated(-34)[:, [1, 2, 0]] * [1, -1, 1],
}


def make_volume(name: str, shape: tuple[int, int, int] = (13, 21, 18)) -> Case:
    """A bright ellipsoid, off centre, in an anisotropic grid."""
    affine = np.eye(4)
    affine[:3, :3] = GRIDS[name] * [2.5, 0.7, 0.9]
    affine[:3, 3] = (-91.3, 17.25, 402.5)
    index = np.indices(shape)
    centre, radii = np.array([4.2, 13.1, 6.4]), np.array([2.1, 5.0, 3.6])
    distance = sum(((i - c) / r) ** 2 for i, c, r in zip(index, centre, radii, strict=True))
    image = np.float32(300) * np.exp(-np.asarray(distance, np.float32)) - np.float32(100)
    return Case("ct", image[None], Geometry.from_affine(shape, affine))


def bright(case: Case) -> NDArray[np.bool_]:
    return case.image[0] >= (case.image.min() + case.image.max()) / 2


def centre_of(mask: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    return geometry.to_world(np.argwhere(mask)).mean(0)


def written(folder: Path, case: Case) -> Path:
    path = folder / f"{case.name}.nii.gz"
    write_image(path, case.image, case.geometry)
    return path


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("orient", [True, False])
@pytest.mark.fault("F08")
def test_native_masks_are_the_image_split_in_place(tmp_path: Path, name: str, orient: bool) -> None:
    """Every HR voxel answers for the very voxel of the file that it lies in."""
    case = make_volume(name)
    run = make_run(3, (1, 3, 2), prepare=PrepareSettings(orient=orient, normalise="minmax"))
    outcome = predict(run, written(tmp_path, case), tmp_path / "out")
    assert outcome.exit_code == 0, outcome.failures
    mask, geometry = read_labels(tmp_path / "out" / "ct.nii.gz")
    order = case.geometry.axes_to_canonical()[0] if orient else (0, 1, 2)
    factors = [dict(zip(order, (1, 3, 2), strict=True))[axis] for axis in range(3)]
    assert geometry.matches(case.geometry.refined(factors))
    np.testing.assert_allclose(geometry.corners(), case.geometry.corners(), atol=1e-3)
    expected = bright(case)
    for axis, factor in enumerate(factors):
        expected = expected.repeat(factor, axis)
    assert (mask == expected).all()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("grid", ["hr", "source"])
@pytest.mark.parametrize("mode", ["native", "matched"])
@pytest.mark.parametrize("spacing_mm", [(), (1.1,)])
def test_a_blob_stays_where_it_is(
    name: str, grid: Any, mode: Any, spacing_mm: tuple[float, ...]
) -> None:
    case = make_volume(name)
    settings = PrepareSettings(normalise="minmax", spacing_mm=spacing_mm)
    run = make_run(3, (2,), prepare=settings)
    prediction = predict_case(run, case, mode=mode, grid=grid)
    assert isinstance(prediction, Prediction)
    np.testing.assert_allclose(prediction.geometry.corners(), case.geometry.corners(), atol=1e-6)
    if grid == "source" or (mode == "matched" and not spacing_mm):
        assert prediction.geometry == case.geometry or prediction.geometry.matches(case.geometry)
    if grid == "hr" and spacing_mm:
        assert prediction.geometry.spacing == pytest.approx((1.1,) * 3, rel=0.1)
    mask = prediction.probs[0] >= 0.5
    assert mask.any()
    apart = case.geometry.to_index(centre_of(mask, prediction.geometry)) - case.geometry.to_index(
        centre_of(bright(case), case.geometry)
    )
    assert np.abs(apart).max() < (0.5 if mode == "native" else 0.8)


def test_labels_from_slabs_equal_labels_from_probabilities(tmp_path: Path) -> None:
    case = make_volume("oblique", (40, 50, 30))
    run = make_run(3)
    source = written(tmp_path, case)
    predict(run, source, tmp_path / "whole")
    outcome = predict(run, source, tmp_path / "slabs", max_memory_bytes=4 * 2**20)
    assert outcome.done == 1, outcome.failures
    whole, slabs = (read_labels(tmp_path / f / "ct.nii.gz") for f in ("whole", "slabs"))
    assert (whole[0] == slabs[0]).all()
    assert whole[1] == slabs[1]
    (likely,) = predict_case(run, case).probs
    assert (whole[0] == (likely >= 0.5)).all()


def test_several_classes_get_a_file_of_probabilities_each(tmp_path: Path) -> None:
    case = make_volume("axial")
    run = make_run(3, classes=4, class_names=("core", "rim zone", "oedema"))
    predict(run, written(tmp_path, case), tmp_path / "out", probs=True)
    names = sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz"))
    assert names == ["ct.nii.gz", *(f"ct_probs_{c}.nii.gz" for c in ("core", "oedema", "rim_zone"))]
    probs, _ = read_probs([tmp_path / "out" / f"ct_probs_{c}.nii.gz" for c in ("core", "oedema")])
    assert probs.dtype == np.float32
    labels = read_labels(tmp_path / "out" / "ct.nii.gz", {"a": 1, "b": 2, "c": 3})[0]
    assert (labels[probs[1] > 0.6] == 3).all()


# --- pictures ---------------------------------------------------------------------------------


def make_pictures(
    folder: Path, names: Sequence[str] = "abc", shape: tuple[int, int] = (9, 14)
) -> Path:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        image = np.random.default_rng(seed).integers(10, 200, shape).astype(np.uint8)
        write_image(folder / f"{name}.png", image, Geometry.regular(shape))
    return folder


def failures_of(out: Path) -> list[dict[str, str]]:
    with open(out / "failures.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_pictures_become_png_masks_of_exactly_scaled_size(tmp_path: Path) -> None:
    outcome = predict(make_run(), make_pictures(tmp_path / "in"), tmp_path / "out", probs=True)
    assert (outcome.done, outcome.failed, outcome.skipped) == (3, 0, 0)
    image, _ = read_image(tmp_path / "in" / "a.png")
    mask, _ = read_labels(tmp_path / "out" / "a.png")
    probs, _ = read_probs(tmp_path / "out" / "a_probs.png")
    low, high = image.min(), image.max()
    assert mask.shape == (18, 28)
    assert (mask == ((image[0] - low) / (high - low) >= 0.5).repeat(2, 0).repeat(2, 1)).all()
    assert ((probs[0] >= 0.5) == mask).all()


def test_the_super_resolved_image_has_the_intensities_of_the_source(tmp_path: Path) -> None:
    source = make_pictures(tmp_path / "in", "a")
    predict(make_run(), source, tmp_path / "out", sr=True)
    image, _ = read_image(source / "a.png")
    resolved, _ = read_image(tmp_path / "out" / "a_sr.png")
    assert (resolved == image.repeat(2, 1).repeat(2, 2)).all()
    case = make_volume("oblique")
    predict(make_run(3), written(tmp_path, case), tmp_path / "out3", sr=True)
    resolved, geometry = read_image(tmp_path / "out3" / "ct_sr.nii.gz")
    assert geometry.matches(case.geometry.refined((2, 2, 2)))
    expected = case.image.repeat(2, 1).repeat(2, 2).repeat(2, 3)
    np.testing.assert_allclose(resolved, expected, atol=1e-3)


def test_a_method_without_super_resolution_says_so(tmp_path: Path) -> None:
    run = make_run(method=MaskOnly)
    with pytest.raises(UsageError, match="does not make"):
        predict(run, make_pictures(tmp_path / "in"), tmp_path / "out", sr=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("F87")
def test_a_bad_picture_costs_only_itself(tmp_path: Path) -> None:
    source = make_pictures(tmp_path / "in")
    (source / "b.png").write_bytes((source / "b.png").read_bytes()[:60])
    outcome = predict(make_run(), [source], tmp_path / "out")
    assert (outcome.done, outcome.failed, outcome.skipped) == (2, 1, 0)
    assert outcome.exit_code == 1
    assert outcome.text() == "2 done, 1 failed, 0 skipped of 3"
    (failure,) = outcome.failures
    assert str(source / "b.png") in str(failure)
    assert "\n" not in str(failure)
    assert [row["case"] for row in failures_of(tmp_path / "out")] == ["b"]
    cases = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert {name: case["status"] for name, case in cases.items()} == {
        "a": "done",
        "b": "failed",
        "c": "done",
    }
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.png",
        "c.png",
        "failures.csv",
        "manifest.json",
    ]


def test_nothing_done_is_exit_code_three(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    inputs = [tmp_path / "missing.png", tmp_path / "notes.txt"]
    outcome = predict(make_run(), inputs, tmp_path / "out")
    assert (outcome.failed, outcome.exit_code) == (2, 3)


def test_resume_trusts_checksums_not_existence(tmp_path: Path) -> None:
    source, out, run = make_pictures(tmp_path / "in"), tmp_path / "out", make_run()
    predict(run, source, out)
    good = (out / "a.png").read_bytes()
    (out / "a.png").write_bytes(good[:-9])
    (out / "b.png").unlink()
    make_pictures(tmp_path / "in2", "cd")
    outcome = predict(run, [source, tmp_path / "in2" / "d.png"], out, resume=True)
    assert (outcome.done, outcome.skipped) == (3, 1)
    assert (out / "a.png").read_bytes() == good
    write_image(
        source / "c.png", np.zeros((9, 14), np.uint8), Geometry.regular((9, 14)), overwrite=True
    )
    assert predict(run, source, out, resume=True).done == 1
    assert predict(run, source, out, resume=True).skipped == 3
    with torch.no_grad():
        run.method.network.level.add_(0.1)
    assert predict(run, source, out, resume=True).done == 3
    assert predict(replace(run, threshold=0.4), source, out, resume=True).done == 3
    assert predict(replace(run, threshold=0.4), source, out, resume=True, probs=True).done == 3


def outcome_of_resuming(run: Run, source: Path, out: Path, **options: Any) -> tuple[int, int]:
    outcome = predict(run, source, out, resume=True, **options)
    return outcome.done, outcome.skipped


def test_resume_sees_another_reduction_and_another_method(tmp_path: Path) -> None:
    source, run = make_pictures(tmp_path / "in", "a", (8, 12)), make_run()
    blurred = replace(run, recipe=replace(run.recipe, pairs=PairSettings(degrade="blur")))
    predict(run, source, tmp_path / "matched", mode="matched")
    assert outcome_of_resuming(run, source, tmp_path / "matched", mode="matched") == (0, 1)
    assert outcome_of_resuming(blurred, source, tmp_path / "matched", mode="matched") == (1, 0)
    predict(run, source, tmp_path / "native")
    assert outcome_of_resuming(blurred, source, tmp_path / "native") == (0, 1)
    predict(run, source, tmp_path / "sr", sr=True)
    other = make_run()
    other.method.register_buffer("decoder", torch.ones(1))
    assert weights_sha256(other.segmenter) == weights_sha256(run.segmenter)
    assert outcome_of_resuming(run, source, tmp_path / "sr", sr=True) == (0, 1)
    assert outcome_of_resuming(other, source, tmp_path / "sr", sr=True) == (1, 0)


def test_resume_sees_another_lr_image_and_another_spacing(tmp_path: Path) -> None:
    make_pictures(tmp_path / "images", "a", (8, 12))
    make_pictures(tmp_path / "lr", "a", (4, 6))
    table, out, run = tmp_path / "manifest.csv", tmp_path / "out", make_run()
    lines = "case,image,image_lr,spacing_mm\na,images/a.png,lr/a.png,{0} {0}\n"
    table.write_text(lines.format(0.5))
    assert outcome_of_resuming(run, table, out, mode="matched") == (1, 0)
    assert outcome_of_resuming(run, table, out, mode="matched") == (0, 1)
    make_pictures(tmp_path / "lr2", "bc", (4, 6))
    (tmp_path / "lr2" / "c.png").replace(tmp_path / "lr" / "a.png")
    assert outcome_of_resuming(run, table, out, mode="matched") == (1, 0)
    table.write_text(lines.format(0.7))
    assert outcome_of_resuming(run, table, out, mode="matched") == (1, 0)
    assert outcome_of_resuming(run, table, out, mode="matched") == (0, 1)


@pytest.mark.parametrize("shards", [1, 3, 20])
def test_shards_do_every_case_once_and_the_same(tmp_path: Path, shards: int) -> None:
    """In one folder, with a faulty case; a last call without shards makes one manifest."""
    source, run = make_pictures(tmp_path / "in", "abcdefgh"), make_run()
    (source / "c.png").write_bytes(b"no picture")
    predict(run, source, tmp_path / "whole")
    out = tmp_path / "shared"
    parts = [predict(run, source, out, shard=(i, shards)) for i in range(1, shards + 1)]
    assert sum(p.done for p in parts) == 7
    assert sum(p.failed for p in parts) == 1
    merged = predict(run, source, out, resume=True)
    assert (merged.done, merged.failed, merged.skipped) == (0, 1, 7)
    for name in ("whole", "shared"):
        names = {p.name for p in (tmp_path / name).iterdir() if "of" not in p.name}
        assert names == {*(f"{n}.png" for n in "abdefgh"), "manifest.json", "failures.csv"}
    for path in (tmp_path / "whole").glob("*.png"):
        assert path.read_bytes() == (out / path.name).read_bytes()
    whole, shared = (
        json.loads((tmp_path / name / "manifest.json").read_text())["cases"]
        for name in ("whole", "shared")
    )
    for entry in (*whole.values(), *shared.values()):
        entry.pop("seconds", None)
    assert whole == shared


def test_what_is_written_can_be_found_by_its_case_however_long_that_is(tmp_path: Path) -> None:
    """A thousand cases cost a thousand lines, not a thousand manifests."""
    source, run, written = make_pictures(tmp_path / "in", "abcd"), make_run(), list[str]()

    def track(items: Any, *_: Any) -> Any:
        journal = tmp_path / "out" / "manifest.jsonl"
        yield from (written.append(journal.read_text()) or item for item in items)

    predict(run, source, tmp_path / "out", progress=track)
    assert [text.count("\n") for text in written] == [1, 2, 3, 4]


@pytest.mark.fault("F63")
@pytest.mark.parametrize("done", [0, 2])
def test_a_full_disk_ends_the_call_in_one_line_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    source, run, out = make_pictures(tmp_path / "in", "abcd"), make_run(), tmp_path / "out"
    real, count = os.fsync, iter(range(1, 100))

    def full(file: int) -> None:
        if next(count) > 2 * done:  # each mask and its folder
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    with monkeypatch.context() as patched:
        patched.setattr("finemask.io.files.os.fsync", full)
        with pytest.raises(OutputError, match=f"No space left.*{done} cases are done.*--resume"):
            predict(run, source, out)
    assert sorted(p.name for p in out.iterdir()) == [*["a.png", "b.png"][:done], "manifest.jsonl"]
    outcome = predict(run, source, out, resume=True)
    assert (outcome.done, outcome.skipped) == (4 - done, done)
    assert sorted(p.name for p in out.iterdir())[-1] == "manifest.json"


def test_what_finemask_wrote_is_no_input(tmp_path: Path) -> None:
    run = make_pictures(tmp_path / "run", ["curves"])
    (run / "recipe.toml").write_text("")
    (run / "checkpoints").mkdir()
    scores = make_pictures(tmp_path / "scores", "a")
    for name in ("summary.json", "cases.csv"):
        (scores / name).write_text("")
    predict(make_run(), make_pictures(tmp_path / "in", "a"), tmp_path / "masks")
    for folder in (run, scores, tmp_path / "masks"):
        with pytest.raises(UsageError, match="give an image"):
            predict(make_run(), folder, tmp_path / "out")


def test_an_input_that_is_missing_is_named_and_touches_no_file(tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_text("mine")
    inputs = [make_pictures(tmp_path / "in", "a"), tmp_path / "scan", tmp_path / "a"]
    outcome = predict(make_run(), inputs, tmp_path / "out", overwrite=True)
    assert (outcome.done, outcome.failed) == (1, 2)
    assert (tmp_path / "scan.png").read_text() == "mine"
    assert (tmp_path / "out" / "a.png").exists()
    rows = failures_of(tmp_path / "out")
    assert [(row["case"], row["file"]) for row in rows] == [("scan", "scan"), ("a (2)", "a")]
    for name in ("failures.csv", "manifest.json"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text()


def test_resume_mends_what_failed(tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "in"), tmp_path / "out"
    whole = (source / "b.png").read_bytes()
    (source / "b.png").write_bytes(b"")
    assert predict(make_run(), source, out).failed == 1
    (source / "b.png").write_bytes(whole)
    outcome = predict(make_run(), source, out, resume=True)
    assert (outcome.done, outcome.failed, outcome.skipped) == (1, 0, 2)
    assert not (out / "failures.csv").exists()


@pytest.mark.fault("F84")
def test_existing_files_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "c.png").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        predict(make_run(), source, out)
    assert [p.name for p in out.iterdir()] == ["c.png"]
    assert predict(make_run(), source, out, overwrite=True).done == 3
    assert (out / "c.png").read_bytes()[1:4] == b"PNG"


def test_a_failure_leaves_no_mask_of_another_model(tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "in"), tmp_path / "out"
    predict(make_run(), source, out)
    (source / "b.png").write_bytes(b"")
    predict(make_run(), source, out, overwrite=True)
    assert not (out / "b.png").exists()


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    source = make_pictures(tmp_path / "in")
    before = (source / "a.png").read_bytes()
    with pytest.raises(UsageError, match="is an input"):
        predict(make_run(), source, source, overwrite=True)
    assert (source / "a.png").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = make_pictures(tmp_path / "in")
    for out in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/finemask")):
        with pytest.raises(UsageError, match="cannot be written"):
            predict(make_run(), source, out)


@pytest.mark.fault("F85")
def test_names_that_collide_are_refused(tmp_path: Path) -> None:
    first, second = make_pictures(tmp_path / "1", "ab"), make_pictures(tmp_path / "2", "B")
    with pytest.raises(UsageError, match="same name"):
        predict(make_run(), [first, second], tmp_path / "out")
    both = make_pictures(tmp_path / "3", "a")
    (both / "a.png").rename(both / "a_probs.png")
    with pytest.raises(UsageError, match="both be written"):
        predict(make_run(), [first, both], tmp_path / "out", probs=True)


@pytest.mark.fault("F85")
def test_an_unsafe_name_costs_only_itself(tmp_path: Path) -> None:
    source = make_pictures(tmp_path / "in", "ab")
    (source / "b.png").rename(source / "-b c.png")
    outcome = predict(make_run(), source, tmp_path / "out")
    assert (outcome.done, outcome.failed) == (1, 1)
    assert "rename" in str(outcome.failures[0])


def test_the_wrong_kind_of_image_is_told_what_to_do(tmp_path: Path) -> None:
    colour = np.zeros((3, 8, 8), np.uint8)
    colour[0] = 7
    write_image(tmp_path / "rgb.png", colour, Geometry.regular((8, 8)))
    volume = written(tmp_path, make_volume("axial"))
    outcome = predict(make_run(), [tmp_path / "rgb.png", volume], tmp_path / "out")
    messages = [str(failure) for failure in outcome.failures]
    assert "3 channels (colour), the model takes 1 channel (grey)" in messages[0]
    assert "is 3-D, the model takes 2-D" in messages[1]


def test_grey_pictures_suit_a_colour_model(tmp_path: Path) -> None:
    run = make_run(channels=3)
    assert predict(run, make_pictures(tmp_path / "in"), tmp_path / "out").done == 3


@pytest.mark.parametrize(
    ("dims", "format", "message"),
    [
        (2, "mha", "not written for 2-D"),
        (3, "png", "3-D"),
        (3, "seg", "one of nifti, .* dicom-seg"),
    ],
)
def test_formats_that_do_not_fit_are_refused(
    tmp_path: Path, dims: int, format: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        predict(make_run(dims), tmp_path, tmp_path / "out", format=format)


@pytest.mark.parametrize("format", ["mha", "nrrd", "nii"])
@pytest.mark.fault("F08")
def test_other_volume_formats_keep_the_place(tmp_path: Path, format: str) -> None:
    case = make_volume("oblique")
    predict(make_run(3), written(tmp_path, case), tmp_path / "out", format=format)
    _, geometry = read_labels(tmp_path / "out" / f"ct.{format}")
    assert geometry.matches(case.geometry.refined((2, 2, 2)))


@pytest.mark.parametrize(
    "options",
    [{"grid": "lr"}, {"mode": "x"}, {"threshold": 0.0}, {"device": "abacus"}],
)
def test_options_that_make_no_sense_are_usage_errors(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises((UsageError, TypeCheckError)):  # the latter under pytest only
        predict(make_run(), make_pictures(tmp_path / "in"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_only_one_part_of_the_split(tmp_path: Path) -> None:
    run = replace(make_run(), path=tmp_path / "run")
    Split(train=("a",), val=("b",), test=("c",)).save(run.path / "splits.json")
    source = make_pictures(tmp_path / "in")
    assert predict(run, source, tmp_path / "out", part="test").done == 1
    assert (tmp_path / "out" / "c.png").exists()
    with pytest.raises(DataError, match="not among the inputs"):
        predict(run, source / "a.png", tmp_path / "out2", part="test")
    with pytest.raises(UsageError):
        predict(run, source, tmp_path / "out2", part="tset")


def test_the_manifest_names_bytes_not_homes(tmp_path: Path) -> None:
    predict(make_run(), make_pictures(tmp_path / "in"), tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    entry = json.loads(text)["cases"]["a"]
    assert entry["inputs"][0]["path"] == "a.png"
    assert len(entry["inputs"][0]["sha256"]) == len(entry["made_by"]["model_sha256"]) == 64
    assert entry["outputs"][0]["path"] == "a.png"


def test_progress_sees_every_case(tmp_path: Path) -> None:
    seen: list[str] = []

    def track(items: Any, _label: Any, total: int | None = None) -> Any:
        for item in items:
            seen.append(f"{item.name}/{total}")
            yield item

    predict(make_run(), make_pictures(tmp_path / "in"), tmp_path / "out", progress=track)
    assert seen == ["a/3", "b/3", "c/3"]


def test_a_model_is_known_by_its_weights() -> None:
    first, second = make_run().segmenter, make_run().segmenter
    assert weights_sha256(first) == weights_sha256(second)
    with torch.no_grad():
        second.network.level.add_(1e-6)
    assert weights_sha256(first) != weights_sha256(second)


@pytest.mark.parametrize(("learned", "warns"), [(1.0, True), (1.8, False), (9.0, True)])
def test_an_image_spaced_unlike_the_training_is_told(
    tmp_path: Path, learned: float, warns: bool
) -> None:
    """The volume has 2.5 x 0.7 x 0.9 mm; only the first axis can be too coarse."""
    run = make_run(3)
    run.meta["lr_spacing_mm"] = [[learned, 0.8, 0.8], [learned, 0.8, 0.8]]
    source = written(tmp_path, make_volume("axial"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict(run, source, tmp_path / "out")
    said = [str(w.message) for w in caught if "trust it" in str(w.message)]
    assert bool(said) == warns


class BrightEnough(Bright):
    """Finds what is brighter than the corner that its guide shows it."""

    def forward(self, image: Tensor, guidance: Tensor) -> Tensor:
        return super().forward(image - guidance.mean() + self.level)


class Corner:
    """Chooses the first corner."""

    def __call__(self, image_hr: NDArray[Any]) -> tuple[slice, ...]:
        return tuple(map(slice, self.size(image_hr.shape[1:])))

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(2 for _ in shape)


class GuidedMethod(BrightMethod):
    """Its guide cuts the first corner from the image on the HR grid."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.network = BrightEnough(task)
        self.guide = Corner()


@pytest.mark.parametrize("corner", [0.2, 0.8])
def test_the_guide_cuts_from_the_image_of_the_case(corner: float) -> None:
    image = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 16, 16)
    image[0, :2, :2] = corner
    case = Case("a", image, Geometry.regular((16, 16)))
    run = make_run(method=GuidedMethod, prepare=PrepareSettings(normalise="none"))
    found = predict_case(run, case, grid="source").probs[0] > 0.5
    np.testing.assert_array_equal(found[4:], (image[0] > corner)[4:])


@pytest.mark.parametrize("grid", ["hr", "source"])
def test_dicom_becomes_segmentations_of_its_series(tmp_path: Path, grid: Any) -> None:
    """Masks and probabilities equal those in NIfTI; what is no DICOM fails alone."""
    for name in ("ct1", "ct2"):
        series(tmp_path / "in" / name, EVEN, FrameOfReferenceUID="1.2.5")
    written(tmp_path / "in", make_volume("axial"))
    run = make_run(3, (1, 2, 2), classes=3)
    plain = predict(run, tmp_path / "in", tmp_path / "nii", grid=grid, probs=True)
    assert plain.done == 3
    outcome = predict(
        run, tmp_path / "in", tmp_path / "seg", grid=grid, probs=True, format="dicom-seg"
    )
    assert (outcome.done, outcome.failed, outcome.exit_code) == (2, 1, 1)
    assert "is no DICOM, so a segmentation would belong to no patient" in str(outcome.failures[0])
    assert sorted(p.name for p in (tmp_path / "seg").iterdir()) == [
        "ct1.dcm", "ct1_probs.dcm", "ct2.dcm", "ct2_probs.dcm", "failures.csv", "manifest.json",
    ]  # fmt: skip
    labels, geometry = read_labels(tmp_path / "seg" / "ct1.dcm", {"a": 1, "b": 2})
    expected, where = read_labels(tmp_path / "nii" / "ct1.nii.gz", {"a": 1, "b": 2})
    np.testing.assert_array_equal(labels, expected)
    assert geometry.distance_voxels(where) < 1e-3
    assert labels.any()
    probs, geometry = read_probs(tmp_path / "seg" / "ct1_probs.dcm")
    assert probs.shape == (2, *where.shape)
    assert geometry.distance_voxels(where) < 1e-3
    for index, name in enumerate(run.recipe.task.names):
        one, _ = read_probs(tmp_path / "nii" / f"ct1_probs_{name}.nii.gz")
        np.testing.assert_allclose(probs[index], one[0], atol=0.502 / 255)
    again = predict(
        run, tmp_path / "in", tmp_path / "seg", grid=grid, probs=True, format="dicom-seg",
        resume=True,
    )  # fmt: skip
    assert (again.done, again.skipped, again.failed) == (0, 2, 1)


def test_a_dicom_picture_becomes_a_segmentation(tmp_path: Path) -> None:
    image = save(tmp_path / "xray.dcm", slice_tags(VALUES[0], FrameOfReferenceUID="1.2.5"))
    assert predict(make_run(), image, tmp_path / "out", format="dicom-seg").done == 1
    plain = predict(make_run(), image, tmp_path / "png")
    assert plain.done == 1
    found, _ = read_labels(tmp_path / "out" / "xray.dcm")
    np.testing.assert_array_equal(found, read_labels(tmp_path / "png" / "xray.png")[0])


@pytest.mark.parametrize("option", ["sr", "explain"])
def test_a_segmentation_holds_no_image(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option}|does not make"):
        predict(
            make_run(3), tmp_path, tmp_path / "out", format="dicom-seg", **{option: True}
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
