"""Eight bits: weights and activations of a graph rounded to what images of the user need."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from finemask.case import Case
from finemask.deploy.runtimes import installed
from finemask.deploy.spec import GRAPH
from finemask.deploy.verify import tiles_of, view_for
from finemask.errors import UsageError
from finemask.runs import Run


def quantise(folder: Path, run: Run, cases: Sequence[Case]) -> None:
    """Put an ONNX graph of eight bits in the place of the one in a folder.

    Convolutions multiply unsigned bytes, with a range for each input as large as it was on
    the cases, by signed ones, with a range for each output channel: what processors have an
    instruction for. Signed inputs would waste a bit on what a ReLU left, and cost Dice.

    Args:
        folder: Holds ``model.onnx``.
        run: Prepares the cases.
        cases: Images like those it will see.

    Raises:
        UsageError: When the package that does it is missing.
    """
    for package in ("onnx", "onnxruntime"):
        if not installed(package):
            raise UsageError(
                "--int8", f"needs the package {package}", "pip install finemask[export]"
            )
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(run, cases)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    written, draft = folder / GRAPH["onnx"], folder / "int8.onnx"
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice to optimise the graph first, which tracing did
    try:
        quantize_static(
            written,
            draft,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(before)
    draft.replace(written)


def _batches(run: Run, cases: Sequence[Case]) -> Iterator[dict[str, np.ndarray]]:
    for case in cases:
        tiles = tiles_of(run, view_for(run, case))
        yield dict(zip(("image", "guidance"), tiles, strict=False))
