"""One case from several files: on one grid, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io import read_case, read_probs, write_image, write_labels, write_probs

RNG = np.random.default_rng(0)


def shifted(grid: Geometry, columns: float) -> Geometry:
    origin = grid.to_world(np.array([0.0, 0.0, columns]))
    return replace(grid, origin=tuple(origin.tolist()))


@pytest.fixture
def volume(tmp_path: Path, oblique: Geometry) -> tuple[Path, np.ndarray]:
    values = RNG.random(oblique.shape).astype(np.float32)
    write_image(tmp_path / "p1_0000.nii.gz", values, oblique)
    return tmp_path / "p1_0000.nii.gz", values


def test_a_whole_case(tmp_path: Path, oblique: Geometry, volume: tuple[Path, np.ndarray]) -> None:
    path, values = volume
    other = tmp_path / "p1_0001.mha"
    write_image(other, values * 2, oblique)
    masks = [(RNG.random(oblique.shape) > cut).astype(np.uint8) for cut in (0.5, 0.7, 2)]
    for index, mask in enumerate(masks):
        write_labels(tmp_path / f"m{index}.nii.gz", mask, oblique)
    write_probs(tmp_path / "soft.nii.gz", values, oblique)
    case = read_case(
        [path, other],
        name="p1",
        truth=tmp_path / "m0.nii.gz",
        readers=[tmp_path / f"m{i}.nii.gz" for i in range(3)],
        soft=tmp_path / "soft.nii.gz",
        group="patient 1",
    )
    np.testing.assert_array_equal(case.image, [values, values * 2])
    np.testing.assert_array_equal(case.truth, masks[0])
    np.testing.assert_array_equal(case.readers, masks)
    np.testing.assert_array_equal(case.soft, values[None])
    assert (case.name, case.group, case.source) == ("p1", "patient 1", path)
    assert case.geometry.matches(oblique)
    assert read_case(path).name == "p1_0000"


def test_turned_and_flipped_masks_are_brought_back(
    tmp_path: Path, oblique: Geometry, volume: tuple[Path, np.ndarray]
) -> None:
    mask = (RNG.random(oblique.shape) > 0.5).astype(np.uint8)
    turned = np.flip(mask.transpose(2, 0, 1), 1)
    write_labels(tmp_path / "m.nii.gz", turned, oblique.permuted((2, 0, 1)).flipped(1))
    write_image(tmp_path / "i.nii.gz", turned, oblique.permuted((2, 0, 1)).flipped(1))
    case = read_case([volume[0], tmp_path / "i.nii.gz"], truth=tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(case.truth, mask)
    np.testing.assert_array_equal(case.image[1], mask)


@pytest.mark.fault("F31")
def test_header_noise_is_forgiven(
    tmp_path: Path, oblique: Geometry, volume: tuple[Path, np.ndarray]
) -> None:
    noisy = shifted(oblique, 0.0005)
    write_labels(tmp_path / "m.mha", np.ones(oblique.shape, np.uint8), noisy)
    assert read_case(volume[0], truth=tmp_path / "m.mha").truth.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: shifted(g, 0.25), r"displaced by up to 0\.25 voxels"),
        (
            lambda g: g.cropped((0, 0, 0), (7, 9, 10)),
            r"its shape is \(7, 9, 10\), not \(7, 9, 11\)",
        ),
        (
            lambda g: Geometry(g.shape, (3.0, 0.5, 0.9), g.origin, g.direction),
            r"spacing is 3 x 0\.5 x 0\.9 mm, not 3 x 0\.4 x 0\.9",
        ),
    ],
)
@pytest.mark.fault("F29", "F32", "F33")
def test_other_grids_are_refused(
    tmp_path: Path, oblique: Geometry, volume: tuple[Path, np.ndarray], change, message: str
) -> None:
    other = change(oblique)
    write_labels(tmp_path / "m.mha", np.ones(other.shape, np.uint8), other)
    for option in ({"truth": tmp_path / "m.mha"}, {"readers": [tmp_path / "m.mha"]}):
        with pytest.raises(DataError, match=message) as error:
            read_case(volume[0], **option)
        assert error.value.subject == str(tmp_path / "m.mha")


@pytest.mark.fault("F29")
def test_a_picture_needs_a_mask_of_its_shape(tmp_path: Path) -> None:
    grid = Geometry.regular((5, 6))
    write_image(tmp_path / "i.png", RNG.integers(0, 256, (5, 6)), grid)
    write_labels(tmp_path / "m.png", np.ones((5, 6), np.uint8), grid)
    write_labels(tmp_path / "n.png", np.ones((6, 5), np.uint8), Geometry.regular((6, 5)))
    case = read_case(tmp_path / "i.png", truth=tmp_path / "m.png", spacing_mm=(0.2, 0.1))
    assert case.geometry == Geometry.regular((5, 6), (0.2, 0.1))
    assert read_case(tmp_path / "i.png", spacing_mm=0.5).geometry.spacing == (0.5, 0.5)
    with pytest.raises(DataError, match=r"its shape is \(6, 5\), not \(5, 6\)"):
        read_case(tmp_path / "i.png", truth=tmp_path / "n.png")


def test_a_declared_spacing_must_fit_the_file(volume: tuple[Path, np.ndarray]) -> None:
    assert read_case(volume[0], spacing_mm=(3.0, 0.4, 0.9)).geometry.unit == "mm"
    with pytest.raises(DataError, match=r"spacing 3 x 0\.4 x 0\.9 mm, declared is 1 x 1 x 1"):
        read_case(volume[0], spacing_mm=1.0)
    with pytest.raises(DataError, match="needs positive numbers"):
        read_case(volume[0], spacing_mm=(1.0, 0.0, 1.0))


def test_probabilities_round_trip(tmp_path: Path, oblique: Geometry) -> None:
    probs = RNG.random((5, 6)).astype(np.float32)
    grid = Geometry.regular((5, 6))
    write_probs(tmp_path / "p.png", probs, grid)
    np.testing.assert_allclose(read_probs(tmp_path / "p.png")[0][0], probs, atol=0.6 / 65535)
    for count, name in ((1, "p.tif"), (4, "q.tif")):
        maps = RNG.random((count, 5, 6)).astype(np.float32)
        write_probs(tmp_path / name, maps, grid)
        np.testing.assert_array_equal(read_probs(tmp_path / name)[0], maps)
    both, _ = read_probs([tmp_path / "p.tif", tmp_path / "q.tif"])
    assert both.shape == (5, 5, 6)
    write_probs(tmp_path / "empty.png", np.zeros((5, 6)), grid)
    assert not read_probs(tmp_path / "empty.png")[0].any()
    with pytest.raises(DataError, match=r"probabilities of 2 classes"):
        write_probs(tmp_path / "r.png", np.zeros((2, 5, 6)), grid)
    with pytest.raises(DataError, match=r"in \[0, 1\], has 0 to 2"):
        write_probs(tmp_path / "r.tif", np.array([[0, 2.0]]), Geometry.regular((1, 2)))
    write_image(tmp_path / "ct.nii.gz", np.full(oblique.shape, -3.5), oblique)
    with pytest.raises(DataError, match="needs probabilities"):
        read_probs(tmp_path / "ct.nii.gz")
