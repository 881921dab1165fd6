"""Checkpoints: safetensors and JSON only, verified by checksum, replaced whole.

A checkpoint is a folder: ``model.safetensors`` (the weights that predict),
``state.safetensors`` (optimisers, raw weights under averaging, random states)
and ``meta.json`` (step, scores, versions, checksums). It is written beside its
final place and renamed, and the one before stays until the new one is in
place, so a crash at any moment leaves at least one that verifies.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from finemask.errors import DataError, OutputError
from finemask.io.files import sha256

FORMAT = 1
_FILES = ("model.safetensors", "state.safetensors")
LARGEST_META = 64 * 2**20


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _are_sides(value: Any) -> bool:
    """Voxels along each axis, or nothing for networks that learned from whole images."""
    sides = value if isinstance(value, list) else [0]
    return len(sides) in (0, 2, 3) and all(type(n) is int and 0 < n < 2**31 for n in sides)


def _is_spacing_range(value: Any) -> bool:
    """Least and largest spacing of each axis, or nothing for images in pixels."""
    if not isinstance(value, list) or len(value) not in (0, 2):
        return False
    axes = {len(one) if isinstance(one, list) else 0 for one in value}
    return axes in (set(), {2}, {3}) and all(_is_number(v) and v > 0 for one in value for v in one)


def _are_words(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(word, str) for word in value.values())


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "score": lambda v: v is None or _is_number(v),
    "threshold": lambda v: _is_number(v) and 0 < v <= 1,
    "window_lr": _are_sides,
    "lr_spacing_mm": _is_spacing_range,
    "metric": lambda v: isinstance(v, str),
    "versions": _are_words,
    "data_fingerprint": lambda v: isinstance(v, str),
}
"""What the metadata must say beside step and checksums, and how it must look."""
_OPTIONAL: dict[str, Callable[[Any], bool]] = {"equipment": _are_words}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read whole and verified."""

    path: Path
    meta: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.meta["step"])

    def weights(self) -> dict[str, Tensor]:
        return read_tensors(self.path / "model.safetensors")

    def state(self) -> dict[str, Tensor]:
        return read_tensors(self.path / "state.safetensors")


def save_checkpoint(
    folder: Path,
    weights: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint and only then let go of the one it replaces.

    Args:
        folder: Final place, for example ``run/checkpoints/last``.
        weights: State dict of the method.
        meta: JSON values; checksums are added.
        state: What resuming needs; left out of checkpoints that only predict.
    """
    new, old = _beside(folder, "new"), _beside(folder, "old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        _write(new, weights, meta, state)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, (OSError, SafetensorError)):
            told = OutputError(
                folder,
                f"cannot be written ({error}); the checkpoint before it is kept",
                "free some space or mend the folder, then go on with --resume",
            )
            told.exit_code = 1 if folder.exists() else 3  # the run was stopped, or never began
            raise told from error
        raise
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    os.replace(new, folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write(
    folder: Path,
    weights: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    state: Mapping[str, Tensor] | None,
) -> None:
    needed = sum(t.nbytes for t in (*weights.values(), *(state or {}).values()))
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for name, tensors in zip(_FILES, (weights, state), strict=True):
        if tensors is not None:
            save_file({k: v.detach().contiguous() for k, v in tensors.items()}, folder / name)
            _flush(folder / name)
    sums = {name: sha256(folder / name) for name in _FILES if (folder / name).exists()}
    text = json.dumps({"format": FORMAT, **meta, "sha256": sums}, indent=2, allow_nan=False)
    (folder / "meta.json").write_text(text + "\n", encoding="utf-8")
    _flush(folder / "meta.json")


def load_checkpoint(folder: Path) -> Checkpoint:
    """The newest checkpoint at ``folder`` that verifies.

    Raises:
        DataError: When none does; the message is about the one at ``folder``.
    """
    failures: list[DataError] = []
    found: list[Checkpoint] = []
    for place in (folder, _beside(folder, "new"), _beside(folder, "old")):
        if place == folder or place.exists():
            try:
                found.append(verify_checkpoint(place))
            except DataError as error:
                failures.append(error)
    if not found:
        raise failures[0]
    return max(found, key=lambda checkpoint: checkpoint.step)


def verify_checkpoint(folder: Path) -> Checkpoint:
    """Read ``meta.json`` and compare every checksum.

    Raises:
        DataError: On anything missing, cut short or changed.
    """
    try:
        if (folder / "meta.json").stat().st_size > LARGEST_META:
            raise ValueError("it is no description of a checkpoint but something larger")
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        sums = dict(meta["sha256"])
        step = int(meta["step"])
        wrong = [key for key, fits in _FIELDS.items() if not fits(meta[key])]
        wrong += [key for key, fits in _OPTIONAL.items() if key in meta and not fits(meta[key])]
        if wrong:
            raise ValueError(f"{wrong[0]} is {meta[wrong[0]]!r}")
    except FileNotFoundError as error:
        raise DataError(
            folder, "holds no checkpoint (meta.json is missing)", "train, or give a run folder"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            folder / "meta.json", f"is damaged ({error})", "use another checkpoint or train again"
        ) from error
    if step < 0 or "model.safetensors" not in sums or not set(sums) <= set(_FILES):
        raise DataError(
            folder / "meta.json", "does not describe a checkpoint", "use another checkpoint"
        )
    for name, expected in sums.items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise DataError(
                folder / name, "is missing or damaged (checksum differs)", "use another checkpoint"
            )
    return Checkpoint(folder, meta)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], subject: Path) -> None:
    """Load a state dict strictly.

    Raises:
        DataError: Naming the first keys that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    wrong = [f"{k} missing" for k in own if k not in weights]
    wrong += [f"{k} unexpected" for k in weights if k not in own]
    wrong += [
        f"{k} is {tuple(weights[k].shape)}, needs {tuple(own[k].shape)}"
        for k in own
        if k in weights and weights[k].shape != own[k].shape
    ]
    if wrong:
        raise DataError(
            subject,
            f"does not fit the network ({'; '.join(wrong[:5])}; {len(wrong)} in all)",
            "use the recipe that the weights were trained with",
        )
    module.load_state_dict(dict(weights))


def pack_optimiser(name: str, optimiser: optim.Optimizer) -> tuple[dict[str, Tensor], list[Any]]:
    """An optimiser's state as named tensors, and its parameter groups as JSON values."""
    state = optimiser.state_dict()
    tensors = {
        f"{name}/{index}/{key}": value
        for index, values in state["state"].items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
    return tensors, state["param_groups"]


def unpack_optimiser(
    name: str, optimiser: optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[Any]
) -> None:
    """The inverse of ``pack_optimiser``."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        owner, _, rest = path.partition("/")
        if owner == name:
            index, _, key = rest.partition("/")
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or say in one line why not."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(path, f"is no readable safetensors file ({error})", "check it") from error


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")


def _flush(path: Path) -> None:
    """Have the operating system write a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
