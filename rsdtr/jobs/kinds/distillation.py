"""A distillation without labels as a job: queued with all it needs, resumed at a checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from rsdtr.compressed.saved import load, save, weights_told
from rsdtr.data.datasets import DataSplits
from rsdtr.errors import DataError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.kinds.loss_file import LossFile, read_losses
from rsdtr.jobs.kinds.network_job import (
    NetworkContent,
    check_identity,
    content_of,
    queue_on,
    read_inputs,
    unlabelled_identity,
)
from rsdtr.jobs.running import Running
from rsdtr.models.weights_source import PUBLISHED, WeightsSource
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.distill import DistillBegun, DistillStep, distill, distill_record
from rsdtr.recovery.options import DistillOptions
from rsdtr.recovery.refit import Step
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.state_file import restored, state_bytes

KIND = "distill"
CHECKPOINT, LOSSES, VERDICT = "checkpoint.safetensors", "losses.csv", "verdict.json"
CHECKPOINT_SECONDS = 10.0  # between two checkpoints, but for the first one
_RECORD = "record"  # of a checkpoint's metadata
_log = logging.getLogger("rsdtr.jobs.kinds.distillation")


class _Content(NetworkContent):
    images: int = Field(ge=3)
    options: DistillOptions


class _Reached(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    steps: int = 0
    seconds: float = 0.0
    judged: Step | None = None


@dataclass(frozen=True)
class DistillReport:
    """What a distillation has shown so far.

    losses: of every step; judged: once it has ended; seconds: at work, all runs of the job
    together.
    """

    model: str
    images: int
    losses: tuple[float, ...]
    judged: Step | None
    seconds: float


class _Stopped(Exception):
    """The job was cancelled between two steps."""


def queue_distillation(
    model: nn.Module,
    plan: CompressionPlan,
    splits: DataSplits,
    images: int,
    *,
    data: str | None,
    dense: nn.Module,
    weights: WeightsSource = PUBLISHED,
    options: DistillOptions | None = None,
    subject: str = "",
    metrics: Mapping[str, object] | None = None,
) -> Job:
    """Queue the distillation of a compressed model on so many training images, without labels.

    The job there is, if it was queued before; arguments as in `queue_refit`. DataError for fewer
    than 3 images; JobError.
    """
    n = min(images, len(splits.train))
    if n < 3:
        raise DataError(f"a distillation was asked for with {n} images: give at least 3")
    asked = options or DistillOptions()
    content = _Content(
        identity=unlabelled_identity(model, dense, splits.train, n, asked),
        images=n,
        options=asked,
        plan=plan,
        data=data,
        weights=weights,
    )
    title = f"{plan.model} at {plan.label}, distilled on {n:,} images of {splits.train.name}"
    return queue_on(KIND, title, model, content, subject, metrics)


def run(running: Running) -> bool:
    """Distil until the end, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    inputs = read_inputs(running, content)
    start, images, options = inputs.saved, inputs.splits.train, content.options
    check_identity(
        content, unlabelled_identity(start.model, inputs.dense, images, content.images, options)
    )
    path = running.folder / CHECKPOINT
    before, begun = _read_checkpoint(path)
    if begun:
        _log.info("going on after step %d", begun.steps)
    losses = LossFile(running, LOSSES, "distilling, steps", begun.steps if begun else 0)
    began = time.monotonic()
    written = 0.0

    def spent() -> float:
        return before + time.monotonic() - began

    def keep(step: DistillStep) -> None:
        nonlocal written
        losses.add(step.number, step.total, step.loss, step.learning_rate)
        stops = running.should_stop()
        if stops or time.monotonic() - written > CHECKPOINT_SECONDS:
            losses.write()
            state = step.state()
            _write_checkpoint(path, _Reached(steps=state.steps, seconds=spent()), state)
            written = time.monotonic()
        if stops:
            raise _Stopped

    try:
        found = distill(
            start.model, inputs.dense, images, content.images,
            options=options, begun=begun, on_step=keep,
        )  # fmt: skip
    except _Stopped:
        return False
    losses.write()
    reached = _Reached(steps=found.steps, seconds=spent(), judged=found.judged)
    replace_file(running.folder / VERDICT, reached.model_dump_json().encode())
    metrics = (
        start.metrics
        | weights_told(content.weights)
        | {"distilled": distill_record(images.name, content.images, found)}
    )
    save(found.model, start.plan, running.job.result, metrics=metrics)
    path.unlink(missing_ok=True)
    return True


def distill_report(job: Job) -> DistillReport | None:
    """What a distillation has shown so far; None if another version of this program queued it."""
    spec = read_spec(job.folder)
    try:
        content = None if spec is None else _Content.model_validate(spec.content)
    except ValidationError:
        return None
    if content is None:
        return None
    try:
        reached = _Reached.model_validate_json((job.folder / VERDICT).read_bytes())
    except (OSError, ValidationError):
        reached = _Reached()
    losses = tuple(loss for loss, _ in read_losses(job.folder / LOSSES))
    return DistillReport(
        content.plan.model, content.images, losses, reached.judged, reached.seconds
    )


def distilled_model(job: Job) -> nn.Module | None:
    """The network after a distillation; None unless the job is done: half of one was not judged."""
    return load(job.result).model if job.state == "done" and job.result.is_dir() else None


def expected_seconds(model: str, images: int) -> float | None:
    """How long a distillation of this model should take: as the last one here, by step; None if
    there was none.
    """
    options = DistillOptions()
    for job in reversed(job_queue.listed()):
        if job.kind != KIND or job.state != "done":
            continue
        found = distill_report(job)
        if found is not None and found.model == model and found.losses:
            steps = options.steps_for(images, options.batch_size)
            return found.seconds * steps / len(found.losses)
    return None


def _write_checkpoint(path: Path, reached: _Reached, state: DistillBegun) -> None:
    replace_file(path, state_bytes(state.state, {_RECORD: reached.model_dump_json()}))


def _read_checkpoint(path: Path) -> tuple[float, DistillBegun | None]:
    """Seconds spent so far, and what they have led to; 0 and None if there is nothing whole."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        reached = _Reached.model_validate_json(metadata.get(_RECORD, ""))
        state = restored(safetensors.torch.load_file(path), metadata)
    except FileNotFoundError:
        return 0.0, None
    except (OSError, ValidationError, safetensors.SafetensorError) as error:
        _log.warning("%s is damaged (%s): the distillation begins anew", path, error)
        return 0.0, None
    return reached.seconds, DistillBegun(reached.steps, state)
