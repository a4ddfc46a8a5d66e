"""Measuring a trade-off curve as a job, in the background.

Its result is the curve on disk, where every session finds it. It is nice, and every point that it
has measured when it is stopped is kept.
"""

from __future__ import annotations

import time

import torch

from rsdtr.data.datasets import data_identity, load_data
from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, content_id, jobs_folder
from rsdtr.jobs.kinds.network_job import check_buildable, content_of, original, same_data
from rsdtr.jobs.running import Running
from rsdtr.models.weights_source import WeightsField, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.recovery.curves_on_disk import load_curve, save_curve
from rsdtr.recovery.recover import Recover
from rsdtr.recovery.tradeoff_curve import (
    CurveKey,
    coarse_questions,
    dense_curve,
    measure_curve,
)
from rsdtr.typing import Frozen

KIND = "tradeoff_curve"


class _Content(Frozen):
    model: str
    weights: WeightsField
    data: str | None
    key: CurveKey
    recover: Recover


def queue_curve(
    model: str, weights: WeightsSource, data: str | None, key: CurveKey, recover: Recover
) -> Job:
    """Queue the measurement of a curve, or take the job there is. It is nobody's own. JobError.

    weights, data: what the model and the images are loaded with.
    """
    check_buildable(model)
    title = f"{model}, {key.measure} over compression"
    content = _content(model, weights, data, key, recover)
    return job_queue.submit(KIND, title, content, nice=True)


def curve_job(
    model: str, weights: WeightsSource, data: str | None, key: CurveKey, recover: Recover
) -> Job | None:
    """The job that measures a curve, or has; None if there is none."""
    if not jobs_folder().is_dir():
        return None
    identity = content_id(KIND, _content(model, weights, data, key, recover), "")
    return job_queue.find(identity) if (jobs_folder() / identity).is_dir() else None


def run(running: Running) -> bool:
    """Measure until the end, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    torch.set_num_threads(1)  # in the background: a page is to have a core
    running.progress("reading the model and the data", 0, 0)
    spec = model_spec(content.model)
    dense = original(content.model, content.weights)
    costs = profile(dense, spec)
    if costs.weights_sha256 != content.key.weights_sha256:
        raise JobError("the weights have changed since it was queued: queue it anew")
    if data_identity(content.data, spec) != content.key.data:
        raise JobError("the images have changed since it was queued: queue it anew")
    load_winners(costs)
    splits = load_data(content.data, spec)
    begun = load_curve(content.key) or dense_curve(dense, costs, splits, content.key)
    save_curve(begun)
    began, first = time.monotonic(), None

    def note(done: int, total: int) -> None:
        nonlocal first
        first = done if first is None else first
        spent = time.monotonic() - began
        left = spent / (done - first) * (total - done) if done > first else None
        running.progress(f"measuring {content.key.measure}, points", done, total, left)

    key = content.key
    like = Choices(rule=key.rule, objective=key.objective, layers=key.layers)
    for curve in measure_curve(
        dense, costs, splits, begun, coarse_questions(like), content.recover,
        should_stop=running.should_stop, progress=note,
    ):  # fmt: skip
        save_curve(curve)
    return not running.should_stop()


def _content(
    model: str, weights: WeightsSource, data: str | None, key: CurveKey, recover: Recover
) -> dict[str, object]:
    content = _Content(
        model=model, weights=weights.same_everywhere(), data=same_data(data), key=key,
        recover=recover,
    )  # fmt: skip
    return content.model_dump(mode="json")
