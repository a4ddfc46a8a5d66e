"""An export as a job: files that are proved beside the page, and wait there to be downloaded."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from torch import nn

from rsdtr.compressed.saved import load
from rsdtr.data.datasets import DataSplits, LabelledImages, load_data
from rsdtr.data.image_sets import fingerprint
from rsdtr.exports.export import Artefact, checked_formats, export
from rsdtr.exports.model_card import ModelCard
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.kinds.network_job import (
    START,
    NetworkContent,
    check_identity,
    content_of,
    original,
    queue_on,
    same_plan,
)
from rsdtr.jobs.running import Running
from rsdtr.measuring.accuracy import Accuracy, accuracy
from rsdtr.models.weights_source import PUBLISHED, WeightsSource
from rsdtr.models.zoo import weights_sha256
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.recover import STAGES, Recover
from rsdtr.recovery.recover import recovered as recovered_model
from rsdtr.system.atomic_files import replace_file
from rsdtr.typing import Progress

KIND = "export"
ARTEFACTS = "artefacts.json"
STAGES_FILE = "stages.json"
Stages = tuple[tuple[str, Accuracy], ...]
_artefacts = TypeAdapter(tuple[Artefact, ...])
_stages = TypeAdapter(Stages)


class _Content(NetworkContent):
    formats: tuple[str, ...] = Field(min_length=1)
    images: int | None = Field(ge=1)
    metrics: dict[str, JsonValue]
    card: ModelCard | None
    holds: str
    recovered: str | None
    recover: Recover = "none"


@dataclass(frozen=True)
class ExportedFiles:
    """What an export job has made in its folder. holds, recovered: as it was queued with; stages:
    the accuracies that it measured, from the dense network to the one in the files.
    """

    holds: str
    recovered: str | None
    folder: Path
    artefacts: tuple[Artefact, ...]
    stages: tuple[tuple[str, Accuracy], ...] = ()


class _Stopped(Exception):
    """The job was cancelled between two steps."""


def queue_export(
    model: nn.Module,
    plan: CompressionPlan,
    splits: DataSplits,
    formats: Sequence[str],
    *,
    data: str | None,
    images: int | None = None,
    metrics: Mapping[str, JsonValue] | None = None,
    card: ModelCard | None = None,
    holds: str = "",
    recovered: str | None = None,
    recover: Recover = "none",
    dense: nn.Module | None = None,
    weights: WeightsSource = PUBLISHED,
    subject: str = "",
) -> Job:
    """Queue the export of a compressed model; the job there is, if it was queued before.

    recover: bring the model through this first, towards `dense`, which `weights` load; accuracies
    before and after are measured on the same test images, and told in the manifest and the report.

    formats, metrics: as in `export`; it is proved on the first `images` test images, calibrated on
    the training ones. data: what `splits` was loaded from; card: of which report.html is made, by
    default of what the model itself tells; holds: what the files hold, in words;
    recovered: the SHA-256 of the weights, where they were recovered; subject: as in `jobs.submit`.
    UnknownName for a format that there is not; JobError.
    """
    checked_formats(formats, model)
    test = splits.test if images is None else splits.test.subset(images)
    content = _Content(
        identity=export_identity(model, test, splits.train, dense),
        plan=plan,
        data=data,
        weights=weights if recover != "none" else PUBLISHED,
        formats=tuple(formats),
        images=images,
        metrics=dict(metrics or {}),
        card=card and card.model_copy(update={"plan": same_plan(card.plan)}),
        holds=holds,
        recovered=recovered,
        recover=recover,
    )
    first = "export" if recover == "none" else f"{STAGES[recover]} and exported"
    title = f"{plan.model} at {plan.label}, {first} as {', '.join(formats)}"
    return queue_on(KIND, title, model, content, subject)


def run(running: Running) -> bool:
    """Export until the end, or until the job is to stop; whether it came to the end."""
    from rsdtr.charts.html_report import report_html, saved_report  # draws, and so loads Plotly

    content = content_of(running, _Content)
    running.progress("reading the model and the data", 0, 0)
    saved = load(running.folder / START)
    splits = load_data(content.data, saved.spec)
    test = splits.test if content.images is None else splits.test.subset(content.images)
    recovers = content.recover != "none"
    dense = original(content.plan.model, content.weights) if recovers else None
    check_identity(content, export_identity(saved.model, test, splits.train, dense))
    telling = _Telling(running)
    saved = replace(saved, metrics=content.metrics)
    card = content.card
    stages: Stages = ()
    try:
        if dense is not None:
            model, stages = _recover(saved.model, dense, splits, test, content.recover, telling)
            saved = replace(saved, model=model, metrics=saved.metrics | _told(test, stages))
            card = card and card.with_accuracies(stages)
        report = report_html(card) if card else saved_report(saved)
        artefacts = export(
            saved.model, saved.plan, test, content.formats, running.job.result,
            calibration=splits.train, metrics=saved.metrics, report=report,
            progress=telling.of("writing and proving, steps"),
        )  # fmt: skip
    except _Stopped:
        return False
    replace_file(running.folder / STAGES_FILE, _stages.dump_json(stages))
    replace_file(running.folder / ARTEFACTS, _artefacts.dump_json(tuple(artefacts)))
    return True


class _Telling:
    """Progress of one step after the other, each with the time that it still takes."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def of(self, doing: str) -> Progress:
        """What a step is to call; it ends the step where the job is to stop."""
        began = time.monotonic()

        def show(done: int, total: int) -> None:
            if self._running.should_stop():
                raise _Stopped
            left = (time.monotonic() - began) / done * (total - done) if done else None
            self._running.progress(doing, done, total, left)

        return show


def _recover(
    model: nn.Module,
    dense: nn.Module,
    splits: DataSplits,
    test: LabelledImages,
    recover: Recover,
    telling: _Telling,
) -> tuple[nn.Module, Stages]:
    """The recovered model, and the accuracies on the way there, where the images have labels."""
    doing = {"recalibrate": "recalibrating, images"}.get(recover, "refitting, layers")
    better = recovered_model(model, dense, splits.train, recover, telling.of(doing))
    if not test.labelled:
        return better, ()
    networks = (("dense", dense), ("compressed", model), (STAGES[recover], better))
    return better, tuple(
        (name, accuracy(network, test, progress=telling.of(f"measuring the {name} one, images")))
        for name, network in networks
    )


def _told(test: LabelledImages, stages: Stages) -> dict[str, JsonValue]:
    """In the words of `evaluate --json`, beside the dense network's."""
    if not stages:
        return {}
    reached = stages[-1][1]
    told: dict[str, JsonValue] = {
        "data": test.name, "dense_accuracy": stages[0][1].percent, "recovered": stages[-1][0],
    }  # fmt: skip
    return told | reached.told


def export_identity(
    model: nn.Module,
    images: LabelledImages,
    calibration: LabelledImages,
    dense: nn.Module | None = None,
) -> str:
    """SHA-256 of the network and the images that an export is proved and calibrated on.

    dense: the network that it is recovered towards, if it is.
    """
    content = {
        "start": weights_sha256(model),
        "data": [fingerprint(part) for part in (images, calibration)],
    }
    if dense is not None:
        content["dense"] = weights_sha256(dense)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def exported_files(job: Job) -> ExportedFiles | None:
    """What the job has made; None unless it is done and its files are there."""
    spec = read_spec(job.folder)
    if job.state != "done" or spec is None or not job.result.is_dir():
        return None
    try:
        content = _Content.model_validate(spec.content)
        found = _artefacts.validate_json((job.folder / ARTEFACTS).read_bytes())
        stages = _stages.validate_json((job.folder / STAGES_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return ExportedFiles(content.holds, content.recovered, job.result, found, stages)
