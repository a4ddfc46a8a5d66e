"""Fine-tuning as a job: queued with all it needs, run from its folder, watched as it goes on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from rsdtr.compressed.saved import load, save
from rsdtr.data.datasets import DataSplits
from rsdtr.errors import RsdtrError
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.kinds.loss_file import LossFile, read_losses
from rsdtr.jobs.kinds.network_job import (
    START,
    NetworkContent,
    check_buildable,
    check_identity,
    content_of,
    queue_on,
    read_inputs,
)
from rsdtr.jobs.running import Running
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.weights_source import PUBLISHED, WeightsSource
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.checkpoint import (
    Curve,
    EpochResult,
    Reference,
    TrainingRun,
    read_checkpoint,
    read_record,
    training_identity,
    training_record,
)
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.training_estimate import check_memory
from rsdtr.system.atomic_files import replace_file

KIND = "finetune"
CHECKPOINT, LOSSES, CURVE = "checkpoint.safetensors", "losses.csv", "curve.json"


class _Content(NetworkContent):
    options: FinetuneOptions


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    references: tuple[Reference, ...] = ()
    epochs: tuple[EpochResult, ...] = ()


def queue_finetuning(
    model: nn.Module,
    plan: CompressionPlan,
    splits: DataSplits,
    options: FinetuneOptions,
    *,
    data: str | None,
    dense: nn.Module,
    weights: WeightsSource = PUBLISHED,
    subject: str = "",
) -> Job:
    """Queue the training of a compressed model; the job there is, if it was queued before.

    data: what `splits` was loaded from; dense, weights: the original network and what it was loaded
    with; subject: as in `jobs.submit`. RsdtrError if the memory does not suffice; JobError.
    """
    check_buildable(plan.model)
    check_memory(model, splits, options, dense)
    content = _Content(
        identity=training_identity(model, splits, options, dense),
        options=options,
        plan=plan,
        data=data,
        weights=weights,
    )
    epochs = f"{options.epochs} epoch{'s' if options.epochs > 1 else ''}"
    title = f"{plan.model} at {plan.label}, {epochs} on {splits.train.name}"
    return queue_on(KIND, title, model, content, subject)


def run(running: Running) -> bool:
    """Train until the end, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    folder, options = running.folder, content.options
    inputs = read_inputs(running, content)
    saved, splits, dense = inputs.saved, inputs.splits, inputs.dense
    check_identity(content, training_identity(saved.model, splits, options, dense))
    references = _shown(folder).references or _references(running, saved.model, dense, splits)
    record = read_record(folder / CHECKPOINT)
    losses = LossFile(running, LOSSES, "training, steps", record.step if record else 0)
    epochs: list[EpochResult] = []
    results = finetune(
        saved.model, splits, options, teacher=dense, checkpoint=folder / CHECKPOINT,
        should_stop=running.should_stop, on_step=lambda step: losses.add(
            step.number, step.total, step.loss, step.learning_rate
        ),
    )  # fmt: skip
    for result in results:
        epochs.append(result)
        losses.write()
        _show(folder, _Shown(references=references, epochs=tuple(epochs)))
    if len(epochs) < options.epochs and running.should_stop():
        return False
    metrics = saved.metrics | {"finetuned": training_record(splits.train.name, options, epochs)}
    save(saved.model, saved.plan, running.job.result, metrics=metrics)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return True


def curve(job: Job) -> Curve:
    """What is to be seen of a fine-tuning now; cheap enough to ask every second."""
    shown = _shown(job.folder)
    rows = read_losses(job.folder / LOSSES)
    return Curve(
        tuple(loss for loss, _ in rows),
        tuple(rate for _, rate in rows),
        shown.epochs,
        shown.references,
    )


def training_runs(among: Iterable[Job]) -> list[TrainingRun]:
    """Every fine-tuning among these jobs."""
    found = []
    for job in among:
        spec = read_spec(job.folder)
        if job.kind != KIND or spec is None:
            continue
        with suppress(ValidationError, RsdtrError):  # queued by another version
            options = _Content.model_validate(spec.content).options
            found.append(TrainingRun(job.id, job.state, options, curve(job)))
    return found


def best_model(job: Job) -> nn.Module | None:
    """The best epoch of a fine-tuning that has ended, whichever way; None before the first."""
    if job.result.is_dir():
        return load(job.result).model
    found = read_checkpoint(job.folder / CHECKPOINT)
    if found is None:
        return None
    model = load(job.folder / START).model
    model.load_state_dict(found.part("best"))
    return model


def _references(
    running: Running, start: nn.Module, dense: nn.Module, splits: DataSplits
) -> tuple[Reference, ...]:
    found = []
    for label, model in (("dense", dense), ("start", start)):
        doing = f"measuring the {label} network, validation images"

        def show(seen: int, total: int, doing: str = doing) -> None:
            running.progress(doing, seen, total)

        reached = accuracy(model, splits.validation, progress=show)
        found.append(Reference(label=label, accuracy=reached))
    _show(running.folder, _Shown(references=tuple(found)))
    return tuple(found)


def _show(folder: Path, shown: _Shown) -> None:
    replace_file(folder / CURVE, shown.model_dump_json().encode())


def _shown(folder: Path) -> _Shown:
    try:
        return _Shown.model_validate_json((folder / CURVE).read_bytes())
    except (OSError, ValidationError):
        return _Shown()
