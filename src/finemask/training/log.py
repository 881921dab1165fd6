"""The log of a run: one row a logging step, the same however often it was resumed."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from finemask.errors import UsageError
from finemask.io.files import write_text

_LEADING = ("step", "epoch", "learning_rate", "loss")
_TRAILING = ("gradient_norm", "skipped_steps", "val_score", "val_threshold", "val_psnr_db")


class Log:
    """Appends rows to ``log.csv`` and, on request, to TensorBoard files.

    Args:
        path: The CSV file.
        parts: Names of the loss parts, in the paper's symbols.
        at_step: Rows after this step, left by a run that was cut off, are dropped.
        tensorboard: Folder for TensorBoard files; ``None`` for none.
    """

    def __init__(
        self, path: Path, parts: Sequence[str], at_step: int, tensorboard: Path | None = None
    ) -> None:
        self.columns = (*_LEADING, *parts, *_TRAILING)
        kept = [row for row in read_log(path) if int(row["step"]) <= at_step] if at_step else []
        text = io.StringIO()
        rows = csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="ignore")
        rows.writeheader()
        rows.writerows(kept)
        write_text(path, text.getvalue(), overwrite=True)
        self._file: TextIO = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115  closed by __exit__
        self._rows = csv.DictWriter(self._file, self.columns, restval="", lineterminator="\n")
        self._board = _open_board(tensorboard, at_step) if tensorboard else None

    def row(self, values: Mapping[str, Any]) -> None:
        """Write one row; columns that it does not name stay empty."""
        self._rows.writerow(values)
        self._file.flush()
        if self._board:
            for name, value in values.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name, float(value), int(values["step"]))

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        if self._board:
            self._board.close()


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a log; a last row that was cut short is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return list(csv.DictReader(io.StringIO(whole)))


def _open_board(folder: Path, at_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "train.tensorboard",
            "needs the package tensorboard",
            "pip install finemask[tensorboard]",
        ) from error
    return SummaryWriter(str(folder), purge_step=at_step + 1)
