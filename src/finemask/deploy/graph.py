"""A network in torch written as a graph that other libraries run."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from finemask.deploy.runtimes import installed
from finemask.deploy.spec import GRAPH, Kind
from finemask.errors import DataError, UsageError
from finemask.methods.base import Segmenter
from finemask.pairs.guidance import Guide

OPSET = 18
AXES = {2: ("row", "column"), 3: ("slice", "row", "column")}


class _Logits(nn.Module):
    """The whole of what ships, with float32 logits behind it."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.segmenter(*inputs).float()


def input_axes(dims: int, guided: bool) -> dict[str, tuple[str, ...]]:
    """Axes of each input; those of one name in one input vary independently of the other's."""
    axes = {"image": ("batch", "channel", *AXES[dims])}
    if guided:
        axes["guidance"] = ("batch", "channel", *(f"guidance_{axis}" for axis in AXES[dims]))
    return axes


def output_axes(dims: int) -> tuple[str, ...]:
    """Axes of the logits."""
    return ("batch", "map", *(f"mask_{axis}" for axis in AXES[dims]))


def example_inputs(segmenter: Segmenter, guide: Guide | None) -> tuple[Tensor, ...]:
    """What a network is traced with: noise, a batch of two, no two sides alike.

    Guidance is a cell larger than it would be. A network that fits it to the features of the
    image would else be written without that step, as there was nothing to fit.

    Args:
        segmenter: The network.
        guide: Of its method.
    """
    task, base = segmenter.task, max(8, segmenter.stride)
    sides = [base * (2 + k) for k in range(task.dims)]
    generator = torch.Generator().manual_seed(0)
    shapes: list[Sequence[int]] = [sides]
    if guide is not None:
        fine = [side * factor for side, factor in zip(sides, task.scale, strict=True)]
        shapes.append([side + base for side in guide.size(fine)])
    return tuple(torch.randn(2, task.channels, *shape, generator=generator) for shape in shapes)


def write_graph(
    segmenter: Segmenter, inputs: Sequence[Tensor], folder: Path, kind: Kind
) -> list[str]:
    """Write the graph of a network, with batch and sides left open.

    Args:
        segmenter: In evaluation mode, on the CPU.
        inputs: What it is traced with, see `example_inputs`.
        folder: Takes the files.
        kind: ``onnx`` or ``openvino``.

    Returns:
        Names of the files.

    Raises:
        UsageError: When a package that writes it is missing.
        DataError: When the network has a part that cannot be written.
    """
    for package in ("onnx", "openvino")[: 2 if kind == "openvino" else 1]:
        _demand(package)
    written = folder / GRAPH["onnx"]
    _trace(segmenter, inputs, written)
    if kind == "onnx":
        return [written.name]
    import openvino

    graph = openvino.Core().read_model(written)
    openvino.save_model(graph, folder / GRAPH["openvino"], compress_to_fp16=False)
    del graph  # it reads from the file
    written.unlink()
    return [GRAPH["openvino"], "model.bin"]


def _demand(package: str) -> None:
    if not installed(package):
        raise UsageError("export", f"needs the package {package}", "pip install finemask[export]")


def _trace(segmenter: Segmenter, inputs: Sequence[Tensor], path: Path) -> None:
    dims = segmenter.task.dims
    axes = input_axes(dims, len(inputs) > 1) | {"logits": output_axes(dims)}
    # The axes of channels and maps are fixed by the weights.
    open_axes = {
        name: {k: axis for k, axis in enumerate(names) if k != 1} for name, names in axes.items()
    }
    network = _Logits(segmenter).eval()  # the exporter puts all parts into the mode of the whole
    noise = logging.getLogger("torch.onnx")
    level = noise.level
    try:
        noise.setLevel(logging.ERROR)
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),  # it prints the whole graph when it fails
        ):
            warnings.simplefilter("ignore")  # of what is fixed by tracing: `verify` is the judge
            torch.onnx.export(
                network,
                tuple(inputs),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=[name for name in axes if name != "logits"],
                output_names=["logits"],
                dynamic_axes=open_axes,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        text = " ".join(str(error).split())[:200]
        raise DataError("network", f"cannot be written as ONNX ({text})", "report it") from error
    finally:
        noise.setLevel(level)
