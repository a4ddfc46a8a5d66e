"""Points of a trade-off that are clicked: what each asks for, and the way to ask for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

from rsdtr.planning.plan import TargetKind
from rsdtr.ui.plan import layer_overrides
from rsdtr.ui.plan.plan_inputs import MEGABYTES, RATIO
from rsdtr.ui.shared import session

Asked = Mapping[str, str | float]  # by session key


def picked(selection: Any, kind: TargetKind) -> Asked | None:
    """What the point that was clicked asks for; None without a click, or of none that asks.

    kind: what the figure's targets are about.
    """
    for point in selection["points"]:
        match point.get("customdata"):
            case [_, None, reached, *_]:
                value = _rounded(reached, kind)
                if value is not None:
                    return {session.ASK: "target", session.KIND: kind, kind: value}
            case [_, eps, _, *_] | eps:
                shared = layer_overrides.parse_eps(eps)
                if shared is not None:
                    return {session.ASK: "eps", session.EPS: shared}
    return None


def _rounded(reached: object, kind: TargetKind) -> float | None:
    """As many digits as the field of a target shows, and no more than the clicked one reaches."""
    value = (MEGABYTES if kind == "mb" else RATIO)(reached)
    if value is None or kind == "mb":
        return value
    return math.floor(round(100 * value, 6)) / 100


def offer(selection: Any, kind: TargetKind, key: str) -> None:
    """The way to what was clicked, as a button of this key; none to what is asked for already."""
    asked = picked(selection, kind)
    if asked is None or all(st.session_state[name] == value for name, value in asked.items()):
        return
    label, take = _words(asked), partial(_ask, asked)
    if st.button(label, key=key, icon=":material/tune:", on_click=take):
        st.rerun()  # all of the page, where the figure is drawn by itself


def _words(asked: Asked) -> str:
    if asked[session.ASK] == "eps":
        return f"Ask for εₚ {asked[session.EPS]:.2f}"
    kind = str(asked[session.KIND])
    if kind == "mb":
        return f"Ask for {asked[kind]:.3f} MB"
    return f"Ask for {kind.upper()} {asked[kind]:.2f}"


def _ask(asked: Asked) -> None:
    for key, value in asked.items():
        st.session_state[key] = value
