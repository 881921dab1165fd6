"""What a soft label made of some readers tells about the others: rounds, scores and tables.

A round gives some readers of a nodule to a method and hides the others. Scores are taken
near the outlines that were given: a region that the answer does not decide.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from scipy import ndimage

from finemask.io import read_image, read_labels
from finemask.metrics.paired import holm, paired_difference
from finemask.metrics.statistics import bootstrap_interval

NEAR = 5
BINS = 20
SIZES = {"below 8 px": (0, 8), "8 to 13 px": (8, 13), "13 px and more": (13, math.inf)}
"""Groups by the diameter of what at least half of the readers marked; the pixel size is lost."""
Setting = tuple[float, ...]


@dataclass(frozen=True)
class Nodule:
    """One slice: image ``(1, H, W)`` and four masks ``(4, H, W)``."""

    name: str
    patient: str
    image: np.ndarray
    readers: np.ndarray

    @property
    def tunes(self) -> bool:
        """Whether settings are chosen on it: half of the patients, by a hash of their names."""
        return sha256(self.patient.encode()).digest()[0] % 2 == 0

    @property
    def diameter(self) -> float:
        """In pixels, of a disc as large as what at least half of the readers marked."""
        return 2 * math.sqrt(np.count_nonzero(majority(self.readers)) / math.pi)


def load(root: Path, least: int = 4) -> list[Nodule]:
    """Nodules that at least so many of four readers marked; an empty mask is a vote."""
    with open(root / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["n_raters"]) >= least]
    return [
        Nodule(
            row["case_id"],
            row["patient"],
            read_image(root / row["image"])[0],
            np.stack([read_labels(root / row[f"mask_rater{r}"])[0] > 0 for r in range(4)]),
        )
        for row in rows
    ]


@dataclass(frozen=True)
class Method:
    """A soft label, made by ``make(image, masks, *setting)``, and the settings that are tried."""

    name: str
    make: Callable[..., np.ndarray]
    knobs: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ((),)

    def told(self, setting: Setting) -> str:
        values = [f"{value:g}" if value else "by size" for value in setting]
        return ", ".join(f"{k} {v}" for k, v in zip(self.knobs, values, strict=True)) or "-"


def majority(masks: np.ndarray) -> np.ndarray:
    return 2 * masks.sum(0) >= len(masks)


@dataclass(frozen=True)
class Round:
    """One nodule with some readers given and the others hidden; ``region`` is scored."""

    nodule: Nodule
    given: np.ndarray
    hidden: np.ndarray
    region: np.ndarray


def rounds(nodules: Sequence[Nodule], given: int) -> Iterator[Round]:
    """Every choice of so many readers; those who marked nothing are no source by themselves."""
    for nodule in nodules:
        for chosen in itertools.combinations(range(len(nodule.readers)), given):
            masks = nodule.readers[list(chosen)]
            if masks.any():
                hidden = np.delete(nodule.readers, chosen, axis=0)
                yield Round(nodule, masks, hidden, near_outlines(masks))


def near_outlines(masks: np.ndarray) -> np.ndarray:
    """Pixels at most `NEAR` from the outlines of these masks, or between two of them."""
    outside = ndimage.distance_transform_edt(~masks.any(0))
    inside = ndimage.distance_transform_edt(masks[masks.any((1, 2))].all(0))
    return (outside <= NEAR) & (inside <= NEAR)


@dataclass
class Tally:
    """What one method scored on one nodule, a value a round.

    Args:
        nodule: That was scored.
        brier: Mean squared difference to the hidden readers' masks.
        mae: Mean absolute difference to the mean of all four readers.
        dice: Of the label cut at 0.5 with a hidden reader's mask.
        outside: Share of the squared error that lies outside the region.
        bins: ``(BINS, 3)`` share of the pixels, sum of labels and of hidden readers' shares.
    """

    nodule: Nodule
    brier: list[float] = field(default_factory=list)
    mae: list[float] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    bins: list[np.ndarray] = field(default_factory=list)

    def add(self, soft: np.ndarray, played: Round) -> None:
        soft = np.asarray(soft, np.float64)
        near, share = played.region, played.hidden.mean(0)
        error = ((soft - played.hidden) ** 2).mean(0)
        self.brier.append(float(error[near].mean()))
        self.mae.append(float(np.abs(soft - self.nodule.readers.mean(0))[near].mean()))
        self.outside.append(float(error[~near].sum() / max(error.sum(), 1e-12)))
        found = soft >= 0.5
        for mask in played.hidden:
            if size := np.count_nonzero(found) + np.count_nonzero(mask):
                self.dice.append(2 * np.count_nonzero(found & mask) / size)
        number = np.minimum((soft[near] * BINS).astype(int), BINS - 1)
        sums = [np.bincount(number, weights, BINS) for weights in (None, soft[near], share[near])]
        self.bins.append(np.stack(sums, axis=1) / number.size)

    @property
    def curve(self) -> np.ndarray:
        return np.mean(self.bins, axis=0)


@dataclass
class Outcome:
    """A method with the setting that one half chose, and what it scored on each half."""

    method: Method
    setting: Setting
    swept: dict[Setting, float]
    chosen_on: list[Tally]
    tallies: list[Tally]

    @property
    def patients(self) -> list[str]:
        return [tally.nodule.patient for tally in self.tallies]

    @property
    def pooled(self) -> np.ndarray:
        """Bins of all nodules together, each weighing the same."""
        return np.sum([tally.curve for tally in self.tallies], axis=0)

    def scores(self, name: str) -> np.ndarray:
        """One value a nodule, the mean over its rounds."""
        if name == "recalibrated":
            return self._recalibrated()
        return np.array([np.mean(getattr(tally, name)) for tally in self.tallies])

    def _recalibrated(self) -> np.ndarray:
        """Brier scores if each bin of labels said what it meant in the half that chose."""
        pooled = np.sum([tally.curve for tally in self.chosen_on], axis=0)
        meant = pooled[:, 2] / np.maximum(pooled[:, 0], 1e-12)
        curves = np.stack([tally.curve for tally in self.tallies])
        share, marked = curves[..., 0], curves[..., 2]
        return (share * meant**2 - 2 * marked * meant + marked).sum(1)

    def calibration_error(self) -> float:
        """Mean distance between label and share of hidden readers over the bins (ECE)."""
        share, label, marked = self.pooled.T
        return float(np.abs(label - marked).sum() / share.sum())


def play(method: Method, setting: Setting, played: Sequence[Round]) -> list[Tally]:
    """A tally for each nodule."""
    tallies: dict[str, Tally] = {}
    for one in played:
        tally = tallies.setdefault(one.nodule.name, Tally(one.nodule))
        tally.add(method.make(one.nodule.image, one.given, *setting), one)
    return list(tallies.values())


def decide(method: Method, tuning: Sequence[Round], held_out: Sequence[Round]) -> Outcome:
    """Sweep the settings over one half and play the best on the other."""
    tried = {setting: play(method, setting, tuning) for setting in method.settings}
    swept = {s: float(np.mean([np.mean(t.brier) for t in tried[s]])) for s in tried}
    chosen = min(swept, key=swept.__getitem__)
    return Outcome(method, chosen, swept, tried[chosen], play(method, chosen, held_out))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def scores_table(outcomes: Sequence[Outcome]) -> str:
    head = ["label", "setting", "Brier", "95 % interval", "recalibrated", "MAE", "Dice", "ECE"]
    rows = []
    for outcome in outcomes:
        brier = outcome.scores("brier")
        low, high = bootstrap_interval(brier, outcome.patients)
        further = [f"{outcome.scores(n).mean():.4f}" for n in ("recalibrated", "mae", "dice")]
        rows.append([outcome.method.name, outcome.method.told(outcome.setting),
                     f"{brier.mean():.4f}", f"{low:.4f} to {high:.4f}", *further,
                     f"{outcome.calibration_error():.3f}"])  # fmt: skip
    return markdown(head, rows)


def differences_table(outcomes: Sequence[Outcome], pairs: Sequence[tuple[str, str]]) -> str:
    """Paired differences; p of the signed-rank test over patients, corrected within the table."""
    by_name = {outcome.method.name: outcome for outcome in outcomes}
    rows, found = [], []
    for score, (first, second) in itertools.product(("brier", "dice"), pairs):
        a, b = by_name[first], by_name[second]
        change = a.scores(score) - b.scores(score)
        diameter = np.array([tally.nodule.diameter for tally in a.tallies])
        for size, (low, high) in {"all": (0, math.inf), **SIZES}.items():
            inside = (diameter >= low) & (diameter < high)
            patients = list(itertools.compress(a.patients, inside))
            found.append(paired_difference(change[inside], patients))
            rows.append([f"{first} less {second}", score.capitalize(), size])
    for row, one, p in zip(rows, found, holm([one.p for one in found]), strict=True):
        interval = f"{one.ci_low:+.4f} to {one.ci_high:+.4f}"
        row += [str(one.cases), f"{one.mean:+.4f}", interval, f"{p:.2g}"]
    return markdown(["difference", "score", "nodules", "n", "mean", "95 % interval", "p"], rows)


def sweep_table(outcome: Outcome) -> str:
    """Brier score of each setting on the half that chose."""
    rows = [[outcome.method.told(s), f"{v:.5f}"] for s, v in outcome.swept.items()]
    return markdown([outcome.method.name, "Brier"], rows)
