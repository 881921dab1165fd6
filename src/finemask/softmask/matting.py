"""Closed-form matting: the share of lesion in every voxel that a trimap leaves open.

A. Levin, D. Lischinski and Y. Weiss, "A closed-form solution to natural image
matting", IEEE TPAMI 30(2), 2008, as paper 001 (DSNet) applies it to lesions.

Errata of paper 001, section III-A:

* Eq. (5): the offset is b = -B / (L - B); the paper calls it B and writes F for L.
* Eqs. (5), (6) and (8): M_i stands for the image's intensity I_i there, and for the Soft Mask
  in Eq. (1). With L = 1 and B = 0, Eq. (1) says that the Soft Mask is alpha.
* Below Eq. (8): no eigenvector is sought. With the known voxels fixed, the minimum of Eq. (7)
  solves the linear system ``L_UU alpha_U = -L_UK alpha_K``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Shaped
from numpy import ndarray
from scipy import sparse
from scipy.sparse.linalg import spsolve

from finemask.masks import Spacing, as_spacing
from finemask.softmask.trimap import BACKGROUND, LESION, UNKNOWN

EPSILON = 1e-4
"""Suits the noise of a CT window scaled to [0, 1]."""


def soft_mask(
    image: Shaped[ndarray, "..."],
    trimap: Shaped[ndarray, " *s"],
    epsilon: float = EPSILON,
    spacing_mm: Spacing | None = None,
    radius: int = 1,
) -> Float32[ndarray, " *s"]:
    """Share of lesion in every voxel, from the image where the trimap leaves it open.

    Within each small window lesion and background are taken to be of one
    intensity each, so that the share is an affine function of the image; the
    shares that fit best everywhere, with the trimap's certain voxels kept as they
    are, solve one linear system.

    Paper: dsnet Eq. (1), dsnet Eq. (7)

    Args:
        image: ``(*S)`` grey or ``(C, *S)``, floats scaled to about [0, 1], 2-D or 3-D.
        trimap: 1 lesion, 0 background, 0.5 unknown.
        epsilon: In squared intensities: how much noise within a window is forgiven. Larger is
            smoother. PyMatting's value for a grey image repeated in three channels is three times
            this one.
        spacing_mm: Voxel spacing along each array axis; by default all axes are alike. Windows
            weigh their voxels so that they reach as far in millimetres along every axis.
        radius: Of the windows, in voxels.

    Returns:
        In [0, 1]: the trimap where it is certain. Where nothing at all is certain, 0.5.

    Raises:
        ValueError: On shapes that disagree, other values in the trimap, an image that is
            integer or not finite, or a setting out of range.

    Example:
        >>> image = np.tile(np.float32([0.2, 0.2, 0.35, 0.5, 0.5]), (5, 1))
        >>> trimap = np.tile(np.float32([0.0, 0.5, 0.5, 0.5, 1.0]), (5, 1))
        >>> soft_mask(image, trimap, epsilon=1e-9)[2].round(3)
        array([0. , 0. , 0.5, 1. , 1. ], dtype=float32)
    """
    trimap = np.asarray(trimap, np.float32)
    if trimap.ndim not in (2, 3):
        raise ValueError(f"a trimap is 2-D or 3-D, got shape {trimap.shape}")
    if not np.isin(trimap, (BACKGROUND, UNKNOWN, LESION)).all():
        raise ValueError("a trimap holds 0, 0.5 and 1 only; see finemask.softmask.trimap")
    image = np.asarray(image)
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image must be of floats in about [0, 1], got {image.dtype}; scale it")
    image = np.asarray(image, np.float64)
    image = image[None] if image.ndim == trimap.ndim else image
    if image.shape[1:] != trimap.shape:
        raise ValueError(f"image has shape {image.shape}, trimap {trimap.shape}; grids must agree")
    if not np.isfinite(image).all():
        raise ValueError("image has voxels that are not finite; fill them")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    as_spacing(1.0 if spacing_mm is None else spacing_mm, trimap.ndim)
    unknown = trimap.ravel() == UNKNOWN
    if not unknown.any() or unknown.all():
        return trimap
    matrix = _matting_laplacian(image, epsilon, radius).tocsr()[unknown]
    alpha = trimap.ravel().astype(np.float64)
    alpha[unknown] = spsolve(matrix[:, unknown].tocsc(), -matrix[:, ~unknown] @ alpha[~unknown])
    return np.clip(alpha, 0, 1).astype(np.float32).reshape(trimap.shape)


def _matting_laplacian(
    image: Shaped[ndarray, " c *s"], epsilon: float, radius: int
) -> sparse.csr_matrix:
    shape: Sequence[int] = image.shape[1:]
    index = np.arange(np.prod(shape)).reshape(shape)
    radii = [min(radius, (n - 1) // 2) for n in shape]
    centres = index[tuple(slice(r, n - r) for r, n in zip(radii, shape, strict=True))].ravel()
    strides = [int(np.prod(shape[a + 1 :])) for a in range(len(shape))]
    offsets = [
        sum(o * s for o, s in zip(offset, strides, strict=True))
        for offset in itertools.product(*[range(-r, r + 1) for r in radii])
    ]
    members = centres[:, None] + np.array(offsets)
    colours = np.moveaxis(image.reshape(len(image), -1)[:, members], 0, -1)
    d = colours - colours.mean(1, keepdims=True)
    size = len(offsets)
    covariance = np.einsum("kmc,kmd->kcd", d, d) / size
    covariance += epsilon / size * np.eye(len(image))
    blocks = np.eye(size) - (1 + d @ np.linalg.inv(covariance) @ d.transpose(0, 2, 1)) / size
    rows = np.repeat(members, size, axis=1).ravel()
    columns = np.tile(members, (1, size)).ravel()
    return sparse.coo_matrix((blocks.ravel(), (rows, columns)), (index.size,) * 2).tocsr()
