"""What does a whole volume cost, read coarse in one pass or fine in overlapping patches?

One volume of 192 x 192 x 128 voxels, random weights (a network's time does not depend on
them). Beside PFSeg with the paper's head and with the light one stands its own backbone at
full resolution, in windows of 96 x 96 x 64 at steps of 48, 48 and 32: by MONAI's sliding
window, and by the tiles here. Each row is a process of its own, so that its largest memory is
its own; PFSeg's includes the search for the guidance window, and all end with labels.

    pip install -c constraints.txt -e . monai    # MONAI's row is left out without it
    python benchmarks/patch_free.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from finemask.comparison.cell import peak_memory_bytes
from finemask.inference.model import Machine
from finemask.inference.network import run_whole, to_labels
from finemask.inference.torch_backend import segmenting
from finemask.methods import create, default_recipe
from finemask.pairs.degradation import downsample
from finemask.pairs.guidance import cut_guidance
from finemask.recipe import Task
from startup import machine, monai_version, table

SHAPE, PATCH = (128, 192, 192), (64, 96, 96)
SCALE = (2, 2, 2)
PFSEG = {
    "pfseg": (),
    "pfseg, Res blocks": ("config.msres=none",),
    "pfseg, light head": ("config.head=light",),
    "pfseg, Res blocks, light head": ("config.msres=none", "config.head=light"),
}
PATCHES = {"resunet3d, tiles": "tiles", "resunet3d, MONAI": "monai"}


def volume(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Noise whose contrast grows to one side, so that the search has something to find."""
    rng = np.random.default_rng(0)
    image = rng.random((1, *shape), np.float32) * np.linspace(0.5, 1, shape[-1])
    return image.astype(np.float32)


def patch_free(
    settings: tuple[str, ...], width: int
) -> Callable[[NDArray[np.float32]], NDArray[np.uint8]]:
    """From an HR volume in memory to its labels: reduced, guided, predicted in one pass."""
    recipe = default_recipe("pfseg", Task(3, scale=SCALE))
    method = create(recipe.with_settings([*settings, f"config.width={width}"]))
    network, guide = segmenting(method.deploy(), Machine()), method.guide

    def labels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
        guidance = cut_guidance(guide, image)
        return to_labels(run_whole(network, downsample(image, SCALE), guidance))

    return labels


def patched(
    how: str, patch: tuple[int, ...], width: int
) -> Callable[[NDArray[np.float32]], NDArray[np.uint8]]:
    """The same from patches of the HR volume, overlapping by half."""
    recipe = default_recipe("resunet3d", Task(3, scale=SCALE))
    segmenter = create(recipe.with_settings([f"config.width={width}"])).deploy().eval()
    segmenter.window = patch
    if how == "tiles":
        network = segmenting(segmenter, Machine())
        return lambda image: to_labels(run_whole(network, image))
    from monai.inferers import sliding_window_inference

    def labels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
        with torch.inference_mode():
            logits = sliding_window_inference(
                torch.from_numpy(image)[None], patch, 1, segmenter, overlap=0.5, mode="constant"
            )
        return to_labels(logits.sigmoid()[0].numpy())

    return labels


def measure(row: str, quick: bool, rounds: int) -> dict[str, float]:
    """Seconds and memory of one row, in this process."""
    shape, patch, width = ((32, 64, 64), (32, 32, 32), 4) if quick else (SHAPE, PATCH, 32)
    torch.manual_seed(0)
    image = volume(shape)
    before = peak_memory_bytes()
    run = patched(PATCHES[row], patch, width) if row in PATCHES else None
    run = run or patch_free(PFSEG[row], width)
    seconds = []
    for _ in range(rounds):
        start = perf_counter()
        found = run(image)
        seconds.append(perf_counter() - start)
        assert found.shape == shape
    return {"seconds": min(seconds), "peak": peak_memory_bytes(), "before": before}


def main() -> None:
    """Run every row in a process of its own and print them beside MONAI's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small volume, narrow networks")
    parser.add_argument("--only", nargs="*", default=[], help="these rows")
    parser.add_argument("--row", help="one row, as JSON; what the others are made by")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.row:
        print(json.dumps(measure(asked.row, asked.quick, asked.rounds)))
        return
    rows = [row for row in (*PFSEG, *PATCHES) if not asked.only or row in asked.only]
    rows = [row for row in rows if row != "resunet3d, MONAI" or monai_version()]
    found = {}
    for row in rows:
        command = [sys.executable, __file__, "--row", row, "--threads", str(asked.threads)]
        command += ["--rounds", str(asked.rounds), *(["--quick"] if asked.quick else [])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[row] = json.loads(done.stdout.splitlines()[-1])
        print(row, found[row], file=sys.stderr)
    slowest = found.get("resunet3d, MONAI", found[rows[-1]])["seconds"]
    print(f"{machine(asked.threads)}\n")
    lines = [
        (
            row,
            f"{one['seconds']:.1f}",
            f"{slowest / one['seconds']:.1f}",
            f"{one['peak'] / 2**30:.2f}",
        )
        for row, one in found.items()
    ]
    print(table(("row", "seconds", "times faster", "largest memory of the process, GiB"), lines))


if __name__ == "__main__":
    main()
