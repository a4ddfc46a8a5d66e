"""Timing layers as a job: what this machine's device profile lacks of some layers is measured.

Its result is the profile, where every page and plan finds the times; each layer is in it as soon as
it is measured. It is exclusive: other work at the same time would make the times too long.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.network_job import content_of
from rsdtr.jobs.running import Running
from rsdtr.measuring.layer_times import LayerCase, measured_profile
from rsdtr.typing import Frozen

KIND = "layer_times"


class _Content(Frozen):
    label: str
    cases: tuple[LayerCase, ...]
    again: bool


def queue_layer_times(label: str, cases: Iterable[LayerCase], *, again: bool = False) -> Job:
    """Queue the measurement of what is not measured yet; label: for what, in words, its title.

    again: measure what is known anew, too. It is nobody's own: times are the machine's. JobError.
    """
    content = _Content(label=label, cases=tuple(dict.fromkeys(cases)), again=again)
    return job_queue.submit(KIND, label, content.model_dump(mode="json"), exclusive=True)


def latest_layer_times(jobs: Sequence[Job]) -> Job | None:
    """Of these jobs the measurement that runs, else the last that was queued; None if none is."""
    found = [job for job in jobs if job.kind == KIND]
    at_work = [job for job in found if job.state == "running"]
    return next(iter([*at_work, *reversed(found)]), None)


def run(running: Running) -> bool:
    """Measure until the end, or until the job is to stop; whether it came to the end."""
    content = content_of(running, _Content)
    began, measured = time.monotonic(), False

    def show(done: int, total: int) -> None:
        nonlocal measured
        measured = done == total
        left = (time.monotonic() - began) / done * (total - done) if done else None
        running.progress("measuring, layers", done, total, left)

    measured_profile(
        content.cases, progress=show, should_stop=running.should_stop, again=content.again
    )
    return measured
