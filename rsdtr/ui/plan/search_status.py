"""Getting a network ready for the slider: winners from disk, and a job that finds the others.

The page never waits for it. A line in the sidebar says how far the job is; once it has found what
the page has been waiting for, the page is drawn again. Only so many such jobs run at once: others
wait in the queue.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import psutil
import streamlit as st

from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.grid_search import queue_search, search_job
from rsdtr.planning.choices import Choices
from rsdtr.planning.grid_search import cores, grid_size
from rsdtr.planning.winners_on_disk import load_winners, store_path
from rsdtr.search.candidate import GRID
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import job_bar, numbers
from rsdtr.ui.shared.cache import Memo

POLL_SECONDS = 2.0

_begun: Memo[bool] = Memo(64)
_seen: Memo[dict[str, int]] = Memo(64)  # when the store's file was read last, by name
_log = logging.getLogger("rsdtr.ui")


def begin(of: Network) -> None:
    """Once per network: take the winners from disk, and queue the search if some are missing."""

    def run() -> bool:
        refresh(of)
        if not is_complete(of):
            _start(of)
        return True

    _begun.of(of.profile.weights_sha256, run)


def _start(of: Network) -> None:
    try:
        queue_search(of.profile, of.weights)
    except JobError as error:
        model = of.profile.model
        _log.warning("no worker for %s (%s): winners are searched when asked", model, error)


def refresh(of: Network) -> bool:
    """Take what the job has stored since the last time; whether there was anything new."""
    path = store_path(of.profile)
    seen = _seen.of(of.profile.weights_sha256, dict)
    # Reading it sets the time too, to when it was used: that is seen once more, and no harm.
    if _changed(path) == seen.get(path.name):
        return False
    before = len(of.profile.winners)
    load_winners(of.profile)
    seen[path.name] = _changed(path)
    return len(of.profile.winners) > before


def _changed(path: Path) -> int:
    """When a file was, in ns; 0 if it is not there, as before a network's first search."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def missing(of: Network) -> int:
    """How many winners of the slider's grid are not known."""
    return max(grid_size(of.profile) - len(of.profile.winners), 0)


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
    """Whether a job is at it now."""
    job = _job(of)
    return job is not None and job.state == "running"


def _job(of: Network) -> Job | None:
    """The job that searches the rings of this network, or has; None where there can be none."""
    try:
        return search_job(of.profile, of.weights)
    except (JobError, OSError):
        return None


def line(of: Network, waiting: Choices | None, whole: bool) -> None:
    """The job's progress in the sidebar, for as long as something is missing.

    waiting: what the page could not answer yet; the page is drawn again once it can.
    whole: the page is drawn again when the job has come to its end, too. It is not without a
    reason: a download that is asked for while a page is drawn may be lost.
    """
    if is_complete(of):
        return
    job = _job(of)
    soon = job is not None and not job.ended
    with st.sidebar:
        st.fragment(_line, run_every=POLL_SECONDS if soon else None)(of, waiting, whole, soon)


def _line(of: Network, waiting: Choices | None, whole: bool, watched: bool) -> None:
    refresh(of)
    job = _job(of)
    over = job is None or job.ended
    answered = waiting is not None and networks.is_ready(of, waiting)
    ended = over and (whole or waiting is not None)
    if watched and (answered or ended):
        st.rerun()
    if is_complete(of):
        return
    if job is None or job.ended:
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
    if job.state == "queued":
        first = "Times are taken now" if _times_are_taken() else "Other networks are searched now"
        st.caption(f"{first}. The rings of this one are after that.")
        return
    left = "" if job.seconds_left is None else f", {numbers.duration(job.seconds_left)} left"
    st.progress(
        min(job.done / max(job.total, 1), 1.0),
        text=f"Searching ahead: {job.done:,} of {job.total:,} rings{left}",
    )
    kept = "What was found is kept. εₚ that were not searched are when you ask for them."
    job_bar.stop_background(job, "Stop searching ahead", "stop_search", kept)


def warn() -> None:
    """Why times that are taken now would be too long, if they would: not for a job, which waits
    until they are taken, or makes room.
    """
    load = psutil.getloadavg()[0]
    if load > cores() / 2 and not any(job.state == "running" for job in jobs()):
        st.caption(
            f":material/warning: Other programs are busy here (a load of {load:.1f} on {cores()} "
            "cores): times will be truer when that is over."
        )


def _times_are_taken() -> bool:
    return any(job.exclusive and not job.ended for job in jobs())


def jobs() -> list[Job]:
    """All jobs of everybody; none where the cache folder cannot be written."""
    try:
        return job_queue.listed()
    except JobError:
        return []
