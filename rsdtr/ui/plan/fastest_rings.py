"""The fastest rings on a page: offered, watched while a job measures them, and taken over.

A run of the page measures nothing: it looks whether a job has chosen rings for the very plan that
it would show, and shows that plan until then.
"""

from __future__ import annotations

import streamlit as st

from rsdtr.errors import RsdtrError
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.fastest_rings import fastest_job, fastest_plan, queue_fastest
from rsdtr.measuring.fastest_rings import TRIED
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ui.plan import search_status
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import job_bar, numbers, session
from rsdtr.ui.shared.markdown import plain

BATCHES = (1, 16)
THREADS = 2
RING_SECONDS = 1.5  # for a large ring; small ones take less
POLL_SECONDS: float | None = 1.0


def with_fastest_rings(of: Network, plan: CompressionPlan, batch: int) -> CompressionPlan:
    """The plan with its fastest rings where they have been measured, else the plan as it is.

    A line says which of them it is, with a button that measures, or how far that is.
    """
    rings = {layer.name: layer.ranks for layer in plan.layers if layer.ranks is not None}
    if not rings:
        return plan
    chosen = fastest_plan(plan, of.weights, batch, threads=THREADS)
    if chosen is not None:
        others = sum(layer.ranks != rings[layer.name] for layer in chosen.layers if layer.ranks)
        st.caption(
            f":material/timer: Each of the {len(rings)} rings is the fastest of those measured on "
            f"this machine at batch {batch}: {others} of them are not the ones of fewest MACs, "
            "which the curves over εₚ are about."
        )
        return chosen
    job = fastest_job(plan, of.weights, batch, threads=THREADS)
    if job is not None and not job.ended:
        st.fragment(_watched, run_every=POLL_SECONDS)(job.id)
    else:
        _offer(of, plan, batch, job)
    return plan


def _offer(of: Network, plan: CompressionPlan, batch: int, last: Job | None) -> None:
    most = (TRIED + 1) * sum(layer.ranks is not None for layer in plan.layers)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.button(
            "Measure the fastest rings",
            key="measure_fastest",
            icon=":material/timer:",
            on_click=_start,
            args=(of, plan, batch),
            help=f"Times up to {TRIED + 1} rings of every layer on this machine, each in all of "
            f"its forms, in a process of its own: at most {numbers.duration(most * RING_SECONDS)}, "
            "less for a small network. Measured times are kept, and this page stays usable.",
        )
        st.caption(
            "Below are the rings of fewest MACs: which ones are the fastest at batch "
            f"{batch} has not been measured yet for this plan."
        )
    failure = st.session_state.pop(session.FASTEST_FAILURE, None)
    if failure is None and last is not None and last.state == "failed":
        failure = f"The fastest rings were not measured: {last.message}."
    if failure is not None:
        st.error(plain(failure), icon=":material/info:")
    elif last is not None and last.state == "cancelled":
        st.caption("Stopped; what was measured is kept, and the button goes on from there.")
    search_status.warn()


def _start(of: Network, plan: CompressionPlan, batch: int) -> None:
    try:
        queue_fastest(plan, of.weights, batch, threads=THREADS)
    except RsdtrError as error:
        st.session_state[session.FASTEST_FAILURE] = str(error)


def _watched(identity: str) -> None:
    job = job_bar.watched(identity)
    if job is None:
        return
    job_bar.bar(job, "Fastest rings")
    job_bar.stop_button(job, "Stop measuring", "stop_fastest", "What was measured is kept. ")
