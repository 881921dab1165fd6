"""Does a call that is killed at any moment lose, repeat or spoil anything?

`train`, `predict`, `soften` and `compare` are started as processes and killed (SIGKILL, or
SIGTERM, or a full disk by RLIMIT_FSIZE) at a random moment of their work, gone on with by
`--resume`, perhaps killed again, and in the end compared with a call that was left alone:
weights, optimiser and log bit by bit, masks byte by byte, the table of scores. What a
stopped call had finished must not be done again: its files keep their times of change.

    python benchmarks/crashes.py --minutes 10
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finemask.datasets import make_phantoms
from finemask.io import sha256
from finemask.training.loop import train
from startup import machine, table

TINY = ("crop=32x32", "batch_size=2", "config.width=4", "config.depth=2", "warmup_steps=0",
        "validate_every=4", "validate_cases=2")  # fmt: skip
TO_RESUME = {"train": "recipe.toml", "predict": "manifest*", "soften": "soften*.jsonl",
             "compare": "plan.json"}  # fmt: skip
"""The file by which a call knows that it is not the first."""
MOST_KILLS = 4
"""Of one call, before it is left to end."""

State = dict[str, object]


@dataclass
class Subject:
    """A command, where it works, and what must be the same in the end.

    Args:
        words: Of the command, without ``--out`` and ``--resume``.
        state: What decides whether two outputs are equal.
        finished: Files of what is done, which a resumed call must leave alone.
        begun: The file that appears when the work begins.
    """

    words: Sequence[str]
    state: Callable[[Path], State]
    finished: Callable[[Path], list[Path]]
    begun: str
    seconds: float = 0.0
    clean: State = field(default_factory=dict)


def files(root: Path, *patterns: str) -> State:
    found = (p for pattern in patterns for p in sorted(root.glob(pattern)) if p.is_file())
    return {p.relative_to(root).as_posix(): sha256(p) for p in found}


def run_state(run: Path) -> State:
    """Weights, optimiser, random state, log and standing of a training."""
    standing = json.loads((run / "checkpoints/last/meta.json").read_text())["standing"]
    standing.pop("seconds")
    return {"standing": standing, **files(
        run, "checkpoints/*/*.safetensors", "log.csv", "recipe.toml", "splits.json")}  # fmt: skip


def without_times(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def predict_state(out: Path) -> State:
    cases = json.loads((out / "manifest.json").read_text())["cases"]
    return {"cases": {n: c["outputs"] for n, c in cases.items()}, **files(out, "*.png")}


def soften_state(out: Path) -> State:
    return {"quality": without_times(out / "quality.csv"),
            **files(out, "soft/*", "masks/*", "images/*", "manifest.csv")}  # fmt: skip


def compare_state(out: Path) -> State:
    return {"scores": without_times(out / "cases.csv"),
            **{str(cell): run_state(cell) for cell in out.glob("cells/*/*/run")},
            **files(out, "cells/*/*/masks/*.png")}  # fmt: skip


def subjects(place: Path) -> dict[str, Subject]:
    """The commands, with data and a run of their own."""
    data = make_phantoms(place / "data", kind="ultrasound", cases=8, seed=1, size=(48, 48))
    many = make_phantoms(place / "many", kind="ultrasound", cases=60, seed=2, size=(48, 48))
    settings = [word for s in TINY for word in ("--set", s)]
    run = train(data, place / "model", settings=[*TINY, "steps=4"]).path
    lasting = ["--steps", "60", *settings]
    cells = ("cells/*/*/cell.json", "cells/*/*/scores/*.csv")

    def done(*patterns: str) -> Callable[[Path], list[Path]]:
        return lambda out: [p for pattern in patterns for p in out.glob(pattern)]

    def journalled(name: str) -> Callable[[Path], list[Path]]:
        """Files of the cases whose line was written in full."""

        def find(out: Path) -> list[Path]:
            lines = (out / name).read_text().split("\n")[:-1] if (out / name).exists() else []
            told = [json.loads(line) for line in lines if line.endswith("}")]
            return [out / o["path"] for line in told for o in line.get("outputs", [])]

        return find

    return {
        "train, workers 0": Subject(["train", str(data), *lasting], run_state, done(), "log.csv"),
        "train, workers 2": Subject(
            ["train", str(data), *lasting, "--set", "workers=2"], run_state, done(), "log.csv"
        ),
        "predict": Subject(
            ["predict", str(run), str(many)], predict_state, journalled("manifest.jsonl"),
            "manifest.jsonl",
        ),
        "soften": Subject(
            ["soften", str(many), "--from", "raters", "--jobs", "2"], soften_state,
            journalled("soften.jsonl"), "soften.jsonl",
        ),
        "compare": Subject(
            ["compare", str(data), "--methods", "unet,dsrl", "--steps", "12", "--jobs", "2",
             *settings], compare_state, done(*cells), "plan.json",
        ),
    }  # fmt: skip


def command(subject: Subject, out: Path, resume: bool) -> list[str]:
    words = [sys.executable, "-m", "finemask", *subject.words]
    if subject.words[0] == "soften":
        words.insert(5, str(out))
    else:
        words += ["--out", str(out)]
    kept = subject.words[0] in ("train", "compare")  # these have written down what was asked for
    if resume and kept:
        words = [*words[:5], "--out", str(out)]
    return [*words, "--quiet", *(["--resume"] if resume else [])]


def small_disk() -> None:
    """No file may grow beyond 20 kB: what a full disk looks like from within."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@dataclass
class Tally:
    """What happened to one command."""

    calls: int = 0
    kills: int = 0
    stops: int = 0
    full: int = 0
    resumes: int = 0
    different: int = 0
    redone: int = 0
    rude: int = 0

    def cells(self) -> list[str]:
        return [str(v) for v in vars(self).values()]


HEAD = ["command", "calls", "killed", "stopped", "disk full", "resumed", "other result",
        "finished work redone", "tracebacks, wrong codes"]  # fmt: skip


def try_once(subject: Subject, out: Path, tally: Tally, rng: random.Random) -> None:
    """One call from its beginning to its end, with whatever happens in between."""
    tally.calls += 1
    hits = 0
    while True:
        resume = any(out.glob(TO_RESUME[subject.words[0]]))
        tally.resumes += resume
        before = {p: p.stat().st_mtime_ns for p in subject.finished(out)} if resume else {}
        how = rng.choice(["kill", "kill", "stop", "full"]) if hits < MOST_KILLS else "leave"
        log = open(out.with_suffix(".log"), "w+")  # noqa: SIM115
        process = subprocess.Popen(
            command(subject, out, resume), stdout=subprocess.DEVNULL, stderr=log,
            preexec_fn=small_disk if how == "full" else None,
        )  # fmt: skip
        if how in ("kill", "stop"):
            hit(process, out / subject.begun, resume, subject.seconds, how, rng)
        code = process.wait()
        log.seek(0)
        said = log.read()
        log.close()
        hits += 1
        tally.redone += sum(
            p.exists() and p.stat().st_mtime_ns != then for p, then in before.items()
        )
        tally.rude += "Traceback" in said
        if code == -signal.SIGKILL:
            tally.kills += 1
        elif code == -signal.SIGTERM or (how == "stop" and code == 1):
            tally.stops += 1
        elif how == "full" and code in (1, 3):
            tally.full += 1
            tally.rude += said.count("error: ") != 1
        elif code == 0:
            break
        else:
            tally.rude += 1
            print(f"{subject.words[0]} ended with {code}: {said[-500:]}", file=sys.stderr)
            if hits > MOST_KILLS + 2:
                break
    wait_for_orphans(out)
    if subject.state(out) != subject.clean:
        tally.different += 1


def hit(process: subprocess.Popen[bytes], begun: Path, resume: bool, seconds: float, how: str,
        rng: random.Random) -> None:  # fmt: skip
    """Kill or stop a process at a random moment of its work."""
    last = begun.stat().st_mtime_ns if resume and begun.exists() else 0
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if begun.exists() and begun.stat().st_mtime_ns != last:
            break
        time.sleep(0.01)
    until = time.monotonic() + rng.uniform(0, seconds)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)


def wait_for_orphans(out: Path) -> None:
    """Cells of a comparison that outlive their parent for a moment."""
    lock = out / ".lock"
    if lock.exists():
        subprocess.run(["flock", str(lock), "true"], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a command's name")
    arguments = parser.parse_args()
    print(machine(1, peer="numpy"), "\n")
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        known = {n: s for n, s in subjects(place).items() if arguments.only in n}
        for name, subject in known.items():
            prepare(subject, place / f"clean {name}")
        tallies, start = {name: Tally() for name in known}, time.monotonic()
        while time.monotonic() - start < 60 * arguments.minutes:
            name = min(tallies, key=lambda n: tallies[n].calls)
            out = place / f"{name} {tallies[name].calls}"
            try_once(known[name], out, tallies[name], rng)
            shutil.rmtree(out)
            print(f"{name}: {tallies[name]}", file=sys.stderr)
    print(table(HEAD, [[name, *tally.cells()] for name, tally in tallies.items()]))


def prepare(subject: Subject, out: Path) -> None:
    """What a call that is left alone makes, and how long it works."""
    process = subprocess.Popen(command(subject, out, resume=False), stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / subject.begun).exists():
        time.sleep(0.01)
    start = time.monotonic()
    if process.wait():
        raise SystemExit(f"{subject.words} failed by itself")
    subject.seconds = time.monotonic() - start
    subject.clean = subject.state(out)


if __name__ == "__main__":
    main()
