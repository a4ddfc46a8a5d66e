"""From a kernel and ε_p to a decision about one layer, for any low-rank method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rsdtr.baselines.conv_chain import Stage, composed, stage_kernels, stage_macs
from rsdtr.ring.cost import Size
from rsdtr.ring.rank_selection import Energies, tail_energies
from rsdtr.ring.tensor_ring import checked_kernel

Ranks = tuple[int, ...]
_ROUNDING = 1e-9  # of the energy: what float64 may add to an error that a sum of tails allows


class Prepared(Protocol):
    """One kernel (O, I, KH, KW), with what no ε_p changes."""

    def ranks(self, eps: float) -> Ranks | None:
        """Ranks of least storage known to keep the error within ε_p; None: there are none."""

    def shapes(self, ranks: Ranks) -> tuple[tuple[int, ...], ...]:
        """The shapes of the cores."""

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        """The convolutions that compute the layer, in the order they run."""

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        """The cores in float64."""

    def macs(self, ranks: Ranks, input_size: Size, output_size: Size) -> int:
        """MACs for one input, its kernels being contracted already."""


class Chain(ABC):
    """A prepared kernel whose layer runs as its stages, and costs what they cost."""

    @abstractmethod
    def stages(self, ranks: Ranks) -> tuple[Stage, ...]: ...

    def macs(self, ranks: Ranks, input_size: Size, output_size: Size) -> int:
        return stage_macs(self.stages(ranks), input_size, output_size)


class Uniform(Prepared, Protocol):
    """A prepared kernel all of whose ranks follow from one number."""

    def of_rank(self, rank: int) -> Ranks:
        """The ranks for this number."""


@dataclass(frozen=True)
class LowRank:
    """A method that turns a kernel into cores: its name, what it is in words, and how it begins.

    uniform: one rank for all layers, not one ε_p, is what reaches a PCR; it prepares `Uniform`.
    """

    name: str
    title: str
    prepare: Callable[[Tensor], Prepared]
    uniform: bool = False


class LayerChoice(BaseModel):
    """What one kernel becomes: JSON-able, without a tensor.

    storage: scalars in the cores; stages: what computes it; relative_error: ‖𝓦 − 𝓦̂‖_F/‖𝓦‖_F.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    ranks: Ranks
    storage: int = Field(ge=1)
    stages: tuple[Stage, ...]
    relative_error: float = Field(ge=0)


def storage(prepared: Prepared, ranks: Ranks) -> int:
    """Scalars in the cores of these ranks."""
    return sum(prod(shape) for shape in prepared.shapes(ranks))


def fitting(prepared: Prepared, kernel: Tensor, ranks: Ranks | None) -> Ranks | str:
    """The ranks if their cores store less than the kernel; else the reason why it is dense."""
    if ranks is None:
        return "no cores smaller than the kernel were found at this ε_p"
    needed = storage(prepared, ranks)
    if needed >= kernel.numel():
        return f"the cores would store {needed:,} scalars, the kernel {kernel.numel():,}"
    return ranks


def chosen(
    method: str, prepared: Prepared, kernel: Tensor, ranks: Ranks
) -> tuple[LayerChoice, tuple[Tensor, ...]]:
    """The decision for these ranks, with the error that its cores really have, and the cores."""
    cores, stages = prepared.cores(ranks), prepared.stages(ranks)
    kernel = checked_kernel(kernel)
    rebuilt = composed(stages, stage_kernels(stages, cores))
    error = float((kernel - rebuilt).norm() / kernel.norm())
    choice = LayerChoice(
        method=method, ranks=ranks, storage=storage(prepared, ranks), stages=stages,
        relative_error=error,
    )  # fmt: skip
    return choice, cores


def unfolding_tails(kernel: Tensor, rows: Sequence[int]) -> Energies:
    """Energy left out at each rank of the unfolding with these modes as rows, (n+1,)."""
    others = [mode for mode in range(kernel.ndim) if mode not in rows]
    height = prod(kernel.shape[mode] for mode in rows)
    matrix = kernel.permute(*rows, *others).reshape(height, -1)
    return tail_energies(torch.linalg.svdvals(matrix).square())


def cheapest(
    tails: Sequence[Energies],
    eps: float,
    storage_of: Callable[[Sequence[NDArray[np.int64]]], NDArray[np.int64]],
) -> Ranks:
    """Ranks of least storage whose tails add up to at most ε_p² of the energy.

    The errors of truncations one after the other add up to no more than their tails on the
    untouched kernel. storage_of takes arrays of ranks, and must not fall when one rises.
    """
    allowed = (eps**2 - _ROUNDING) * float(tails[0][0])
    longest = max(range(len(tails)), key=lambda k: len(tails[k]))
    others = [k for k in range(len(tails)) if k != longest]
    grid = np.meshgrid(*(np.arange(1, len(tails[k])) for k in others), indexing="ij")
    spent = sum(tails[k][ranks] for k, ranks in zip(others, grid, strict=True))
    left = allowed - np.asarray(spent)
    # The tails descend: so many of them are above what is left.
    above = len(tails[longest]) - np.searchsorted(tails[longest][::-1], left, side="right")
    ranks: list[NDArray[np.int64]] = list(grid)
    ranks.insert(longest, np.maximum(above, 1))
    costs = np.where(left >= 0, storage_of(ranks).astype(float), np.inf)
    best = np.unravel_index(int(costs.argmin()), costs.shape)
    return tuple(int(values[best]) for values in ranks)


def left_vectors(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors, (rows, rank)."""
    return torch.linalg.svd(matrix, full_matrices=False)[0][:, :rank]


def halves(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Truncated SVD with the singular values shared, (m, rank) and (rank, n)."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vt[:rank]
