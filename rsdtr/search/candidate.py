"""A possible ring of a kernel, and the best by rule, objective and ε_p: what plans are made of.

A slider asks for the same few thousand answers again and again: they are kept here, and a store on
disk may bring them along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

Rule = Literal["paper", "tight"]
Objective = Literal["storage", "macs"]
RULES: tuple[Rule, ...] = get_args(Rule)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
GRID = tuple(round(0.02 + 0.01 * step, 2) for step in range(94))  # the slider: 0.02 … 0.95
COARSE = tuple(eps for eps in GRID if round(100 * eps) % 5 == 0)  # 0.05 … 0.95


Ranks = tuple[int, int, int, int]


@dataclass(frozen=True)
class Candidate:
    """One ring that the search looked at.

    shift: modes moved left before the ring SVD; r0: the divisor that closes the ring;
    ranks: R_0…R_3 in the mode order O, I, KH, KW; storage: scalars in the cores; macs:
    multiply-accumulates of the paper's four sublayers per pixel at stride 1;
    relative_error: ‖𝓦 − 𝓦̂‖_F / ‖𝓦‖_F.
    """

    shift: int
    r0: int
    ranks: Ranks
    storage: int
    macs: int
    relative_error: float


@dataclass(frozen=True)
class Pruned:
    """A candidate that was ruled out: whatever its ranks, it costs at least `floor`."""

    shift: int
    r0: int
    floor: int


@dataclass(frozen=True)
class SearchResult:
    """The winner, and what was computed and ruled out on the way to it."""

    winner: Candidate
    computed: tuple[Candidate, ...]
    pruned: tuple[Pruned, ...]


@dataclass(frozen=True)
class Question:
    """Which ring is asked for: by rule, objective and ε_p."""

    rule: Rule
    objective: Objective
    eps: float


class Winners:
    """The winners known so far, by layer name and question; one per model, shared by threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Question], Candidate] = {}

    def known(self, name: str, question: Question) -> Candidate | None:
        """The best ring of a layer if it is known."""
        return self._known.get((name, question))

    def put(self, name: str, question: Question, winner: Candidate) -> None:
        """Remember a winner."""
        self._known[name, question] = winner

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[str, Question, Candidate]]:
        for (name, question), winner in list(self._known.items()):
            yield name, question, winner
