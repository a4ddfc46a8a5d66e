"""Whose turn it is: which of the jobs that wait may begin beside those that run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from rsdtr.errors import JobError
from rsdtr.jobs.job import Job

MOST_NICE = 2  # at once: each of them uses every core


def slots() -> int:
    """How many jobs run at once, nice ones aside: $RSDTR_JOBS, else one for every two cores."""
    text = os.environ.get("RSDTR_JOBS")
    if text is None:
        return max((os.cpu_count() or 1) // 2, 1)
    if not text.isdecimal() or int(text) < 1:
        raise JobError(f"RSDTR_JOBS is {text!r}: give a whole number of at least 1")
    return int(text)


def startable(running: Sequence[Job], waiting: Sequence[Job]) -> Iterator[Job]:
    """The jobs that may begin now, each by itself; waiting: in the order of the queue.

    Nice ones have slots of their own. An exclusive one begins when nothing else runs; while it
    waits for that, only nice ones begin before those behind it, and they make room in the end.
    """
    if any(job.exclusive for job in running):
        return
    nice = sum(job.nice for job in running)
    ordinary = len(running) - nice
    room = nice < MOST_NICE and (ordinary > 0 or not any(job.exclusive for job in waiting))
    first, held = True, False  # of those that are not nice; whether an exclusive one waits
    for job in waiting:
        if job.nice:
            if room:
                yield job
            continue
        if job.exclusive:
            if first and not running:
                yield job
            held = True
        elif ordinary < slots() and not held:
            yield job
        first = False


def makes_room(job: Job, jobs: Sequence[Job]) -> bool:
    """Whether a nice job that runs is all that an exclusive one waits for."""
    ordinary = any(other.state == "running" and not other.nice for other in jobs)
    waits = any(other.state == "queued" and other.exclusive for other in jobs)
    return job.nice and waits and not ordinary
