"""A job that waits or runs, as a fragment draws it: how far it is, and a button that stops it."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from rsdtr.errors import RsdtrError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.ui.shared import numbers
from rsdtr.ui.shared.markdown import plain


def watched(identity: str) -> Job | None:
    """The job; None, with a sentence on the page, if it is gone. Ended, it draws the page anew."""
    try:
        job = job_queue.find(identity)
    except RsdtrError as error:
        st.error(plain(str(error.args[0])), icon=":material/info:")
        return None
    if job.ended:
        st.rerun()
    if job.state == "running":  # what the next one would import, another process imports meanwhile
        job_queue.quicken(job)
    return job


def stop_button(job: Job, label: str, key: str, help: str) -> None:
    """Cancels a job of the reader's, once."""
    gone = "It goes on without this page: close it, and come back later."
    stop_background(job, label, key, f"{help}{gone}", "secondary")


def stop_background(
    job: Job, label: str, key: str, help: str, type: Literal["secondary", "tertiary"] = "tertiary"
) -> None:
    """Cancels a job that works for every reader, once."""
    st.button(
        label,
        key=key,
        icon=":material/stop_circle:",
        type=type,
        on_click=cancel,
        args=(job.id,),
        disabled=job.cancel_asked is not None,
        help=help,
    )


def cancel(identity: str) -> None:
    """Ask a job to end, at the click of a button."""
    job_queue.cancel(identity)


def bar(job: Job, name: str) -> None:
    """The bar of a job that waits or runs; name: what it is, at the beginning of a sentence."""
    fraction = min(job.done / job.total, 1.0) if job.total else 0.0
    st.progress(fraction, text=plain(_words(job, name)))


def _words(job: Job, name: str) -> str:
    if job.state == "queued":
        before = job_queue.ahead(job)
        return f"Waiting: {before} {'job' if before == 1 else 'jobs'} before it in the queue"
    if job.cancel_asked is not None:
        return "Cancelling …"
    if job.silent_seconds:
        return f"Its process has said nothing for {job.silent_seconds:.0f} s"
    steps = f": {job.done:,} of {job.total:,}" if job.total else ""
    left = "" if job.seconds_left is None else f", {numbers.duration(job.seconds_left)} left"
    return f"{name}: {job.doing or 'starting'}{steps}{left}"
