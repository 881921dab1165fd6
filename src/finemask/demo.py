"""The whole job on generated phantoms: a first look for people, an end-to-end test for us."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from finemask.comparison.compare import compare
from finemask.comparison.files import overview
from finemask.datasets import make_phantoms
from finemask.errors import DataError, UsageError
from finemask.progress import Track, silent

METHODS_SHOWN = ("unet", "dsrl")
SCALE = (4, 4)
MADE_HERE = ("phantoms", "comparison", "report.html")
"""Everything that a demo writes into its folder, and all that another one may remove."""


def run_demo(
    out: str | Path,
    *,
    steps: int = 180,
    minutes: float = 2.0,
    cases: int = 60,
    kind: str = "ultrasound",
    seed: int = 0,
    overwrite: bool = False,
    progress: Track = silent,
) -> str:
    """Make phantoms, train a plain and a guided network, predict, evaluate, report.

    Args:
        out: Folder to write; the page to open is ``report.html`` in it.
        steps: Optimiser steps of each method.
        minutes: Training time of each method at the most.
        cases: Phantoms to make.
        kind: What the phantoms show, see ``make_phantoms``.
        seed: Of the phantoms.
        overwrite: Replace what an earlier demo left; whatever else is there stays.
        progress: Shows how far the work is.

    Returns:
        The table of results, and where the report is.

    Raises:
        UsageError: When the folder holds something and may not be replaced.
    """
    out = Path(out)
    _make_room(out, overwrite)
    data = make_phantoms(out / "phantoms", kind=kind, cases=cases, seed=seed)
    results = compare(
        data,
        out / "comparison",
        METHODS_SHOWN,
        steps=steps,
        minutes=minutes,
        scale=SCALE,
        progress=progress,
        title="finemask demo",
        lead=f"Generated phantoms, no patients: two networks see every image {SCALE[0]} times "
        "reduced and draw the mask on the full grid.",
        notes=[
            "dsrl learns to restore the image beside the mask, and ships without that part: "
            "both networks cost the same to run.",
            "So short a training shows that everything works, not which method is better.",
        ],
    )
    for name, error in results.errors.items():
        raise DataError(name, error, "look at its log.txt, and report it")
    report = shutil.copy(out / "comparison" / "report.html", out / "report.html")
    return f"{overview(results)}\n\nreport: {report}"


def _make_room(out: Path, overwrite: bool) -> None:
    """Remove what an earlier demo made, and nothing else; refuse any other folder in use."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(out, "is a file", "give a folder as --out")
    if not any(out.iterdir()):
        return
    if not _is_demo(out):
        raise UsageError(out, "is not empty, and no demo made it", "give another --out")
    if not overwrite:
        raise UsageError(
            out, "is not empty, it holds a demo", "give another --out, or pass --overwrite"
        )
    # The phantoms say whose folder this is, so they go last, should this be interrupted.
    for path in (out / name for name in reversed(MADE_HERE)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_demo(folder: Path) -> bool:
    """Whether the phantoms in a folder are generated ones, by their own word."""
    try:
        about = json.loads((folder / "phantoms" / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("generator") == "finemask phantoms"
