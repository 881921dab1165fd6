"""How long does a user wait for finemask to start, beside what it stands on and instead of it?

Whole processes are timed, in rounds that take every command once, so that a busy
machine slows all of them alike. The first round, which fills caches, is not counted.

    pip install -c constraints.txt -e . monai    # MONAI's row is left out without it
    python benchmarks/startup.py --rounds 9
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter

FINEMASK = str(Path(sys.executable).with_name("finemask"))
COMMANDS = {
    "`python -c pass`": [sys.executable, "-c", "pass"],
    "`import finemask`": [sys.executable, "-c", "import finemask"],
    "`finemask --help`": [FINEMASK, "--help"],
    "`import torch`": [sys.executable, "-c", "import torch"],
    "`finemask methods`": [FINEMASK, "methods"],
    "`import finemask.training.loop`": [sys.executable, "-c", "import finemask.training.loop"],
}
PEER = "`import monai`"


def installed(package: str) -> str | None:
    """The version of a package, found without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def monai_version() -> str | None:
    """The installed MONAI."""
    return installed("monai")


def machine(threads: int | None = None, peer: str = "MONAI") -> str:
    """What the numbers depend on, in one line and without a date."""
    absent = f"absent: its rows are left out (pip install {peer.lower()})"
    model = platform.processor() or platform.machine()
    if (facts := Path("/proc/cpuinfo")).exists():
        lines = facts.read_text().splitlines()
        model = next((s.partition(": ")[2] for s in lines if s.startswith("model name")), model)
    parts = [
        f"{model}, {len(os.sched_getaffinity(0))} cores",
        f"threads: {threads or 'as torch chooses'}",
        f"Python {platform.python_version()}, torch {version('torch')}",
        f"{peer} {installed(peer.lower()) or absent}",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    return "; ".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown; the first column is text, the others are numbers."""
    ruler = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """Median over the rounds of ``times`` over ``reference``, each pair from one round."""
    return median(a / b for a, b in zip(times, reference, strict=True))


def measure(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            started = perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="one round, to see that it runs")
    arguments = parser.parse_args()
    commands = dict(COMMANDS)
    if monai_version():
        commands[PEER] = [sys.executable, "-c", "import monai"]
    seconds = measure(commands, 1 if arguments.quick else arguments.rounds)
    first, last = next(iter(commands)), PEER if PEER in commands else "`import torch`"
    rows = [
        [
            name,
            f"{1000 * min(times):.0f}",
            f"{1000 * median(times):.0f}",
            f"{ratio(times, seconds[first]):.1f}",
            f"{ratio(seconds[last], times):.2f}",
        ]
        for name, times in seconds.items()
    ]
    print(f"{machine()}\n")
    print(table(["process", "best ms", "median ms", "x python", f"{last} / this"], rows))


if __name__ == "__main__":
    main()
