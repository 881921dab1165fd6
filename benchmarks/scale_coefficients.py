"""Do larger lesions shift a scale-aware network's weight to larger reaches, as Fig. 7 says?

Discs of one contrast on textured ground, diameters 4 to 40 px alike on a logarithmic scale,
so that nothing but size tells them apart. A small network learns to find them at half
resolution; then the scale coefficient maps of its finest block are averaged within each of
the unseen discs. "share" is a map's part of the sum of the four, "reach" the mean of 1, 3, 5
and 11 voxels weighed by the maps, "rim" the same within two LR voxels of the outline: large
lesions have more voxels far from it, and only a rim that differs shows that a voxel knows how
large its lesion is. Rank correlations are Spearman's, over discs; "by chance" is the largest
of 200 random orders.

    python benchmarks/scale_coefficients.py --seeds 3
    python benchmarks/scale_coefficients.py --run RUN --data DATA    # of a trained sasrnet
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from startup import machine, table

SIDE, SMALLEST, LARGEST = 96, 4.0, 40.0
LR_VOXELS = 2
"""HR pixels of an LR pixel; the maps live on the LR grid."""


def scene(rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Image, mask and diameter of one disc."""
    from scipy.ndimage import gaussian_filter

    diameter = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
    margin = diameter / 2 + 2
    centre = rng.uniform(margin, SIDE - margin, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    mask = np.hypot(rows - centre[0], columns - centre[1]) < diameter / 2
    texture = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2.0)
    image = texture / texture.std() + 0.3 * rng.normal(size=(SIDE, SIDE)) + 2.0 * mask
    return image.astype(np.float32), mask, diameter


def batch_of(rng: np.random.Generator, samples: int) -> tuple[Any, list[float]]:
    import torch

    from finemask.pairs.batches import Batch

    images, masks, diameters = zip(*(scene(rng) for _ in range(samples)), strict=True)
    image = torch.from_numpy(np.stack(images))[:, None]
    target = torch.from_numpy(np.stack(masks)[:, None].astype(np.float32))
    image_lr = torch.nn.functional.avg_pool2d(image, LR_VOXELS)
    return Batch(image_lr, image, target), list(diameters)


def trained(seed: int, steps: int, config: dict[str, Any]) -> Any:
    """A network after ``steps`` steps, without augmentation or choice of a checkpoint."""
    import torch

    from finemask.methods import create
    from finemask.recipe import Recipe, Task

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    options = {"width": 12, "depth": 4, "sr_width": 8, "fa_width": 8, **config}
    method = create(Recipe("sasrnet", Task(scale=(LR_VOXELS,)), config=options))
    optimiser = torch.optim.AdamW(method.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    for _ in range(steps):
        parts = method.losses(batch_of(rng, 8)[0])
        loss = torch.stack([method.weights()[name] * part for name, part in parts.items()]).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    return method.deploy().eval()


@dataclass(frozen=True)
class Lesion:
    """Diameter, the mean of each map within it, in its rim and around it, and its mask's Dice."""

    diameter: float
    within: NDArray[Any]
    rim: NDArray[Any]
    around: NDArray[Any]
    dice: float


def discs(segmenter: Any, count: int) -> Iterator[Lesion]:
    import torch

    rng = np.random.default_rng(10_000)
    for _ in range(count // 10):
        batch, diameters = batch_of(rng, 10)
        with torch.inference_mode():
            maps = torch.cat(list(segmenter.explain(batch.image_lr).values()), 1).numpy()
            found = segmenter.probs(batch.image_lr)[:, 0].numpy() > 0.5
        masks = batch.target[:, 0].numpy() > 0
        for k, diameter in enumerate(diameters):
            inside = masks[k, ::LR_VOXELS, ::LR_VOXELS]
            yield measured(diameter, maps[k], inside, 2, found[k], masks[k])


def cases(run: Any, data: Path) -> Iterator[Lesion]:
    """The test cases of a run, each as one lesion; maps on the grid of the data, reduced first."""
    from finemask.datasets import Split, load_dataset
    from finemask.inference.explanation import explained
    from finemask.inference.model import Machine
    from finemask.inference.network import predict_case
    from finemask.inference.view import view_case

    dataset = load_dataset(data)
    for name in Split.load(run.path / "splits.json").part("test"):
        case = dataset.read(dataset.entry(name))
        if case.truth is None or not (case.truth > 0).any():
            continue
        maps = np.stack(
            list(explained(run, view_case(run.recipe, case, mode="matched"), Machine()).values())
        )
        mask, d = case.truth > 0, case.geometry.ndim
        volume = mask.sum() * np.prod(case.geometry.spacing)
        diameter = 2 * (volume / np.pi) ** 0.5 if d == 2 else (6 * volume / np.pi) ** (1 / 3)
        probs = predict_case(run, case, mode="matched").probs[0]
        rim = 2 * max(run.recipe.task.scale)
        yield measured(float(diameter), maps, mask, rim, probs >= run.threshold, mask)


def measured(
    diameter: float,
    maps: NDArray[Any],
    inside: NDArray[Any],
    rim: int,
    found: NDArray[Any],
    mask: NDArray[Any],
) -> Lesion:
    from scipy.ndimage import binary_erosion

    edge = inside & ~binary_erosion(inside, iterations=rim)
    means = (maps[:, part].mean(1) for part in (inside, edge, ~inside))
    dice = 2 * (found & mask).sum() / max(1, found.sum() + mask.sum())
    return Lesion(diameter, *means, float(dice))


def reach_of(maps: NDArray[Any]) -> NDArray[Any]:
    from finemask.nn.scale_aware import FIELDS

    return np.asarray(maps @ np.array(FIELDS) / maps.sum(-1))


def summarise(name: str, lesions: Sequence[Lesion]) -> list[str]:
    """Correlations with the diameter, and what small and large thirds choose."""
    from scipy.stats import spearmanr

    size = np.array([lesion.diameter for lesion in lesions])
    within, rim, around = (
        np.stack([getattr(lesion, part) for lesion in lesions])
        for part in ("within", "rim", "around")
    )
    shares, reach = within / within.sum(1, keepdims=True), reach_of(within)
    rng = np.random.default_rng(0)
    chance = max(abs(spearmanr(rng.permutation(size), reach)[0]) for _ in range(200))
    order = np.argsort(size)
    third = len(order) // 3
    return [
        name,
        f"{np.mean([lesion.dice for lesion in lesions]):.3f}",
        *(f"{spearmanr(size, share)[0]:+.2f}" for share in shares.T),
        f"{spearmanr(size, reach)[0]:+.2f}",
        f"{spearmanr(size, reach_of(rim))[0]:+.2f}",
        f"{chance:.2f}",
        f"{reach[order[:third]].mean():.2f}",
        f"{reach[order[-third:]].mean():.2f}",
        " ".join(f"{m:.2f}" for m in within.mean(0)),
        " ".join(f"{m:.2f}" for m in around.mean(0)),
    ]


VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "without FA and SA": {"fa": False, "sa": False},
    "SDC alone": {"dsr": False, "fa": False, "sa": False},
    "full, branches joined": {"fusion": "concat"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--discs", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--run", type=Path, nargs="*", default=[])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    arguments = parser.parse_args()
    steps, seeds, count = (
        (3, 1, 20)
        if arguments.quick
        else (
            arguments.steps,
            arguments.seeds,
            arguments.discs,
        )
    )
    head = ["network", "Dice", "1", "3", "5", "11", "reach", "rim", "by chance", "small", "large"]
    rows = []
    if arguments.run:
        from finemask.runs import load_run

        rows = [
            summarise(str(run), list(cases(load_run(run), arguments.data))) for run in arguments.run
        ]
    else:
        for name in arguments.only:
            for seed in range(seeds):
                segmenter = trained(seed, steps, VARIANTS[name])
                rows.append(summarise(f"{name}, seed {seed}", list(discs(segmenter, count))))
                print("done:", *rows[-1], flush=True)
    print(f"{machine()}\n")
    print(table([*head, "maps within", "maps around"], rows))


if __name__ == "__main__":
    main()
