"""The linear system of closed-form matting, on the unknown voxels alone.

Windows give the matrix ``diag(w) - V'V``: a row of V for each vector of each
window, in w the weights summed over windows. Where the unknown voxels are a
narrow band it is solved by a banded Cholesky factorisation, else by conjugate
gradients without ever forming the matrix.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray
from scipy import sparse
from scipy.linalg import lapack
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import LinearOperator, cg

from finemask.softmask.windows import Windows, window_steps

DIRECT_BANDWIDTH = 300
"""Widest matrix that is factorised; beyond, conjugate gradients are faster."""
TOLERANCE = 1e-7
"""Residual of conjugate gradients as a share of the right-hand side."""


def solve(
    windows: Windows,
    unknown: Bool[ndarray, " *s"],
    known: Float64[ndarray, " *s"],
    radius: int,
) -> Float64[ndarray, " *s"]:
    """Alpha where it costs the least: as ``known`` except where ``unknown``.

    Args:
        windows: All that hold an unknown voxel.
        unknown: Voxels to solve for, at least ``2 radius`` from the border of the grid.
        known: Alpha of the other voxels, 0 for the unknown.
        radius: Of the windows, in voxels.

    Raises:
        ArithmeticError: When the matrix is singular to working precision.
    """
    voxels = narrow_order(unknown, 2 * radius)
    number = np.full(unknown.size, -1, np.int32)
    number[voxels] = np.arange(len(voxels), dtype=np.int32)
    members = windows.members
    columns = number[members]
    shares = np.einsum("vmk,mk->vk", windows.vectors, known.ravel()[members])
    pull = _sum_by_column(np.einsum("vmk,vk->mk", windows.vectors, shares), columns, len(voxels))
    weight = _sum_by_column(windows.weights, columns, len(voxels))
    lowest = np.where(columns < 0, len(voxels), columns).min(0)
    bandwidth = int((columns.max(0) - lowest).max())
    if bandwidth <= DIRECT_BANDWIDTH:
        values = _solve_directly(windows, voxels, number, weight, pull, bandwidth)
    else:
        values = _solve_iteratively(windows, columns, weight, pull)
    alpha = known.copy()
    alpha.ravel()[voxels] = values
    return alpha


def _sum_by_column(
    values: Float64[ndarray, " m _"], columns: Int[ndarray, " m k"], count: int
) -> Float64[ndarray, " n"]:
    """Sum over all windows for each unknown voxel; known voxels have column -1."""
    values = np.broadcast_to(values, columns.shape)
    return np.bincount((columns + 1).ravel(), values.ravel(), count + 1)[1:]


def narrow_order(unknown: Bool[ndarray, " *s"], cell: int) -> Int[ndarray, " n"]:
    """Flat indices of the unknown voxels, in an order that keeps the matrix narrow.

    It is the reverse Cuthill-McKee order, not of the voxels but of the cells as wide as windows
    reach: only neighbouring cells are coupled, and there are few of them.
    """
    where = np.nonzero(unknown)
    shape = [n // cell + 3 for n in unknown.shape]
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    cells = sum((w // cell + 1) * s for w, s in zip(where, strides, strict=True))
    taken = np.zeros(np.prod(shape), bool)
    taken[cells] = True
    occupied = np.flatnonzero(taken)
    count = len(occupied)
    number = np.full(taken.size, -1, np.int32)
    number[occupied] = np.arange(count, dtype=np.int32)
    neighbours = number[occupied[:, None] + window_steps(1, unknown.ndim) @ strides]
    there = neighbours >= 0
    starts = np.zeros(count + 1, np.int32)
    np.cumsum(np.count_nonzero(there, axis=1), out=starts[1:])
    links = neighbours[there]
    graph = sparse.csr_matrix((np.ones(len(links)), links, starts), shape=(count, count))
    rank = np.empty(count, np.uint16 if count < 2**16 else np.int32)  # few digits sort fast
    rank[reverse_cuthill_mckee(graph, symmetric_mode=True)] = np.arange(count)
    order = np.argsort(rank[number[cells]], kind="stable")
    return np.flatnonzero(unknown)[order]


def _solve_directly(
    windows: Windows,
    voxels: Int[ndarray, " n"],
    number: Int[ndarray, " s"],
    weight: Float64[ndarray, " n"],
    right: Float64[ndarray, " n"],
    bandwidth: int,
) -> Float64[ndarray, " n"]:
    """Banded Cholesky factorisation."""
    steps, couplings, own = _couplings(windows, voxels, number.size)
    others = number[voxels + steps[:, None]]
    mine = np.arange(len(voxels), dtype=np.int32)
    coupled = others >= 0
    # Row i of the transposed band holds what voxel i is coupled to: itself first, then i + 1, ...
    band = np.zeros((len(voxels), bandwidth + 1))
    first, last = np.minimum(mine, others)[coupled], np.maximum(mine, others)[coupled]
    band[first, last - first] = -couplings[coupled]
    band[:, 0] = weight - own
    _, values, failed = lapack.dpbsv(band.T, right, lower=1, overwrite_ab=1, overwrite_b=1)
    if failed:
        raise ArithmeticError("the matting matrix is not positive definite")
    return values


def _couplings(
    windows: Windows, voxels: Int[ndarray, " n"], size: int
) -> tuple[Int[ndarray, " t"], Float64[ndarray, " t n"], Float64[ndarray, " n"]]:
    """Entries of V'V: for each step and each voxel, with the voxel a step further; with itself."""
    slot = np.full(size, len(windows.centres))
    slot[windows.centres] = np.arange(len(windows.centres))
    home = slot[voxels - windows.offsets[:, None]]
    first, second = np.triu_indices(len(windows.offsets))
    steps, which = np.unique(windows.offsets[second] - windows.offsets[first], return_inverse=True)
    couplings = np.zeros((len(steps), len(voxels)))
    products = np.zeros(len(windows.centres) + 1)
    for a, b, step in zip(first, second, which, strict=True):
        np.einsum("vk,vk->k", windows.vectors[:, a], windows.vectors[:, b], out=products[:-1])
        couplings[step] += products.take(home[a])
    return steps[1:], couplings[1:], couplings[0]


def _solve_iteratively(
    windows: Windows,
    columns: Int[ndarray, " m k"],
    weight: Float64[ndarray, " n"],
    right: Float64[ndarray, " n"],
) -> Float64[ndarray, " n"]:
    """Conjugate gradients, preconditioned by the diagonal."""
    count = len(right)
    open_ = (columns >= 0).T
    links = columns.T[open_]
    starts = np.zeros(len(open_) + 1, np.int64)
    np.cumsum(np.count_nonzero(open_, axis=1), out=starts[1:])
    rows = [
        sparse.csr_matrix((v.T[open_], links, starts), shape=(len(open_), count))
        for v in windows.vectors
    ]
    v = sparse.vstack(rows, format="csr")
    diagonal = weight - _sum_by_column((windows.vectors**2).sum(0), columns, count)
    matrix = LinearOperator(
        (count, count), matvec=lambda x: weight * x - v.T @ (v @ x), dtype=float
    )
    inverse = LinearOperator((count, count), matvec=lambda x: x / diagonal, dtype=float)
    values, failed = cg(matrix, right, rtol=TOLERANCE, atol=0.0, M=inverse, maxiter=10000)
    if failed:
        raise ArithmeticError("the matting matrix is nearly singular")
    return values
