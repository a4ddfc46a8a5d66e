"""The inputs that every page begins with. What they hold is in the address, on every page.

An address that holds nonsense is read as if it did not: the defaults take its place.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from rsdtr.learn.glossary import meaning
from rsdtr.models import hub, timm_networks
from rsdtr.models.spec import usual_layers
from rsdtr.models.zoo import is_model, model_names
from rsdtr.planning.plan import Target
from rsdtr.search.candidate import GRID, RULES, Rule
from rsdtr.ui.plan import layer_overrides
from rsdtr.ui.plan.fastest_rings import BATCHES
from rsdtr.ui.shared import address, session

DEFAULT_MODEL, DEFAULT_EPS = "digits_resnet20", 0.6
WEIGHTS = {"published": "Published", "none": "Synthetic", "own": "Own"}
ASKS = {"eps": "εₚ for all layers", "target": "Target"}
KINDS = {"pcr": "PCR", "fcr": "FCR", "mb": "File (MB)"}
RULE_NAMES = {"paper": "Paper", "tight": "Tight"}
OBJECTIVE_NAMES = {"storage": "Storage", "macs": "MACs", "latency": "Latency"}
POLICIES = {"paper": "Paper", "auto": "Auto", "all": "All"}
RATIO = address.number(1.0, 10_000.0, 3)
MOST_SIGNS = 200  # of a model that a reader types
MEGABYTES = address.number(0.001, 100_000.0, 3)


def read() -> None:
    """Give every input its value, from the address, as it was, or the default; tell the address."""
    for key, parse, default in _TEXTS:
        address.read(key, parse, _usual(key, default))
    for key, number, least in _NUMBERS:
        address.read(key, number, least)
    address.say(session.MODEL, DEFAULT_MODEL)
    for key, _, default in _TEXTS[1:]:
        address.leave_out(key, _usual(key, default))
    address.say(session.EPS, DEFAULT_EPS)
    address.leave_out(session.LATENCY_BATCH, BATCHES[0])
    asks = st.session_state[session.ASK] == "target"
    kind = st.session_state[session.KIND] if asks else None
    if not asks:
        address.leave(session.KIND)
    for key, _, least in _NUMBERS[1:4]:
        if key == kind and st.session_state[key]:
            address.say(key, least)
        else:
            address.leave(key)
    address.tell()


def ask_network() -> None:
    """Which model."""
    st.selectbox(
        "Model",
        model_names(),
        key=session.MODEL,
        filter_mode="contains",
        accept_new_options=True,
        on_change=_forget_layers,
        help="Type to search, or type timm:NAME or hf:owner/name. "
        "The digits model comes with the app; weights of the others are "
        "looked for in the folder RSDTR_WEIGHTS, then downloaded.",
    )


def ask_weights() -> None:
    """With which weights."""
    _switch(
        "Weights",
        session.WEIGHTS,
        WEIGHTS,
        "Published: trained ones. Synthetic: seeded ones with a decaying spectrum, for timing "
        "only; they need no download. Own: a file of yours, of the same architecture.",
    )


def _usual(key: str, default: str) -> str:
    """The default of an input; the layers have one for each model."""
    if key != session.POLICY:
        return default
    return usual_layers(st.session_state.get(session.MODEL) or DEFAULT_MODEL)


def _forget_layers() -> None:
    """Another model has other layers, and usually others become rings."""
    layer_overrides.forget()
    st.session_state[session.POLICY] = _usual(session.POLICY, "paper")


def asked_network() -> tuple[str, str]:
    """The model, and which of WEIGHTS, whether they are asked for on this page or not."""
    return st.session_state[session.MODEL] or DEFAULT_MODEL, st.session_state[session.WEIGHTS]


def ask_rule() -> Rule:
    """By which rule a ring is chosen."""
    rule = _switch(
        "Rule",
        session.RULE,
        RULE_NAMES,
        "Paper: each of three truncations may spend εₚ/√3, as published. Tight: they share εₚ, so "
        "that none of it is left unspent; the same promise, fewer scalars.",
    )
    return "tight" if rule == "tight" else "paper"


def ask_rules() -> tuple[Rule, str, str]:
    """Rule, objective and layer policy, by their keys."""
    rule = ask_rule()
    objective = _switch(
        "Smallest",
        session.OBJECTIVE,
        OBJECTIVE_NAMES,
        "What the ring of a layer is chosen by: scalars stored, multiplications for one input "
        "(better for an FCR), or time on this machine, once that was measured.",
    )
    policy = _switch(
        "Layers",
        session.POLICY,
        POLICIES,
        "Paper: every convolution but the first that is larger than 1 × 1, as published. Auto: "
        "every convolution and linear layer whose ring stores less. All: every convolution.",
    )
    return rule, objective, policy


def ask_question(dense_bytes: int) -> tuple[float, Target | None]:
    """The ε_p that all layers share, and what the network is to reach instead, if that is asked.

    dense_bytes: of the dense network's file.
    """
    ask = _switch(
        "Ask for",
        session.ASK,
        ASKS,
        "One εₚ for all layers, or what the whole network should reach: then each layer gets the "
        "εₚ that does the least damage.",
    )
    if ask == "target":
        target = _target(dense_bytes)
    else:
        target = None
        choose_eps()
    return eps_of_all(), target


def _target(dense_bytes: int) -> Target:
    kind = _switch(
        "Reach",
        session.KIND,
        KINDS,
        "PCR: parameters, original / compressed. FCR: FLOPs, original / compressed. File: "
        "safetensors file in MB of 1,000,000 bytes.",
    )
    if kind == "mb":
        label = f"at most, MB (dense: {dense_bytes / 1e6:.3g})"
        parse, default, step = MEGABYTES, round(dense_bytes / 4e6, 3), 0.05
        if not st.session_state[session.MB]:
            st.session_state[session.MB] = default
    else:
        label, parse, default, step = "at least, ×", RATIO, 4.0, 0.5
    st.number_input(
        label, 1.0 if kind != "mb" else 0.001, step=step, key=kind,
        format="%.3f" if kind == "mb" else "%.2f",
    )  # fmt: skip
    if st.session_state[kind] is not None:
        address.say(kind, default)
    value = parse(st.session_state[kind]) or default
    if kind == "fcr":
        return Target(kind="fcr", value=value)
    return Target(kind="mb" if kind == "mb" else "pcr", value=value)


def _switch(label: str, key: str, names: dict[str, str], help: str) -> str:
    """One of a few named choices, in the address unless it is the first one."""
    st.segmented_control(
        label, tuple(names), required=True, key=key, format_func=names.__getitem__, help=help
    )
    chosen = st.session_state[key]
    return str(chosen) if chosen in names else next(iter(names))


def choose_eps() -> None:
    """The slider of the ε_p that all layers share, whose value `eps_of_all` tells."""
    st.slider(
        "Prescribed relative error εₚ of each kernel",
        GRID[0],
        GRID[-1],
        step=0.01,
        key=session.EPS,
        help=meaning("εₚ"),
    )


def eps_of_all() -> float:
    """The ε_p that all layers share."""
    return layer_overrides.parse_eps(st.session_state[session.EPS]) or DEFAULT_EPS


def chosen_batch() -> int:
    """Images in a batch for which latency is asked, on any page."""
    return _batch(st.session_state.get(session.LATENCY_BATCH)) or BATCHES[0]


def _model(value: object) -> str | None:
    """A model that is listed, or a word for one that can be looked up; never a folder or code."""
    text = str(value)
    if text in model_names():
        return text
    typed = text.startswith((hub.PREFIX, timm_networks.PREFIX))
    return text if typed and len(text) <= MOST_SIGNS and is_model(text) else None


def _batch(value: object) -> int | None:
    return next((batch for batch in BATCHES if str(batch) == str(value)), None)


_TEXTS: tuple[tuple[str, Callable[[object], str | None], str], ...] = (
    (session.MODEL, _model, DEFAULT_MODEL),
    (session.WEIGHTS, address.one_of(tuple(WEIGHTS)), "published"),
    (session.ASK, address.one_of(tuple(ASKS)), "eps"),
    (session.KIND, address.one_of(tuple(KINDS)), "pcr"),
    (session.RULE, address.one_of(RULES), "paper"),
    (session.OBJECTIVE, address.one_of(tuple(OBJECTIVE_NAMES)), "storage"),
    (session.POLICY, address.one_of(tuple(POLICIES)), "paper"),
)
_NUMBERS: tuple[tuple[str, Callable[[object], float | None], float], ...] = (
    (session.EPS, layer_overrides.parse_eps, DEFAULT_EPS),
    (session.PCR, RATIO, 4.0),
    (session.FCR, RATIO, 2.0),
    (session.MB, MEGABYTES, 0.0),  # 0: a quarter of the dense file, once that is known
    (session.LATENCY_BATCH, _batch, BATCHES[0]),
)
