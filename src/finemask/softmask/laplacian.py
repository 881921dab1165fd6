"""Closed-form matting as paper 001 writes it down, window by window on a whole picture.

``soft_mask`` minimises the same cost without forming the matrix. These say how
well an image supports a mask, whoever drew it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view
from scipy import sparse

from finemask.softmask.windows import gather_windows


def local_models(
    alpha: Float[ndarray, " *s"],
    image: Float[ndarray, " c *s"],
    epsilon: float,
    radius: int = 1,
) -> tuple[Float64[ndarray, " k c"], Float64[ndarray, " k"]]:
    """The affine function of the colours that fits a mask best in each window.

    ``alpha_i ~ a I_i + b`` with the a and b of the least ``matting_cost``. A grey
    window in which the lesion has intensity L and the background B has
    ``a = 1 / (L - B)`` and ``b = -B / (L - B)``.

    Paper: dsnet Eq. (5)

    Args:
        alpha: Share of lesion, in [0, 1].
        image: 2-D or 3-D.
        epsilon: In squared intensities.
        radius: Of the windows, in voxels; they lie wholly within the image.

    Returns:
        a and b of each window, in the order of the windows' centres.

    Example:
        >>> alpha = np.array([[0.0, 0.5, 1.0]] * 3)
        >>> a, b = local_models(alpha, 0.2 + 0.4 * alpha[None], epsilon=1e-12)
        >>> a.round(6), b.round(6)
        (array([[2.5]]), array([-0.5]))
    """
    shares, colours = _cut(alpha[None], radius)[:, 0], _cut(image, radius)
    means = colours.mean(2)
    deviations = colours - means[:, :, None]
    scatter = deviations @ deviations.transpose(0, 2, 1) + epsilon * np.eye(len(image))
    a = np.linalg.solve(scatter, deviations @ shares[:, :, None])[:, :, 0]
    return a, shares.mean(1) - (a * means).sum(1)


def matting_cost(
    alpha: Float[ndarray, " *s"],
    image: Float[ndarray, " c *s"],
    epsilon: float,
    radius: int = 1,
) -> float:
    """How badly an image supports a mask: 0 for a mask that nowhere changes.

    ``J = sum_k (sum_{i in w_k} (alpha_i - a_k I_i - b_k)^2 + epsilon |a_k|^2)`` over
    the windows w_k, for the best a and b of each.

    Paper: dsnet Eq. (6)

    Args:
        alpha: Share of lesion, in [0, 1].
        image: 2-D or 3-D.
        epsilon: In squared intensities.
        radius: Of the windows, in voxels; they lie wholly within the image.

    Example:
        In an even image no function of the intensity explains an edge: what is left is the
        variance, 9 * (1/3) * (2/3).

        >>> edge = np.array([[0.0, 1.0, 1.0]] * 3)
        >>> round(matting_cost(edge, np.zeros((1, 3, 3)), epsilon=1e-4), 6)
        2.0
    """
    a, b = local_models(alpha, image, epsilon, radius)
    explained = (a[:, None] @ _cut(image, radius))[:, 0] + b[:, None]
    left = _cut(alpha[None], radius)[:, 0] - explained
    return float((left**2).sum() + epsilon * (a**2).sum())


def matting_laplacian(
    image: Float[ndarray, " c *s"], epsilon: float, radius: int = 1
) -> sparse.csr_matrix:
    """The matrix L of the cost: ``matting_cost(alpha) = alpha' L alpha``.

    In a grey image, with mean and variance of each window w_k of M voxels,
    ``L_ij = sum_{k: i, j in w_k} (delta_ij - 1/M (1 + (I_i - mean_k) (I_j - mean_k) /
    (epsilon/M + variance_k)))``.

    Paper: dsnet Eq. (7), dsnet Eq. (8)

    Args:
        image: 2-D or 3-D.
        epsilon: In squared intensities.
        radius: Of the windows, in voxels; they lie wholly within the image.

    Returns:
        Symmetric and positive semidefinite, of a row for each voxel; rows sum to 0.

    Example:
        >>> matting_laplacian(np.zeros((1, 3, 3)), epsilon=1e-4).toarray()[0, :2].round(4)
        array([ 0.8889, -0.1111])
    """
    centres = np.zeros(image.shape[1:], bool)
    centres[(slice(radius, -radius),) * centres.ndim] = True
    windows = gather_windows(
        image.astype(np.float64), centres, epsilon, radius, (1.0,) * centres.ndim
    )
    blocks = -np.einsum("vak,vbk->kab", windows.vectors, windows.vectors)
    within = np.arange(blocks.shape[1])
    blocks[:, within, within] += windows.weights.T
    members = windows.members.T
    rows = np.broadcast_to(members[:, :, None], blocks.shape)
    columns = np.broadcast_to(members[:, None], blocks.shape)
    entries = sparse.coo_matrix(
        (blocks.ravel(), (rows.ravel(), columns.ravel())), shape=(centres.size,) * 2
    )
    return entries.tocsr()


def _cut(maps: Float[ndarray, " c *s"], radius: int) -> Float64[ndarray, " k c m"]:
    """Every window that lies wholly within some maps."""
    sides = (2 * radius + 1,) * (maps.ndim - 1)
    views = sliding_window_view(maps.astype(np.float64), sides, axis=tuple(range(1, maps.ndim)))
    count = int(np.prod(views.shape[1 : maps.ndim]))
    return np.moveaxis(views.reshape(len(maps), count, -1), 0, 1)
