"""How good do the methods get on real images, at one stated budget?

Every run is made by the commands that a user types: train, predict (matched,
test part), evaluate. Runs that are finished are not repeated, so the script
can be stopped and started again. One thread a run, ``--jobs`` runs at a time.

    python benchmarks/real_data.py --data ../shared/data --out runs/real --jobs 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

BUDGETS = {
    ("DRIVE", 2): ("train.steps=400", "train.batch_size=4"),
    ("DRIVE", 4): ("train.steps=700",),
    ("MSD_Task04_Hippocampus", 2): ("train.steps=800", "pairs.flip=false"),
    ("BUSI", 4): ("train.steps=300", "train.batch_size=4", "pairs.crop=320x320"),
    ("LA2018_atrial_MR", 2): ("train.steps=150", "pairs.crop=80x80x80"),
}
METRICS = ("dice", "sensitivity", "precision", "hd95", "assd", "psnr_db")


@dataclass(frozen=True)
class Setting:
    """One run: a data set, a scale, a method and a seed."""

    data: str
    scale: int
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}-x{self.scale}-{self.method}-seed{self.seed}"


def run(setting: Setting, data: Path, out: Path) -> dict[str, float]:
    """Train, predict and evaluate by the commands; the scores of each class."""
    folder = out / setting.name
    source = str(data / setting.data)
    summary = folder / "scores" / "summary.json"
    if not summary.exists():
        budget = BUDGETS[setting.data, setting.scale]
        recipe = [part for key in (*budget, f"seed={setting.seed}") for part in ("--set", key)]
        where = [
            "--out",
            f"{folder}/run",
            "--method",
            setting.method,
            "--scale",
            f"{setting.scale}",
        ]
        begun = (folder / "run" / "checkpoints").exists()
        train = ["train", source, "--out", f"{folder}/run", "--resume"]
        command(train if begun else ["train", source, *where, *recipe, "--overwrite"])
        image = ["--sr"] if setting.method != "unet" else []
        masks = [f"{folder}/run", source, "--out", f"{folder}/masks", "--mode", "matched"]
        command(["predict", *masks, "--part", "test", "--overwrite", *image])
        scores = [
            f"{folder}/masks",
            source,
            "--split",
            f"{folder}/run",
            "--out",
            f"{folder}/scores",
        ]
        command(["evaluate", *scores, "--overwrite"])
    found = json.loads(summary.read_text())["scores"]
    values = {
        f"{metric} {label}": cells["all"]["mean"]
        for metric in METRICS
        for label, cells in found.get(metric, {}).items()
    }
    print(setting.name, {k: v and round(v, 4) for k, v in values.items()}, flush=True)
    return values


def command(arguments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "finemask", *arguments, "--quiet"],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )


def table(results: dict[Setting, dict[str, float]]) -> str:
    """Mean over seeds of each data set, scale, class and method, as Markdown."""
    lines = ["| data | scale | class | method | " + " | ".join(METRICS) + " | seeds |"]
    lines.append("|" + "---|" * (len(METRICS) + 5))
    for data, scale in BUDGETS:
        chosen = [s for s in results if (s.data, s.scale) == (data, scale)]
        labels = {k.split(" ", 1)[1] for s in chosen for k in results[s]} - {"image"}
        for label in sorted(labels):
            for method in dict.fromkeys(s.method for s in chosen):
                runs = [results[s] for s in chosen if s.method == method]
                cells = [_mean(runs, metric, label) for metric in METRICS]
                row = [data, str(scale), label, method, *cells, str(len(runs))]
                lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _mean(runs: list[dict[str, float]], metric: str, label: str) -> str:
    key = f"{metric} {'image' if metric == 'psnr_db' else label}"
    values = [r[key] for r in runs if r.get(key) is not None]
    if not values:
        return "-"
    spread = f" ({', '.join(f'{v:.3f}' for v in values)})" if metric == "dice" else ""
    return f"{mean(values):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="data sets to run, comma separated")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else [name for name, _ in BUDGETS]
    settings = [
        Setting(data, scale, method, seed)
        for data, scale in BUDGETS
        if data in wanted
        for seed in range(arguments.seeds)
        for method in ("unet", "dsrl")
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        values = pool.map(lambda s: run(s, arguments.data, arguments.out), settings)
        print("\n" + table(dict(zip(settings, values, strict=True))))


if __name__ == "__main__":
    main()
