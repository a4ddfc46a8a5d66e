"""Matrix and tensor decompositions of one kernel, each with the chain of convolutions it becomes.

Ranks are those of least storage that the singular values of unfoldings prove to be within ε_p, so
that no other split of the error over the truncations stores less by the same bound.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsdtr.baselines.conv_chain import Stage
from rsdtr.baselines.lowrank import (
    Chain,
    LowRank,
    Ranks,
    cheapest,
    halves,
    left_vectors,
    unfolding_tails,
)
from rsdtr.ring.tensor_ring import checked_kernel

O, I, KH, KW = range(4)  # noqa: E741  # the modes have these names everywhere
Counts = Sequence[NDArray[np.int64]]


class _OfSpectra(Chain):
    """What the methods below share: ranks from the tails of some unfoldings."""

    rows: tuple[tuple[int, ...], ...]  # the modes that are the rows of each unfolding

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = checked_kernel(kernel)
        self.shape = tuple(self.kernel.shape)
        self.tails = [unfolding_tails(self.kernel, rows) for rows in self.rows]

    @abstractmethod
    def shapes(self, ranks: Any) -> tuple[tuple[Any, ...], ...]: ...

    def ranks(self, eps: float) -> Ranks | None:
        return cheapest(self.tails, eps, lambda ranks: _scalars(self.shapes(ranks)))


def _scalars(shapes: Sequence[Sequence[Any]]) -> NDArray[np.int64]:
    return np.asarray(sum(prod(shape, start=np.int64(1)) for shape in shapes))


class ChannelSvd(_OfSpectra):
    """𝓦 = A·B: a KH×KW convolution to R channels, then a 1×1 (Zhang et al. 2016)."""

    rows = ((O,),)

    def shapes(self, ranks: Any) -> tuple[tuple[Any, ...], ...]:
        o, i, kh, kw = self.shape
        return (ranks[0], i, kh, kw), (o, ranks[0])

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        (o, i, kh, kw), (r,) = self.shape, ranks
        return (
            Stage(kernel=(r, i, kh, kw), axes=(0, 1), cores=(0,), equation="rihw->rihw"),
            Stage(kernel=(o, r, 1, 1), axes=(), cores=(1,), equation="or->or"),
        )

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        left, right = halves(self.kernel.flatten(1), ranks[0])
        return right.reshape(self.shapes(ranks)[0]), left


class SpatialSvd(_OfSpectra):
    """A KH×1 convolution to R channels, then a 1×KW (Jaderberg et al. 2014)."""

    rows = ((I, KH),)

    def shapes(self, ranks: Any) -> tuple[tuple[Any, ...], ...]:
        o, i, kh, kw = self.shape
        return (ranks[0], i, kh), (o, ranks[0], kw)

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        (o, i, kh, kw), (r,) = self.shape, ranks
        return (
            Stage(kernel=(r, i, kh, 1), axes=(0,), cores=(0,), equation="rih->rih"),
            Stage(kernel=(o, r, 1, kw), axes=(1,), cores=(1,), equation="orw->orw"),
        )

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        o, i, kh, kw = self.shape
        left, right = halves(self.kernel.permute(I, KH, O, KW).reshape(i * kh, o * kw), ranks[0])
        rows = left.reshape(i, kh, -1).permute(2, 0, 1)
        return rows, right.reshape(-1, o, kw).permute(1, 0, 2)


class Tucker2(_OfSpectra):
    """1×1, KH×KW, 1×1 (Kim et al. 2016); tensorly's HOOI at ranks that its start already keeps."""

    rows = ((O,), (I,))

    def ranks(self, eps: float) -> Ranks | None:
        found = super().ranks(eps)
        assert found is not None  # full rank always keeps the promise
        (_, _, kh, kw), (r_o, r_i) = self.shape, found
        # More than the other side of the core has would be zeros.
        r_o = min(r_o, r_i * kh * kw)
        return r_o, min(r_i, r_o * kh * kw)

    def shapes(self, ranks: Any) -> tuple[tuple[Any, ...], ...]:
        (o, i, kh, kw), (r_o, r_i) = self.shape, ranks
        return (r_i, i), (r_o, r_i, kh, kw), (o, r_o)

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        (o, i, kh, kw), (r_o, r_i) = self.shape, ranks
        return (
            Stage(kernel=(r_i, i, 1, 1), axes=(), cores=(0,), equation="ri->ri"),
            Stage(kernel=(r_o, r_i, kh, kw), axes=(0, 1), cores=(1,), equation="oihw->oihw"),
            Stage(kernel=(o, r_o, 1, 1), axes=(), cores=(2,), equation="or->or"),
        )

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        import tensorly as tl  # of the extra `compare`
        from tensorly.decomposition import partial_tucker

        with tl.backend_context("pytorch", local_threadsafe=True):
            (core, (from_o, from_i)), _ = partial_tucker(
                self.kernel, list(ranks), modes=[O, I], init="svd", n_iter_max=30, tol=1e-6
            )
        return from_i.T, core, from_o


class TensorTrain(_OfSpectra):
    """The modes I, KH, KW, O as a train: 1×1, KH×1, 1×KW, 1×1; tensorly's TT-SVD."""

    rows = ((I,), (I, KH), (O,))

    def ranks(self, eps: float) -> Ranks | None:
        found = super().ranks(eps)
        assert found is not None  # full rank always keeps the promise
        (_, _, kh, kw), (r1, r2, r3) = self.shape, found
        # The cut before leaves no more than this: a larger rank would store zeros.
        r2 = min(r2, r1 * kh)
        return r1, r2, min(r3, r2 * kw)

    def shapes(self, ranks: Any) -> tuple[tuple[Any, ...], ...]:
        (o, i, kh, kw), (r1, r2, r3) = self.shape, ranks
        return (i, r1), (r1, kh, r2), (r2, kw, r3), (r3, o)

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        (o, i, kh, kw), (r1, r2, r3) = self.shape, ranks
        return (
            Stage(kernel=(r1, i, 1, 1), axes=(), cores=(0,), equation="ia->ai"),
            Stage(kernel=(r2, r1, kh, 1), axes=(0,), cores=(1,), equation="ahb->bah"),
            Stage(kernel=(r3, r2, 1, kw), axes=(1,), cores=(2,), equation="bwc->cbw"),
            Stage(kernel=(o, r3, 1, 1), axes=(), cores=(3,), equation="co->oc"),
        )

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        import tensorly as tl  # of the extra `compare`
        from tensorly.decomposition import tensor_train

        with tl.backend_context("pytorch", local_threadsafe=True):
            train = tensor_train(self.kernel.permute(I, KH, KW, O).contiguous(), [1, *ranks, 1])
        first, second, third, last = train.factors
        return first[0], second, third, last[:, :, 0]


class HierarchicalTucker(_OfSpectra):
    """The tree ((O, I), (KH, KW)): four leaves, a transfer tensor for each pair.

    Nested SVDs from the leaves to the root (Grasedyck 2010); the root's matrix is part of the
    spatial transfer tensor, and a leaf of full rank is none. 1×1, a KH×KW convolution with a kernel
    rebuilt from four cores, 1×1.
    """

    rows = ((O,), (I,), (KH,), (KW,), (O, I))

    def ranks(self, eps: float) -> Ranks | None:
        found = super().ranks(eps)
        assert found is not None  # full rank always keeps the promise
        r_o, r_i, r_h, r_w, pair = found
        return r_o, r_i, r_h, r_w, min(pair, r_o * r_i, r_h * r_w)

    def shapes(self, ranks: Any) -> tuple[tuple[Any, ...], ...]:
        (o, i, kh, kw), (r_o, r_i, r_h, r_w, a) = self.shape, ranks
        # As a number, so that arrays of ranks serve as well: a leaf of full rank stores nothing.
        rows, columns = (r_h != kh) * kh, (r_w != kw) * kw
        return (r_i, i), (r_o, r_i, a), (a, r_h, r_w), (rows, r_h), (columns, r_w), (o, r_o)

    def stages(self, ranks: Ranks) -> tuple[Stage, ...]:
        (o, i, kh, kw), (r_o, r_i, r_h, r_w, _) = self.shape, ranks
        spatial, leaves, cores = ["x", "y"], [], [1, 2]
        for core, full, letter, leaf in ((3, r_h == kh, "h", "x"), (4, r_w == kw, "w", "y")):
            if full:
                spatial[spatial.index(leaf)] = letter
            else:
                leaves.append(letter + leaf)
                cores.append(core)
        inputs = ",".join(["oia", "a" + "".join(spatial), *leaves])
        return (
            Stage(kernel=(r_i, i, 1, 1), axes=(), cores=(0,), equation="ri->ri"),
            Stage(
                kernel=(r_o, r_i, kh, kw), axes=(0, 1), cores=tuple(cores),
                equation=f"{inputs}->oihw",
            ),
            Stage(kernel=(o, r_o, 1, 1), axes=(), cores=(5,), equation="or->or"),
        )  # fmt: skip

    def cores(self, ranks: Ranks) -> tuple[Tensor, ...]:
        *leaf_ranks, pair = ranks
        leaves, inner = [], self.kernel
        for mode, rank in enumerate(leaf_ranks):
            size = self.shape[mode]
            whole = rank == size and mode in (KH, KW)
            unfolded = self.kernel.movedim(mode, 0).reshape(size, -1)
            leaf = torch.eye(size, dtype=torch.float64) if whole else left_vectors(unfolded, rank)
            inner = torch.tensordot(inner, leaf, dims=([0], [0]))  # the next mode comes first
            leaves.append(leaf[:0] if whole else leaf)
        left, right = halves(inner.reshape(leaf_ranks[O] * leaf_ranks[I], -1), pair)
        return (
            leaves[I].T,
            left.reshape(leaf_ranks[O], leaf_ranks[I], -1),
            right.reshape(-1, leaf_ranks[KH], leaf_ranks[KW]),
            leaves[KH],
            leaves[KW],
            leaves[O],
        )


FACTORIZATIONS = (
    LowRank("channel-svd", "SVD over output channels: k×k, 1×1", ChannelSvd),
    LowRank("spatial-svd", "spatial SVD: k×1, 1×k", SpatialSvd),
    LowRank("tucker2", "Tucker-2: 1×1, k×k, 1×1", Tucker2),
    LowRank("tt", "tensor train: 1×1, k×1, 1×k, 1×1", TensorTrain),
    LowRank("ht", "hierarchical Tucker: 1×1, k×k rebuilt, 1×1", HierarchicalTucker),
)
