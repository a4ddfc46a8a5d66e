"""Recovery on the page: recalibration at once, fine-tuning as a job that outlives the page.

A fine-tuning is found by what it is about, the network and its rings, so that a page that was
reloaded, a new tab or a restarted server shows it again. The address says which one, where there
are several. What a job has reached when it ends becomes the recovery of the session.
"""

from __future__ import annotations

import hashlib
import math

import streamlit as st

from rsdtr import jobs
from rsdtr.accuracy_charts import Stage
from rsdtr.errors import RsdtrError
from rsdtr.estimate import Estimate, estimate
from rsdtr.finetune_job import Curve, best_model, curve, queue_finetuning, training_runs
from rsdtr.job import Job
from rsdtr.plan import CompressionPlan
from rsdtr.recipe import FinetuneOptions
from rsdtr.recover import recalibrate
from rsdtr.tables import runs_table
from rsdtr.training_charts import runs_figure, training_figure
from rsdtr.ui import cached, metrics, state
from rsdtr.ui.cached import Network
from rsdtr.ui.measuring import splits
from rsdtr.ui.page import plain, progress
from rsdtr.ui.state import Recovery, TestSet
from rsdtr.ui.widgets import chart
from rsdtr.zoo import weights_sha256

POLL_SECONDS: float | None = 1.0


def run_recalibration(network: Network, at: CompressionPlan, test_set: TestSet, n: int) -> None:
    """Recalibrate the current model of this configuration on n images, and keep it."""
    store, configuration = state.recoveries(), network.configuration(at)
    images = splits(network, test_set).train
    before = store.get(configuration)
    with progress("Recalibrating, training images") as show:
        start = before.model if before else cached.compressed(network, at)
        model = recalibrate(start, images, n, reference=network.model, progress=show)
    tuned = before is not None and before.label.startswith("fine-tuned")
    label = f"{before.label}, recalibrated" if before and tuned else "recalibrated"
    state.keep(store, configuration, Recovery(model, weights_sha256(model), label))


def start(
    network: Network, at: CompressionPlan, test_set: TestSet, options: FinetuneOptions
) -> None:
    """Queue the fine-tuning of the current model of this configuration, and attach to it."""
    before = state.recoveries().get(network.configuration(at))
    with st.spinner("Queueing the training …"):
        job = queue_finetuning(
            before.model if before else cached.compressed(network, at),
            at,
            splits(network, test_set),
            options,
            data=test_set.data,
            dense=network.model,
            weights=network.weights,
            subject=subject(network, at),
        )
    state.dismissed_jobs().discard(job.id)
    state.taken_jobs().discard(job.id)
    st.query_params[state.JOB] = job.id


def estimated(
    network: Network, at: CompressionPlan, test_set: TestSet, options: FinetuneOptions
) -> Estimate:
    """What the training would take, from a few steps made now."""
    before = state.recoveries().get(network.configuration(at))
    model = before.model if before else cached.compressed(network, at)
    with st.spinner("Timing a few steps …"):
        return estimate(model, splits(network, test_set), options, network.model)


def subject(network: Network, at: CompressionPlan) -> str:
    """What the jobs of this configuration are filed under."""
    return hashlib.sha256(repr(network.configuration(at)).encode()).hexdigest()[:16]


def attached(network: Network, at: CompressionPlan) -> Job | None:
    """The fine-tuning that the page shows: the address's, else the newest that is not put aside."""
    found = [
        job for job in jobs.listed(subject(network, at)) if job.id not in state.dismissed_jobs()
    ]
    asked = st.query_params.get(state.JOB)
    job = next((job for job in found if job.id == asked), found[-1] if found else None)
    if job is None:
        st.query_params.pop(state.JOB, None)
    elif asked != job.id:
        st.query_params[state.JOB] = job.id
    return job


def take(network: Network, at: CompressionPlan, job: Job) -> None:
    """Once it has ended, make what a job has reached the recovery of this session; once only."""
    taken = state.taken_jobs()
    if not job.ended or job.id in taken:
        return
    model = best_model(job)
    taken.add(job.id)
    if model is None:
        return
    done = len(curve(job).epochs)
    label = f"fine-tuned, {done} epoch{'s' if done > 1 else ''}"
    recovery = Recovery(model, weights_sha256(model), label)
    state.keep(state.recoveries(), network.configuration(at), recovery)


def put_aside(network: Network, at: CompressionPlan) -> None:
    """Forget the recovery of this configuration; its jobs stay in the list of runs."""
    state.recoveries().pop(network.configuration(at), None)
    state.dismissed_jobs().update(job.id for job in jobs.listed(subject(network, at)) if job.ended)
    st.query_params.pop(state.JOB, None)


def watch(job: Job) -> None:
    """A job that waits or runs, drawn again every second; the page once it has ended."""
    st.fragment(_watched, run_every=POLL_SECONDS)(job.id)


def _watched(identity: str) -> None:
    try:
        job = jobs.find(identity)
    except RsdtrError as error:
        st.error(plain(str(error.args[0])), icon=":material/info:")
        return
    if job.ended:
        st.rerun()
    fraction = min(job.done / job.total, 1.0) if job.total else 0.0
    st.progress(fraction, text=plain(_words(job)))
    st.button(
        "Cancel and keep the best finished epoch",
        key="cancel",
        icon=":material/stop_circle:",
        on_click=_cancel,
        args=(identity,),
        disabled=job.cancel_asked is not None,
        help="It goes on without this page: close it, and come back later.",
    )
    shown = curve(job)
    if shown.losses:
        show_curve(shown, "training")


def _cancel(identity: str) -> None:
    jobs.cancel(identity)


def _words(job: Job) -> str:
    if job.state == "queued":
        before = jobs.ahead(job)
        return f"Waiting: {before} {'job' if before == 1 else 'jobs'} before it in the queue"
    if job.cancel_asked is not None:
        return "Cancelling …"
    if job.silent_seconds:
        return f"Its process has said nothing for {job.silent_seconds:.0f} s"
    steps = f": {job.done:,} of {job.total:,}" if job.total else ""
    left = "" if job.seconds_left is None else f", {duration(job.seconds_left)} left"
    return f"Fine-tuning: {job.doing or 'starting'}{steps}{left}"


def how_it_ended(job: Job) -> None:
    """Why a job that was cancelled or failed stopped, and a button that goes on with it."""
    if job.state == "done":
        return
    text = f"The fine-tuning was {job.state}" if job.state == "cancelled" else (
        "The fine-tuning failed"
    )  # fmt: skip
    st.warning(plain(f"{text}{f': {job.message}' if job.message else ''}."), icon=":material/info:")
    if st.button("Resume from its last checkpoint", key="resume", icon=":material/play_arrow:"):
        jobs.resume(job.id)
        state.taken_jobs().discard(job.id)
        st.rerun()


def show_curve(shown: Curve, key: str) -> None:
    """Loss, learning rate and accuracy of a training, with the dense network's for comparison."""
    references = [Stage(found.label, found.accuracy) for found in shown.references]
    chart(
        training_figure(shown.losses, shown.learning_rates, shown.epochs, references=references),
        key=key,
        alt="Training loss and learning rate by step, validation accuracy by epoch",
    )
    st.caption(
        "A star marks an epoch that was the best so far on validation images; the last star is the "
        "model that is kept. The band is the dense network's 95 % interval on the same images; "
        "test images play no part."
    )


def compare(network: Network, at: CompressionPlan) -> None:
    """All fine-tunings of this configuration beside each other, once there are several."""
    runs = training_runs(subject(network, at))
    if len(runs) < 2:
        return
    with st.expander(f"Compare {len(runs)} runs"):
        st.dataframe(
            runs_table(runs),
            hide_index=True,
            placeholder="–",
            column_config=metrics.RUN_COLUMNS,
            key="runs",
            alt="Every fine-tuning from this plan",
        )
        chart(
            runs_figure({run.job.id[:6]: run.curve.epochs for run in runs if run.curve.epochs}),
            key="runs-figure",
            alt="Validation accuracy by epoch of every run",
        )
        chosen = st.selectbox(
            "Take up another run",
            [run.job.id for run in runs],
            index=None,
            key="other_run",
            placeholder="its job",
        )
        if chosen and st.button("Show it", key="take_up", icon=":material/history:"):
            state.dismissed_jobs().discard(chosen)
            state.taken_jobs().discard(chosen)
            st.query_params[state.JOB] = chosen
            st.rerun()


def duration(seconds: float) -> str:
    """Seconds in words, as exact as an estimate is."""
    if seconds < 90:
        return f"about {max(math.ceil(seconds / 5) * 5, 1)} s"
    if seconds < 5400:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
