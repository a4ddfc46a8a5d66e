"""Layers that the reader gave an ε_p of their own, or asked to stay dense, on every page.

Kept in the session and in the URL as one text, such as `layer1.0.conv1:0.4,conv1:dense`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from rsdtr.planning.model_profile import ModelProfile
from rsdtr.search.candidate import GRID
from rsdtr.ui.shared import address, session

DENSE = "dense"
EPS_COLUMN, DENSE_COLUMN = "εₚ", "keep dense"
Own = dict[str, float | None]

parse_eps = address.number(GRID[0], GRID[-1], 2)


def parse(text: object, names: Sequence[str]) -> Own:
    """The layers of `names` that the text gives something of their own; nonsense is ignored."""
    found: Own = {}
    for part in str(text or "").split(","):
        name, _, value = part.rpartition(":")
        eps = parse_eps(value)
        if name in names and (value == DENSE or eps is not None):
            found[name] = eps
    return {name: found[name] for name in names if name in found}


def as_text(own: Mapping[str, float | None]) -> str:
    """The other way round."""
    return ",".join(
        f"{name}:{DENSE if eps is None else format(eps, 'g')}" for name, eps in own.items()
    )


def ring_layers(profile: ModelProfile) -> tuple[str, ...]:
    """The layers that may have something of their own: all that can be a ring."""
    return tuple(layer.name for layer in profile.layers if layer.obstacle is None)


def read(profile: ModelProfile) -> Own:
    """What the session or the URL says, as far as this model has such layers."""
    names = ring_layers(profile)
    text = address.read(session.OWN, lambda value: as_text(parse(value, names)), "")
    _tell()
    return parse(text, names)


def keep() -> None:
    """Leave what the session or the URL says as it is, where the model's layers are not known."""
    address.read(session.OWN, lambda value: str(value or ""), "")
    _tell()


def _tell() -> None:
    address.leave_out(session.OWN, "")
    address.tell()


def forget() -> None:
    """Give no layer anything of its own any more."""
    _put({})


def edited(own: Own, names: Sequence[str], rows: Mapping[Any, Mapping[str, Any]]) -> Own:
    """What remains of `own` after edits of the layer table: {row: {column: new value}}.

    names: of the table's rows, "" for a layer that cannot be a ring. What is no ε_p is ignored.
    """
    changed = dict(own)
    for row, cells in rows.items():
        name = names[int(row)]
        if cells.get(DENSE_COLUMN):
            changed[name] = None
        elif DENSE_COLUMN in cells:
            changed.pop(name, None)
        if EPS_COLUMN in cells:
            eps = parse_eps(cells[EPS_COLUMN])
            if eps is not None:
                changed[name] = eps
            elif cells[EPS_COLUMN] is None:
                changed.pop(name, None)
    changed.pop("", None)
    return changed


def take_edits(key: str, own: Own, names: Sequence[str]) -> None:
    """Callback of the layer table `key`: its edits become the reader's choices."""
    _put(edited(own, names, st.session_state[key]["edited_rows"]))


def choose(name: str, own: Own, planned: float) -> None:
    """Two inputs for one layer: its own ε_p, or none, and whether it stays dense."""
    address.assign(session.OWN_EPS, own.get(name))
    address.assign(session.OWN_DENSE, name in own and own[name] is None)
    st.number_input(
        "Own εₚ",
        GRID[0],
        GRID[-1],
        step=0.01,
        value=None,
        key=session.OWN_EPS,
        width=220,
        placeholder=f"as planned, {planned:.2f}",
        on_change=_take_eps,
        args=(name, own),
        help="Empty: what the plan gives it.",
    )
    st.toggle(
        "Keep dense",
        key=session.OWN_DENSE,
        on_change=_take_dense,
        args=(name, own),
    )


def _take_eps(name: str, own: Own) -> None:
    _put(edited(own, [name], {0: {EPS_COLUMN: st.session_state[session.OWN_EPS]}}))


def _take_dense(name: str, own: Own) -> None:
    _put(edited(own, [name], {0: {DENSE_COLUMN: st.session_state[session.OWN_DENSE]}}))


def _put(own: Own) -> None:
    st.session_state[session.OWN] = as_text(own)
    st.session_state[session.EDITS] = st.session_state.get(session.EDITS, 0) + 1
