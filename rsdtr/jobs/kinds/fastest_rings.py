"""The fastest rings of a plan as a job: measured beside the page, layer after layer."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rsdtr.errors import PlanError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, content_id, jobs_folder
from rsdtr.jobs.kinds.network_job import (
    check_buildable,
    content_of,
    original,
    same_plan,
)
from rsdtr.jobs.running import Running
from rsdtr.measuring.fastest_rings import Stopped, fastest_rings
from rsdtr.measuring.stopwatch import machine
from rsdtr.models.weights_source import WeightsField, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.system.atomic_files import replace_file

KIND = "fastest"
PLAN = "plan.json"  # in the folder of the result


class _Content(BaseModel):
    """What the result depends on; machine: in words, for another one has other times."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    plan: CompressionPlan
    weights: WeightsField
    batch: int = Field(ge=1)
    threads: int = Field(ge=1)
    machine: str


def queue_fastest(
    plan: CompressionPlan,
    weights: WeightsSource,
    batch: int,
    *,
    threads: int = 2,
) -> Job:
    """Queue the choice of the fastest rings for a plan; the job there is, if it was queued before.

    weights: what the plan's model was loaded with, as in `load_model`; batch, threads: what is
    measured, as in `fastest_rings`. It is nobody's own: times are the machine's. JobError.
    """
    check_buildable(plan.model)
    content = _content(plan, weights, batch, threads)
    known = fastest_job(plan, weights, batch, threads=threads)
    readable = fastest_plan(plan, weights, batch, threads=threads) is not None
    if known is not None and known.state == "done" and not readable:
        shutil.rmtree(known.result, ignore_errors=True)  # and so it is made anew
    title = f"{plan.model} at {plan.label}, fastest rings at batch {batch}"
    return job_queue.submit(KIND, title, content, exclusive=True)


def fastest_plan(
    plan: CompressionPlan, weights: WeightsSource, batch: int, *, threads: int = 2
) -> CompressionPlan | None:
    """The plan that a job of this content has chosen; None if there is none, or not yet.

    It is found by the content's name, without a look at the table: cheap enough for every run of a
    page.
    """
    path = _result(_content(plan, weights, batch, threads))
    try:
        found = CompressionPlan.from_json(path.read_bytes())
    except (OSError, PlanError):
        return None
    return found.model_copy(update={"seconds": plan.seconds})


def fastest_job(
    plan: CompressionPlan, weights: WeightsSource, batch: int, *, threads: int = 2
) -> Job | None:
    """The job of this content, however far it is; None if there is none."""
    identity = content_id(KIND, _content(plan, weights, batch, threads), "")
    return job_queue.find(identity) if (jobs_folder() / identity).is_dir() else None


def run(running: Running) -> bool:
    """Measure and choose until the end, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    running.progress("reading the model", 0, 0)
    spec = model_spec(content.plan.model)
    costs = profile(original(spec.name, content.weights), spec)
    load_winners(costs)
    running.progress("listing the rings of every layer", 0, 0)
    began: float | None = None

    def show(done: int, total: int) -> None:
        nonlocal began
        began = time.monotonic() if began is None else began
        left = (time.monotonic() - began) / done * (total - done) if done else None
        running.progress("measuring, rings", done, total, left)

    try:
        chosen = fastest_rings(
            content.plan, costs, batch=content.batch, threads=content.threads,
            progress=show, should_stop=running.should_stop,
        )  # fmt: skip
    except Stopped:
        return False
    running.job.result.mkdir(exist_ok=True)
    replace_file(running.job.result / PLAN, chosen.model_dump_json(indent=1).encode())
    return True


def _content(
    plan: CompressionPlan, weights: WeightsSource, batch: int, threads: int
) -> dict[str, object]:
    content = _Content(
        plan=same_plan(plan),
        weights=weights.same_everywhere(),
        batch=batch,
        threads=threads,
        machine=machine(),
    )
    return content.model_dump(mode="json")


def _result(content: dict[str, object]) -> Path:
    return jobs_folder() / content_id(KIND, content, "") / "result" / PLAN
