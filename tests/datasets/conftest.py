"""Small data sets, written file by file as users have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finemask.geometry import Geometry
from finemask.io import write_image, write_labels

SHARED = Path(__file__).parents[3] / "shared" / "data"
PICTURE = Geometry.regular((12, 16))
VOLUME = Geometry.regular((6, 8, 10), spacing=(2.0, 0.5, 0.5))


class Tree:
    """A data set that grows by one call a file; the suffix makes a picture or a volume."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, path: str, seed: int, channels: int = 1) -> Path:
        geometry = VOLUME if path.endswith(".nii.gz") else PICTURE
        rng = np.random.default_rng(seed)
        array = rng.integers(0, 255, (channels, *geometry.shape), dtype=np.uint8)
        write_image(self.root / path, array, geometry, overwrite=True)
        return self.root / path

    def mask(self, path: str, values: Sequence[int] = (1,), size: int = 3) -> Path:
        """A square of ``size`` for each value, stored as that value, side by side."""
        geometry = VOLUME if path.endswith(".nii.gz") else PICTURE
        mask = np.zeros(geometry.shape, np.uint8)
        for k, _ in enumerate(values):
            mask[..., 1 : 1 + size, 1 + 4 * k : 1 + 4 * k + size] = k + 1
        labels = {f"v{v}": v for v in values}
        write_labels(self.root / path, mask, geometry, labels=labels, overwrite=True)
        return self.root / path

    def folder(self, *names: str, suffix: str = ".png") -> Path:
        """``images/`` and ``masks/``, every image different."""
        for seed, name in enumerate(names):
            self.image(f"images/{name}{suffix}", seed)
            self.mask(f"masks/{name}{suffix}")
        return self.root

    def manifest(self, rows: Mapping[str, Mapping[str, Any]]) -> Path:
        """``folder`` and a manifest with further columns."""
        self.folder(*rows)
        more = sorted({column for row in rows.values() for column in row} - {"image", "mask"})
        lines = [",".join(["case", "image", "mask", *more])]
        for name, row in rows.items():
            files = {"image": f"images/{name}.png", "mask": f"masks/{name}.png"} | dict(row)
            lines.append(
                ",".join([name, *(str(files.get(c, "")) for c in ("image", "mask", *more))])
            )
        return self.text("manifest.csv", "\n".join(lines) + "\n")

    def nnunet(self, *names: str, channels: int = 1, **declared: Any) -> Path:
        for seed, name in enumerate(names):
            for channel in range(channels):
                self.image(f"imagesTr/{name}_{channel:04d}.nii.gz", 10 * seed + channel)
            self.mask(f"labelsTr/{name}.nii.gz")
        description = {
            "channel_names": {str(c): f"MR{c}" for c in range(channels)},
            "labels": {"background": 0, "tumour": 1},
            "file_ending": ".nii.gz",
        }
        self.text("dataset.json", json.dumps(description | declared))
        return self.root

    def text(self, path: str, text: str) -> Path:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")
        return self.root / path


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "set")


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """A real data set, where it is there."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"the real data {name} are not beside the repository (../shared/data)")
        return SHARED / name

    return find
