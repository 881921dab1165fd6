"""The command ``predict``: masks for files, folders, data sets and DICOM series."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finemask.case import Case
from finemask.deploy.exported import is_exported, load_exported
from finemask.errors import (
    DataError,
    FinemaskError,
    OutputError,
    UsageError,
    is_out_of_memory,
)
from finemask.inference.explanation import write_explanation
from finemask.inference.inputs import Source, find_sources, of_part
from finemask.inference.ledger import Ledger
from finemask.inference.model import Machine, Model
from finemask.inference.network import (
    Prediction,
    labels_of,
    predict_case,
    probs_of,
    super_resolved,
    to_labels,
)
from finemask.inference.plan import plan_from_header
from finemask.inference.view import Grid, Mode, View, unlike_spacing, view_case
from finemask.inference.wanted import DICOM_SEG, Wanted, check_options
from finemask.io import write_image, write_labels, write_probs, write_segmentation
from finemask.io.notices import warn
from finemask.outcome import Outcome, shared_out, stopped
from finemask.progress import Track, silent
from finemask.pseudonyms import Pseudonyms

Adapting = Literal["cohort", "case"]
Tune = Callable[..., Model]
"""Makes a run that learnt from some sources."""

__all__ = ["Outcome", "Prediction", "predict", "predict_case", "to_labels"]


def predict(
    run: Model | str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    grid: Grid = "hr",
    mode: Mode = "native",
    part: str | None = None,
    probs: bool = False,
    sr: bool = False,
    explain: bool = False,
    format: str | None = None,
    threshold: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    pseudonyms: Pseudonyms | None = None,
    max_memory_bytes: int | None = None,
    device: str = "auto",
    precision: str = "32-true",
    backend: str = "auto",
    adapt: Adapting | None = None,
    strategy: str = "",
    progress: Track | None = None,
) -> Outcome:
    """Write a mask for every image, each at its true place in the patient.

    What can be known beforehand is checked before the first image is read.
    After that a bad image costs only itself: it is left out, counted and
    named in ``failures.csv``. ``manifest.json`` says what was made from what.

    Args:
        run: A trained run or an exported one, or the folder of one.
        inputs: Files, folders of images, data sets, DICOM series.
        out: Folder to write.
        grid: ``hr``: on the fine grid; ``source``: on the grid of the image itself.
        mode: ``native``: the image is the LR input; ``matched``: it is reduced first, so
            that the mask on the fine grid can be scored against one drawn on the image.
        part: Only these cases of the run's split: ``train``, ``val`` or ``test``.
        probs: Write ``<name>_probs`` too.
        sr: Write the super-resolved image ``<name>_sr`` too, in the image's own intensities.
        explain: Write maps of what the mask was made from too, on the mask's grid, and a
            figure ``<name>_explained.png``; for methods that have such maps.
        format: ``png`` or ``tif`` in 2-D; ``nifti``, ``nii``, ``mha`` or ``nrrd`` in 3-D;
            ``dicom-seg`` for images that are DICOM themselves.
        threshold: Instead of the run's own.
        overwrite: Replace what is there.
        resume: Leave out cases whose outputs are there, whole and made the same way; do
            the others.
        shard: ``(i, n)``: only every ``n``-th case, from the ``i``-th on. Calls with one
            ``n`` do each case once between them, at the same time and in one folder if you
            like; a last call with ``resume`` and no shard makes one manifest of theirs.
        pseudonyms: Name cases by keyed hashes in everything that is written.
        max_memory_bytes: Bound on the memory that one prediction adds.
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``32-true``, ``bf16-mixed``, ``16-mixed``, or ``auto`` for the fastest.
        backend: ``torch`` or ``compile`` for a run, ``onnx`` or ``openvino`` for an exported
            one; ``auto`` measures which is the fastest.
        adapt: Fine-tune the run on the images themselves first, without labels: once on the
            whole ``cohort``, or anew for each ``case``. The run folder is not changed.
        strategy: Of that fine-tuning; the method's usual one if empty.
        progress: Tells the user how far it is.

    Returns:
        How many cases were done, failed and skipped, and the errors.

    Raises:
        UsageError: On options that make no sense, a folder that cannot be written, or
            outputs that exist.
    """
    run = run if isinstance(run, Model) else load_model(run)
    machine = Machine(run.find_device(device), precision, max_memory_bytes, backend)
    wanted = check_options(run, grid, mode, probs, sr, explain, format, threshold)
    paths = [inputs] if isinstance(inputs, (str, Path)) else inputs
    if pseudonyms and wanted.suffix == DICOM_SEG:
        raise UsageError(
            "--format", "is dicom-seg, which names the patient of its series",
            "write nifti, or leave out --pseudonymise",
        )  # fmt: skip
    found = of_part(find_sources(paths, pseudonyms), run.path, part, pseudonyms)
    sources = shared_out(found, shard)
    out = Path(out)
    _check_outputs(sources, out, wanted, replace=overwrite or resume)
    machine = run.choose(machine)
    tune = _tuner(run, adapt, strategy, machine)
    if tune and adapt == "cohort":
        run, tune = tune(sources, progress or silent), None
    ledger = Ledger(out, _made_by(run, wanted, machine, tune and f"case {strategy}"), shard)
    failures: list[FinemaskError] = []
    done = skipped = 0
    try:
        for source in (progress or silent)(sources, "predicting", len(sources)):
            files = wanted.files(out, source)
            if resume and ledger.is_done(source, files):
                skipped += 1
                continue
            start = time.monotonic()
            job = partial(_write_case, run, source, out, wanted, machine, tune)
            error = _attempt(job, files)
            if error is None:
                ledger.record_done(source, files, time.monotonic() - start)
                done += 1
            else:
                failures.append(_explained(error, source))
                ledger.record_failure(source, failures[-1])
        ledger.close()
    except OutputError as error:  # the journal stays, for --resume
        raise stopped(error, done + skipped) from error
    return Outcome(done, len(failures), skipped, tuple(failures))


def _tuner(run: Model, adapt: Adapting | None, strategy: str, machine: Machine) -> Tune | None:
    """What makes a run of this one that learnt from some images without their labels.

    Raises:
        UsageError: When this model or its method does not define it.
    """
    if adapt is None:
        return None
    from finemask.adapt import Tuning, find_adaptation, fine_tuned
    from finemask.runs import Run

    if not isinstance(run, Run):
        raise UsageError(
            run.path, "is an exported network, which cannot be fine-tuned", "give the run itself"
        )
    find_adaptation(run, strategy)
    trained, tuning = run, Tuning(strategy)

    def tune(sources: Sequence[Source], progress: Track = silent) -> Model:
        return fine_tuned(trained, sources, tuning, machine, progress)[0]

    return tune


def _attempt(write: Callable[[], None], files: Sequence[Path]) -> Exception | None:
    """Write a case, and tell why that was not possible.

    Raises:
        OutputError: When no other could be written, either.
    """
    try:
        write()
    except Exception as error:
        # Whatever is there now is half a case, or was made by another model.
        for file in files:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        if isinstance(error, OutputError):
            raise
        return error
    return None


def load_model(folder: str | Path) -> Model:
    """A run folder, or an exported one, ready to predict.

    Raises:
        DataError: When it is neither, or damaged.
    """
    if is_exported(Path(folder)):
        return load_exported(folder)
    from finemask.runs import load_run

    return load_run(folder)


def _write_case(
    run: Model,
    source: Source,
    out: Path,
    wanted: Wanted,
    machine: Machine,
    tune: Tune | None = None,
) -> None:
    """Predict one case and write its files; the mask comes last, so it stands for all."""
    header, network = source.header(), run.network(machine)
    if header is not None and header.geometry.ndim == run.recipe.task.dims:
        bound = machine.max_memory_bytes
        plan_from_header(
            run, network, header, mode=wanted.mode, probs=wanted.probs, max_memory_bytes=bound
        )
    if tune is not None:
        run = tune([source])
    case = source.read()
    lr_case = source.read_lr() if wanted.mode == "matched" else None
    view = view_case(run.recipe, case, mode=wanted.mode, grid=wanted.grid, lr_case=lr_case)
    _warn_of_spacing(run, view, source)
    if wanted.sr:
        _write_sr(run, view, wanted.sr_file(out, source), case, machine)
    if not wanted.masks:
        return
    if wanted.probs:
        probs = probs_of(run, view, machine)
        files = wanted.probs_files(out, source.name)
        for file, values in zip(files, np.split(probs, len(files)), strict=True):
            if wanted.suffix == DICOM_SEG:
                _write_segments(file, values, run, view, wanted)
            else:
                write_probs(file, values, view.written, overwrite=True)
        labels = to_labels(probs, wanted.threshold)
        del probs
    else:
        labels = labels_of(run, view, machine, wanted.threshold)
    if wanted.explanations:
        files = wanted.explanation_files(out, source.name)
        write_explanation(files, run, view, labels, machine)
    declared = {name: k for k, name in enumerate(wanted.classes, 1)}
    mask = wanted.mask(out, source.name)
    if wanted.suffix == DICOM_SEG:
        segments = np.stack([labels == k for k in declared.values()])
        _write_segments(mask, segments, run, view, wanted)
    else:
        write_labels(mask, labels, view.written, labels=declared, overwrite=True)


def _write_segments(
    file: Path, segments: NDArray[Any], run: Model, view: View, wanted: Wanted
) -> None:
    """Masks or probabilities as a DICOM segmentation that refers to the image of the case."""
    write_segmentation(
        file,
        segments,
        view.written,
        view.case.source or Path(view.case.name),
        wanted.classes,
        algorithm=f"finemask {run.recipe.method}",
        overwrite=True,
    )


def _write_sr(run: Model, view: View, file: Path, case: Case, machine: Machine) -> None:
    image = super_resolved(run, view, machine)
    if file.suffix == ".png":
        top = 255 if case.image.max() <= 255 else 65535
        image = np.round(image).clip(0, top)
    write_image(file, image, view.written, overwrite=True)


def _warn_of_spacing(run: Model, view: View, source: Source) -> None:
    """Tell the user of an image that is far coarser or finer than any in training."""
    grid, learned = view.lr.geometry, run.meta["lr_spacing_mm"]
    if grid.unit == "mm" and unlike_spacing(grid.spacing, learned, run.recipe.task.scale):
        ours, theirs = (
            " x ".join(f"{s:.3g}" for s in spacing) for spacing in (grid.spacing, learned[0])
        )
        warn(
            source.path,
            f"is spaced {ours} mm, the model learned from {theirs} mm and the like; "
            "look at the mask before you trust it",
        )


def _check_outputs(sources: Iterable[Source], out: Path, wanted: Wanted, replace: bool) -> None:
    """Refuse to write two cases into one file, over an input, or unasked over anything."""
    sources = tuple(sources)
    owners: dict[str, Source] = {}
    inputs = {file.resolve() for source in sources for file in source.files}
    for source in sources:
        for file in wanted.files(out, source):
            if (other := owners.setdefault(str(file).casefold(), source)) is not source:
                raise UsageError(
                    source.path, f"and {other.path} would both be written to {file}", "rename one"
                )
            if file.resolve() in inputs:
                raise UsageError(
                    file, "is an input and would be written over", "choose another --out"
                )
            if file.exists() and not replace:
                raise UsageError(
                    file, "exists already", "choose another --out, or pass --overwrite or --resume"
                )


def _explained(error: Exception, source: Source) -> FinemaskError:
    """Any error of a case as one that names its file and says what to do."""
    if isinstance(error, FinemaskError):
        if error.subject.startswith(str(source.path)):
            return error
        made = DataError(source.path, f"{error.subject} {error.what}", error.fix)
    elif is_out_of_memory(error):
        made = DataError(source.path, "memory ran out", "give a smaller --max-memory")
    else:
        text = " ".join(str(error).split())[:300]
        made = DataError(
            source.path,
            f"could not be predicted ({type(error).__name__}: {text})",
            "run again with --debug and report it",
        )
    made.__cause__ = error
    return made


def _made_by(
    run: Model, wanted: Wanted, machine: Machine, adapted: str | None = None
) -> dict[str, Any]:
    """What decides the outputs besides the image: the model and the settings, not the machine."""
    recipe = run.recipe.to_dict()
    made_by = {
        "model_sha256": run.sha256(),
        "scale": list(run.recipe.task.scale),
        "classes": list(wanted.classes),
        "prepare": recipe["prepare"],
        "grid": wanted.grid,
        "mode": wanted.mode,
        "threshold": wanted.threshold,
        "precision": machine.precision,
    }
    if wanted.mode == "matched":
        reduced_by = ("degrade", "blur_sigma", "noise")
        made_by["pairs"] = {name: recipe["pairs"][name] for name in reduced_by}
    if adapted:
        made_by["adapted"] = adapted
    if wanted.sr:  # parts of the method that the inference network lacks make this image
        made_by["method_sha256"] = run.sha256(whole=True)
    return made_by
