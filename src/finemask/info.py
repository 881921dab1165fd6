"""What a run, an export or an image is, in a few lines, after reading it whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finemask.errors import DataError
from finemask.geometry import Geometry


def describe_path(path: str | Path) -> str:
    """Describe a run, an exported folder, an image file or a DICOM series folder.

    Raises:
        DataError: When it is none of these, or not sound.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(place, "does not exist", "check the path")
    if (place / "recipe.toml").exists() or (place / "checkpoints").exists():
        return describe_run(place)
    if (place / "model.json").exists():
        return describe_exported(place)
    return describe_image(place)


def describe_run(folder: Path) -> str:
    """Method, task, scores and versions of a verified run."""
    from finemask.runs import load_run

    run = load_run(folder)
    task, meta = run.recipe.task, run.meta
    parameters = sum(p.numel() for p in run.segmenter.parameters())
    score = "not validated" if meta["score"] is None else f"{meta['score']:.4f}"
    scale = "x".join(map(str, task.scale))
    lines = {
        "run": str(folder),
        "method": run.recipe.method,
        "task": f"{task.dims}-D, {task.channels} channel(s), scale {scale}",
        "classes": ", ".join(task.names) if run.method.needs_masks else "none: it makes images",
        "parameters at inference": f"{parameters:,}",
        **meta.get("equipment", {}),
        "learned from": _spacing(meta["lr_spacing_mm"]),
        "best checkpoint": f"step {meta['step']}",
        f"validation {meta['metric']}": score,
        "threshold": f"{run.threshold:.2f}",
        "versions": ", ".join(f"{name} {number}" for name, number in meta["versions"].items()),
        "data fingerprint": meta["data_fingerprint"][:16],
        "checksums": "verified",
    }
    return _table(lines)


def describe_exported(folder: Path) -> str:
    """What a verified export says of itself, and how it compared with the run."""
    from finemask.deploy.exported import load_exported

    spec = load_exported(folder).spec
    task, training = spec.task, spec.training
    scale = "x".join(map(str, task.scale))
    lines = {
        "export": str(folder),
        "format": f"{spec.kind}, {spec.numbers}, written by finemask {spec.finemask}",
        "method": spec.method,
        "task": f"{task.dims}-D, {task.channels} channel(s), scale {scale}",
        "classes": ", ".join(task.names),
        "learned from": _spacing(training.lr_spacing_mm),
        "best checkpoint": f"step {training.step}",
        f"validation {training.metric}": f"{training.score[0]:.4f}"
        if training.score
        else "not validated",
        "threshold": f"{spec.threshold:.2f}",
        "licence": spec.licence,
        "data fingerprint": training.data_fingerprint[:16],
        **{
            f"{check.backend} {check.precision}": f"masks agree with Dice {check.mask_dice:.4f} "
            f"({check.images})"
            for check in spec.checks
        },
        "checksums": "verified",
    }
    return _table(lines)


def _spacing(learned_mm: Sequence[Sequence[float]]) -> str:
    """LR spacing in training, as one number an axis or a range."""
    if not learned_mm:
        return "LR images without millimetres"
    axes = (
        f"{least:.3g}" if least == largest else f"{least:.3g}-{largest:.3g}"
        for least, largest in zip(*learned_mm, strict=True)
    )
    return f"LR images of {' x '.join(axes)} mm"


def describe_image(path: Path) -> str:
    """Grid, intensities and format of an image that was read whole."""
    from finemask.io import read_header, read_image
    from finemask.io.dicom_seg import FORMAT as SEGMENTATION

    header = read_header(path)
    if header.format == SEGMENTATION:
        return describe_segmentation(path)
    image, geometry = read_image(path)
    lines = {
        "image": str(path),
        "format": header.format,
        "channels": str(len(image)),
        **_grid(geometry),
        "intensities": f"{image.min():g} to {image.max():g}, mean {image.mean():.4g}",
    }
    return _table(lines)


def describe_segmentation(path: Path) -> str:
    """Grid and segments of a DICOM SEG that was read whole; nothing of the patient."""
    from finemask.io.dicom_seg import read, segment_names

    raster, names = read(path), segment_names(path)
    fractional = raster.array.dtype.kind == "f"
    maps = raster.array if fractional else [raster.array[0] == number for number in names]
    lines = {
        "segmentation": str(path),
        "format": f"{raster.header.format}, {'fractional' if fractional else 'binary'}",
        **_grid(raster.header.geometry),
    }
    for (number, name), values in zip(names.items(), maps, strict=True):
        share = float(values.mean())
        lines[f"segment {number}"] = f"{name}, {'mean' if fractional else 'share'} {share:.4g}"
    return _table(lines)


def _grid(geometry: Geometry) -> dict[str, str]:
    unit = geometry.unit
    return {
        "size": " x ".join(map(str, geometry.shape)) + " (slowest axis first)",
        "spacing": " x ".join(f"{s:g}" for s in geometry.spacing) + f" {unit}",
        "extent": " x ".join(f"{e:.1f}" for e in geometry.extent) + f" {unit}",
        "origin": ", ".join(f"{o:.2f}" for o in geometry.origin),
    }


def _table(lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())
