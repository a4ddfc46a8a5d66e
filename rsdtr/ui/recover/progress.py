"""What a refit, a distillation or a fine-tuning has to show, while it runs and after it."""

from __future__ import annotations

from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds import distillation as distill_job
from rsdtr.jobs.kinds import refit as refit_job
from rsdtr.jobs.kinds.finetune import curve
from rsdtr.ui.recover.distillation import show_report
from rsdtr.ui.recover.refit import show_steps
from rsdtr.ui.recover.training import show_curve


def show_progress(job: Job) -> None:
    """What the job has decided or learnt so far; nothing before its first step."""
    if job.kind == refit_job.KIND:
        found = refit_job.report(job)
        if found is not None and found.steps:
            show_steps(found)
        return
    if job.kind == distill_job.KIND:
        report = distill_job.distill_report(job)
        if report is not None and report.losses:
            show_report(report)
        return
    shown = curve(job)
    if shown.losses:
        show_curve(shown, "training")
