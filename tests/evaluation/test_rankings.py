"""Pooled areas under precision over recall: one large case outweighs a small one, and is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finemask.evaluation.cohort import evaluate
from finemask.geometry import Geometry
from finemask.io import write_labels, write_probs
from finemask.metrics import average_precision, pr_auc

GRID = Geometry.regular((30, 40))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Two cases with probabilities; truths and maps."""
    rng = np.random.default_rng(0)
    truth = rng.random((2, 30, 40)) > np.array([0.9, 0.4])[:, None, None]
    probs = np.round(np.clip(0.4 * truth + 0.6 * rng.random(truth.shape), 0, 1) * 65535) / 65535
    for name, mask, values in zip("ab", truth, probs, strict=True):
        write_labels(tmp_path / f"truth/{name}.png", mask.astype(np.uint8), GRID)
        write_labels(tmp_path / f"pred/{name}.png", (values > 0.5).astype(np.uint8), GRID)
        write_probs(tmp_path / f"pred/{name}_probs.png", values[None].astype(np.float32), GRID)
    return tmp_path / "pred", tmp_path / "truth", truth, probs


def pooled(pred: Path, truth: Path, out: Path | None = None) -> dict[str, float]:
    (values,) = evaluate(pred, truth, out, protocol="clinical").summary["pooled"].values()
    return values


def test_all_voxels_are_ranked_together(
    folders: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    pred, root, truth, probs = folders
    found = pooled(pred, root, tmp_path / "out")
    assert found["average_precision_pooled"] == pytest.approx(average_precision(probs, truth))
    assert found["pr_auc_pooled"] == pytest.approx(pr_auc(probs, truth))
    each = np.mean([average_precision(p, t) for p, t in zip(probs, truth, strict=True)])
    assert abs(each - found["average_precision_pooled"]) > 0.01
    assert "AP, pooled" in (tmp_path / "out/report.html").read_text()


def test_a_missing_case_is_sure_of_nothing(
    folders: tuple[Path, Path, np.ndarray, np.ndarray],
) -> None:
    pred, root, truth, probs = folders
    for name in ("a.png", "a_probs.png"):
        (pred / name).unlink()
    expected = average_precision(probs * np.array([0, 1])[:, None, None], truth)
    assert pooled(pred, root)["average_precision_pooled"] == pytest.approx(expected)


def test_without_all_probabilities_nothing_is_pooled(
    folders: tuple[Path, Path, np.ndarray, np.ndarray],
) -> None:
    pred, root, *_ = folders
    (pred / "b_probs.png").unlink()
    assert not any("precision_pooled" in name and "average" in name for name in pooled(pred, root))
    (values,) = evaluate(pred, root).summary["pooled"].values()
    assert "pr_auc_pooled" not in values
