"""One task, done in whichever process: read, soften, write, and report what happened."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from finemask.annotation.plan import Task
from finemask.annotation.products import Product, make_products
from finemask.annotation.quality import AGREEMENT_WITH, Row, measure
from finemask.annotation.writing import Wanted, Written, write_product
from finemask.errors import DataError, FinemaskError
from finemask.inference.resources import available_bytes
from finemask.io import DataWarning, read_header
from finemask.io.journal import checksums
from finemask.io.outputs import path_within

LEAST_BYTES_A_VOXEL = 24
"""Of the new grid: image, soft mask, binary masks and distances, whatever else there is."""


@dataclass
class Report:
    """What came of a task.

    Args:
        rows: A row of ``quality.csv`` for each case that was written.
        cases: Their rows of ``manifest.csv``.
        outputs: Files that were written, with checksums.
        inputs: Files that were read, with checksums.
        failures: Errors, one a mark or case that could not be done.
        warnings: Messages for the user.
    """

    rows: list[Row] = field(default_factory=list)
    cases: list[dict[str, str]] = field(default_factory=list)
    outputs: list[dict[str, str]] = field(default_factory=list)
    inputs: list[dict[str, str]] = field(default_factory=list)
    failures: list[FinemaskError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """What a process needs to know besides the task.

    Args:
        root: Folder of the inputs.
        wanted: What is written.
    """

    root: Path
    wanted: Wanted

    def __call__(self, task: Task) -> Report:
        """Do one task; whatever goes wrong with it is in the report."""
        report, written = Report(), list[Written]()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self._do(task, report, written)
            except Exception as error:
                for path in (path for files in written for path in files.paths):
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
                report, written = Report(inputs=report.inputs), []
                report.failures = [explained(error, task)] * task.items
        paths = [path for files in written for path in files.paths]
        report.outputs = checksums(self.wanted.out, paths)
        report.warnings = [str(w.message) for w in caught if w.category is DataWarning]
        return report

    def _refuse_what_does_not_fit(self, task: Task) -> None:
        """Judge by the header, before any voxel is read.

        Raises:
            DataError: When there is less memory than the work is sure to take.
        """
        header = read_header(task.entry.images[0])
        voxels = math.prod(header.shape)
        if task.origin != "recist":  # of those, single slices are worked on
            voxels *= math.prod(self.wanted.settings.factors(len(header.shape)))
        needed, free = LEAST_BYTES_A_VOXEL * voxels, available_bytes()
        if needed > free:
            raise DataError(
                task.entry.images[0],
                f"would take at least {needed / 2**30:.3g} GiB of memory as Soft Masks, "
                f"{free / 2**30:.3g} GiB are free",
                "use a smaller --scale or fewer --jobs, or cut the image",
            )

    def _do(self, task: Task, report: Report, written: list[Written]) -> None:
        self._refuse_what_does_not_fit(task)
        report.inputs = checksums(self.root, task.files)
        start = time.perf_counter()
        for product in self._products(task, report):
            row = self._measured(task, product, time.perf_counter() - start)
            written.append(write_product(product, self.wanted, _caption(row), row.flags))
            report.rows.append(row)
            report.cases.append(self._case(task, product, row, written[-1]))
            start = time.perf_counter()

    def _products(self, task: Task, report: Report) -> Iterator[Product]:
        return make_products(task, self.wanted.settings, self.wanted.crop, report.failures)

    def _measured(self, task: Task, product: Product, seconds: float) -> Row:
        settings = self.wanted.settings
        spacing = product.geometry.spacing[-2:]
        return measure(
            product.made,
            product.geometry.refined(settings.factors(product.geometry.ndim)),
            [mark.lengths(spacing) for mark in product.marks],
            case=product.name,
            source=task.origin,
            method=settings.method,
            image_case=task.name,
            slice=product.slice,
            readers=len(product.readers) or None,
            agreement_with=AGREEMENT_WITH[task.origin],
            seconds=round(seconds, 4),
        )

    def _case(self, task: Task, product: Product, row: Row, files: Written) -> dict[str, str]:
        """The row of ``manifest.csv``."""
        geometry = product.geometry.refined(self.wanted.settings.factors(product.geometry.ndim))
        in_mm = geometry.unit == "mm"
        return {
            "case": product.name,
            "image": path_within(self.wanted.out, files.image),
            "mask": path_within(self.wanted.out, files.mask),
            "soft": path_within(self.wanted.out, files.soft),
            "group": task.entry.group,
            "split": task.entry.split or "",
            "spacing_mm": "x".join(f"{s:.9g}" for s in geometry.spacing) if in_mm else "",
            "diameter_mm": f"{row.diameter:.6g}" if in_mm and row.diameter else "",
        }


def _caption(row: Row) -> str:
    """Line above a case on the contact sheet."""
    told = [row.case, f"{row.diameter:.3g} {row.unit}" if row.lesions else "no lesion"]
    if row.readers:
        told.append(f"{row.readers} readers")
    if row.agreement is not None:
        told.append(f"Dice {row.agreement:.2f} with the {row.agreement_with}")
    return "   ".join(told)


def explained(error: Exception, task: Task) -> FinemaskError:
    """Any error of a task as one that names its file and says what to do."""
    image = task.entry.images[0]
    if isinstance(error, FinemaskError):
        return error
    if isinstance(error, MemoryError):
        return DataError(image, "memory ran out", "use fewer --jobs, or a smaller --scale")
    text = " ".join(str(error).split())[:300]
    what = f"could not be softened ({type(error).__name__}: {text})"
    return DataError(image, what, "run again with --debug and report it")
