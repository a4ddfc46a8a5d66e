"""Getting a network ready for the slider: winners from disk, and a worker that finds the others.

The page never waits for it. A line in the sidebar says how far the worker is; once it has found
what the page has been waiting for, the page is drawn again. Only so many workers run at once: while
others do, the line asks again for one, for as long as somebody looks at the page.
"""

from __future__ import annotations

from dataclasses import replace

import psutil
import streamlit as st

from rsdtr.planning import grid_process
from rsdtr.planning.choices import Choices
from rsdtr.planning.grid_search import cores
from rsdtr.planning.winners_on_disk import load_winners, store_path
from rsdtr.search.candidate import GRID, OBJECTIVES, RULES
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import numbers
from rsdtr.ui.shared.cache import Memo

POLL_SECONDS = 2.0

_begun: Memo[bool] = Memo(64)
_seen: Memo[dict[str, int]] = Memo(64)  # when the store's file was read last, by name
_waiting: set[str] = set()  # SHA-256 of the weights of networks that wait for a worker


def begin(of: Network) -> None:
    """Once per network: take the winners from disk, and start the worker if some are missing."""

    def run() -> bool:
        refresh(of)
        if not is_complete(of):
            _start(of)
        return True

    _begun.of(of.profile.weights_sha256, run)


def _start(of: Network) -> None:
    if grid_process.start(of.profile, of.weights):
        _waiting.discard(of.profile.weights_sha256)
    else:
        _waiting.add(of.profile.weights_sha256)


def refresh(of: Network) -> bool:
    """Take what the worker has stored since the last time; whether there was anything new."""
    path = store_path(of.profile)
    seen = _seen.of(of.profile.weights_sha256, dict)
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return False
    # Reading it sets the time too, to when it was used: that is seen once more, and no harm.
    if changed == seen.get(path.name):
        return False
    before = len(of.profile.winners)
    load_winners(of.profile)
    seen[path.name] = path.stat().st_mtime_ns
    return len(of.profile.winners) > before


def missing(of: Network) -> int:
    """How many winners of the slider's grid are not known."""
    layers = sum(layer.obstacle is None for layer in of.profile.layers)
    every = layers * len(GRID) * len(RULES) * len(OBJECTIVES)
    return max(every - len(of.profile.winners), 0)


def is_complete(of: Network) -> bool:
    """Whether the winner of every layer is known on the whole grid."""
    return missing(of) == 0


def nearest(of: Network, asked: Choices) -> Choices | None:
    """The same question at the nearest ε_p that is ready; None if none is."""
    if asked.target is not None:
        return None
    by_distance = sorted(GRID, key=lambda eps: abs(eps - asked.eps))
    trials = (replace(asked, eps=eps) for eps in by_distance)
    return next((trial for trial in trials if networks.is_ready(of, trial)), None)


def is_working(of: Network) -> bool:
    """Whether a worker is at it now."""
    state = grid_process.progress(of.profile)
    return state is not None and state.alive


def is_waiting(of: Network) -> bool:
    """Whether it waits for a worker, because others are at work."""
    return of.profile.weights_sha256 in _waiting


def line(of: Network, waiting: Choices | None, whole: bool) -> None:
    """The worker's progress in the sidebar, for as long as something is missing.

    waiting: what the page could not answer yet; the page is drawn again once it can.
    whole: the page is drawn again when the worker has come to its end, too. It is not without a
    reason: a download that is asked for while a page is drawn may be lost.
    """
    if is_complete(of):
        return
    soon = is_working(of) or is_waiting(of)
    with st.sidebar:
        st.fragment(_line, run_every=POLL_SECONDS if soon else None)(of, waiting, whole, soon)


def _line(of: Network, waiting: Choices | None, whole: bool, watched: bool) -> None:
    refresh(of)
    if is_waiting(of):
        _start(of)
    state = grid_process.progress(of.profile)
    alive = state is not None and state.alive
    answered = waiting is not None and networks.is_ready(of, waiting)
    ended = not alive and not is_waiting(of) and (whole or waiting is not None)
    if watched and (answered or ended):
        st.rerun()
    if is_complete(of):
        return
    if is_waiting(of):
        st.caption("Other networks are searched now. The rings of this one are after that.")
        return
    if state is None or not state.alive:
        st.caption(f"{missing(of):,} rings are not searched yet; they are when asked for.")
        if st.button(
            "Search them now",
            key="search",
            icon=":material/play_arrow:",
            type="tertiary",
            on_click=lambda: _start(of),
        ):
            st.rerun()
        return
    total = max(state.total, 1)
    left = "" if state.seconds_left is None else f", {numbers.duration(state.seconds_left)} left"
    st.progress(
        min(state.done / total, 1.0),
        text=f"Searching ahead: {state.done:,} of {state.total:,} rings{left}",
    )
    st.button(
        "Stop searching ahead",
        key="stop_search",
        icon=":material/stop_circle:",
        type="tertiary",
        on_click=lambda: grid_process.cancel(of.profile),
        help="What was found is kept. εₚ that were not searched are when you ask for them.",
    )


def warn(of: Network) -> None:
    """Why times that are taken now would be too long, if they would."""
    if is_working(of):
        _warn("Rings are being searched at the moment, on every core")
    elif (load := psutil.getloadavg()[0]) > cores() / 2:
        _warn(f"Other programs are busy here (a load of {load:.1f} on {cores()} cores)")


def _warn(why: str) -> None:
    st.caption(f":material/warning: {why}: times will be truer when that is over.")
