"""What every page asks first: which network, and what its plan should be. All of it is in the URL.

An address that holds nonsense is read as if it did not: the defaults take its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from rsdtr.errors import WeightsError
from rsdtr.lessons.glossary import meaning
from rsdtr.plan import CompressionPlan, LayerPlan, Target
from rsdtr.targets import Choices
from rsdtr.ui import cached, own, state, uploads, url, warming
from rsdtr.ui.cached import Network
from rsdtr.ui.fastest import BATCHES, with_fastest_rings
from rsdtr.ui.page import plain, progress
from rsdtr.winners import GRID, RULES, Objective
from rsdtr.zoo import model_names

DEFAULT_MODEL, DEFAULT_EPS = "digits_resnet20", 0.6
WEIGHTS = {"published": "Published", "none": "Synthetic", "own": "Own"}
ASKS = {"eps": "εₚ for all layers", "target": "Target"}
KINDS = {"pcr": "PCR", "fcr": "FCR", "mb": "File (MB)"}
RULE_NAMES = {"paper": "Paper", "tight": "Tight"}
OBJECTIVE_NAMES = {"storage": "Storage", "macs": "MACs", "latency": "Latency"}
POLICIES = {"paper": "Paper", "all": "All"}
RATIO = url.number(1.0, 10_000.0, 3)
MEGABYTES = url.number(0.001, 100_000.0, 3)


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
    def own(self) -> own.Own:
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
    _read()
    with st.container(horizontal=True, gap="small"):  # five inputs in one line of a wide window
        _network()
        rule, objective, policy = _rules()
    network = _loaded()
    eps, target = _question(network)
    pinned = own.read(network.profile)
    asked = Choices(
        eps=eps, target=target, rule="tight" if rule == "tight" else "paper",
        objective=_OBJECTIVES[objective], latency_batch=chosen_batch(), layers=policy,
        own=tuple(pinned.items()),
    )  # fmt: skip
    if pinned:
        _show_pinned(pinned)
    chosen = _answer(network, asked, whole)
    if network.uploaded is not None:
        uploads.tell(network.uploaded, chosen.plan)
    return chosen


def choose_network(inputs: bool = True) -> Network:
    """The network alone, for a page that asks for no plan; errors as `choose`.

    inputs: whether they are drawn. What other pages ask for stays in the URL.
    """
    _read()
    if inputs:
        with st.container(horizontal=True, gap="small"):
            _network()
    _write()
    network = _loaded(inputs)
    own.read(network.profile)
    return network


def choose_eps() -> None:
    """The slider of the ε_p that all layers share, whose value `eps_of_all` tells."""
    st.slider(
        "Prescribed relative error εₚ of each kernel",
        GRID[0],
        GRID[-1],
        step=0.01,
        key=state.EPS,
        help=meaning("εₚ"),
    )
    url.write(state.EPS)


def eps_of_all() -> float:
    """The ε_p that all layers share."""
    return own.parse_eps(st.session_state[state.EPS]) or DEFAULT_EPS


def _loaded(inputs: bool = True) -> Network:
    url.write(state.MODEL)
    url.write(state.LATENCY_BATCH, BATCHES[0])
    name, asked = st.session_state[state.MODEL] or DEFAULT_MODEL, st.session_state[state.WEIGHTS]
    weights = "none" if asked == "none" else None
    try:
        if asked == "own" and (weights := uploads.choose(name, inputs)) is None:
            _break_off()
            st.stop()
        with (
            progress("Downloading the weights, bytes") as show,
            st.spinner(f"Reading {plain(name)}"),
        ):
            network = cached.network(name, weights, show)
            warming.begin(network)
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


def chosen_batch() -> int:
    """Images in a batch for which latency is asked, on any page."""
    return _batch(st.session_state.get(state.LATENCY_BATCH)) or BATCHES[0]


def _answer(network: Network, question: Choices, whole: bool) -> Chosen:
    asked = question
    if cached.is_ready(network, asked):
        warming.line(network, None, whole)
    else:
        warming.line(network, asked, whole)
        if not st.session_state.get("search_now"):
            asked = _meanwhile(network, asked)
    with progress("Searching the best ring of each layer") as show:
        plan = cached.planned(network, asked, show)
    if question.objective == "latency" and asked == question:
        plan = with_fastest_rings(network, plan, asked.latency_batch)
    return Chosen(network, asked, plan)


def _meanwhile(network: Network, asked: Choices) -> Choices:
    """What to show while the answer is searched for; stops the page where there is nothing yet."""
    nearest = warming.nearest(network, asked)
    working = warming.is_working(network)
    soon = " The page follows by itself." if working else ""
    if nearest is not None:
        text = f"εₚ {asked.eps:.2f} is not searched yet: below is {nearest.eps:.2f}, the nearest."
    elif asked.target is not None:
        text = (
            "A target needs every ring of the network at every εₚ, and "
            f"{warming.missing(network):,} rings are still to be searched."
        )
    else:
        text = f"{network.spec.name} is new here: its rings are being searched."
    st.info(plain(text + soon), icon=":material/hourglass_top:")
    if not working:
        st.button("Search now and wait", key="search_now", icon=":material/search:")
    if nearest is None:
        st.stop()
    return nearest


def _read() -> None:
    for key, parse, default in _TEXTS:
        url.read(key, parse, default)
    for key, number, least in _NUMBERS:
        url.read(key, number, least)


def _write() -> None:
    """Put into the URL what this page does not ask for, or would only ask for later."""
    for key, _, text in _TEXTS[1:]:
        url.write(key, text)
    for key, _, number in _NUMBERS:
        url.write(key, None if key == state.EPS else number)


def _break_off() -> None:
    """The page ends here: nothing that was asked for is lost, and what comes below it is drawn
    with that as soon as it can be.
    """
    _write()
    own.keep()
    state.break_off()


def _network() -> None:
    st.selectbox(
        "Model",
        model_names(),
        key=state.MODEL,
        filter_mode="contains",
        width=200,
        on_change=own.forget,
        help="Type to search. The digits model comes with the app; weights of the others are "
        "looked for in the folder RSDTR_WEIGHTS, then downloaded.",
    )
    _switch(
        "Weights",
        state.WEIGHTS,
        WEIGHTS,
        "Published: trained ones. Synthetic: seeded ones with a decaying spectrum, for timing "
        "only; they need no download. Own: a file of yours, of the same architecture.",
    )


def _rules() -> tuple[str, str, str]:
    rule = _switch(
        "Rule",
        state.RULE,
        RULE_NAMES,
        "Paper: each of three truncations may spend εₚ/√3, as published. Tight: they share εₚ, so "
        "that none of it is left unspent; the same promise, fewer scalars.",
    )
    objective = _switch(
        "Smallest",
        state.OBJECTIVE,
        OBJECTIVE_NAMES,
        "What the ring of a layer is chosen by: scalars stored, multiplications for one input "
        "(better for an FCR), or time on this machine, once that was measured.",
    )
    policy = _switch(
        "Layers",
        state.POLICY,
        POLICIES,
        "Paper: every convolution but the first that is larger than 1 × 1, as published. All: "
        "1 × 1 convolutions and the first one too.",
    )
    return rule, objective, policy


def _question(network: Network) -> tuple[float, Target | None]:
    row = st.container(horizontal=True, gap="medium")
    with row:
        ask = _switch(
            "Ask for",
            state.ASK,
            ASKS,
            "One εₚ for all layers, or what the whole network should reach: then each layer gets "
            "the εₚ that does the least damage.",
        )
        if ask == "target":
            target = _target(network)
        else:
            target = None
            choose_eps()
    url.write(state.EPS)
    return eps_of_all(), target


def _target(network: Network) -> Target:
    kind = _switch(
        "Reach",
        state.KIND,
        KINDS,
        "PCR: parameters, original / compressed. FCR: FLOPs, original / compressed. File: "
        "safetensors file in MB of 1,000,000 bytes.",
    )
    if kind == "mb":
        label = f"at most, MB (dense: {network.dense_bytes / 1e6:.3g})"
        parse, default, step = MEGABYTES, round(network.dense_bytes / 4e6, 3), 0.05
        if not st.session_state[state.MB]:
            st.session_state[state.MB] = default
    else:
        label, parse, default, step = "at least, ×", RATIO, 4.0, 0.5
    st.number_input(
        label, 1.0 if kind != "mb" else 0.001, step=step, key=kind, width=190,
        format="%.3f" if kind == "mb" else "%.2f",
    )  # fmt: skip
    value = parse(st.session_state[kind]) or default
    if st.session_state[kind] is not None:
        url.write(kind)
    if kind == "fcr":
        return Target(kind="fcr", value=value)
    return Target(kind="mb" if kind == "mb" else "pcr", value=value)


def _switch(label: str, key: str, names: dict[str, str], help: str) -> str:
    """One of a few named choices, in the URL unless it is the first one."""
    default = next(iter(names))
    st.segmented_control(
        label, tuple(names), required=True, key=key, format_func=names.__getitem__, help=help
    )
    url.write(key, default)
    chosen = st.session_state[key]
    return str(chosen) if chosen in names else default


def _show_pinned(pinned: own.Own) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        said = ", ".join(
            f"{name} {'dense' if eps is None else f'εₚ {eps:.2f}'}" for name, eps in pinned.items()
        )
        st.markdown(f":material/push_pin: Pinned by you: {plain(said)}", width="content")
        st.button(
            "Reset the layers", key="reset", icon=":material/restart_alt:", on_click=own.forget
        )


def _batch(value: object) -> int | None:
    return next((batch for batch in BATCHES if str(batch) == str(value)), None)


_OBJECTIVES: dict[str, Objective | Literal["latency"]] = {
    "storage": "storage", "macs": "macs", "latency": "latency",
}  # fmt: skip
_TEXTS: tuple[tuple[str, Callable[[object], str | None], str], ...] = (
    (state.MODEL, lambda value: url.one_of(model_names())(value), DEFAULT_MODEL),
    (state.WEIGHTS, url.one_of(tuple(WEIGHTS)), "published"),
    (state.ASK, url.one_of(tuple(ASKS)), "eps"),
    (state.KIND, url.one_of(tuple(KINDS)), "pcr"),
    (state.RULE, url.one_of(RULES), "paper"),
    (state.OBJECTIVE, url.one_of(tuple(OBJECTIVE_NAMES)), "storage"),
    (state.POLICY, url.one_of(tuple(POLICIES)), "paper"),
)
_NUMBERS: tuple[tuple[str, Callable[[object], float | None], float], ...] = (
    (state.EPS, own.parse_eps, DEFAULT_EPS),
    (state.PCR, RATIO, 4.0),
    (state.FCR, RATIO, 2.0),
    (state.MB, MEGABYTES, 0.0),  # 0: a quarter of the dense file, once that is known
    (state.LATENCY_BATCH, _batch, BATCHES[0]),
)
