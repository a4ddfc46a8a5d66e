"""An export as a job: files that are proved beside the page, and wait there to be downloaded."""

from __future__ import annotations

import hashlib
import json
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
    queue_on,
    same_plan,
)
from rsdtr.jobs.running import Running
from rsdtr.models.weights_source import PUBLISHED
from rsdtr.models.zoo import weights_sha256
from rsdtr.planning.plan import CompressionPlan
from rsdtr.system.atomic_files import replace_file

KIND = "export"
ARTEFACTS = "artefacts.json"
_artefacts = TypeAdapter(tuple[Artefact, ...])


class _Content(NetworkContent):
    formats: tuple[str, ...] = Field(min_length=1)
    images: int | None = Field(ge=1)
    metrics: dict[str, JsonValue]
    card: ModelCard | None
    holds: str
    recovered: str | None


@dataclass(frozen=True)
class ExportedFiles:
    """What an export job has made in its folder. holds, recovered: as it was queued with."""

    holds: str
    recovered: str | None
    folder: Path
    artefacts: tuple[Artefact, ...]


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
    subject: str = "",
) -> Job:
    """Queue the export of a compressed model; the job there is, if it was queued before.

    formats, metrics: as in `export`; it is proved on the first `images` test images, calibrated on
    the training ones. data: what `splits` was loaded from; card: of which report.html is made, by
    default of what the model itself tells; holds: what the files hold, in words;
    recovered: the SHA-256 of the weights, where they were recovered; subject: as in `jobs.submit`.
    UnknownName for a format that there is not; JobError.
    """
    checked_formats(formats, model)
    test = splits.test if images is None else splits.test.subset(images)
    content = _Content(
        identity=export_identity(model, test, splits.train),
        plan=plan,
        data=data,
        weights=PUBLISHED,
        formats=tuple(formats),
        images=images,
        metrics=dict(metrics or {}),
        card=card and card.model_copy(update={"plan": same_plan(card.plan)}),
        holds=holds,
        recovered=recovered,
    )
    title = f"{plan.model} at {plan.label}, export as {', '.join(formats)}"
    return queue_on(KIND, title, model, content, subject)


def run(running: Running) -> bool:
    """Export until the end, or until the job is to stop; whether it came to the end."""
    from rsdtr.charts.html_report import report_html, saved_report  # draws, and so loads Plotly

    content = content_of(running, _Content)
    running.progress("reading the model and the data", 0, 0)
    saved = load(running.folder / START)
    splits = load_data(content.data, saved.spec)
    test = splits.test if content.images is None else splits.test.subset(content.images)
    check_identity(content, export_identity(saved.model, test, splits.train))

    def show(done: int, total: int) -> None:
        if running.should_stop():
            raise _Stopped
        running.progress("writing and proving, steps", done, total)

    saved = replace(saved, metrics=content.metrics)
    report = report_html(content.card) if content.card else saved_report(saved)
    try:
        artefacts = export(
            saved.model, saved.plan, test, content.formats, running.job.result,
            calibration=splits.train, metrics=content.metrics, report=report,
            progress=show,
        )  # fmt: skip
    except _Stopped:
        return False
    replace_file(running.folder / ARTEFACTS, _artefacts.dump_json(tuple(artefacts)))
    return True


def export_identity(model: nn.Module, images: LabelledImages, calibration: LabelledImages) -> str:
    """SHA-256 of the network and the images that an export is proved and calibrated on."""
    content = {
        "start": weights_sha256(model),
        "data": [fingerprint(part) for part in (images, calibration)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def exported_files(job: Job) -> ExportedFiles | None:
    """What the job has made; None unless it is done and its files are there."""
    spec = read_spec(job.folder)
    if job.state != "done" or spec is None or not job.result.is_dir():
        return None
    try:
        content = _Content.model_validate(spec.content)
        found = _artefacts.validate_json((job.folder / ARTEFACTS).read_bytes())
    except (OSError, ValidationError):
        return None
    return ExportedFiles(content.holds, content.recovered, job.result, found)
