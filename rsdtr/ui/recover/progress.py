"""What a refit or a fine-tuning has to show, while it runs and after it."""

from __future__ import annotations

from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds import refit as refit_job
from rsdtr.jobs.kinds.finetune import curve
from rsdtr.ui.recover.refit import show_steps
from rsdtr.ui.recover.training import show_curve


def show_progress(job: Job) -> None:
    """What the job has decided or learnt so far; nothing before its first step."""
    if job.kind == refit_job.KIND:
        found = refit_job.report(job)
        if found is not None and found.steps:
            show_steps(found)
        return
    shown = curve(job)
    if shown.losses:
        show_curve(shown, "training")
