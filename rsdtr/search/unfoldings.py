"""The three matrices that the ring SVD truncates, each through its smaller Gram matrix."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod

import torch
from torch import Tensor

from rsdtr.ring.rank_selection import Energies, rank_within, tail_energies
from rsdtr.search.gram import (
    SpatialGram,
    flat_rank,
    gram,
    signs_follow_from_gram,
    single_left_vectors,
    smaller_gram,
    square_root,
    squared_values,
)
from rsdtr.search.memory_budget import Kept
from rsdtr.search.quick_bounds import Look

MORE_ROWS = 16  # of a second matrix, computed together
MOST_SIGNS = 2048  # rows from which signs are not LAPACK's any more: they take longer than all else
KEPT_FACTS = 256  # first ranks and divisors, per shift, of which tails and norms are kept
_SECONDS = Kept(1 << 26)  # second matrices of all kernels in a process: 512 MB
Sizes = tuple[int, int, int, int]


class FirstUnfolding:
    """The first unfolding (a, b·c·d) of one circularly shifted kernel: all that no ε_p changes.

    `kernel` as from `checked_kernel`; single: the same in float32; windows: its spatial Gram
    matrix, to be shared. sizes: the shifted modes (a, b, c, d). Float64 Gram matrices move a
    relative tail by less than 1e-7.

    A singular vector's sign is free, but the ranks of a first mode that is split (1 < r0 < r)
    depend on it. The published program takes the signs of single-precision LAPACK; so do we, to
    choose what it chooses, and only once such a split is looked at. Of more than MOST_SIGNS rows,
    which it never met, each vector's largest entry is positive.
    """

    def __init__(
        self,
        kernel: Tensor,
        shift: int,
        single: Tensor | None = None,
        windows: SpatialGram | None = None,
    ) -> None:
        self.shift = shift
        self._kernel = kernel
        self._windows = SpatialGram(kernel) if windows is None else windows
        self._single = kernel.float() if single is None else single
        a, b, c, d = (kernel.shape[(shift + k) % 4] for k in range(4))
        self.sizes: Sizes = (a, b, c, d)
        self._leading_rows = kernel.new_zeros(0, b, c, d)
        self._single_rows = self._single.new_zeros(0, b, c, d)
        self._rows_gram = kernel.new_zeros(0, b, 0, b)
        self._saved = 0.0
        self._seconds: dict[tuple[int, int], SecondUnfolding] = {}
        self._facts: OrderedDict[tuple[int, int], _Facts] = OrderedDict()
        self._looks: OrderedDict[tuple[int, int], Look] = OrderedDict()

    def _unfolded(self, kernel: Tensor) -> Tensor:
        order = [(self.shift + k) % 4 for k in range(4)]
        return kernel.permute(order).reshape(self.sizes[0], -1)  # (a, b·c·d)

    def _as_it_lies(self, kernel: Tensor) -> Tensor:
        """`_unfolded` with the columns in the kernel's own order, which is quicker to copy."""
        return kernel.movedim(self.shift, 0).reshape(self.sizes[0], -1)

    def _projected(self, vectors: Tensor, kernel: Tensor) -> Tensor:
        """The kernel in the basis of so many vectors (a, n), its modes shifted: (n, b, c, d)."""
        others = [size for mode, size in enumerate(kernel.shape) if mode != self.shift]
        rows = (vectors.T @ self._as_it_lies(kernel)).reshape(-1, *others)
        before = self.shift  # modes that lie before this one, and come last when shifted
        return rows.permute(0, *range(before + 1, 4), *range(1, before + 1)).contiguous()

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Squared singular values (n,) and the matching left singular vectors (a, n)."""
        wide = self.sizes[0] <= prod(self.sizes[1:])
        if wide and self.shift >= 2 and self._windows.small:
            product = self._windows.of_mode(self.shift)
        else:
            product = smaller_gram(self._as_it_lies(self._kernel))
        squared, vectors = torch.linalg.eigh(product)
        squared, vectors = squared.flip(0).clamp_min(0), vectors.flip(1)
        if wide:
            return squared, vectors
        # Directions without energy have no left vector: they are left out.
        kept = squared > squared[0] * 1e-24
        squared, vectors = squared[kept], vectors[:, kept]
        return squared, self._as_it_lies(self._kernel) @ vectors / squared.sqrt()

    @property
    def squared(self) -> Tensor:
        """Squared singular values, descending, (n,)."""
        return self._eigen[0]

    @cached_property
    def tails(self) -> Energies:
        """Energy lost at each rank 0 … n, (n+1,)."""
        return tail_energies(self.squared)

    def _rows(self, rank: int) -> Tensor:
        """The kernel in the basis of its leading left singular vectors, (rank, b, c, d)."""
        if len(self._leading_rows) < rank:
            vectors = self._eigen[1][:, :rank]
            self._leading_rows = self._projected(vectors, self._kernel)
        return self._leading_rows[:rank]

    def leading_vectors(self, lost: float) -> Tensor:
        """The fewest left singular vectors that leave out at most `lost` energy, (a, n) float32."""
        return self._eigen[1][:, : rank_within(self.tails, lost)].float()

    def single_rows(self, rank: int, r0: int) -> Tensor:
        """The remainder's rows in single precision, (r0, r1, b, c, d)."""
        if len(self._single_rows) < rank:
            vectors = self._eigen[1][:, :rank].float()
            self._single_rows = self._projected(vectors, self._single)
        return self._split(self._single_rows[:rank], r0)

    def second_gram(self, rank: int, r0: int) -> Tensor:
        """M·Mᵀ of the second matrix M for a first rank r = r0·r1, (r1·b, r1·b).

        M's rows are sums over r0 of rows that no divisor changes: one Gram matrix of those serves
        every first rank and divisor.
        """
        a, b, c, d = self.sizes
        r1 = rank // r0
        if a * b > c * d:  # that one would be larger than M·Mᵀ ever is
            return gram(self.remainder(rank, r0))
        if len(self._rows_gram) < rank:
            self._saved += 1 / r0  # what it would have saved, as a part of what it costs
            if self._saved < 1:
                return gram(self.remainder(rank, r0))
            self._rows(rank)
            rows = self._leading_rows.reshape(-1, c * d)
            self._rows_gram = gram(rows).reshape(len(self._leading_rows), b, -1, b)
        product = self._kernel.new_zeros(r1, b, r1, b)
        for start in range(0, rank, r1):
            block = self._rows_gram[start : start + r1, :, start : start + r1]
            if 1 < r0 < rank:
                signs = self._signs[start : start + r1]
                block = signs[:, None, None, None] * signs[:, None] * block
            product += block
        return product.reshape(r1 * b, r1 * b)

    @cached_property
    def _signs(self) -> Tensor:
        squared, basis = self._eigen
        rows, columns = self.sizes[0], prod(self.sizes[1:])
        if rows > MOST_SIGNS:
            largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))[0]
            return torch.where(largest < 0, -1.0, 1.0).to(basis.dtype)
        if rows >= 32 and 2 * rows <= columns <= 18 * rows and signs_follow_from_gram():
            single = single_left_vectors(square_root(squared, basis))
        else:
            single = torch.linalg.svd(self._unfolded(self._single), full_matrices=False).U
        agreement = (basis * single[:, : basis.shape[1]]).sum(0)
        return torch.where(agreement < 0, -1.0, 1.0).to(basis.dtype)

    def basis(self, rank: int, r0: int) -> Tensor:
        """The leading left singular vectors as `remainder` has them, (a, rank)."""
        vectors = self._eigen[1][:, :rank]
        return vectors * self._signs[:rank] if 1 < r0 < rank else vectors

    def remainder(self, rank: int, r0: int) -> Tensor:
        """What the first truncation leaves, with r0 moved to the far end: (r1·b, c·d·r0)."""
        rows = self._split(self._rows(rank), r0)
        return rows.permute(1, 2, 3, 4, 0).reshape(rank // r0 * self.sizes[1], -1)

    def _split(self, rows: Tensor, r0: int) -> Tensor:
        """Leading rows (rank, b, c, d) with their signs, the rank split: (r0, r1, b, c, d)."""
        # Where r0 or r1 is 1 a sign only turns a whole row or column: no rank sees it.
        if 1 < r0 < len(rows):
            rows = self._signs[: len(rows), None, None, None].to(rows.dtype) * rows
        return rows.reshape(r0, -1, *self.sizes[1:])

    def largest_side(self, rank: int, r0: int) -> int:
        """Of the smaller Gram matrices of the second and third matrix, at most."""
        b, c, d = self.sizes[1:]
        second = min(rank // r0 * b, c * d * r0)
        return max(second, min(second * c, d * r0))

    def look(self, rank: int, r0: int) -> Look:
        """A first look at a first rank and divisor; the latest ones are kept."""
        kept = float(self.tails[0] - self.tails[rank])
        found = self._looks.pop((rank, r0), None)
        if found is None:  # what refers to itself is only freed when garbage is collected
            found = Look(partial(FirstUnfolding.single_rows, weakref.proxy(self), rank, r0), kept)
        self._looks[rank, r0] = found
        if len(self._looks) > KEPT_FACTS:
            self._looks.popitem(last=False)
        return found

    def second(self, rank: int, r0: int) -> SecondUnfolding:
        """The second matrix for a first rank and divisor.

        The latest ones asked for are kept, and of those before them the tails and norms.
        """
        at = rank, r0
        facts = self._facts.pop(at, None) or _Facts()
        found = self._seconds.get(at)
        if found is None:
            found = SecondUnfolding(weakref.proxy(self), rank, r0, facts)
            self._seconds[at] = found
        self._facts[at] = found.facts
        if len(self._facts) > KEPT_FACTS:
            self._facts.popitem(last=False)
        _SECONDS.use(self, at, found.scalars, lambda first: first._seconds.pop(at, None))
        return found


@dataclass
class _Facts:
    """What is small of a second matrix: its tails, and by second rank the third one's."""

    tails: Energies | None = None
    third_norms: dict[int, float] = field(default_factory=dict)
    third_tails: dict[int, Energies] = field(default_factory=dict)


class SecondUnfolding:
    """The second matrix (r1·b, c·d·r0) of the ring SVD for one first rank r = r0·r1.

    `first` keeps it, and so is only referred to weakly: hold on to that for as long as to this.
    """

    def __init__(self, first: FirstUnfolding, rank: int, r0: int, facts: _Facts) -> None:
        b, c, d = first.sizes[1:]
        low, high = sorted((rank // r0 * b, c * d * r0))
        self.scalars = 2 * low * (low + high)  # at most, with the third Gram matrix
        self._third_shape = (c, d * r0)
        self._wide = rank // r0 * b <= c * d * r0
        self._remainder = partial(FirstUnfolding.remainder, first, rank, r0)
        self._wide_gram = partial(FirstUnfolding.second_gram, first, rank, r0)
        self._leading_rows: Tensor | None = None
        self.facts = facts
        self._latest: tuple[int, Tensor] | None = None  # second rank and its third Gram matrix

    @cached_property
    def _gram(self) -> Tensor:
        return self._wide_gram() if self._wide else smaller_gram(self._remainder())

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor]:
        """Squared singular values (n,), and the eigenvectors of the smaller Gram matrix, (n, n)."""
        squared, vectors = torch.linalg.eigh(self._gram)
        del self._gram  # not needed any more
        return squared.flip(0).clamp_min(0), vectors.flip(1)

    def _rows(self, r2: int) -> Tensor:
        """Σ·Vᵀ, the matrix in the basis of its left singular vectors, its first r2 rows at least.

        A few more are computed when more are asked for: neighbours of a second rank come next.
        """
        have = 0 if self._leading_rows is None else len(self._leading_rows)
        if self._leading_rows is None or have < r2:
            squared, vectors = self._svd
            end = r2 if have == 0 else max(r2, have + MORE_ROWS)
            if self._wide:
                more = vectors[:, have:end].T @ self._remainder()  # (…, c·d·r0)
            else:
                more = squared[have:end, None].sqrt() * vectors[:, have:end].T
            old = [] if self._leading_rows is None else [self._leading_rows]
            self._leading_rows = torch.cat([*old, more])
        return self._leading_rows

    @property
    def tails(self) -> Energies:
        """Energy lost at each second rank 0 … n, (n+1,)."""
        if self.facts.tails is None:
            self.facts.tails = tail_energies(self._svd[0])
        return self.facts.tails

    def third_floor(self, r2: int, allowed: float) -> int:
        """A lower bound on the third rank that loses at most `allowed` energy; no eigenvalue."""
        norms = self.facts.third_norms
        if r2 not in norms:
            norms[r2] = float(self._third_gram(r2).square().sum())
        return flat_rank(self._kept(r2), norms[r2], allowed)

    def third_tails(self, r2: int) -> Energies:
        """Energy lost at each third rank 0 … n when r2 is the second, (n+1,); kept."""
        known = self.facts.third_tails
        if r2 not in known:
            known[r2] = tail_energies(squared_values(self._third_gram(r2)))
        return known[r2]

    @property
    def known_thirds(self) -> tuple[int, ...]:
        """The second ranks whose `third_tails` are known already."""
        return tuple(self.facts.third_tails)

    def release(self) -> None:
        """Drop the third Gram matrix that was kept for its neighbours: it may be large."""
        self._latest = None

    def _third_gram(self, r2: int) -> Tensor:
        """The smaller Gram matrix of the third matrix (r2·c, d·r0) at second rank r2.

        A larger second rank adds rows to that matrix: what the latest Gram matrix has is not
        computed again.
        """
        c, rest = self._third_shape
        rows = self._rows(r2 if self._latest is None else max(r2, self._latest[0]))
        wide = r2 * c <= rest
        if self._latest is not None and (self._latest[0] * c <= rest) == wide:
            at, gram = self._latest
            low, high = sorted((at, r2))
            between = rows[low:high].reshape((high - low) * c, rest)
            if wide and at < r2:
                across = rows[:at].reshape(at * c, rest) @ between.T  # (at·c, (r2-at)·c)
                right = torch.cat([across, between @ between.T])
                gram = torch.cat([torch.cat([gram, across.T]), right], 1)
            elif wide:
                return gram[: r2 * c, : r2 * c]
            elif high - low < r2:
                gram = torch.addmm(gram, between.T, between, alpha=1 if at < r2 else -1)
            else:
                gram = smaller_gram(rows[:r2].reshape(r2 * c, rest))
        else:
            gram = smaller_gram(rows[:r2].reshape(r2 * c, rest))
        self._latest = r2, gram
        return gram

    def _kept(self, r2: int) -> float:
        return float(self.tails[0] - self.tails[r2])
