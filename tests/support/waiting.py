"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

from rsdtr.jobs.job import Job
from rsdtr.jobs.job_queue import find


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Return as soon as the condition holds, and fail if it does not within the seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def ended(job: Job, seconds: float = 120.0) -> Job:
    """The job as it is after its end."""
    until(lambda: find(job.id).ended, seconds)
    return find(job.id)
