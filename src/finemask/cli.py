"""The command line: the package's functions with the same names and options.

Only typer is imported here; each command imports its engine when it runs, so
that help and usage errors come at once. Long because every option of every
command is declared here, once, with its help.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finemask.errors import FinemaskError, UsageError, is_out_of_memory
from finemask.options import read_bytes, read_edges, read_numbers, read_share

if TYPE_CHECKING:
    from finemask.progress import Track
    from finemask.pseudonyms import Pseudonyms

app = typer.Typer(
    name="finemask",
    help="High-resolution lesion masks from low-resolution medical images.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MOST_LINES = 100
"""Failed cases that a command names on the terminal; beyond, its files alone name them."""
INTERRUPTED = 130
"""What typer makes of Ctrl-C, as shells do."""

_options: dict[str, bool] = {"quiet": False, "debug": False}
_at_end = ExitStack()
"""What is done when a command has ended, whatever ended it."""


class Grid(StrEnum):
    hr = "hr"
    source = "source"


class Mode(StrEnum):
    native = "native"
    matched = "matched"


class Empty(StrEnum):
    nan = "nan"
    one = "one"


class Graph(StrEnum):
    onnx = "onnx"
    openvino = "openvino"


class Backend(StrEnum):
    auto = "auto"
    torch = "torch"
    compile = "compile"
    onnx = "onnx"
    openvino = "openvino"


class Origin(StrEnum):
    mask = "mask"
    raters = "raters"
    recist = "recist"


class Softener(StrEnum):
    matting = "matting"
    dilation = "dilation"
    resampling = "resampling"
    mean = "mean"


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
]
Scale = Annotated[
    str | None,
    typer.Option(help="HR voxels for each LR voxel: 2 (if not given), or 1x2x2 for each axis."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Strategy = Annotated[
    str, typer.Option(help="Of fine-tuning without labels, e.g. tfm, srt; the usual one if empty.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the last call stopped.")]
Pseudonymise = Annotated[
    Path | None,
    typer.Option(metavar="KEYFILE", help="Name cases by keyed hashes; a missing key is made."),
]
Mapping = Annotated[
    Path | None, typer.Option(metavar="CSV", help="Write there which pseudonym is whose.")
]
Shard = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Do every N-th case from the I-th on; others do the rest."),
]


@app.callback(invoke_without_command=True)
def _common(
    _quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Tracebacks for errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of every command; quiet and debug are taken in ``main``."""
    if version:
        from finemask import __version__

        print(f"finemask {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Out = Path("demo"),
    steps: Annotated[int, typer.Option(help="Optimiser steps of each method.")] = 180,
    minutes: Annotated[float, typer.Option(help="Training time of each at the most.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of the phantoms.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Do the whole job on generated phantoms."""
    from finemask.demo import run_demo

    print(
        run_demo(
            out,
            steps=steps,
            minutes=minutes,
            seed=seed,
            overwrite=overwrite,
            progress=_progress(),
        )
    )


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, with its options.")] = None,
    channels: Annotated[int, typer.Option(help="Image channels.")] = 1,
    classes: Annotated[int, typer.Option(help="Classes, the background included.")] = 2,
    scale: Scale = None,
    dims: Annotated[int | None, typer.Option(help="2 or 3.")] = None,
    size: Annotated[str | None, typer.Option(help="LR input, e.g. 256x256.")] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the methods, their cost and options."""
    from finemask.methods.describe import describe_methods

    print(
        describe_methods(
            name,
            channels=channels,
            classes=classes,
            scale=read_numbers("--scale", scale),
            dims=dims,
            size=read_numbers("--size", size),
            settings=settings or (),
            as_json=as_json,
        )
    )


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="A data set in any layout.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read a data set whole; print every problem."""
    import json

    from finemask.datasets import check_dataset

    report = check_dataset(data, progress=_progress())
    print(json.dumps(report.to_dict(), indent=2) if as_json else report.text())
    for problem in report.problems:
        _complain(problem)
    if report.problems:
        raise typer.Exit(1 if report.cases else 3)


@app.command()
def prepare(
    name: Annotated[str | None, typer.Argument(help="Public set, see --list.")] = None,
    raw: Annotated[Path | None, typer.Argument(help="Its official download, unpacked.")] = None,
    out: Annotated[Path | None, typer.Argument(help="Data set to write.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="A paper's form of it (sizes, crops); else as it comes.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Print the sets.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the sets as JSON.")] = False,
    copy: Annotated[
        bool, typer.Option("--copy/--link", help="Copy images, or link them (no space).")
    ] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn a public data set, as it is downloaded, into one of finemask."""
    import json

    from finemask.datasets import public
    from finemask.errors import UsageError

    if as_json:
        print(json.dumps(public.sets_as_dicts(), indent=2))
        return
    if show_list or name is None or raw is None:
        print(public.describe_sets(None if show_list else name))
        return
    if out is None:
        raise UsageError("prepare", "lacks OUT", "write finemask prepare NAME RAW OUT")
    made = public.prepare_dataset(
        name,
        raw,
        out,
        variant=variant,
        copy=copy,
        resume=resume,
        overwrite=overwrite,
        progress=_progress(),
    )
    _complain_of(made.outcome.failures, out)
    print(made.text())
    if (out / "preview.png").is_file():
        print(f"look at: {out / 'preview.png'}")
    print(f"next: finemask check {out}")
    if made.outcome.exit_code:
        raise typer.Exit(made.outcome.exit_code)


@app.command()
def soften(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A data set; for marks, also images alone.")
    ],
    out: Annotated[Path, typer.Argument(help="Data set to write.")],
    origin: Annotated[Origin, typer.Option("--from", help="What readers left on the images.")],
    marks: Annotated[
        Path | None,
        typer.Option(help="Table of RECIST marks; recist.csv or DL_info.csv if not given."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Class to soften, of several.")] = None,
    method: Annotated[
        Softener, typer.Option(help="matting, or a baseline; mean is of several readers.")
    ] = Softener.matting,
    scale: Annotated[
        str | None, typer.Option(help="Voxels of the new grid for each voxel: 4, or 1x2x2.")
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(help="Half of the unknown band, in new voxels; by lesion size if not given."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Noise that matting forgives; 1e-4 if not given.")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Intensities (HU) that are black and white."),
    ] = None,
    crop: Annotated[
        int, typer.Option(help="Cut a square of this side round each mark; 0: whole slices.")
    ] = 0,
    trimaps: Annotated[bool, typer.Option("--trimap", help="Write the trimaps too.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    shard: Shard = None,
    resume: Resume = False,
    pseudonymise: Pseudonymise = None,
    mapping: Mapping = None,
    overwrite: Overwrite = False,
) -> None:
    """Make Soft Masks of masks, readers or RECIST marks."""
    from finemask.annotation.cohort import soften as soften_data

    made = soften_data(
        source,
        out,
        origin.value,
        marks=marks,
        label=label,
        method=method.value,
        scale=read_numbers("--scale", scale) or (1,),
        radius=radius,
        epsilon=epsilon,
        window=window or (),
        crop=crop,
        trimaps=trimaps,
        jobs=jobs,
        shard=read_share("--shard", shard, least=1),
        resume=resume,
        overwrite=overwrite,
        pseudonyms=_pseudonyms(pseudonymise, mapping, out),
        progress=_progress(),
    )
    _complain_of(made.outcome.failures, out)
    print(made.text())
    if made.rows and shard is None:
        print(
            f"look at: {out / 'contact_sheet_001.png'}\n"
            f"next: finemask train {out} --set pairs.target=soft --out RUN"
        )
    if made.outcome.exit_code:
        raise typer.Exit(made.outcome.exit_code)


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="A data set in any layout.")],
    out: Out,
    method: Annotated[
        str | None, typer.Option(help="See finemask methods; unet if not given.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe file (TOML), or the name of one that ships.")
    ] = None,
    settings: Settings = None,
    scale: Scale = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps; 1000 if no bound is given.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training cases.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock bound.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    devices: Annotated[int, typer.Option(help="Processes or GPUs.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed, ...")] = None,
    encoder_weights: Annotated[
        Path | None, typer.Option(help="Public ImageNet file that the encoder starts from.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Super-resolution run (srgan) to learn from (dsnet).")
    ] = None,
    split: Annotated[str | None, typer.Option(help="A splits.json, or a named split.")] = None,
    fold: Annotated[str | None, typer.Option(metavar="K/N", help="Fold K of N.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for prepared cases.")] = None,
    resume: Resume = False,
    pseudonymise: Pseudonymise = None,
    mapping: Mapping = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a method; leave a run folder."""
    from finemask.training.loop import train as train_method

    bounds = {"steps": steps, "epochs": epochs, "minutes": minutes}
    changes = [f"train.{k}={v}" for k, v in bounds.items() if v is not None]
    if changes and steps is None:
        changes.append("train.steps=0")
    changes += [
        f"train.{key}={value!r}" if isinstance(value, str) else f"train.{key}={value}"
        for key, value in {"seed": seed, "precision": precision}.items()
        if value is not None
    ]
    run = train_method(
        data,
        out,
        method=method,
        recipe=recipe,
        settings=[*(settings or ()), *changes],
        scale=read_numbers("--scale", scale),
        encoder_weights=encoder_weights,
        teacher=teacher,
        split=split,
        fold=read_share("--fold", fold),
        resume=resume,
        overwrite=overwrite,
        pseudonyms=_pseudonyms(pseudonymise, mapping, out),
        devices=devices,
        accelerator=accelerator,
        cache=cache,
        progress=_progress(),
    )
    score = run.meta["score"]
    print(
        f"{run.path}: {run.recipe.method}, best at step {run.meta['step']}, validation "
        f"{run.meta['metric']} {'unknown' if score is None else format(score, '.4f')}"
        f"{f' at threshold {run.threshold:.2f}' if run.method.needs_masks else ''}\n"
        f"next: finemask predict {run.path} {data} --part test --mode matched --out MASKS"
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or what export wrote.")],
    inputs: Annotated[list[Path], typer.Argument(help="Files, folders, data sets, DICOM series.")],
    out: Out,
    grid: Annotated[
        Grid, typer.Option(help="Write on the HR grid or on the input's own.")
    ] = Grid.hr,
    mode: Annotated[
        Mode, typer.Option(help="native: the input is the LR image; matched: it is reduced first.")
    ] = Mode.native,
    part: Annotated[
        str | None, typer.Option(help="Only these cases of the run's split: train, val or test.")
    ] = None,
    probs: Annotated[bool, typer.Option("--probs", help="Write probabilities too.")] = False,
    sr: Annotated[bool, typer.Option("--sr", help="Write the super-resolved image too.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Write what the mask was made from (sasrnet).")
    ] = False,
    format: Annotated[str | None, typer.Option(help="png, nifti, mha, nrrd or dicom-seg.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Instead of the run's own.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="For example 4GB.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    shard: Shard = None,
    backend: Annotated[
        Backend, typer.Option(help="What runs the network; auto measures what is fastest.")
    ] = Backend.auto,
    precision: Annotated[
        str, typer.Option(help="32-true, bf16-mixed, 16-mixed, or auto: what is fastest.")
    ] = "32-true",
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Fine-tune on these images first, without labels.")
    ] = False,
    adapt_each: Annotated[
        bool, typer.Option("--adapt-each", help="The same, anew for each image.")
    ] = False,
    strategy: Strategy = "",
    resume: Resume = False,
    pseudonymise: Pseudonymise = None,
    mapping: Mapping = None,
    overwrite: Overwrite = False,
) -> None:
    """Write masks for files, folders, data sets."""
    memory = read_bytes(max_memory)
    from finemask.inference.cohort import predict as predict_inputs

    outcome = predict_inputs(
        run,
        inputs,
        out,
        grid=grid.value,
        mode=mode.value,
        part=part,
        probs=probs,
        sr=sr,
        explain=explain,
        format=format,
        threshold=threshold,
        max_memory_bytes=memory,
        device=device,
        shard=read_share("--shard", shard, least=1),
        backend=backend.value,
        precision=precision,
        adapt="case" if adapt_each else "cohort" if adapt else None,
        strategy=strategy,
        resume=resume,
        overwrite=overwrite,
        pseudonyms=_pseudonyms(pseudonymise, mapping, out),
        progress=_progress(),
    )
    _complain_of(outcome.failures, out)
    print(f"{outcome.text()}\nmasks: {out}")
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


@app.command()
def adapt(
    run: Annotated[Path, typer.Argument(help="A run folder; it is not changed.")],
    inputs: Annotated[list[Path], typer.Argument(help="Images without labels, or a data set.")],
    out: Out,
    strategy: Strategy = "",
    epochs: Annotated[int, typer.Option(help="Times that each image is learnt from.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-5,
    part: Annotated[
        str | None, typer.Option(help="Only these cases of the run's split: train, val or test.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a run on unlabelled images; leave a new run."""
    from finemask.adapt import adapt as adapt_run

    outcome = adapt_run(
        run,
        inputs,
        out,
        strategy=strategy,
        epochs=epochs,
        learning_rate=learning_rate,
        part=part,
        overwrite=overwrite,
        device=device,
        progress=_progress(),
    )
    _complain_of(outcome.failures, out)
    print(
        f"{outcome.text()}\nchanges: {out / 'adaptation.csv'}\n"
        "next: predict with both runs, and report the scores of both"
    )
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Argument(help="Folder or manifest of masks or maps, ours or not.")],
    truth: Annotated[Path, typer.Argument(help="Folder of masks, or a data set.")],
    out: Out,
    protocol: Annotated[
        str,
        typer.Option(
            help="Which metrics: segmentation; clinical; polyp_pranet or polyp_m2snet for grey "
            "maps (with _raw: not stretched); layers."
        ),
    ] = "segmentation",
    size_edges: Annotated[
        str | None, typer.Option(help="Edges of the lesion size groups, e.g. 4,10 (mm or px).")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Column that names the patient.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Images for the report, where TRUTH has masks only.")
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            help="Score one part of this splits.json, of this run's, or of a named one of TRUTH."
        ),
    ] = None,
    part: Annotated[str, typer.Option(help="Which part: train, val or test.")] = "test",
    readers: Annotated[
        bool, typer.Option("--readers", help="Compare readers, consensus and predictions too.")
    ] = False,
    empty: Annotated[
        Empty, typer.Option(help="Dice and IoU where both masks are empty: undefined, or 1.")
    ] = Empty.nan,
    pseudonymise: Pseudonymise = None,
    mapping: Mapping = None,
    overwrite: Overwrite = False,
) -> None:
    """Score masks against the truth; write a report."""
    from finemask.evaluation.cohort import evaluate as evaluate_masks

    cases = None
    if split is not None:
        from finemask.datasets import Split

        named = truth / "splits" / f"{split}.json"
        chosen = Split.load(
            split / "splits.json" if split.is_dir() else named if named.is_file() else split
        )
        cases = chosen.part(part)
    evaluation = evaluate_masks(
        pred,
        truth,
        out,
        protocol=protocol,
        size_edges=read_edges(size_edges),
        group=group,
        images=images,
        cases=cases,
        readers=readers,
        empty=empty.value,
        overwrite=overwrite,
        pseudonyms=_pseudonyms(pseudonymise, mapping, out),
        progress=_progress(),
    )
    scored_less = "see failures.csv, or score one part by --split RUN"
    _complain_of([failure.error for failure in evaluation.failures], out, scored_less)
    print(f"{evaluation.text()}\nreport: {out / 'report.html'}")
    if evaluation.exit_code:
        raise typer.Exit(evaluation.exit_code)


@app.command()
def compare(
    data: Annotated[Path, typer.Argument(help="A data set in any layout.")],
    out: Out,
    methods: Annotated[
        str, typer.Option(metavar="A,B,...", help="The first is what others are compared with.")
    ] = "",
    ablate: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD[:ROW,...]", help="Add its paper's ablations as rows."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each row; 1 if not given.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Cross-validate in so many folds.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each training.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training cases.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock bound of each.")] = None,
    scale: Scale = None,
    settings: Settings = None,
    settings_for: Annotated[
        list[str] | None,
        typer.Option("--set-for", metavar="METHOD:KEY=VALUE", help="Change it for one method."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe file (TOML), or the name of one that ships.")
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="matched (if not given): images are reduced first; native: they are not."
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Which metrics; segmentation if not given.")
    ] = None,
    size_edges: Annotated[
        str | None, typer.Option(help="Edges of the lesion size groups, e.g. 4,10 (mm or px).")
    ] = None,
    split: Annotated[str | None, typer.Option(help="A splits.json, or a named split.")] = None,
    jobs: Annotated[int, typer.Option(help="Trainings at a time.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of each; cores / jobs if not given.")
    ] = None,
    quote: Annotated[
        Path | None, typer.Option(help="CSV of published rows (row,source,dice,...).")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="ROW", help="Compare with this row; the first if not given."),
    ] = None,
    resume: Resume = False,
    pseudonymise: Pseudonymise = None,
    mapping: Mapping = None,
    overwrite: Overwrite = False,
) -> None:
    """Train, predict and evaluate methods alike; write one report."""
    from finemask.comparison.compare import compare as compare_methods
    from finemask.comparison.files import markdown

    results = compare_methods(
        data,
        out,
        [name.strip() for name in methods.split(",") if name.strip()],
        ablate=ablate or (),
        seeds=seeds,
        folds=folds,
        steps=steps,
        epochs=epochs,
        minutes=minutes,
        scale=read_numbers("--scale", scale),
        recipe=recipe,
        settings=settings or (),
        settings_for=settings_for or (),
        mode=mode.value if mode else None,
        protocol=protocol,
        size_edges=read_edges(size_edges),
        split=split,
        jobs=jobs,
        threads=threads,
        quote=quote,
        reference=reference,
        resume=resume,
        overwrite=overwrite,
        pseudonyms=_pseudonyms(pseudonymise, mapping, out),
        progress=_progress(),
    )
    for name, error in results.errors.items():
        print(f"error: {name}: {error}", file=sys.stderr)
    print(f"{markdown(results)}\n\nreport: {out / 'report.html'}")
    if results.exit_code:
        raise typer.Exit(results.exit_code)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Out,
    to: Annotated[Graph, typer.Option(help="Format of the graph.")] = Graph.onnx,
    data: Annotated[
        Path | None,
        typer.Option(help="The run's data set: compare on its validation cases, not a phantom."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Eight bits, where they cost at most 0.005 Dice.")
    ] = False,
    licence: Annotated[str | None, typer.Option(help="Terms of use of the weights.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run as a folder that needs no torch."""
    from finemask.deploy.export import UNSTATED
    from finemask.deploy.export import export as export_run

    exported = export_run(
        run,
        out,
        to.value,
        data=data,
        int8=int8,
        licence=licence or UNSTATED,
        overwrite=overwrite,
        progress=_progress(),
    )
    print(f"{exported.spec.card}\nnext: finemask predict {out} IMAGES --out MASKS")


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A run, export, image or DICOM folder.")],
) -> None:
    """Say what a run or an image is, read whole and verified."""
    from finemask.info import describe_path

    print(describe_path(path))


def main() -> None:
    """Entry point: every error in one line, with the exit code of its kind."""
    _print_warnings_in_one_line()
    arguments = _take_common_options(sys.argv[1:]) or ["--help"]
    with _at_end:
        try:
            code = app(arguments, standalone_mode=False)
            if code == INTERRUPTED:
                print("error: finemask: was interrupted; call it again", file=sys.stderr)
        except FinemaskError as error:
            code = _failed(error, str(error), error.exit_code)
        except MemoryError as error:
            code = _failed(
                error, f"finemask: memory ran out ({error}); use smaller crops or batches", 3
            )
        except Exception as error:
            code = _unexpected(error)
    sys.exit(code if isinstance(code, int) else 0)


def _take_common_options(arguments: list[str]) -> list[str]:
    """Accept --quiet and --debug at any place, not only before the command."""
    for name, spellings in {"quiet": ("--quiet", "-q"), "debug": ("--debug",)}.items():
        _options[name] = any(a in spellings for a in arguments)
        arguments = [a for a in arguments if a not in spellings]
    return arguments


def _unexpected(error: Exception) -> int:
    """Usage errors of the command line, and whatever nobody thought of."""
    usage = getattr(error, "format_message", None)
    if usage is not None:
        told = " ".join(usage().split())
        return _failed(error, f"finemask: {told}; see finemask --help", 2)
    if is_out_of_memory(error):
        return _failed(error, "finemask: memory ran out; use smaller crops or batches", 3)
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return _failed(error, f"finemask: {text}; run again with --debug and report it", 3)


def _failed(error: BaseException, message: str, code: int) -> int:
    if _options["debug"]:
        raise error
    print(f"error: {message}", file=sys.stderr)
    return code


def _complain(error: FinemaskError) -> None:
    print(f"error: {error}", file=sys.stderr)


def _complain_of(
    failures: Sequence[FinemaskError], out: Path, advice: str = "see failures.csv"
) -> None:
    """The first failed cases, a line each; files name them all."""
    for failure in failures[:MOST_LINES]:
        _complain(failure)
    if (more := len(failures) - MOST_LINES) > 0:
        print(f"error: {out}: {more} more cases failed; {advice}", file=sys.stderr)


def _print_warnings_in_one_line() -> None:
    def show(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        if category.__module__.startswith("finemask"):
            print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show


def _pseudonyms(key: Path | None, mapping: Path | None, out: Path) -> Pseudonyms | None:
    """Pseudonyms for what this call writes and prints, and their table at its end."""
    if mapping is not None and key is None:
        raise UsageError("--mapping", "is of --pseudonymise", "give that too, or leave this out")
    if key is None:
        return None
    from finemask.pseudonyms import Pseudonyms, refuse_shared

    names = Pseudonyms.load(key, apart_from=[out])
    if mapping is not None:
        refuse_shared(mapping, out)
        _at_end.callback(names.write_mapping, mapping)
    _at_end.enter_context(names.on_terminal())
    return names


def _progress() -> Track:
    from finemask.progress import bar, silent

    return silent if _options["quiet"] else bar
