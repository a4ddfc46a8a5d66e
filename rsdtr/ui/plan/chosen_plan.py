"""What every page begins with: the network that was asked for, and the plan that answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from rsdtr.errors import WeightsError
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import CompressionPlan, LayerPlan
from rsdtr.search.candidate import Objective
from rsdtr.ui.plan import (
    layer_overrides,
    networks,
    plan_inputs,
    search_status,
    uploads,
)
from rsdtr.ui.plan.fastest_rings import with_fastest_rings
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import session
from rsdtr.ui.shared.frame import progress
from rsdtr.ui.shared.markdown import plain


@dataclass(frozen=True, eq=False)
class Chosen:
    """What the reader asked for, and the plan that answers it.

    asked: the question that the plan answers, for `latency` with rings of fewest MACs until the
    fastest are known; own: as its `own`, by layer.
    """

    network: Network
    asked: Choices
    plan: CompressionPlan

    @property
    def own(self) -> layer_overrides.Own:
        return dict(self.asked.own)

    def eps_of(self, layer: LayerPlan) -> float:
        """The ε_p that a layer is looked at with: its own, or else that of the whole network."""
        return layer.eps or self.own.get(layer.name) or self.asked.eps


def choose(whole: bool = False) -> Chosen:
    """The network, the question and its plan.

    whole: the page shows something that takes the rings of the whole grid, and is drawn again
    when they are there.

    WeightsError if the model's weights are not to be had, PlanError if its target is out of reach:
    the inputs are drawn all the same. Where an answer has to be searched for long, the page shows
    the nearest one, or stops with a word on it, and is drawn again when it is there.
    """
    plan_inputs.read()
    with st.sidebar:
        plan_inputs.ask_network()
        question = st.container()
        with st.expander("More", icon=":material/tune:"):
            plan_inputs.ask_weights()
            rule, objective, policy = plan_inputs.ask_rules()
    network = _loaded()
    with question:
        eps, target = plan_inputs.ask_question(network.dense_bytes)
    pinned = layer_overrides.read(network.profile)
    asked = Choices(
        eps=eps, target=target, rule=rule,
        objective=_OBJECTIVES[objective], latency_batch=plan_inputs.chosen_batch(), layers=policy,
        own=tuple(pinned.items()),
    )  # fmt: skip
    if pinned:
        _show_pinned(pinned)
    chosen = _answer(network, asked, whole)
    if network.uploaded is not None:
        uploads.tell(network.uploaded, chosen.plan)
    return chosen


def choose_network(drawn: bool = True) -> Network:
    """The network alone, for a page that asks for no plan; errors as `choose`.

    drawn: whether its inputs are. What other pages ask for stays in the address.
    """
    plan_inputs.read()
    if drawn:
        with st.sidebar:
            plan_inputs.ask_network()
            plan_inputs.ask_weights()
    network = _loaded(drawn)
    layer_overrides.read(network.profile)
    return network


def _loaded(drawn: bool = True) -> Network:
    name, asked = plan_inputs.asked_network()
    try:
        if asked == "own":
            if (file := uploads.choose(name, drawn)) is None:
                _break_off()
                st.stop()
            weights = WeightsSource.of(file)
        else:
            weights = WeightsSource(synthetic=asked == "none")
        with (
            progress("Downloading the weights, bytes") as show,
            st.spinner(f"Reading {plain(name)}"),
        ):
            network = networks.network(name, weights, show)
            search_status.begin(network)
    except WeightsError as error:
        _break_off()
        raise (uploads.refused(error, name) if asked == "own" else error) from None
    if network.uploaded is not None:
        st.caption(f"**{plain(network.uploaded)}** fits {plain(name)}.")
    if network.synthetic:
        st.warning(
            "Synthetic weights with a decaying spectrum, for looking at rings and for timing: "
            "nobody trained them, so **no accuracy of this network means anything**.",
            icon=":material/science:",
        )
    return network


def _answer(network: Network, question: Choices, whole: bool) -> Chosen:
    asked = question
    if networks.is_ready(network, asked):
        search_status.line(network, None, whole)
    else:
        search_status.line(network, asked, whole)
        if not st.session_state.get("search_now"):
            asked = _meanwhile(network, asked)
    with progress("Searching the best ring of each layer") as show:
        plan = networks.planned(network, asked, show)
    if question.objective == "latency" and asked == question:
        plan = with_fastest_rings(network, plan, asked.latency_batch)
    return Chosen(network, asked, plan)


def _meanwhile(network: Network, asked: Choices) -> Choices:
    """What to show while the answer is searched for; stops the page where there is nothing yet."""
    nearest = search_status.nearest(network, asked)
    working = search_status.is_working(network)
    soon = " The page follows by itself." if working else ""
    if nearest is not None:
        text = f"εₚ {asked.eps:.2f} is not searched yet: below is {nearest.eps:.2f}, the nearest."
    elif asked.target is not None:
        text = (
            "A target needs every ring of the network at every εₚ, and "
            f"{search_status.missing(network):,} rings are still to be searched."
        )
    else:
        text = f"{network.spec.name} is new here: its rings are being searched."
    st.info(plain(text + soon), icon=":material/hourglass_top:")
    if not working:
        st.button("Search now and wait", key="search_now", icon=":material/search:")
    if nearest is None:
        st.stop()
    return nearest


def _break_off() -> None:
    """The page ends here: nothing that was asked for is lost, and what comes below it is drawn
    with that as soon as it can be.
    """
    layer_overrides.keep()
    session.break_off()


def _show_pinned(pinned: layer_overrides.Own) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        said = ", ".join(
            f"{name} {'dense' if eps is None else f'εₚ {eps:.2f}'}" for name, eps in pinned.items()
        )
        st.markdown(f":material/push_pin: Pinned by you: {plain(said)}", width="content")
        st.button(
            "Reset the layers",
            key="reset",
            icon=":material/restart_alt:",
            on_click=layer_overrides.forget,
        )


_OBJECTIVES: dict[str, Objective | Literal["latency"]] = {
    "storage": "storage", "macs": "macs", "latency": "latency",
}  # fmt: skip
