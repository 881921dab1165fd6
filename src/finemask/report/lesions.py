"""Lesion by lesion: how many were found, by size, and a picture of those that were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finemask.metrics.detection import detect_lesions, painted
from finemask.metrics.scores import EVERY_SIZE
from finemask.report import html
from finemask.report.cells import number, ranges_of, under
from finemask.report.figures import panel_picture
from finemask.report.panels import AGREEMENT, PREDICTION, TRUTH, overlay

if TYPE_CHECKING:
    from finemask.evaluation.matching import Truth
    from finemask.evaluation.results import Evaluation

Load = Callable[[str], "tuple[Truth, NDArray[Any]]"]
MOST_PICTURES = 2


def lesion_section(evaluation: Evaluation, load: Load, labels: Sequence[str]) -> list[str]:
    """Tables and pictures of the lesions as objects; nothing where every case has one at most.

    Args:
        evaluation: Its summary, its rows.
        load: Reads truth and prediction of a case again.
        labels: Names of the classes.
    """
    about = evaluation.summary["lesions"]
    unit = evaluation.summary["size_groups"]["unit"]
    if max(Counter((r.case, r.label) for r in evaluation.lesions).values(), default=0) < 2:
        return []
    content = []
    for label in labels:
        told = about["classes"][label]
        if not told["found"]:
            continue
        names = {EVERY_SIZE: "all", **ranges_of(about["names"], told["edges"], unit)}
        rows = [
            [name, str(told["found"][group]["n"]), number(told["found"][group]),
             number(told["dice"][group])]
            for group, name in names.items()
            if group in told["found"]
        ]  # fmt: skip
        table = html.table(["Lesion", "Lesions", "Found", "Dice"], rows)
        false = f"False lesions: {told['false']}, {told['false_a_case']:.2g} a case."
        content.append(under(label, labels, table + html.paragraph(false)))
    content.append(
        html.paragraph(
            "Voxels that touch are one lesion; it is found when anything predicted touches it. "
            "Dice is that of the lesion with all predicted components that touch it, 0 for one "
            "that was missed. Sizes are those of the single lesions; every lesion is in "
            "lesions.csv.",
            "note",
        )
    )
    return [*content, *_pictures(evaluation, load)]


def _pictures(evaluation: Evaluation, load: Load) -> list[str]:
    """Cases with the most missed and false lesions, painted lesion by lesion."""
    wrong = Counter(r.case for r in evaluation.lesions if r.lesion.kind != "found")
    failed = {failure.case for failure in evaluation.failures}
    cases = [case for case, _ in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
             if case not in failed][:MOST_PICTURES]  # fmt: skip
    if not cases:
        return []
    figures = []
    for case in cases:
        truth, prediction = load(case)
        told = Counter(r.lesion.kind for r in evaluation.lesions if r.case == case)
        layers = [
            painted(detect_lesions(prediction == k, truth.classes == k, 1), prediction.shape)
            for k in range(1, int(max(truth.classes.max(), prediction.max(), 1)) + 1)
        ]
        whole, answer = (np.maximum.reduce(masks) for masks in zip(*layers, strict=True))
        panel = overlay(truth.image, whole, answer, geometry=truth.geometry, paint="errors")
        said = ", ".join(f"{told[kind]} {kind}" for kind in ("found", "missed", "false"))
        figures.append(html.picture(panel_picture(panel), f"Lesions of {case}: {said}",
                                    f"{case}: {said}"))  # fmt: skip
    legend = html.legend((AGREEMENT, "found"), (TRUTH, "missed"), (PREDICTION, "false"))
    return [legend, html.row(*figures)]
