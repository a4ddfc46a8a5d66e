"""The numbers behind each step of the lesson: one kernel, from its unfolding to its layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from rsdtr.compressed.fuse import plain_convolutions
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import RingError
from rsdtr.models.run import fresh_input
from rsdtr.models.surgery import copied
from rsdtr.ring.cost import Size, sublayer_macs
from rsdtr.ring.forms import FORMS, Form, sublayers
from rsdtr.ring.rank_selection import equal_split, rank_of_tails
from rsdtr.ring.tensor_ring import MODES, TensorRing
from rsdtr.search.candidate import Candidate
from rsdtr.search.paper_rule import KernelSpectra, divisors


@dataclass(frozen=True)
class Cut:
    """What the first truncation keeps of one shift's first unfolding.

    values: singular values σ₁ ≥ σ₂ ≥ …, n of them; rank: how many are kept; bound: ε_p/√3; error:
    relative error of leaving the others out, below the bound.
    """

    shift: int
    values: tuple[float, ...]
    rank: int
    bound: float
    error: float


def cut(kernel: KernelSpectra, shift: int, eps: float) -> Cut:
    """The first truncation at ε_p (arXiv 2405.10802, algorithm 1)."""
    first, bound = kernel.unfoldings[shift], equal_split(eps)
    rank = rank_of_tails(first.tails, bound)
    error = math.sqrt(float(first.tails[rank] / first.tails[0]))
    return Cut(shift, tuple(first.squared.sqrt().tolist()), rank, bound, error)


@dataclass(frozen=True)
class Turn:
    """One circular shift: a ring for every divisor r0 of its first rank, ascending."""

    shift: int
    rings: tuple[Candidate, ...]

    @property
    def rank(self) -> int:
        """The first rank r = r0 · r1."""
        ring = self.rings[0]
        return ring.r0 * ring.ranks[(self.shift + 1) % 4]

    @property
    def is_prime(self) -> bool:
        """Whether r can only be split as 1 · r and r · 1."""
        return len(self.rings) == 2

    @property
    def best(self) -> Candidate:
        """The ring that stores least, the first one on a tie."""
        return min(self.rings, key=lambda ring: ring.storage)

    def ring(self, r0: int) -> Candidate:
        """The ring of a divisor; RingError if r0 does not divide the first rank."""
        for ring in self.rings:
            if ring.r0 == r0:
                return ring
        raise RingError(
            f"r0 is {r0}, which does not divide the first rank {self.rank}: choose one of "
            f"{', '.join(map(str, divisors(self.rank)))}"
        )


def turns(found: Sequence[Candidate]) -> tuple[Turn, ...]:
    """The candidates of one kernel by shift, as `search.candidates` lists them."""
    return tuple(
        Turn(shift, tuple(rings)) for shift, rings in groupby(found, lambda ring: ring.shift)
    )


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A kernel beside the one rebuilt from the first q components of one bond, both (O, I, KH, KW).

    error: ‖𝓦 − 𝓦̂‖_F / ‖𝓦‖_F.
    """

    bond: int
    q: int
    kernel: Tensor
    rebuilt: Tensor
    error: float


def ordered_bond(ring: TensorRing) -> int:
    """The bond k, of rank R_k, whose components come in the order of their strength.

    The second and third truncation order theirs by singular values; the wider bond of the two.
    """
    second, third = (ring.shift + 2) % 4, (ring.shift + 3) % 4
    return second if ring.ranks[second] >= ring.ranks[third] else third


def rebuilt(kernel: Tensor, ring: TensorRing, bond: int, q: int) -> Rebuilt:
    """Rebuild the kernel from the first q components of bond R_bond; RingError if it has fewer."""
    if bond not in range(4) or not 1 <= q <= ring.ranks[bond]:
        raise RingError(
            f"{q} components of bond {bond} were asked for: the bonds 0 to 3 have {ring.ranks}"
        )
    cores = list(ring.cores)
    cores[bond] = cores[bond][:q]  # (q, n, R)
    cores[bond - 1] = cores[bond - 1][:, :, :q]  # (R, n, q)
    c0, c1, c2, c3 = cores
    found = TensorRing((c0, c1, c2, c3), ring.shift).to_tensor()
    given = kernel.detach().to(found.dtype)
    return Rebuilt(bond, q, given, found, float((given - found).norm() / given.norm()))


@dataclass(frozen=True, eq=False)
class Stage:
    """One sublayer of a ring layer on one picture.

    kernel: its shape (out, in, kh, kw); copies: channel groups that share it; maps: what it
    computes, (copies·out, H, W); macs: for this picture.
    """

    kernel: tuple[int, int, int, int]
    copies: int
    maps: Tensor
    macs: int

    @property
    def title(self) -> str:
        """Kernel and output in words, such as `1 × 1, 64 → 22 channels`."""
        out, into, height, width = self.kernel
        copies = f" in {self.copies} groups" if self.copies > 1 else ""
        return f"{height} × {width}, {into} → {out} channels{copies}"


@torch.no_grad()
def reaches(model: nn.Module, name: str, picture: Tensor) -> Tensor:
    """What reaches the convolution `name` when the model sees a picture (1, C, H, W)."""
    caught: list[Tensor] = []
    watched = copied(model).eval()  # others may be running the model at this moment
    watched.get_submodule(name).register_forward_pre_hook(
        lambda _, inputs: caught.append(inputs[0].clone())
    )
    watched(fresh_input(watched, picture))
    return caught[0]


@torch.no_grad()
def stages(conv: nn.Conv2d, ring: TensorRing, x: Tensor, form: Form) -> tuple[Stage, ...]:
    """The sublayers of the convolution as a ring, one after the other, on x (1, I, H, W)."""
    plain = plain_convolutions(TRConv2d.from_conv(conv, ring, form=form).eval())
    steps = list(plain) if isinstance(plain, nn.Sequential) else [plain]
    into, maps = (x.shape[2], x.shape[3]), [x]
    for step in steps:
        maps.append(step(maps[-1]))
    size = (maps[-1].shape[2], maps[-1].shape[3])
    macs = sublayer_macs(form, ring.shape, ring.ranks, into, size)
    parts = sublayers(form, ring.shape, ring.ranks)
    return tuple(
        Stage(part.kernel, part.copies, found[0], cost)
        for part, found, cost in zip(parts, maps[1:], macs, strict=True)
    )


def forms_macs(
    shape: Sequence[int], ranks: Sequence[int], input_size: Size, output_size: Size
) -> dict[Form, tuple[int, ...]]:
    """MACs for one input of every sublayer, of every form."""
    return {form: sublayer_macs(form, shape, ranks, input_size, output_size) for form in FORMS}


def bond_name(bond: int) -> str:
    """A bond by the modes that it joins, such as `R2, I – KH`."""
    return f"R{bond}, {MODES[bond - 1]} – {MODES[bond]}"
