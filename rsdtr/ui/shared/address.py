"""The address: values of widgets that live in it, on every page, and how it is told.

Streamlit's own bind="query-params" would do for widgets that app.py draws; with widgets that the
pages draw, it makes four entries of the browser's history for a link to another page, and going
back loses the values (1.67). So the two directions are written out: before a widget is drawn the
address is read, and then it is told what there is to say, in one entry.

An address that says nothing of a value means the usual one. Opening a page adds nothing to it; once
something was chosen, the address says that and, with it, all that is always said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from rsdtr.ui.shared import session

Value = TypeVar("Value", str, float)


@dataclass
class Address:
    """What the browser's address says, what it should say, and what was heeded of it.

    shown: as the browser has it. said: as it should be. usual: what needs no saying, by key.
    heeded: of each key, its text when it was last read and told; None where there was none.
    """

    shown: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    usual: dict[str, str] = field(default_factory=dict)
    heeded: dict[str, str | None] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)  # keys to be heeded as soon as all is told


def arrive() -> None:
    """At the beginning of every run, before st.navigation.

    A link to another page brings no address along: it gets the one that the reader comes from,
    which the browser takes into the one entry that it makes for the page.
    """
    address = _address()
    run = get_script_run_ctx()
    back = run is not None and run.is_history_navigation  # to an address that says nothing
    if address.shown and not st.query_params and not back:
        st.query_params.from_dict(address.shown)
    address.shown = st.query_params.to_dict()
    address.said = dict(address.shown)
    address.usual, address.told = {}, set()


def read(key: str, parse: Callable[[object], Value | None], default: Value) -> Value:
    """Give the widget `key`, not yet drawn, its value: from the address, as it was, or the default.

    parse: an address's text or a widget's value to a valid one, or None. The address wins where it
    is news: on the first run and when the reader went back or forward in the browser's history. It
    is none where the widget itself was moved: the browser may tell of that before it has the last
    address.
    """
    kept = st.session_state.get(_kept(key))
    value = parse(st.session_state.get(key, kept))
    moved = None not in (kept, value) and value != kept
    text, heeded = st.query_params.get(key), _address().heeded.get(key)
    if text is not None and text != heeded and not moved:
        news = parse(text)
        value = value if news is None else news
    elif text is None and heeded is not None and not moved:
        value = None  # went back to before it was chosen
    value = default if value is None else value
    # Streamlit forgets a widget that is not drawn, as when the reader goes to another page.
    st.session_state[_kept(key)] = value
    assign(key, value)
    return value


def assign(key: str, value: object) -> None:
    """Give the widget `key`, not yet drawn, a value, unless it has it.

    A value assigned is sent to the browser, where it would undo what the reader does while the
    page is being drawn. On another page than before, the widget is a new one and has nothing yet.
    """
    has_it = key in st.session_state and st.session_state[key] == value
    if not has_it or session.is_new_page():
        st.session_state[key] = value


def leave_out(key: str, default: str | float) -> None:
    """The address should say the value of the widget `key`, unless it is the default."""
    value = st.session_state[key]
    _say(key, None if value == default else _text(key, value))


def say(key: str, usual: str | float) -> None:
    """The address should say the value of the widget `key`, once it says anything new."""
    _say(key, _text(key, st.session_state[key]))
    _address().usual[key] = str(usual)


def leave(key: str) -> None:
    """What the address says of `key` may stay."""
    _say(key, _address().shown.get(key))


def put(key: str, text: str | None) -> None:
    """Tell the address at once; None: to say nothing of `key`."""
    _say(key, text)
    tell()


def tell() -> None:
    """Let the browser's address say what it should, in one entry of its history.

    Nothing is told as long as only usual values are missing.
    """
    address = _address()
    missing = {
        key
        for key, text in address.said.items()
        if key not in address.shown and text == address.usual.get(key)
    }
    if address.shown != {key: text for key, text in address.said.items() if key not in missing}:
        st.query_params.from_dict(address.said)
        address.shown = dict(address.said)
    address.heeded |= {key: address.shown.get(key) for key in address.told}
    address.told.clear()


def said(**also: str) -> dict[str, str]:
    """All that the address of this page should say, the usual included, and something else."""
    return _address().said | also


def one_of(names: Sequence[str]) -> Callable[[object], str | None]:
    """Parse a name that is one of these."""
    return lambda value: str(value) if value in names else None


def number(lowest: float, highest: float, digits: int) -> Callable[[object], float | None]:
    """Parse a number within limits, which a widget keeps only in the browser."""

    def parse(value: object) -> float | None:
        try:
            found = round(float(str(value)), digits)
        except (ValueError, OverflowError):
            return None
        return found if math.isfinite(found) and lowest <= found <= highest else None

    return parse


def _say(key: str, text: str | None) -> None:
    address = _address()
    address.told.add(key)
    if text is None:
        address.said.pop(key, None)
    else:
        address.said[key] = text


def _text(key: str, value: object) -> str:
    """The value as text; as the address has it, where that is the same number."""
    text = _address().shown.get(key)
    try:
        same = text is not None and not isinstance(value, str) and float(text) == value
    except ValueError:
        same = False
    return text if text is not None and same else str(value)


def _address() -> Address:
    address: Address = st.session_state.setdefault(session.ADDRESS, Address())
    return address


def _kept(key: str) -> str:
    return f"{key}_kept"
