"""The candidate rings of the convolution that Layers shows, and the one that was clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from rsdtr.measuring.fastest_rings import planned_ring
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.search.candidate import Candidate, Objective, Pruned, Question
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.shared import session


@dataclass(frozen=True)
class Found:
    """What is to be seen of one layer's search, and the ring that the plan takes.

    unit: what the floors are counted in.
    """

    winner: Candidate
    computed: Sequence[Candidate]
    pruned: Sequence[Pruned]
    unit: Objective
    explained: str

    def clicked(self, selection: Any) -> Candidate:
        """The ring whose cell was clicked; the winner without a click, or of another search."""
        cells = [point.get("customdata") for point in selection["points"]]
        return next((ring for ring in self.computed if [ring.shift, ring.r0] in cells), self.winner)


def candidates_of(chosen: Chosen, layer: LayerProfile, eps: float) -> Found:
    """The search of one layer at ε_p, and on request the candidates that it did without."""
    unit = chosen.asked.solved_objective
    question = Question(chosen.asked.rule, unit, eps)
    with st.spinner("Searching this layer …"):
        result = networks.search(layer, chosen.network, question)
    winner = _fastest(chosen, layer) or result.winner
    fewest = _is_same(winner, result.winner)
    won = "won" if fewest else "is the fastest here, not the one of fewest MACs"
    cells = (
        "Each cell is one ring: its row says which mode comes first, its column how the first "
        f"rank is split. ★ is the one that {won}; ✕ would store no less than the kernel."
    )
    every = question.rule == "paper" and st.toggle(
        "Compute all candidates",
        key=session.EVERY_CANDIDATE,
        persist_state="session",
        help="The search rules most candidates out by a lower bound on their cost. This computes "
        "them all the same, as the published program does; it changes nothing.",
    )
    if every:
        with st.spinner("Computing every candidate of this layer …"):
            every_one = networks.candidates(chosen.network, layer.name, eps)
        rows = "Rows have gaps where r0 does not divide the first rank."
        return Found(winner, _with(winner, every_one), (), unit, f"{cells} {rows}")
    computed = _with(winner, result.computed)
    pruned = [cell for cell in result.pruned if (cell.shift, cell.r0) != (winner.shift, winner.r0)]
    spared = (
        f"Grey: {len(pruned)} of {len(pruned) + len(computed)} rings that "
        "the search never had to compute, because they cost at least the number shown."
    )
    return Found(winner, computed, pruned, unit, f"{cells} {spared}")


def _fastest(chosen: Chosen, layer: LayerProfile) -> Candidate | None:
    """The ring of a layer that was chosen by its time; None if it was not chosen so."""
    if chosen.plan.objective != "latency":
        return None
    return planned_ring(next(each for each in chosen.plan.layers if each.name == layer.name))


def _with(winner: Candidate, computed: Sequence[Candidate]) -> Sequence[Candidate]:
    return [*(ring for ring in computed if not _is_same(ring, winner)), winner]


def _is_same(one: Candidate, other: Candidate) -> bool:
    # Their errors may differ in the last digit, when another process has computed one of them.
    return (one.shift, one.r0, one.ranks) == (other.shift, other.r0, other.ranks)
