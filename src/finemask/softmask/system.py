"""The linear system of closed-form matting, on the unknown voxels alone.

Windows give the matrix ``diag(w) - V'V``: a row of V for each vector of each
window, in w the weights summed over windows. Where the unknown voxels are a
narrow band it is solved by a banded Cholesky factorisation, else by conjugate
gradients without ever forming the matrix.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32
from numpy import ndarray
from scipy import sparse
from scipy.linalg import lapack
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import LinearOperator, cg
from threadpoolctl import ThreadpoolController

from finemask.softmask.windows import Windows, flat_steps, window_steps

DIRECT_BANDWIDTH = 400
"""Of the widest matrix that is factorised; beyond, conjugate gradients are about as fast."""
TOLERANCE = 1e-7
"""Residual of conjugate gradients as a share of the right-hand side."""
ITERATIONS = 10_000
"""Most of conjugate gradients; bands of ten voxels take fifty."""
_LOCK = Lock()


def solve(
    windows: Windows,
    unknown: Bool[ndarray, " *s"],
    known: Float64[ndarray, " *s"],
    radius: int,
) -> Float64[ndarray, " *s"]:
    """Alpha where it costs the least: as ``known``, and solved for where ``unknown``.

    Args:
        windows: All that hold an unknown voxel.
        unknown: At least ``2 radius`` from the border of the grid, whose sides are multiples of
            that.
        known: Alpha of the other voxels, 0 for the unknown.
        radius: Of the windows, in voxels.

    Raises:
        ArithmeticError: When the matrix is singular to working precision.
    """
    voxels = narrow_order(unknown, 2 * radius)
    count = len(voxels)
    number = np.full(unknown.shape, -1, np.int32)
    number.ravel()[voxels] = np.arange(count, dtype=np.int32)
    members = windows.members
    columns = number.ravel()[members]
    shares = np.einsum("vmk,mk->vk", windows.vectors, known.ravel()[members])
    right = _total(np.einsum("vmk,vk->mk", windows.vectors, shares), columns, count)
    lowest = np.where(columns < 0, count, columns).min(0)
    bandwidth = int((columns.max(0) - lowest).max())
    with _one_thread():
        if bandwidth <= DIRECT_BANDWIDTH:
            values = _solve_directly(windows, voxels, number, radius, bandwidth, right)
        else:
            values = _solve_iteratively(windows, columns, right)
    alpha = known.copy()
    alpha.ravel()[voxels] = values
    return alpha


def narrow_order(unknown: Bool[ndarray, " *s"], cell: int) -> Int[ndarray, " n"]:
    """Flat indices of the unknown voxels, in an order that keeps the matrix narrow.

    It is the reverse Cuthill-McKee order, not of voxels but of cells as wide as windows reach:
    they are few, and only neighbours among them are coupled.

    Args:
        unknown: With a margin of a cell; sides are multiples of a cell.
        cell: Side of a cell, in voxels.
    """
    corners = itertools.product(range(cell), repeat=unknown.ndim)
    parts = [unknown[tuple(slice(start, None, cell) for start in corner)] for corner in corners]
    taken = np.logical_or.reduce(parts)
    cells = np.flatnonzero(taken)
    count = len(cells)
    number = np.full(taken.size, -1, np.int32)
    number[cells] = np.arange(count, dtype=np.int32)
    neighbours = number[cells[:, None] + flat_steps(window_steps(1, taken.ndim), taken)]
    graph = _rows(np.ones(neighbours.shape), neighbours, count)
    rank = np.empty(taken.shape, np.uint16 if count < 2**16 else np.int32)  # few digits sort fast
    rank.ravel()[cells[reverse_cuthill_mckee(graph, symmetric_mode=True)]] = np.arange(count)
    for axis in range(rank.ndim):
        rank = rank.repeat(cell, axis)
    return np.flatnonzero(unknown)[np.argsort(rank[unknown], kind="stable")]


def _rows(
    values: Float64[ndarray, " r e"], columns: Int32[ndarray, " r e"], count: int
) -> sparse.csr_matrix:
    """A sparse matrix from the entries of each row; a column of -1 is no entry."""
    there = columns >= 0
    starts = np.zeros(len(columns) + 1, np.int32)
    starts[1:] = np.cumsum(there)[there.shape[1] - 1 :: there.shape[1]]
    return sparse.csr_matrix((values[there], columns[there], starts), shape=(len(columns), count))


def _total(
    values: Float64[ndarray, " m k"], columns: Int32[ndarray, " m k"], count: int
) -> Float64[ndarray, " n"]:
    """Sum over all windows for each unknown voxel; known voxels have column -1."""
    return np.bincount((columns + 1).ravel(), values.ravel(), count + 1)[1:]


def _solve_directly(
    windows: Windows,
    voxels: Int[ndarray, " n"],
    number: Int32[ndarray, " *s"],
    radius: int,
    bandwidth: int,
    right: Float64[ndarray, " n"],
) -> Float64[ndarray, " n"]:
    """Banded Cholesky factorisation."""
    count = len(voxels)
    steps, entries = _entries(windows, voxels, number, radius)
    others = number.ravel()[voxels + steps[1:, None]]
    coupled = others >= 0
    mine = np.arange(count, dtype=np.int32)
    # As LAPACK has it: column i holds what couples voxel i to itself, to i + 1, and so on.
    places = np.minimum(mine, others) * bandwidth + np.maximum(mine, others)
    flat = np.zeros(count * (bandwidth + 1))
    flat[places[coupled]] = entries[1:][coupled]
    flat[:: bandwidth + 1] = entries[0]
    band = flat.reshape(bandwidth + 1, count, order="F")
    _, values, failed = lapack.dpbsv(band, right, lower=1, overwrite_ab=1, overwrite_b=1)
    if failed:
        raise ArithmeticError("the matting matrix is not positive definite")
    return values


def _entries(
    windows: Windows, voxels: Int[ndarray, " n"], number: Int32[ndarray, " *s"], radius: int
) -> tuple[Int[ndarray, " t"], Float64[ndarray, " t n"]]:
    """The matrix by steps in the flat index: what couples a voxel to the one a step further.

    The first step is 0, that of a voxel to itself.
    """
    count = len(windows.centres)
    slot = np.full(number.size, count)
    slot[windows.centres] = np.arange(count)
    homes = slot[voxels - windows.offsets[:, None]]  # windows that hold a voxel, by its place there
    steps, pairs = _pairs(radius, number.ndim)
    entries = np.zeros((len(steps), len(voxels)))
    products = np.zeros((len(pairs), count + 1))  # the last stands for windows that are not there
    for a, which in enumerate(pairs):
        part = products[: len(which)]
        first, second = windows.vectors[:, a], windows.vectors[:, a:]
        np.einsum("vk,vbk->bk", first, second, out=part[:, :-1])
        part[0, :-1] -= windows.weights[a]
        entries[which] -= part.take(homes[a], axis=1)
    return flat_steps(steps, number), entries


@cache
def _pairs(radius: int, ndim: int) -> tuple[Int[ndarray, " t n"], list[Int[ndarray, " _"]]]:
    """Steps between voxels of a window; for each voxel, which lead to it and to those after it."""
    offsets = window_steps(radius, ndim)
    first, second = np.triu_indices(len(offsets))
    steps, which = np.unique(offsets[second] - offsets[first], axis=0, return_inverse=True)
    return steps, np.split(which.ravel(), np.flatnonzero(np.diff(first)) + 1)


def _solve_iteratively(
    windows: Windows, columns: Int32[ndarray, " m k"], right: Float64[ndarray, " n"]
) -> Float64[ndarray, " n"]:
    """Conjugate gradients, preconditioned by the diagonal."""
    count = len(right)
    weight = _total(np.broadcast_to(windows.weights, columns.shape), columns, count)
    diagonal = weight - _total((windows.vectors**2).sum(0), columns, count)
    v = sparse.vstack([_rows(v.T, columns.T, count) for v in windows.vectors], format="csr")
    matrix = LinearOperator((count, count), lambda x: weight * x - v.T @ (v @ x), dtype=float)
    inverse = LinearOperator((count, count), lambda x: x / diagonal, dtype=float)
    values, failed = cg(matrix, right, rtol=TOLERANCE, atol=0.0, M=inverse, maxiter=ITERATIONS)
    if failed:
        raise ArithmeticError("the matting matrix is nearly singular")
    return values


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for linear algebra: in systems this small several wait for each other.

    On a busy machine that takes ten times as long. Their number is the whole
    process's, hence the lock.
    """
    with _LOCK, _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """The libraries that are loaded; to find them takes as long as a small system."""
    return ThreadpoolController()
