"""The command ``export``: a run as a folder that other libraries predict from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from finemask import __version__
from finemask.case import Case
from finemask.datasets import Split, load_dataset
from finemask.datasets.phantoms import make_phantom
from finemask.deploy.exported import Exported, load_exported
from finemask.deploy.graph import example_inputs, input_axes, output_axes, write_graph
from finemask.deploy.quantise import quantise
from finemask.deploy.runtimes import PACKAGES, installed
from finemask.deploy.spec import (
    FILE,
    FORMAT,
    GRID_RULE,
    Check,
    Kind,
    Memory,
    Numbers,
    Spec,
    Training,
    describe_guide,
    write_spec,
)  # fmt: skip
from finemask.deploy.verify import compare, refuse_if_unlike
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.inference.activations import activation_bytes
from finemask.inference.model import Machine
from finemask.inference.torch_backend import segmenting, weights_sha256
from finemask.io.files import sha256
from finemask.io.outputs import check_writable
from finemask.progress import Track, silent
from finemask.runs import Run, load_run

CHECKED_CASES = 4
"""Cases that an exported network is compared on,"""
CALIBRATION_CASES = 16
"""and that the ranges of its eight bits are taken from, at the most."""
PHANTOM_SIDE = {2: 256, 3: 64}

UNSTATED = "not stated: ask whoever trained it"


def export(
    run: Run | str | Path,
    out: str | Path,
    to: Kind = "onnx",
    *,
    data: str | Path | None = None,
    int8: bool = False,
    licence: str = UNSTATED,
    overwrite: bool = False,
    progress: Track | None = None,
) -> Exported:
    """Write the network that ships, alone, as a graph with all that prediction needs to know.

    It is compared with the network in torch, logits and masks, before the folder gets its
    name; where they differ nothing is left.

    Args:
        run: A run, or the folder of one.
        out: Folder to write.
        to: ``onnx`` or ``openvino``.
        data: The data set of the run: it is compared on validation cases of it, and eight bits
            are fitted to training cases. By default on a phantom and on noise.
        int8: Weights and activations of eight bits, where they cost at most 0.005 Dice.
        licence: Terms of use of the weights, for ``model.json``.
        overwrite: Replace an exported folder.
        progress: Tells the user how far it is.

    Raises:
        UsageError: On options that make no sense, or a package that is missing.
        DataError: When what was written is not the run's network, or int8 costs too much.
    """
    run = run if isinstance(run, Run) else load_run(run)
    if to not in ("onnx", "openvino"):
        raise UsageError("--to", f"is {to!r}", "choose onnx or openvino")
    if not run.makes_masks:
        raise UsageError(
            run.path,
            f"is a run of {run.recipe.method}, which makes images; what is exported makes masks",
            "give a run that learned masks",
        )
    if int8 and (data is None or to != "onnx"):
        raise UsageError(
            "--int8",
            "fits an ONNX graph to images of yours" + ("" if data else ", and there are none"),
            "give --data and --to onnx (OpenVINO runs that too)",
        )
    if not run.makes_masks:
        what = f"is a run of {run.recipe.method}, which makes no masks"
        raise UsageError(run.path, what, "give a run of another method")
    machines = _machines(to)
    cases, images = _validation_cases(run, data) if data else _made_up_cases(run)
    out = Path(out)
    with _claimed(out, overwrite) as folder:
        steps = (progress or silent)(range(2 + len(machines)), f"exporting to {to}", None)
        counter = iter(steps)
        next(counter)
        names = write_graph(run.segmenter, example_inputs(run.segmenter, run.guide), folder, to)
        if int8:
            next(counter)
            quantise(folder, run, _calibration_cases(run, data))
        spec = _describe(run, to, "int8" if int8 else "float32", names, folder, licence)
        write_spec(folder, spec)
        checks = []
        for machine in machines:
            next(counter)
            check = compare(run, load_exported(folder), machine, cases, images)
            if machine.precision == "32-true":
                refuse_if_unlike(check, spec.numbers)
            checks.append(check)
        write_spec(folder, replace(spec, checks=tuple(checks), card=_card(spec, checks)))
    return load_exported(out)


def _machines(kind: Kind) -> list[Machine]:
    """Every way in which what is written can be run here."""
    able = ("onnx", "openvino") if kind == "onnx" else ("openvino",)
    backends = [backend for backend in able if installed(PACKAGES[backend])]
    if not backends:
        raise UsageError(
            "export",
            "compares what it wrote with the run, for which onnxruntime or openvino is needed",
            "pip install finemask[export]",
        )
    return [
        Machine(backend=backend, precision=precision)
        for backend in backends
        for precision in ("32-true", *(["bf16-mixed"] if backend == "openvino" else []))
    ]


@contextmanager
def _claimed(out: Path, overwrite: bool) -> Iterator[Path]:
    """A draft beside the folder, which takes its place when all went well."""
    if out.exists():
        if not out.is_dir() or (any(out.iterdir()) and not (out / FILE).is_file()):
            raise UsageError(out, "is no exported folder, so nothing is replaced", "choose another")
        if any(out.iterdir()) and not overwrite:
            raise UsageError(out, "is not empty", "pass --overwrite, or choose another --out")
    check_writable(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft, old = (out.with_name(f".{out.name}.{which}") for which in ("new", "old"))
    for folder in (draft, old):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        draft.mkdir()
        yield draft
        if out.exists():
            os.replace(out, old)
        os.replace(draft, out)
    finally:
        for folder in (draft, old):
            shutil.rmtree(folder, ignore_errors=True)


def _validation_cases(run: Run, data: str | Path) -> tuple[list[Case], str]:
    """Some validation cases of the run, in the order of the split."""
    cases = _cases_of(run, data, "val", CHECKED_CASES)
    names = ", ".join(case.name for case in cases)
    return cases, f"validation {'case' if len(cases) == 1 else 'cases'} {names}"


def _calibration_cases(run: Run, data: str | Path | None) -> list[Case]:
    assert data is not None
    return _cases_of(run, data, "train", CALIBRATION_CASES)


def _cases_of(run: Run, data: str | Path, part: str, most: int) -> list[Case]:
    dataset = load_dataset(data)
    here = {entry.name for entry in dataset.entries}
    names = [name for name in Split.load(run.path / "splits.json").part(part) if name in here]
    if not names:
        raise DataError(
            data, f"has none of the {part} cases of {run.path}", "give the data set of the run"
        )
    return [dataset.read(dataset.entry(name)) for name in names[:most]]


def _made_up_cases(run: Run) -> tuple[list[Case], str]:
    """A phantom, and noise of another size, in as many channels as the task has."""
    task, dims = run.recipe.task, run.recipe.task.dims
    phantom = make_phantom("ultrasound" if dims == 2 else "nodules", 0, size=PHANTOM_SIDE[dims])
    sides = [PHANTOM_SIDE[dims] - 4 * k * max(task.scale) for k in range(dims)]
    noise = np.random.default_rng(0).integers(0, 255, (task.channels, *sides))
    spacing = run.recipe.prepare.spacing_mm or (1.0,)
    bright = np.repeat(phantom.case.image[:1], task.channels, axis=0)
    cases = []
    for name, image in (("phantom", bright), ("noise", noise)):
        grid = Geometry.regular(image.shape[1:], spacing=spacing * (dims // len(spacing)))
        cases.append(Case(name, image.astype(np.float32), replace(grid, unit="mm")))
    return cases, "a phantom and noise"


def _memory(run: Run) -> Memory:
    """Counted at the traced size; a convolutional network grows with its voxels."""
    inputs = example_inputs(run.segmenter, run.guide)
    shapes = [(1, *tensor.shape[1:]) for tensor in inputs]
    voxels = int(np.prod(shapes[0][2:]))
    peak, largest = activation_bytes(segmenting(run.segmenter, Machine()).module, *shapes)
    return Memory(peak / voxels, largest / voxels)


def _describe(
    run: Run, kind: Kind, numbers: Numbers, names: Sequence[str], folder: Path, licence: str
) -> Spec:
    task, meta, shipped = run.recipe.task, run.meta, run.segmenter
    score = meta["score"]
    return Spec(
        format=FORMAT,
        finemask=__version__,
        kind=kind,
        numbers=numbers,
        method=run.recipe.method,
        paper=run.method.paper,
        task=task,
        prepare=run.recipe.prepare,
        pairs=run.recipe.pairs,
        inputs=input_axes(task.dims, run.guide is not None),
        output=output_axes(task.dims),
        probabilities="sigmoid" if task.foreground == 1 else "softmax without the first class",
        grid=GRID_RULE,
        stride=shipped.stride,
        window=shipped.window,
        patches=shipped.patches,
        reads="hr" if run.reads_hr else "lr",
        threshold=run.threshold,
        guide=describe_guide(run.guide),
        memory=_memory(run),
        training=Training(
            step=int(meta["step"]),
            metric=meta["metric"],
            score=() if score is None else (float(score),),
            versions=meta["versions"],
            data_fingerprint=meta["data_fingerprint"],
            weights_sha256=weights_sha256(shipped),
            lr_spacing_mm=tuple(map(tuple, meta["lr_spacing_mm"])),
        ),
        checks=(),
        licence=licence,
        card="",
        files={name: sha256(folder / name) for name in names},
    )


def _card(spec: Spec, checks: Sequence[Check]) -> str:
    """What the folder holds, in words."""
    task, training = spec.task, spec.training
    scale = " x ".join(map(str, task.scale))
    score = f"{training.metric} {training.score[0]:.4f}" if training.score else "not validated"
    lines = [
        f"{spec.method} ({spec.paper}), the network that ships, as {spec.kind} in {spec.numbers}.",
        f"Reads {task.dims}-D images of {task.channels} channel(s); marks {', '.join(task.names)} "
        f"on a grid {scale} times as fine.",
        f"Trained for {training.step} steps on data with fingerprint "
        f"{training.data_fingerprint[:16]}; validation: {score}.",
        *(
            f"Compared with the network in torch on {check.images}, by {check.backend} in "
            f"{check.precision}: logits differ by up to {check.logits_error:.1e} standard "
            f"deviations, masks agree with Dice {check.mask_dice:.4f}."
            for check in checks
        ),
        f"Licence: {spec.licence}.",
        "Scores hold for images like those of the training. It is no medical device.",
    ]
    return "\n".join(lines)
