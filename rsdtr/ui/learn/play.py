"""A control that moves by itself, from its first value to its last, and the figure with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import streamlit as st

from rsdtr.ui.shared import session

STEP_SECONDS: float | None = 1.0
MOST_STEPS = 12  # of a control with more values, so many of them
Value = TypeVar("Value")


def advance(key: str, values: Sequence[Value]) -> None:
    """If this control plays, give it its next value; to be called before it is drawn. The one that
    played on another step is at rest from now on.
    """
    played = st.session_state.get(session.PLAYED)
    if played is None or played[0] != key:
        _stop()
        return
    steps = spread(values)
    place = played[1]
    if place < len(steps):
        st.session_state[key] = steps[place]
        st.session_state[session.PLAYED] = (key, place + 1)
    else:
        del st.session_state[session.PLAYED]


def offer(key: str) -> None:
    """The button that starts the control of this key, or stops it."""
    plays = st.session_state.get(session.PLAYED, ("", 0))[0] == key
    st.button(
        "Stop" if plays else "Play",
        key=f"play-{key}",
        icon=":material/stop:" if plays else ":material/play_arrow:",
        on_click=_stop if plays else _start,
        args=() if plays else (key,),
        help="Runs the control through its range.",
    )
    if plays:
        st.session_state[session.PLAY_DRAWN] = True
        st.fragment(_tick, run_every=STEP_SECONDS)()


def spread(values: Sequence[Value]) -> Sequence[Value]:
    """At most so many of them, evenly, with the first and the last."""
    if len(values) <= MOST_STEPS:
        return values
    gap = (len(values) - 1) / (MOST_STEPS - 1)
    return [values[round(place * gap)] for place in range(MOST_STEPS)]


def _tick() -> None:
    """Draw the page again at the fragment's own time, and not as it is drawn with the page."""
    if not st.session_state.pop(session.PLAY_DRAWN, False):
        st.rerun()


def _start(key: str) -> None:
    st.session_state[session.PLAYED] = (key, 0)


def _stop() -> None:
    st.session_state.pop(session.PLAYED, None)
