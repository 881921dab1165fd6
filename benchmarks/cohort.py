"""Do a thousand cases, some of them faulty, come out as the sound ones alone would?

Small pictures are made, every twenty-seventh or so is spoilt in one of nine ways, and
`predict` (whole, and in four shards that share a folder) and `soften` are run on all of
them and on the sound ones alone. Every output must have the bytes of the clean run, every
case must be counted once, and every checksum of the manifest must hold.

    python benchmarks/cohort.py --cases 1000 --faulty 37
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from finemask.geometry import Geometry
from finemask.io import sha256, write_image, write_labels
from finemask.training.loop import train
from startup import machine, table

SIDE = 32
SHARDS = 4


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(path: Path) -> None:
    """A picture whose header claims 80,000 by 80,000 pixels."""
    header = struct.pack(">IIBBBBB", 80_000, 80_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x")
                     + chunk(b"IEND", b""))  # fmt: skip


def taller(path: Path) -> None:
    """A header, checksum and all, that claims twice the rows that there are."""
    content = path.read_bytes()
    fields = bytearray(content[16:29])
    fields[4:8] = struct.pack(">I", 2 * SIDE)
    path.write_bytes(content[:8] + chunk(b"IHDR", bytes(fields)) + content[33:])


def flip(path: Path) -> None:
    """One bit, in the middle of the pixels."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def colour(path: Path) -> None:
    """Three channels, where the network takes one."""
    image = np.random.default_rng(1).integers(0, 255, (3, SIDE, SIDE)).astype(np.uint8)
    write_image(path, image, Geometry.regular((SIDE, SIDE)), overwrite=True)


FAULTS: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("the image could not be exported"),
    "a flipped bit": flip,
    "a bomb": bomb,
    "an error page": lambda path: path.write_text("<html><body>404</body></html>"),
    "a false height": taller,
    "half a header": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "only its signature": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
}


def make(folder: Path, cases: int) -> Path:
    """Pictures with a bright disc, and its mask."""
    rows, columns = np.indices((SIDE, SIDE))
    for number in range(cases):
        rng = np.random.default_rng(number)
        centre, radius = rng.uniform(10, 22, 2), rng.uniform(3, 8)
        disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
        image = rng.normal(80 + 90 * disc, 15).clip(0, 255).astype(np.uint8)
        grid = Geometry.regular((SIDE, SIDE))
        write_image(folder / "images" / f"case{number:05}.png", image, grid)
        write_labels(folder / "masks" / f"case{number:05}.png", disc.astype(np.uint8), grid)
    return folder


def spoil(data: Path, faulty: int) -> dict[str, str]:
    """Spoil some images; which and how."""
    images = sorted((data / "images").iterdir())
    kinds = list(FAULTS)
    chosen = [images[k * len(images) // faulty] for k in range(faulty)]
    for number, path in enumerate(chosen):
        FAULTS[kinds[number % len(kinds)]](path)
    return {path.stem: kinds[number % len(kinds)] for number, path in enumerate(chosen)}


def call(*words: object) -> tuple[int, float, str, str]:
    """Exit code, seconds, and what a command said."""
    start = perf_counter()
    command = [sys.executable, "-m", "finemask", *map(str, words), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, perf_counter() - start, done.stdout, done.stderr


def in_shards(*words: object, out: Path) -> tuple[int, float, str, str]:
    """Four calls at a time in one folder, and a last one that makes one manifest of theirs."""
    start = perf_counter()
    calls = [
        subprocess.Popen(
            [sys.executable, "-m", "finemask", *map(str, words), "--out", str(out), "--quiet",
             "--shard", f"{i}/{SHARDS}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(1, SHARDS + 1)
    ]  # fmt: skip
    for one in calls:
        one.communicate()
    code, _, said, errors = call(*words, "--out", out, "--resume")
    return code, perf_counter() - start, said, errors


def differing(out: Path, clean: Path, folders: Sequence[str]) -> tuple[int, int]:
    """Outputs that both have with equal bytes, and all others."""

    def files(root: Path) -> dict[str, str]:
        places = [root / name for name in folders]
        found = (p for place in places for p in place.iterdir() if p.suffix == ".png")
        return {p.relative_to(root).as_posix(): sha256(p) for p in found}

    ours, theirs = files(out), files(clean)
    equal = sum(theirs.get(name) == digest for name, digest in ours.items())
    return equal, len(ours.keys() | theirs.keys()) - equal


def holds(out: Path) -> tuple[int, int]:
    """Checksums of a manifest that hold, and that do not."""
    cases = json.loads((out / "manifest.json").read_text())["cases"]
    told = [o for case in cases.values() for o in case["outputs"]]
    sound = sum(sha256(out / o["path"]) == o["sha256"] for o in told)
    return sound, len(told) - sound


def failures(out: Path) -> set[str]:
    with open(out / "failures.csv", newline="") as file:
        return {row["case"] for row in csv.DictReader(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--faulty", type=int, default=37)
    parser.add_argument("--quick", action="store_true", help="few cases, to see that it runs")
    arguments = parser.parse_args()
    cases, faulty = (40, 9) if arguments.quick else (arguments.cases, arguments.faulty)
    print(machine(1, peer="numpy"), "\n")
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), cases, faulty)


def measure(place: Path, cases: int, faulty: int) -> None:
    sound = make(place / "clean", cases)
    run = train(sound, place / "run", settings=[
        "steps=2", "crop=32x32", "batch_size=2", "config.width=4", "config.depth=2",
        "validate_cases=2"]).path  # fmt: skip
    data = place / "data"
    shutil.copytree(sound, data)
    spoilt = spoil(data, faulty)
    for name in spoilt:
        for kind in ("images", "masks"):
            (sound / kind / f"{name}.png").unlink()
    rows = []

    def row(name: str, out: Path, clean: Path, told: tuple[int, float, str, str],
            folders: Sequence[str], seconds: float) -> None:  # fmt: skip
        code, took, said, errors = told
        equal, other = differing(out, clean, folders)
        counts = next(line for line in said.splitlines() if " skipped of " in line)
        lines = errors.count("\n")
        misnamed = len(failures(out) ^ set(spoilt))
        rows.append([name, str(code), counts, f"{equal} / {other}", str(misnamed), str(lines),
                     f"{took / seconds:.2f}"])  # fmt: skip

    _, plain, _, _ = call("predict", run, sound / "images", "--out", place / "p0")
    told = call("predict", run, data / "images", "--out", place / "p1")
    row("predict", place / "p1", place / "p0", told, ["."], plain)
    told = in_shards("predict", run, data / "images", out=place / "p2")
    row(f"predict in {SHARDS} shards", place / "p2", place / "p0", told, ["."], plain)
    _, soft, _, _ = call("soften", sound, place / "s0", "--from", "mask")
    told = call("soften", data, place / "s1", "--from", "mask")
    row("soften", place / "s1", place / "s0", told, ["soft", "masks"], soft)
    told = call("soften", data, place / "s2", "--from", "mask", "--jobs", 2)
    row("soften, 2 processes", place / "s2", place / "s0", told, ["soft", "masks"], soft)
    head = ["command", "code", "last line", "outputs equal / not", "misnamed failures",
            "lines on stderr", "time / clean"]  # fmt: skip
    print(table(head, rows), "\n")
    kinds = {kind: sum(k == kind for k in spoilt.values()) for kind in FAULTS}
    print("faults:", ", ".join(f"{n} {kind}" for kind, n in kinds.items()))
    for out in ("p1", "p2"):
        good, bad = holds(place / out)
        print(f"checksums of {out}/manifest.json that hold: {good}, that do not: {bad}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(f"clean: predict {plain:.0f} s, soften {soft:.0f} s; largest process {peak:.0f} MiB")


if __name__ == "__main__":
    main()
