"""Widget values that live in the URL, on every page.

Streamlit's own bind="query-params" loses the value when the reader goes to another page by a link
(1.67), so the two directions are written out: before the widget the URL is read, after it written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import streamlit as st

Value = TypeVar("Value", str, float)


def read(key: str, parse: Callable[[object], Value | None], default: Value) -> None:
    """Give the widget `key`, not yet drawn, its value: from the URL, as it was, or the default.

    parse: a URL's text or a widget's value to a valid one, or None. The URL wins where it is news:
    on the first run and when the reader went back or forward in the browser's history.
    """
    value = parse(st.session_state.get(key))
    text = st.query_params.get(key)
    if text is not None and text != st.session_state.get(_written(key)):
        value = parse(text) or value
    # Assigned even if unchanged: that carries the value over to another page's widget.
    st.session_state[key] = default if value is None else value


def write(key: str) -> None:
    """Put the value of the widget `key` into the URL."""
    text = str(st.session_state[key])
    st.session_state[_written(key)] = text
    if st.query_params.get(key) != text:
        st.query_params[key] = text


def _written(key: str) -> str:
    return f"{key}_in_url"
