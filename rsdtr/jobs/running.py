"""A job that runs: as its own code sees it, and what its process reads and writes in the table."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import OUTCOME, WORKER, Job, State, begin, read_spec
from rsdtr.jobs.job_table import Table, transact
from rsdtr.jobs.turns import makes_room, startable
from rsdtr.system.processes import ProcessId

BEAT_SECONDS = 0.5
TEND_SECONDS = 5.0  # between two looks at the other workers
Order = Literal["go on", "stop", "make room"]
_log = logging.getLogger("rsdtr.jobs")


class Running:
    """A job that runs, as its own code sees it: where to read and write, and whom to tell."""

    def __init__(self, job: Job, content: dict[str, JsonValue]) -> None:
        self.job = job
        self.content = content
        self.stop = threading.Event()
        self.makes_room = False  # it is to stop, and to begin again later

    @property
    def folder(self) -> Path:
        """The job's own folder."""
        return self.job.folder

    def should_stop(self) -> bool:
        """Whether it was cancelled: to be asked at every step."""
        return self.stop.is_set()

    def progress(
        self, doing: str, done: int, total: int, seconds_left: float | None = None
    ) -> None:
        """Tell how far it is; cheap. The table gets it with the next beat."""
        self.job = replace(
            self.job, doing=doing, done=done, total=total, seconds_left=seconds_left
        )  # fmt: skip


@contextmanager
def running_here(
    kind: str, title: str, content: Mapping[str, object], stop: threading.Event
) -> Iterator[Running | None]:
    """A nice job that this very process runs at once, and not a worker when its turn comes.

    None if another process is at it. stop: is set when somebody cancels it; set by others, it ends
    as cancelled. JobError or OSError if there can be no job.
    """
    spec = job_queue.new_spec(kind, title, content, nice=True)
    own = ProcessId.own()

    def taken(table: Table, job: Job) -> Job:
        if job.state == "running":
            return job
        table.put(_at_work(table.queue(job), own))
        return _at_work(job, own)

    job_queue.tend()  # one whose process has died is at work no longer
    job = job_queue.placed(spec, taken)
    if job.worker != own:
        yield None
        return
    begin(job.folder, own)
    running = Running(job, spec.content)
    running.stop = stop
    state: State = "failed"
    try:
        with beating(own, running):
            yield running
        state = "cancelled" if stop.is_set() else "done"
    finally:
        message = "the command that ran it broke off" if state == "failed" else ""
        try:
            finish(own, running.job, state, message)
        except JobError as error:  # whoever looks will see that this process is gone
            _log.warning("%s", error)


def claim(own: ProcessId, identity: str | None = None, nice: bool = False) -> Job | None:
    """The job that this worker was started with, or else the next one that waits and fits.

    A job queued under other environment variables, or of another priority, is left to a worker of
    its own. None if there is none, or no slot for it.
    """

    def claimed(table: Table) -> Job | None:
        if identity is not None:
            job = table.find(identity)
            return job if job is not None and job.worker == own else None
        jobs = table.all()
        running = [job for job in jobs if job.state == "running"]
        waiting = [job for job in jobs if job.state == "queued"]
        for job in startable(running, waiting):
            if job.nice == nice and _is_ours(job):
                table.put(_at_work(job, own))
                return _at_work(job, own)
        return None

    return transact(claimed)


def _at_work(job: Job, own: ProcessId) -> Job:
    return replace(job, state="running", worker=own, beat=time.monotonic())


def _is_ours(job: Job) -> bool:
    spec = read_spec(job.folder)
    return spec is not None and all(
        os.environ.get(name) == value for name, value in spec.environment.items()
    )


def report(own: ProcessId, job: Job) -> Order:
    """Write down how far this worker is with a job; what it is to do."""

    def reported(table: Table) -> Order:
        now = table.find(job.id)
        if now is None or now.worker != own:
            return "stop"  # somebody ended it by force, and we are still here
        table.put(
            replace(
                now, doing=job.doing, done=job.done, total=job.total,
                seconds_left=job.seconds_left, beat=time.monotonic(),
            )
        )  # fmt: skip
        if now.cancel_asked is not None:
            return "stop"
        return "make room" if now.nice and makes_room(now, table.all()) else "go on"

    return transact(reported)


def finish(own: ProcessId, job: Job, state: State, message: str = "") -> None:
    """Write down how a job of this worker ended; queued: it has made room, and waits again.

    RsdtrError if the table cannot be written.
    """

    def finished(table: Table) -> None:
        now = table.find(job.id)
        if now is None or now.worker != own:
            return
        if state == "queued" and now.cancel_asked is None:
            for name in (OUTCOME, WORKER):
                (now.folder / name).unlink(missing_ok=True)
            table.queue(now)
            return
        ended: State = "cancelled" if state == "queued" else state
        job_queue.end(table, replace(now, done=job.done, total=job.total), ended, message)

    transact(finished)


@contextmanager
def beating(
    own: ProcessId, running: Running, told: threading.Event | None = None
) -> Iterator[None]:
    """While it lasts, a thread tells the table how far the job is, and the job if it is to stop.

    told: by a signal, to stop. Without it the job is this process's own, and makes room for nobody.
    """
    over = threading.Event()

    def beat() -> None:
        tended = time.monotonic()
        while not over.wait(BEAT_SECONDS):
            try:
                order = report(own, running.job)
                if order == "stop" or (told is not None and told.is_set()):
                    running.makes_room = False
                    running.stop.set()
                elif order == "make room" and told is not None:
                    running.makes_room = True
                    running.stop.set()
                if time.monotonic() - tended > TEND_SECONDS:
                    tended = time.monotonic()
                    job_queue.tend()
            except JobError as error:  # a full disk: the job itself will find out
                _log.warning("%s", error)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
