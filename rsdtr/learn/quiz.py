"""Six questions about one layer, made from its own numbers, with the reason of each answer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

from rsdtr.learn.numbers import Turn
from rsdtr.ring.cost import Size
from rsdtr.search.candidate import Candidate
from rsdtr.search.paper_rule import divisors


@dataclass(frozen=True)
class QuizQuestion:
    """A question, its options, which of them is right (an index), and why."""

    text: str
    options: tuple[str, ...]
    right: int
    reason: str

    def grade(self, chosen: str | None) -> bool:
        """Whether the option that was chosen is the right one; None is no answer."""
        return chosen == self.options[self.right]


def quiz(
    shape: tuple[int, int, int, int],
    first: Turn,
    winner: Candidate,
    eps: float,
    input_size: Size,
) -> tuple[QuizQuestion, ...]:
    """Six questions about a kernel (O, I, KH, KW) at ε_p.

    first: the rings of shift 0; winner: the ring that stores least of all shifts; input_size:
    (H, W) of the layer's input.
    """
    return (
        _truncation(eps),
        _splits(first),
        _core(shape, winner),
        _storage(shape, winner),
        _ratio(shape, winner),
        _sublayer(shape, winner, input_size),
    )


def _truncation(eps: float) -> QuizQuestion:
    right = eps / sqrt(3)
    return _question(
        f"The kernel may lose εₚ = {eps:.2f}. How much may each of the three truncations lose?",
        f"{right:.3f}",
        (f"{eps / 3:.3f}", f"{eps:.3f}", f"{eps / 2:.3f}"),
        f"Squares add up: three times (εₚ/√3)² is εₚ², so each gets {eps:.2f}/√3 = {right:.3f}.",
    )


def _splits(first: Turn) -> QuizQuestion:
    rank, ways = first.rank, divisors(first.rank)
    reason = f"r = r0 · r1, so r0 is a divisor of {rank}: {', '.join(map(str, ways))}."
    return _question(
        f"The first rank is r = {rank}. How many ways are there to close the ring, r = r0 · r1?",
        str(len(ways)),
        (str(len(ways) + 1), str(rank), str(max(len(ways) - 1, 1))),
        reason + (" A prime leaves no choice but its two ends." if first.is_prime else ""),
    )


def _core(shape: tuple[int, int, int, int], ring: Candidate) -> QuizQuestion:
    (_, i, _, _), (r0, r1, r2, r3) = shape, ring.ranks
    return _question(
        f"The ranks are R0, R1, R2, R3 = {_listed(ring.ranks)}. Which shape has the core of mode "
        f"I = {i}?",
        f"{r1} × {i} × {r2}",
        (f"{r0} × {i} × {r1}", f"{r2} × {i} × {r3}", f"{r1 + 1} × {i} × {r2 + 1}"),
        f"Core k has the shape Rₖ × nₖ × Rₖ₊₁, and I is mode 1: R1 × I × R2 = {r1} × {i} × {r2}.",
    )


def _storage(shape: tuple[int, int, int, int], ring: Candidate) -> QuizQuestion:
    sizes = [ring.ranks[k] * shape[k] * ring.ranks[(k + 1) % 4] for k in range(4)]
    return _question(
        f"A kernel {_times(shape)} has a ring of ranks {_listed(ring.ranks)}. How many scalars "
        "does the ring store?",
        f"{ring.storage:,}",
        (f"{prod(shape):,}", f"{sum(sizes[:3]):,}", f"{sum(shape) * max(ring.ranks):,}"),
        f"One core per mode, Rₖ · nₖ · Rₖ₊₁: {' + '.join(f'{size:,}' for size in sizes)} = "
        f"{ring.storage:,}.",
    )


def _ratio(shape: tuple[int, int, int, int], ring: Candidate) -> QuizQuestion:
    dense = prod(shape)
    ratio = dense / ring.storage
    return _question(
        f"The kernel has {dense:,} scalars, its ring {ring.storage:,}. How many times smaller is "
        "the layer?",
        f"{ratio:.2f}",
        (f"{ratio / 2:.2f}", f"{1 / ratio:.2f}", f"{1 + ratio:.2f}"),
        f"Original / compressed: {dense:,} / {ring.storage:,} = {ratio:.2f}.",
    )


def _sublayer(shape: tuple[int, int, int, int], ring: Candidate, size: Size) -> QuizQuestion:
    (_, i, _, _), (_, r1, r2, _) = shape, ring.ranks
    height, width = size
    pixels = height * width
    right = i * r1 * r2 * pixels
    return _question(
        f"The input has {i} channels of {height} × {width} pixels. How many MACs does the first "
        f"sublayer need, the 1 × 1 to R1 · R2 = {r1} · {r2} channels?",
        f"{right:,}",
        (f"{i * r1 * r2:,}", f"{i * (r1 + r2) * pixels:,}", f"{2 * right:,}"),
        f"I · R1 · R2 at every pixel: {i} · {r1} · {r2} · {height} · {width} = {right:,}.",
    )


def _question(text: str, right: str, wrong: tuple[str, ...], reason: str) -> QuizQuestion:
    """Options in an order that gives nothing away: by length, then by digits."""
    options = sorted({right, *wrong}, key=lambda option: (len(option), option))
    return QuizQuestion(text, tuple(options), options.index(right), reason)


def _listed(ranks: tuple[int, ...]) -> str:
    return ", ".join(map(str, ranks))


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
