"""Jobs on a page: watched as they go on, cancelled, resumed, and their results taken.

What a job has reached when it ends becomes the recovery of the session.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import streamlit as st

from rsdtr.errors import RsdtrError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds import autopilot as autopilot_job
from rsdtr.jobs.kinds import comparison as compare_job
from rsdtr.jobs.kinds import distillation as distill_job
from rsdtr.jobs.kinds import export as export_job
from rsdtr.jobs.kinds import finetune as finetune_job
from rsdtr.jobs.kinds import refit as refit_job
from rsdtr.jobs.kinds.distillation import distill_report, distilled_model
from rsdtr.jobs.kinds.finetune import best_model, curve
from rsdtr.jobs.kinds.refit import refit_model
from rsdtr.models.zoo import weights_sha256
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.checkpoint import kept_epoch
from rsdtr.ui.jobs import session_jobs
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import job_bar, session
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.session import Recovery

POLL_SECONDS: float | None = 1.0
_ONNX = "onnx"  # a kind whose module loads ONNX Runtime, which no other page needs


def take(network: Network, at: CompressionPlan, job: Job) -> None:
    """Once it has ended, make what a job has reached the recovery of this session; once only."""
    taken = session.taken_jobs()
    if not job.ended or job.id in taken:
        return
    reached = {refit_job.KIND: refit_model, distill_job.KIND: distilled_model}
    model = reached.get(job.kind, best_model)(job)
    taken.add(job.id)
    if model is None:
        return
    recovery = Recovery(model, weights_sha256(model), _label(job))
    session.keep(session.recoveries(), network.configuration(at), recovery)


def _label(job: Job) -> str:
    if job.kind == refit_job.KIND:
        return "refit"
    if job.kind == distill_job.KIND:
        report = distill_report(job)
        gained = report is not None and report.judged is not None and report.judged.kept
        return (
            "distilled without labels" if gained else "as before distilling, which gained nothing"
        )
    epochs = curve(job).epochs
    if not kept_epoch(epochs):
        return "as before fine-tuning, which gained nothing"
    return f"fine-tuned, {len(epochs)} epoch{'s' if len(epochs) > 1 else ''}"


def watch(job: Job, draw: Callable[[Job], None] | None = None) -> None:
    """A job that waits or runs, drawn again every second; the page once it has ended.

    draw: draws what a job of its kind has to show so far, beneath its bar.
    """
    st.fragment(_watched, run_every=POLL_SECONDS)(job.id, draw)


def draw_along(job: Job, draw: Callable[[Job], None]) -> None:
    """What a job has to show so far, drawn again every second, where its bar stands elsewhere."""
    st.fragment(_drawn, run_every=POLL_SECONDS)(job.id, draw)


def _drawn(identity: str, draw: Callable[[Job], None]) -> None:
    with suppress(RsdtrError):  # it is gone: whoever watches it says so
        draw(job_queue.find(identity))


def _watched(identity: str, draw: Callable[[Job], None] | None) -> None:
    job = job_bar.watched(identity)
    if job is None:
        return
    trains = job.kind == finetune_job.KIND
    job_bar.bar(job, _name(job))
    label = "Cancel and keep the best finished epoch" if trains else "Cancel"
    job_bar.stop_button(job, label, "cancel", "")
    if draw is not None:
        draw(job)


def how_it_ended(job: Job, key: str = "resume") -> None:
    """Why a job that was cancelled or failed stopped, and a button, of this key, that goes on."""
    if job.state == "done":
        return
    text = f"The {_name(job).lower()} {'was cancelled' if job.state == 'cancelled' else 'failed'}"
    st.warning(plain(f"{text}{f': {job.message}' if job.message else ''}."), icon=":material/info:")
    again = (
        "Try again" if job.kind in (export_job.KIND, _ONNX) else "Resume from its last checkpoint"
    )
    if st.button(again, key=key, icon=":material/play_arrow:"):
        job_queue.resume(job.id)
        session_jobs.attach(job.id)
        st.rerun()


def _name(job: Job) -> str:
    names = {
        refit_job.KIND: "Refit",
        distill_job.KIND: "Distillation",
        compare_job.KIND: "Comparison",
        export_job.KIND: "Export",
        autopilot_job.KIND: "Search",
        _ONNX: "Compression",
    }
    return names.get(job.kind, "Fine-tuning")
