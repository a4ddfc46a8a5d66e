"""Jobs on a page: watched as they go on, cancelled, resumed, and their results taken.

What a job has reached when it ends becomes the recovery of the session.
"""

from __future__ import annotations

import streamlit as st

from rsdtr import jobs
from rsdtr.checkpoint import kept_epoch
from rsdtr.job import Job
from rsdtr.kinds import compare as compare_job
from rsdtr.kinds import export as export_job
from rsdtr.kinds import finetune as finetune_job
from rsdtr.kinds import refit as refit_job
from rsdtr.kinds.finetune import best_model, curve
from rsdtr.kinds.refit import refit_model, report
from rsdtr.plan import CompressionPlan
from rsdtr.ui import comparing, job_bar, recovering, state
from rsdtr.ui.cached import Network
from rsdtr.ui.page import plain
from rsdtr.ui.refitting import show_steps
from rsdtr.ui.state import Recovery
from rsdtr.ui.training import show_curve
from rsdtr.zoo import weights_sha256

POLL_SECONDS: float | None = 1.0


def take(network: Network, at: CompressionPlan, job: Job) -> None:
    """Once it has ended, make what a job has reached the recovery of this session; once only."""
    taken = state.taken_jobs()
    if not job.ended or job.id in taken:
        return
    model = refit_model(job) if job.kind == refit_job.KIND else best_model(job)
    taken.add(job.id)
    if model is None:
        return
    recovery = Recovery(model, weights_sha256(model), _label(job))
    state.keep(state.recoveries(), network.configuration(at), recovery)


def _label(job: Job) -> str:
    if job.kind == refit_job.KIND:
        return "refit"
    epochs = curve(job).epochs
    if not kept_epoch(epochs):
        return "as before fine-tuning, which gained nothing"
    return f"fine-tuned, {len(epochs)} epoch{'s' if len(epochs) > 1 else ''}"


def show(job: Job) -> None:
    """What a job of any kind has to show so far."""
    if job.kind == export_job.KIND:
        return  # its files are shown once all are proved
    if job.kind == compare_job.KIND:
        comparing.show(job)
        return
    if job.kind == refit_job.KIND:
        found = report(job)
        if found is not None and found.steps:
            show_steps(found)
        return
    shown = curve(job)
    if shown.losses:
        show_curve(shown, "training")


def watch(job: Job) -> None:
    """A job that waits or runs, drawn again every second; the page once it has ended."""
    st.fragment(_watched, run_every=POLL_SECONDS)(job.id)


def _watched(identity: str) -> None:
    job = job_bar.watched(identity)
    if job is None:
        return
    trains = job.kind == finetune_job.KIND
    job_bar.bar(job, _name(job))
    label = "Cancel and keep the best finished epoch" if trains else "Cancel"
    job_bar.stop_button(job, label, "cancel", "")
    show(job)


def how_it_ended(job: Job) -> None:
    """Why a job that was cancelled or failed stopped, and a button that goes on with it."""
    if job.state == "done":
        return
    text = f"The {_name(job).lower()} {'was cancelled' if job.state == 'cancelled' else 'failed'}"
    st.warning(plain(f"{text}{f': {job.message}' if job.message else ''}."), icon=":material/info:")
    again = "Try again" if job.kind == export_job.KIND else "Resume from its last checkpoint"
    if st.button(again, key="resume", icon=":material/play_arrow:"):
        jobs.resume(job.id)
        recovering.attach(job.id)
        st.rerun()


def _name(job: Job) -> str:
    names = {
        refit_job.KIND: "Refit",
        compare_job.KIND: "Comparison",
        export_job.KIND: "Export",
    }
    return names.get(job.kind, "Fine-tuning")
