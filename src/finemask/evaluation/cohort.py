"""Scoring masks on disk against the truth, whoever made them.

Two sets of *files* are compared, so that the score is that of what a user
gets. Every case that has a truth is scored: a prediction that is missing,
damaged or on another grid counts as the worst possible, never as absent.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finemask import __version__
from finemask.datasets.listing import few
from finemask.errors import DataError, FinemaskError, UsageError
from finemask.evaluation.comparisons import check_dimensions, compare, predicted_classes
from finemask.evaluation.lesions import HEADER, LesionRow, cells_of, group_lesions, rows_of
from finemask.evaluation.matching import (
    Predicted,
    Truth,
    TruthFile,
    Truths,
    read_super_resolved,
)
from finemask.evaluation.pairing import pair
from finemask.evaluation.rankings import Rankings, ranking_of
from finemask.evaluation.readers import study_readers, write_readers
from finemask.evaluation.results import Evaluation, Failure
from finemask.evaluation.undefined import (
    IMAGE,
    IMAGE_METRICS,
    SHEARED,
    complete,
    is_sheared,
    settle_empty,
    why_undefined,
    without_lengths,
)
from finemask.io import write_json, write_text
from finemask.io.outputs import check_writable, error_within
from finemask.io.tables import csv_table
from finemask.metrics.calibration import Ranking
from finemask.metrics.comparison import Comparison
from finemask.metrics.image import psnr, ssim
from finemask.metrics.protocols import PROTOCOLS, Protocol
from finemask.metrics.scores import (
    UNREADABLE,
    Score,
    SizeGroups,
    group_by_size,
    mean_curves,
    pooled,
    score,
    score_failure,
    summarise,
)
from finemask.metrics.statistics import RESAMPLES
from finemask.progress import Track, silent
from finemask.pseudonyms import Pseudonyms

_FILES = (
    *("cases.csv", "lesions.csv", "summary.json", "failures.csv", "report.html"),
    *("readers.csv", "readers.png"),
)


def evaluate(
    pred: str | Path,
    truth: str | Path,
    out: str | Path | None = None,
    *,
    protocol: str = "segmentation",
    size_edges: Sequence[float | int] = (),
    group: str | None = None,
    images: str | Path | None = None,
    cases: Collection[str] | None = None,
    readers: bool = False,
    empty: Literal["nan", "one"] = "nan",
    overwrite: bool = False,
    pseudonyms: Pseudonyms | None = None,
    progress: Track = silent,
) -> Evaluation:
    """Score predicted masks against the truth, by case, class and lesion size.

    Files are matched by name. ``<case>_probs``, or ``<case>_probs_<class>`` for every
    class, beside a mask gives the mean absolute error of the probabilities (``mae``;
    ``mae_mask`` is that of the mask), ``<case>_sr`` the quality of the super-resolved image.
    Protocols of maps score ``<case>_probs`` if there is one, else the file ``<case>`` itself as
    a grey map, and never resize it.

    Args:
        pred: Folder of masks (or maps), a table with ``case,mask``, or one file.
        truth: Data set, folder of masks, a table with ``case,mask``, or one mask.
        out: Folder for ``cases.csv``, ``lesions.csv``, ``summary.json``, ``report.html`` and,
            when there is one to tell of, ``failures.csv``; ``None`` writes nothing.
        protocol: A name of ``finemask.metrics.PROTOCOLS``.
        size_edges: Diameters between the size groups, in mm (px where spacing is
            unknown); the tertiles of the true lesions if not given.
        group: Column of the truth's manifest that names the patient, or the clip of a video.
        images: Folder of images for the report, where ``truth`` holds masks only.
        cases: Only these cases, for example the test part of a split.
        readers: Compare the readers with each other, with what half of them marked and with the
            predictions too, in ``readers.csv``, ``readers.png`` and the report.
        empty: Dice and IoU where truth and mask are empty: undefined (``nan``), or 1 (``one``).
        overwrite: Replace files of an earlier evaluation.
        pseudonyms: Name cases and groups by keyed hashes in everything that is written.
        progress: Shows how far the work is.

    Raises:
        UsageError: On an unknown protocol, column, case or impossible edges, a folder that
            cannot be written, or a file that exists already.
        DataError: When nothing can be scored.

    Example:
        >>> evaluate("masks", "data").mean("dice")  # doctest: +SKIP
        0.81
    """
    pred, truth, out = Path(pred), Path(truth), Path(out) if out is not None else None
    chosen = _protocol(protocol)
    _check_edges(size_edges)
    if out is not None:
        if not overwrite:
            _refuse_existing(out)
        check_writable(out)
    truths, predictions = pair(
        pred, truth, chosen, images=Path(images) if images is not None else None, group=group,
        cases=cases, pseudonyms=pseudonyms,
    )  # fmt: skip
    hide = pseudonyms.hide if pseudonyms else str
    results, rankings = [], Rankings()
    for case in progress(list(truths.cases.values()), "evaluating"):
        results.append(
            _score_case(pred, truth, case, predictions.get(case.name), truths.labels, chosen)
        )
        rankings.take(results[-1].rankings)
        results[-1].rankings.clear()
    failures = [replace(f, hide=hide) for result in results for f in result.failures]
    rows = complete(s for result in results for s in result.scores)
    rows, told = settle_empty(rows, empty)
    extra = sorted(set(predictions) - set(truths.cases)) if cases is None else []
    notes = [hide(n) for n in (*_notes(results, rows, predictions, truths, extra), *told)]
    grouped, sizes = group_by_size(rows, size_edges)
    lesions, about_lesions = group_lesions(
        [row for result in results for row in result.lesions],
        dict.fromkeys(truths.labels, len({s.case for s in rows if s.flag != UNREADABLE})),
        size_edges,
    )
    summary = {
        "protocol": chosen.describe(),
        "inputs": {"pred": pred.absolute().name, "truth": truth.absolute().name},
        "cases": {
            "total": len(truths.cases),
            "scored": len(truths.cases) - len({f.case for f in failures}),
            "failed": sorted({f.case for f in failures}),
            "extra_predictions": extra,
        },
        **_summarise(chosen, grouped, sizes, rankings, notes),
        "lesions": about_lesions,
        "notes": notes,
        "versions": _versions(),
    }
    study = study_readers(truths, predictions, chosen, progress) if readers else None
    if study:
        summary["readers"] = study.to_dict()
    evaluation = Evaluation(
        chosen, tuple(grouped), summary, tuple(failures), tuple(notes), out, tuple(lesions), study
    )
    if out is not None:
        _write(evaluation, out, truths, predictions)
    return evaluation


def _notes(
    results: Sequence[_Result],
    rows: Sequence[Score],
    predictions: Mapping[str, Predicted],
    truths: Truths,
    extra: Sequence[str],
) -> list[str]:
    """What was left out or assumed, a sentence each."""
    notes = []
    if extra:
        notes.append(f"predictions without a truth were left out: {few(extra)}")
    if unfit := [reason for result in results for reason in result.unfit]:
        notes.append(f"{len(unfit)} super-resolved images were not scored, first {unfit[0]}")
    unused = [p.unused[0].name for n, p in predictions.items() if p.unused and n in truths.cases]
    if unused:
        named = f"<case>_probs_<class> is needed for every class ({few(truths.labels)})"
        notes.append(f"{len(unused)} cases have probabilities not scored, as {named}: {unused[0]}")
    if sheared := {s.case for s in rows if SHEARED in s.flag}:
        notes.append(f"lengths are undefined on {len(sheared)} sheared grids: {few(sheared)}")
    return notes


def _summarise(
    protocol: Protocol,
    scores: Sequence[Score],
    sizes: SizeGroups,
    rankings: Rankings,
    notes: list[str],
) -> dict[str, Any]:
    units = sorted({s.unit for s in scores if s.flag != UNREADABLE}) or ["px"]
    if len(units) > 1:
        notes.append("some cases have no spacing: lengths and sizes mix mm and px")
    metrics = [*protocol.metrics, *(m for m in IMAGE_METRICS if any(m in s.values for s in scores))]
    return {
        "size_groups": {
            "measure": "equivalent diameter of the true lesion",
            "unit": " or ".join(units),
            "rule": sizes.rule,
            "names": list(sizes.names),
            "edges": {label: list(e) for label, e in sizes.edges.items() if label != IMAGE},
        },
        "interval": f"95 %, bootstrap over groups (patients), {RESAMPLES} draws, seed 0",
        "scores": {
            metric: cells
            for metric in metrics
            for cells in summarise(
                [replace(s, flag=why_undefined(s, metric)) for s in scores], [metric], sizes.names
            ).values()
        },
        "pooled": {
            label: values | rankings.values(label) for label, values in pooled(scores).items()
        },
        "curves": mean_curves(scores),
    }


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise UsageError(
            name, f"is no protocol; there are {', '.join(PROTOCOLS)}", "pick one of them"
        )
    return PROTOCOLS[name]


def _check_edges(edges: Sequence[float | int]) -> None:
    try:
        group_by_size((), edges)
    except ValueError as error:
        raise UsageError("size edges", str(error), "give for example 4,10") from error


def _refuse_existing(out: Path) -> None:
    for name in _FILES:
        if (out / name).exists():
            raise UsageError(
                out / name, "exists already", "choose another --out, or pass --overwrite"
            )


@dataclass
class _Result:
    """What came of one case."""

    scores: list[Score]
    failures: list[Failure] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    lesions: list[LesionRow] = field(default_factory=list)
    rankings: dict[str, Ranking | None] = field(default_factory=dict)


def _score_case(
    folder: Path,
    truth_root: Path,
    case: TruthFile,
    predicted: Predicted | None,
    labels: Mapping[str, int],
    protocol: Protocol,
) -> _Result:
    """Score every class of one case; whatever is wrong with it stays with it."""
    try:
        truth = case.read()
    except FinemaskError as error:
        unknown = dict.fromkeys(protocol.metrics, math.nan)
        rows = [
            Score(case.name, case.group, label, math.nan, "px", unknown, flag=UNREADABLE)
            for label in labels
        ]
        return _Result(rows, [Failure(case.name, error, truth_root)])
    check_dimensions(case.name, truth, protocol)
    try:
        if predicted is None:
            raise DataError(
                folder / case.name, "is missing, the truth has this case",
                "predict it, or name the cases to score",
            )  # fmt: skip
        comparisons = compare(predicted, truth, labels, protocol)
        result = _score_classes(case, truth, labels, protocol, comparisons, score)
    except FinemaskError as error:
        nothing = np.zeros(truth.geometry.shape, bool)
        comparisons = [
            Comparison(nothing, truth.classes == k, truth.geometry.spacing)
            for k in range(1, len(labels) + 1)
        ]
        result = _score_classes(case, truth, labels, protocol, comparisons, score_failure)
        result.failures.append(Failure(case.name, error, folder))
    if is_sheared(truth.geometry):
        result.scores = [without_lengths(s) for s in result.scores]
    if predicted is not None and predicted.sr and truth.image is not None and not result.failures:
        _score_image(case, folder, predicted.sr, truth, result)
    return result


def _score_classes(
    case: TruthFile,
    truth: Truth,
    labels: Mapping[str, int],
    protocol: Protocol,
    comparisons: Sequence[Comparison],
    how: Callable[..., Score],
) -> _Result:
    """Every class of a case, and every lesion of it."""
    result, sheared = _Result([]), is_sheared(truth.geometry)
    for label, comparison in zip(labels, comparisons, strict=True):
        names = {"case": case.name, "group": case.group, "label": label}
        names["unit"] = truth.geometry.unit
        result.scores.append(how(comparison, protocol.metrics, protocol.curves, **names))
        result.lesions += rows_of(comparison.detection, **names, sheared=sheared)
        failed = how is score_failure
        result.rankings[label] = ranking_of(comparison, protocol, failed=failed)
    return result


def _score_image(case: TruthFile, folder: Path, path: Path, truth: Truth, result: _Result) -> None:
    """Add the quality of the super-resolved image; one that does not fit is noted."""
    assert truth.image is not None  # asked for by the caller
    try:
        image = read_super_resolved(path, truth)
    except FinemaskError as error:
        result.unfit.append(error_within(folder, error))
        return
    data_range = float(np.ptp(truth.image))
    if not data_range:
        result.unfit.append(f"{case.name}: the real image is constant")
        return
    similarity = [
        ssim(a, b, data_range=data_range) for a, b in zip(image, truth.image, strict=True)
    ]
    values = {
        "psnr_db": psnr(image, truth.image, data_range=data_range),
        "ssim": float(np.mean(similarity)),
    }
    unit = truth.geometry.unit
    result.scores.append(Score(case.name, case.group, IMAGE, math.nan, unit, values))


def _versions() -> dict[str, str]:
    libraries = {name: metadata.version(name) for name in ("numpy", "scipy")}
    return {"finemask": __version__, "python": platform.python_version(), **libraries}


def _write(
    evaluation: Evaluation, out: Path, truths: Truths, predictions: Mapping[str, Predicted]
) -> None:
    from finemask.report.evaluation import evaluation_page
    from finemask.report.tables import cases_table, plain

    metrics = list(evaluation.summary["scores"])
    write_text(out / "cases.csv", cases_table(evaluation.scores, metrics), overwrite=True)
    lesions = csv_table(HEADER, [cells_of(row) for row in evaluation.lesions])
    write_text(out / "lesions.csv", lesions, overwrite=True)
    write_json(out / "summary.json", plain(evaluation.summary), overwrite=True)
    write_readers(evaluation.readers, out)
    if evaluation.failures:
        rows = [(f.case, f.file, f.line) for f in evaluation.failures]
        table = csv_table(("case", "file", "error"), rows)
        write_text(out / "failures.csv", table, overwrite=True)
    else:
        (out / "failures.csv").unlink(missing_ok=True)

    def load(name: str) -> tuple[Truth, Any]:
        truth = truths.cases[name].read()
        return truth, predicted_classes(
            predictions[name], truth, truths.labels, evaluation.protocol
        )

    page = evaluation_page(evaluation, load, tuple(truths.labels))
    write_text(out / "report.html", page, overwrite=True)
