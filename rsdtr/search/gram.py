"""Gram matrices: spectra, signs and rank bounds of a matrix from its smaller side."""

from __future__ import annotations

from functools import cache, cached_property
from math import ceil

import torch
from torch import Tensor

STRIP = 96  # wide enough for full speed of a product, narrow enough to leave a third of it out


def smaller_gram(matrix: Tensor) -> Tensor:
    """M·Mᵀ or Mᵀ·M, whichever has the smaller side."""
    rows, columns = matrix.shape
    return gram(matrix if rows <= columns else matrix.T)


def gram(matrix: Tensor) -> Tensor:
    """M·Mᵀ. In strips, so that little above the diagonal is computed: that is copied from below."""
    rows = len(matrix)
    if rows <= STRIP:
        return matrix @ matrix.T
    product = matrix.new_empty(rows, rows)
    for start in range(0, rows, STRIP):
        end = min(rows, start + STRIP)
        product[start:, start:end] = matrix[start:] @ matrix[start:end].T
        product[start:end, end:] = product[end:, start:end].T
    return product


class SpatialGram:
    """Inner products of a kernel's positions (KH·KW), summed over O and I: one pass for three uses.

    Of modes KH and KW alone it gives the first unfoldings, of both together {O, I} | {KH, KW}.
    """

    def __init__(self, kernel: Tensor) -> None:
        self._kernel = kernel

    @property
    def small(self) -> bool:
        """Whether it is the smaller side of {O, I} | {KH, KW}: otherwise it is better not used."""
        o, i, kh, kw = self._kernel.shape
        return kh * kw <= o * i

    @cached_property
    def gram(self) -> Tensor:
        """(KH·KW, KH·KW)."""
        o, i, kh, kw = self._kernel.shape
        positions = self._kernel.reshape(o * i, kh * kw)
        return positions.T @ positions

    def of_mode(self, mode: int) -> Tensor:
        """M·Mᵀ of the first unfolding M of mode 2, (KH, KH), or 3, (KW, KW)."""
        kh, kw = self._kernel.shape[2:]
        other = (1, 3) if mode == 2 else (0, 2)
        return self.gram.reshape(kh, kw, kh, kw).diagonal(dim1=other[0], dim2=other[1]).sum(-1)


def square_root(squared: Tensor, vectors: Tensor) -> Tensor:
    """V·Σ·Vᵀ, the symmetric square root of a Gram matrix, from its eigenvalues and vectors.

    In single precision, which is what `single_left_vectors` looks at.
    """
    single = vectors.float()
    return (single * squared.sqrt().float()) @ single.T


def single_left_vectors(root: Tensor) -> Tensor:
    """Left singular vectors, in the signs of LAPACK's single precision, of wide M: M·Mᵀ = root²."""
    # A few columns of zeros keep the matrix wide: LAPACK treats square ones another way.
    wide = torch.cat([root, root.new_zeros(len(root), 8)], 1)
    return torch.linalg.svd(wide, full_matrices=False).U


@cache
def signs_follow_from_gram() -> bool:
    """Whether this LAPACK gives a wide matrix the signs of the square root of its Gram matrix.

    Bidiagonalising a wide matrix from the left sees only M·Mᵀ. MKL does so up to 19 times as many
    columns as rows; a LAPACK that takes an LQ factorisation first has other signs, and then the
    whole matrix must be decomposed. So must one of fewer than 32 rows: below divide and conquer's
    size, LAPACK iterates, and rounding decides some signs.
    """
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((32, 64), (40, 720)):
        matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        squared, vectors = torch.linalg.eigh(matrix @ matrix.T)
        whole = torch.linalg.svd(matrix.float(), full_matrices=False).U
        small = single_left_vectors(square_root(squared, vectors))
        if bool(((whole * small).sum(0) < 0.5).any()):
            return False
    return True


def squared_values(gram: Tensor) -> Tensor:
    """Squared singular values, descending, from a Gram matrix."""
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)


def flat_rank(energy: float, squared_gram_norm: float, allowed: float) -> int:
    """The least rank that can lose at most `allowed` energy, from the Gram matrix's two norms.

    energy: its trace; squared_gram_norm: ‖G‖_F². By Cauchy–Schwarz the ρ largest eigenvalues sum
    to at most √ρ·‖G‖_F: sharp for flat spectra, which are the expensive ones.
    """
    missing = max(0.0, energy - allowed)
    return max(1, ceil(missing**2 / squared_gram_norm * (1 - 1e-9)))
