"""A comparison as a job: its cells fill in one by one, and serve every other comparison."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rsdtr.baselines.catalogue import Subject, check_methods
from rsdtr.baselines.comparison import Cell, Comparison, run
from rsdtr.data.datasets import load_data
from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.kinds.network_job import check_buildable, original, same_data
from rsdtr.jobs.running import Running
from rsdtr.models.zoo import model_spec
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.cache_folder import cache_folder

KIND = "compare"
REPORT = "cells.json"
_CELLS = TypeAdapter(tuple[Cell, ...])


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: Comparison
    weights_sha256: str


def queue_comparison(asked: Comparison, weights_sha256: str, subject: str = "") -> Job:
    """Queue a comparison, or take the job there is. weights_sha256: of the network as it is now.

    subject: as in `jobs.submit`. UnknownName for a method there is not; JobError.
    """
    check_methods(asked.methods)
    check_buildable(asked.model)
    same = asked.model_copy(
        update={
            "data": same_data(asked.data),
            "weights": asked.weights.same_everywhere(),
        }
    )
    title = f"{asked.model}: {len(asked.pairs)} cells of {len(asked.methods)} methods"
    content = _Content(asked=same, weights_sha256=weights_sha256).model_dump(mode="json")
    return job_queue.submit(KIND, title, content, subject=subject)


def run_job(running: Running) -> bool:
    """Compute the cells that are missing until the end, or until the job is to stop."""
    try:
        content = _Content.model_validate(running.content)
    except ValidationError:
        raise JobError("it was queued by another version of this program: queue it anew") from None
    asked = content.asked
    running.progress("reading the model and the data", 0, 0)
    spec = model_spec(asked.model)
    subject = Subject(original(asked.model, asked.weights), spec, load_data(asked.data, spec))
    if subject.profile.weights_sha256 != content.weights_sha256:
        raise JobError("the weights have changed since it was queued: queue it anew")
    cells: list[Cell] = []
    for cell in run(
        asked,
        subject,
        cells_folder(),
        should_stop=running.should_stop,
        progress=running.progress,
    ):
        cells.append(cell)
        _report(running.folder, tuple(cells))
    if len(cells) < len(asked.pairs):
        return False
    running.job.result.mkdir(exist_ok=True)
    _report(running.job.result, tuple(cells))
    return True


def cells_folder() -> Path:
    """Where the cells of all jobs lie, by what they depend on."""
    return cache_folder() / "compare"


def report(job: Job) -> tuple[Cell, ...]:
    """The cells that a job has so far."""
    try:
        return _CELLS.validate_json((job.folder / REPORT).read_bytes())
    except (OSError, ValidationError):
        return ()


def asked_of(job: Job) -> Comparison | None:
    """What a job compares; None if another version of this program queued it."""
    spec = read_spec(job.folder)
    try:
        return None if spec is None else _Content.model_validate(spec.content).asked
    except ValidationError:
        return None


def _report(folder: Path, cells: tuple[Cell, ...]) -> None:
    content = [cell.model_dump(mode="json") for cell in cells]
    replace_file(folder / REPORT, json.dumps(content).encode())
