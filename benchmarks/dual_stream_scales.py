"""Where does the gain of a second stream come from, at each scale?

Draws pooled IoU, BM and MCC of the rows of comparisons over their scales, as Fig. 4 of DS2F:
every seed a dot, their mean a line. The comparisons are those of `docs/results/ds2f.md`.

    python benchmarks/dual_stream_scales.py runs/drive-2 runs/drive-4 --undrawn cogseg
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

from startup import table

SHOWN = {"iou_pooled": "IoU", "informedness_pooled": "BM", "mcc_pooled": "MCC"}
NAMES = {
    "unet: LR supervision": "U-Net, LR supervision",
    "unet": "U-Net+Inter (CE)",
    "unet: CE + Dice": "U-Net+Inter (CE + Dice)",
    "unet: CE + RMI": "U-Net+Inter (CE + RMI)",
    "ds2f: U-Net+Inter+SR": "+SR",
    "ds2f": "+SR+MSCG (DS2F)",
    "dsrl": "DSRL",
    "cogseg": "CogSeg",
}

Scores = dict[str, dict[int, list[dict[str, float]]]]


def read(folders: list[Path]) -> Scores:
    """Pooled scores of every cell that is done, by row and scale."""
    scores: Scores = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        for path in sorted(folder.glob("cells/*/*/cell.json")):
            cell = json.loads(path.read_text())
            summary = json.loads((path.parent / "scores" / "summary.json").read_text())
            (pooled,) = summary["pooled"].values()
            scores[cell["row"]][cell["recipe"]["task"]["scale"][0]].append(pooled)
    return scores


def draw(scores: Scores, out: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SHOWN), figsize=(12, 4.2), layout="constrained")
    rows = [row for row in NAMES if row in scores]
    for axis, (key, label) in zip(axes, SHOWN.items(), strict=True):
        for k, row in enumerate(rows):
            by_scale = sorted(scores[row].items())
            shift = 0.06 * (k - len(rows) / 2)
            places = [scale + shift for scale, _ in by_scale]
            values = [[cell[key] for cell in cells] for _, cells in by_scale]
            colour = f"C{k}"
            axis.plot(places, [mean(v) for v in values], color=colour, label=NAMES[row], lw=1.2)
            for place, several in zip(places, values, strict=True):
                axis.plot([place] * len(several), several, "o", color=colour, ms=4)
        axis.set(xlabel="scale", title=f"{label}, all pixels pooled")
        axis.set_xticks(sorted({scale for row in rows for scale in scores[row]}))
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of `finemask compare`")
    parser.add_argument("--out", type=Path, default=Path("scales.png"))
    parser.add_argument("--undrawn", nargs="*", default=[], help="rows far below the others")
    arguments = parser.parse_args()
    scores = read(arguments.folders)
    lines = [
        [str(scale), NAMES.get(row, row)]
        + [", ".join(f"{cell[key]:.3f}" for cell in cells) for key in SHOWN]
        for row in (*NAMES, *(row for row in scores if row not in NAMES))
        for scale, cells in sorted(scores.get(row, {}).items())
    ]
    print(table(["scale", "row", *SHOWN.values()], sorted(lines, key=lambda line: line[0])))
    drawn = {row: found for row, found in scores.items() if row not in arguments.undrawn}
    draw(drawn, arguments.out)


if __name__ == "__main__":
    main()
