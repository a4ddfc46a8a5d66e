"""What jobs that change a compressed network have in common: its folder, its data, its original."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from rsdtr.compressed.saved import Saved, load, save
from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.data.image_sets import LabelledImages, fingerprint
from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.running import Running
from rsdtr.models.factories import server_models
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsField, WeightsSource
from rsdtr.models.zoo import is_model, model_spec, weights_sha256
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.options import DistillOptions, RefitOptions

START = "start"  # the folder of the network as it was when the job was queued


class NetworkContent(BaseModel):
    """What the result of every such job depends on.

    identity: a hash of networks, images and options; data, weights: what the images and the
    original network are loaded with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    identity: str
    plan: CompressionPlan
    data: str | None
    weights: WeightsField


Content = TypeVar("Content", bound=BaseModel)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What such a job works on: the network it starts from, the original one, and the images."""

    saved: Saved
    dense: nn.Module
    splits: DataSplits


def queue_on(
    kind: str,
    title: str,
    model: nn.Module | None,
    content: NetworkContent,
    subject: str,
    metrics: Mapping[str, object] | None = None,
) -> Job:
    """Queue a job that starts from this model, if any; the job there is, if it was queued before.

    metrics: what its manifest is to tell of what was done to it before.

    Names of folders and files are made to mean the same wherever the worker is started, and the
    seconds that planning took are no part of what the result depends on.
    """
    check_buildable(content.plan.model)
    same = content.model_copy(
        update={
            "plan": same_plan(content.plan),
            "data": same_data(content.data),
            "weights": content.weights.same_everywhere(),
        }
    )

    def prepare(folder: Path) -> None:
        if model is not None:
            save(model, content.plan, folder / START, metrics=metrics)

    asked = same.model_dump(mode="json")
    return job_queue.submit(kind, title, asked, subject=subject, prepare=prepare)


def check_buildable(model: str) -> None:
    """JobError for a network of one's own: no other process knows how to build it."""
    if model not in server_models() and (not is_model(model) or model_spec(model).own):
        raise JobError(
            f"{model} is a network of one's own, which the process of a job cannot build: run it "
            "here, with rsdtr.refit, rsdtr.finetune or rsdtr.export, or name what builds it in "
            "RSDTR_MODELS"
        )


def same_plan(plan: CompressionPlan) -> CompressionPlan:
    """A plan without what differs from one making of it to the next.

    That is the seconds it took, and the last bits of errors: they depend on what was searched
    before.
    """
    layers = tuple(
        layer.model_copy(update={"relative_error": round(layer.relative_error, 9)})
        for layer in plan.layers
    )
    return plan.model_copy(update={"seconds": 0.0, "layers": layers})


def same_data(data: str | None) -> str | None:
    """What images are loaded with, so that it means the same wherever a worker is started."""
    return str(Path(data).resolve()) if data and Path(data).is_dir() else data


def content_of(running: Running, kind: type[Content]) -> Content:
    """What a job was queued with. JobError if another version of this program queued it."""
    try:
        return kind.model_validate(running.content)
    except ValidationError as error:
        raise JobError(
            f"it was queued by another version of this program ({error.errors()[0]['msg']}): "
            "queue it anew"
        ) from None


def original(model: str, weights: WeightsSource) -> nn.Module:
    """The network as it was before compression; JobError, which names no folder, if its file of
    weights is gone: whoever looks at a job need not be the one who has the file.
    """
    if weights.file is not None and not weights.file.is_file():
        raise JobError(f"{weights.file.name} is there no longer: give it again, and queue it anew")
    return load_model(model, weights)


def read_inputs(running: Running, content: NetworkContent) -> Inputs:
    """What a job works on, from its folder, the data and the weights."""
    running.progress("reading the model and the data", 0, 0)
    saved = load(running.folder / START)
    splits = load_data(content.data, saved.spec)
    return Inputs(saved, original(saved.spec.name, content.weights), splits)


def check_identity(content: NetworkContent, found: str) -> None:
    """JobError unless the job still finds what it was queued with."""
    if found != content.identity:
        raise JobError(
            "the data or the original weights have changed since it was queued: queue it anew"
        )


def unlabelled_identity(
    model: nn.Module,
    reference: nn.Module,
    images: LabelledImages,
    n: int,
    options: RefitOptions | DistillOptions,
) -> str:
    """SHA-256 of all that the result of a refit or a distillation depends on, but for the machine
    and the code.
    """
    content = {
        "start": weights_sha256(model),
        "reference": weights_sha256(reference),
        "options": asdict(options),
        "images": n,
        "data": fingerprint(images),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
