"""Widget values that live in the URL, on every page.

Streamlit's own bind="query-params" loses the value when the reader goes to another page by a link
(1.67), so the two directions are written out: before the widget the URL is read, after it written.
Defaults are left out, so that an address holds no more than what was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st

from rsdtr.ui.shared import session

Value = TypeVar("Value", str, float)


def read(key: str, parse: Callable[[object], Value | None], default: Value) -> Value:
    """Give the widget `key`, not yet drawn, its value: from the URL, as it was, or the default.

    parse: a URL's text or a widget's value to a valid one, or None. The URL wins where it is news:
    on the first run and when the reader went back or forward in the browser's history. It is none
    where the widget itself was moved: the browser may tell of that before it has the last address.
    """
    kept = st.session_state.get(_kept(key))
    value = parse(st.session_state.get(key, kept))
    moved = None not in (kept, value) and value != kept
    text, written = st.query_params.get(key), st.session_state.get(_written(key))
    if text is not None and text != written and not moved:
        news = parse(text)
        value = value if news is None else news
    elif text is None and written is not None and not moved and session.is_addressed():
        value = None  # went back to before it was chosen
        st.session_state[_written(key)] = None
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


def write(key: str, default: str | float | None = None) -> None:
    """Put the value of the widget `key` into the URL; the default is left out."""
    value = st.session_state[key]
    text = None if value == default else str(value)
    st.session_state[_written(key)] = text
    if text is None:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != text:
        st.query_params[key] = text


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


def _written(key: str) -> str:
    return f"{key}_in_url"


def _kept(key: str) -> str:
    return f"{key}_kept"
