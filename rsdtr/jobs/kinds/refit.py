"""A least-squares refit as a job: queued with all it needs, resumed at the layer it had reached."""

from __future__ import annotations

import logging
import math
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
from rsdtr.recovery.options import RefitOptions
from rsdtr.recovery.refit import Begun, Step, refit, refit_record
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.state_file import restored, state_bytes

KIND = "refit"
CHECKPOINT, REPORT = "checkpoint.safetensors", "steps.json"
_RECORD = "record"  # of a checkpoint's metadata
_log = logging.getLogger("rsdtr.jobs.kinds.refit")


class _Content(NetworkContent):
    images: int = Field(ge=2)
    options: RefitOptions


class _Stored(BaseModel):
    # A step that was not kept may be infinitely bad.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    layers: int = 0
    steps: tuple[Step, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class RefitReport:
    """What a refit has decided so far; seconds: at work, all runs of the job together."""

    model: str
    images: int
    steps: tuple[Step, ...]
    seconds: float


class _Stopped(Exception):
    """The job was cancelled between two layers."""


def queue_refit(
    model: nn.Module,
    plan: CompressionPlan,
    splits: DataSplits,
    images: int,
    *,
    data: str | None,
    dense: nn.Module,
    weights: WeightsSource = PUBLISHED,
    options: RefitOptions | None = None,
    subject: str = "",
    metrics: Mapping[str, object] | None = None,
) -> Job:
    """Queue the refit of a compressed model on so many training images, which need no labels.

    The job there is, if it was queued before. data: what `splits` was loaded from; dense, weights:
    the original network and what it was loaded with; subject: as in `jobs.submit`; metrics: as in
    `queue_on`. DataError for
    fewer than 2 images; JobError.
    """
    n = min(images, len(splits.train))
    if n < 2:
        raise DataError(f"a refit was asked for with {n} images: give at least 2")
    asked = options or RefitOptions()
    content = _Content(
        identity=unlabelled_identity(model, dense, splits.train, n, asked),
        images=n,
        options=asked,
        plan=plan,
        data=data,
        weights=weights,
    )
    title = f"{plan.model} at {plan.label}, refit on {n:,} images of {splits.train.name}"
    return queue_on(KIND, title, model, content, subject, metrics)


def run(running: Running) -> bool:
    """Refit until the end, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    inputs = read_inputs(running, content)
    start, images, options = inputs.saved, inputs.splits.train, content.options
    found = unlabelled_identity(start.model, inputs.dense, images, content.images, options)
    check_identity(content, found)
    before, begun = _read_checkpoint(running.folder / CHECKPOINT)
    if begun:
        _log.info("going on after layer %d", begun.layers)
    # Solving for a large kernel takes long, walking the images does not depend on its size: the
    # root lies between what both would say of the time that is left.
    rings = (layer for layer in start.plan.layers if layer.kept_dense is None)
    effort = {layer.name: math.sqrt(math.prod(layer.shape)) for layer in rings}
    first = solved = _spent(effort, begun)
    began = time.monotonic()

    def spent() -> float:
        return before + time.monotonic() - began

    def show(done: int, total: int) -> None:
        if done == total:
            return
        if running.should_stop():
            raise _Stopped
        each = (time.monotonic() - began) / (solved - first) if solved > first else None
        left = None if each is None else each * (sum(effort.values()) - solved)
        running.progress("solving, layers", done, total, left)

    def keep(reached: Begun) -> None:
        nonlocal solved
        solved = _spent(effort, reached)
        stored = _Stored(layers=reached.layers, steps=reached.steps, seconds=spent())
        _write_checkpoint(running.folder / CHECKPOINT, stored, reached)
        _report(running.folder, stored)

    try:
        refitted = refit(
            start.model, inputs.dense, images, content.images,
            options=options, progress=show, begun=begun, on_layer=keep,
        )  # fmt: skip
    except _Stopped:
        return False
    stored = _Stored(steps=refitted.steps, seconds=spent())
    _report(running.folder, stored)
    metrics = (
        start.metrics
        | weights_told(content.weights)
        | {"refitted": refit_record(images.name, content.images, refitted.steps)}
    )
    save(refitted.model, start.plan, running.job.result, metrics=metrics)
    (running.folder / CHECKPOINT).unlink(missing_ok=True)
    return True


def report(job: Job) -> RefitReport | None:
    """What a refit has decided so far; None if another version of this program queued it."""
    content = _content(job)
    if content is None:
        return None
    stored = _read_report(job.folder)
    return RefitReport(content.plan.model, content.images, stored.steps, stored.seconds)


def refit_model(job: Job) -> nn.Module | None:
    """The refitted network; None unless the job is done: half a refit is no better than none."""
    return load(job.result).model if job.state == "done" and job.result.is_dir() else None


def expected_seconds(model: str, images: int) -> float | None:
    """How long a refit of this model should take: as the last one here, by image; None if none."""
    for job in reversed(job_queue.listed()):
        if job.kind != KIND or job.state != "done":
            continue
        found = report(job)
        if found is not None and found.model == model:
            return found.seconds * images / found.images
    return None


def _spent(effort: Mapping[str, float], reached: Begun | None) -> float:
    """The effort on the layers that are done; effort: on every ring layer."""
    return sum(effort[name] for name in {step.name for step in reached.steps}) if reached else 0.0


def _content(job: Job) -> _Content | None:
    spec = read_spec(job.folder)
    try:
        return None if spec is None else _Content.model_validate(spec.content)
    except ValidationError:
        return None


def _write_checkpoint(path: Path, stored: _Stored, reached: Begun) -> None:
    replace_file(path, state_bytes(reached.state, {_RECORD: stored.model_dump_json()}))


def _read_checkpoint(path: Path) -> tuple[float, Begun | None]:
    """Seconds spent so far, and what they have led to; 0 and None if there is nothing whole."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        stored = _Stored.model_validate_json(metadata.get(_RECORD, ""))
        state = restored(safetensors.torch.load_file(path), metadata)
    except FileNotFoundError:
        return 0.0, None
    except (OSError, ValidationError, safetensors.SafetensorError) as error:
        _log.warning("%s is damaged (%s): the refit begins anew", path, error)
        return 0.0, None
    return stored.seconds, Begun(stored.layers, stored.steps, state)


def _report(folder: Path, stored: _Stored) -> None:
    replace_file(folder / REPORT, stored.model_dump_json().encode())


def _read_report(folder: Path) -> _Stored:
    try:
        return _Stored.model_validate_json((folder / REPORT).read_bytes())
    except (OSError, ValidationError):
        return _Stored()
