"""The state of a training on disk: one safetensors file, the whole of it or the one before.

Numbers and texts lie in the file's header as JSON, so that one rename replaces everything at once.
An identity, a hash of all that the result depends on, tells two trainings apart.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from torch import nn

from rsdtr.data.datasets import DataSplits
from rsdtr.data.image_sets import fingerprint
from rsdtr.errors import RsdtrError
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.models.zoo import weights_sha256
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.state_file import restored, state_bytes

_RECORD = "training"
_CPU = torch.device("cpu")
_log = logging.getLogger("rsdtr.recovery.checkpoint")


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch (counted from 1): mean training loss, validation accuracy, wall time.

    learning_rate is the last one used; best says that nothing so far was better, nor the start.
    """

    epoch: int
    epochs: int
    train_loss: float
    validation: Accuracy
    learning_rate: float
    seconds: float
    best: bool


class Record(BaseModel):
    """What a training is and how far it has come.

    identity: of the start, data and options; step: optimiser steps taken; best: the highest
    validation accuracy in percent, that of the start included; stale: epochs since it was reached
    first; rates: the learning
    rate of each parameter group; schedule: the scheduler's state.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    identity: str
    step: int
    epochs: tuple[EpochResult, ...]
    best: float
    stale: int
    rates: tuple[float, ...]
    schedule: dict[str, JsonValue]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A record and its state_dicts, whose names begin with what they belong to, as in `best.`."""

    record: Record
    tensors: Mapping[str, Any]

    def part(self, name: str) -> dict[str, Any]:
        """The entries under `name.`, without that prefix."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file at once; RsdtrError if it cannot be written, and the old one stays."""
    content = state_bytes(checkpoint.tensors, {_RECORD: checkpoint.record.model_dump_json()})
    try:
        replace_file(path, content)
    except OSError as error:
        raise RsdtrError(
            f"the checkpoint of epoch {len(checkpoint.record.epochs)} could not be written "
            f"({error.strerror or error}): make room on the disk of {path.parent}, then resume "
            "from the one before"
        ) from error


def read_record(path: Path) -> Record | None:
    """The record alone, which is quick; None if there is no file, or none that is whole."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return _record(file.metadata())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, safetensors.SafetensorError) as error:
        _log.warning("%s is damaged (%s): it is ignored", path, error)
        return None


def read_checkpoint(path: Path) -> Checkpoint | None:
    """What `write_checkpoint` wrote; None if there is no file, or none that is whole."""
    record = read_record(path)
    if record is None:
        return None
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    return Checkpoint(record, restored(safetensors.torch.load_file(path), metadata))


def check_same_training(found: Checkpoint, identity: str, path: Path) -> None:
    """RsdtrError unless the checkpoint is of the training of this identity."""
    if found.record.identity != identity:
        raise RsdtrError(
            f"{path} belongs to another training: give the same start, data and options as "
            "before, or begin anew"
        )


def _record(metadata: Mapping[str, str] | None) -> Record:
    return Record.model_validate_json((metadata or {}).get(_RECORD, ""))


def training_record(
    data: str,
    options: FinetuneOptions,
    epochs: Sequence[EpochResult],
    device: torch.device = _CPU,
) -> dict[str, object]:
    """What a saved model tells about its training, JSON-able; kept_epoch: 0 is the start."""
    return {
        "data": data,
        "device": device.type,
        "options": asdict(options),
        "epochs": [asdict(e) for e in epochs],
        "kept_epoch": kept_epoch(epochs),
    }


def kept_epoch(epochs: Sequence[EpochResult]) -> int:
    """The number of the epoch that a training keeps; 0 where nothing was better than its start."""
    return max((result.epoch for result in epochs if result.best), default=0)


def training_identity(
    model: nn.Module, data: DataSplits, options: FinetuneOptions, teacher: nn.Module | None
) -> str:
    """SHA-256 of all that the result depends on, but for the machine and the code."""
    content = {
        "start": weights_sha256(model),
        "teacher": weights_sha256(teacher) if teacher is not None and options.distill else None,
        "options": asdict(options),
        "data": [fingerprint(part) for part in (data.train, data.validation)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Reference(BaseModel):
    """A network to compare with: its accuracy on the same validation images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    accuracy: Accuracy


@dataclass(frozen=True)
class Curve:
    """What a training has shown so far: loss and learning rate of every step, every epoch.

    references: the dense network and the start, once they are measured.
    """

    losses: tuple[float, ...]
    learning_rates: tuple[float, ...]
    epochs: tuple[EpochResult, ...]
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class TrainingRun:
    """A fine-tuning, how it was asked for, and what it has shown so far.

    job_id, state: of the job that it is or was.
    """

    job_id: str
    state: str
    options: FinetuneOptions
    curve: Curve
