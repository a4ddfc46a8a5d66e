"""A study as a job: one training after the other, each kept as soon as it is made."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field
from torch import nn

from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.network_job import (
    NetworkContent,
    check_identity,
    content_of,
    original,
    queue_on,
)
from rsdtr.jobs.running import Running
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.weights_source import PUBLISHED, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.checkpoint import training_identity
from rsdtr.recovery.finetune import Step
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.study import STARTS, Study, factors_vs_scratch

KIND = "study"
FILE, FIGURE = "study.json", "study.html"


class _Content(NetworkContent):
    options: FinetuneOptions
    seeds: int = Field(ge=1)


def queue_study(
    dense: nn.Module,
    plan: CompressionPlan,
    splits: DataSplits,
    options: FinetuneOptions,
    seeds: int,
    *,
    data: str | None,
    weights: WeightsSource = PUBLISHED,
) -> Job:
    """Queue factors against scratch; the job there is, if it was queued before.

    dense, weights: the original network and what it was loaded with; data: what `splits` was
    loaded from. JobError.
    """
    content = _Content(
        identity=training_identity(dense, splits, options, None),
        options=options,
        seeds=seeds,
        plan=plan,
        data=data,
        weights=weights,
    )
    title = f"{plan.model} at {plan.label}, factors against scratch, {seeds} seeds"
    return queue_on(KIND, title, None, content, "")


def run(running: Running) -> bool:
    """Train until the end, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    running.progress("reading the model and the data", 0, 0)
    dense = original(content.plan.model, content.weights)
    splits = load_data(content.data, model_spec(content.plan.model))
    check_identity(content, training_identity(dense, splits, content.options, None))
    path, runs = running.folder / FILE, content.seeds * len(STARTS)
    latest = begun = (
        Study.load(path)
        if path.exists()
        else Study(content.plan, splits.train.name, content.options)
    )
    before, began = len(begun.runs), time.monotonic()

    def note(done: int, step: Step) -> None:
        made = (done - before) * step.total + step.number
        left = (runs - before) * step.total - made
        seconds = (time.monotonic() - began) / made * left
        at = done * step.total + step.number
        running.progress(f"training {done + 1} of {runs}, steps", at, runs * step.total, seconds)

    for latest in factors_vs_scratch(
        dense, begun, splits, range(content.seeds), should_stop=running.should_stop, on_step=note
    ):
        latest.save(path)
    if len(latest.runs) < runs:
        return False
    write_study(latest, dense, splits, running.job.result)
    return True


def write_study(study: Study, dense: nn.Module, splits: DataSplits, folder: Path) -> None:
    """The numbers and the figure, beside the dense network's validation accuracy."""
    from rsdtr.charts.recovery import study_figure  # Plotly is only needed here

    study.save(folder / FILE)
    reference = accuracy(dense, splits.validation).percent
    study_figure(study, reference).write_html(folder / FIGURE)
