"""Long work as jobs: queued, watched, cancelled and resumed by every page and command alike.

A worker process runs one job after the other, and outlives whoever started it. There is no
manager: whoever looks at the table (`tend`) notices workers that died and starts what is waiting,
and the workers themselves look every few seconds. Time is counted on the monotonic clock: setting
the clock changes nothing but the dates that are shown.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import torch

from rsdtr.errors import JobError, UnknownName
from rsdtr.jobs.job import (
    LOG,
    OUTCOME,
    SPEC,
    WORKER,
    Job,
    JobSpec,
    Outcome,
    State,
    content_id,
    jobs_folder,
    read_outcome,
    read_spec,
    write_outcome,
)
from rsdtr.jobs.job_table import Table, transact
from rsdtr.system import processes
from rsdtr.system.processes import ROOT, ProcessId

GRACE_SECONDS = 10.0  # between a polite cancel and a forced one
KEPT = 200  # jobs that have ended, with their results; the oldest go first
_VARIABLES = ("RSDTR_DATA", "RSDTR_WEIGHTS")
_WAITING = "OMP_WAIT_POLICY"  # of threads
_DIED = "its process was killed, or the machine ran out of memory or was restarted"


def slots() -> int:
    """How many jobs run at once: $RSDTR_JOBS, else one for every two cores."""
    text = os.environ.get("RSDTR_JOBS")
    if text is None:
        return max((os.cpu_count() or 1) // 2, 1)
    if not text.isdecimal() or int(text) < 1:
        raise JobError(f"RSDTR_JOBS is {text!r}: give a whole number of at least 1")
    return int(text)


def submit(
    kind: str,
    title: str,
    content: Mapping[str, object],
    *,
    subject: str = "",
    timed: bool = False,
    prepare: Callable[[Path], None] = lambda _: None,
) -> Job:
    """Queue a job, and start it if there is room; the job of equal content if there is one.

    That one is taken as it is while it waits, runs, or is done, and else resumed. content: all that
    the result depends on, JSON-able. subject: whose it is and what it is about, empty for the
    command line; only jobs on the same subject are taken for equal. timed: it takes times, and its
    threads wait as they do in any other process. prepare: writes what the job needs into its
    folder. JobError if it cannot be written.
    """
    # Threads that wait spin by default, which on a busy machine takes most of the time away. Small
    # layers take half as long again without it, so that times are taken with it.
    waiting = os.environ.get(_WAITING, None if timed else "PASSIVE")
    temporary = jobs_folder() / f".{uuid4().hex}"
    try:
        spec = JobSpec(
            id=content_id(kind, content, subject),
            kind=kind,
            title=title,
            subject=subject,
            created=time.time(),
            threads=torch.get_num_threads(),
            environment={name: os.environ.get(name) for name in _VARIABLES} | {_WAITING: waiting},
            content=dict(content),  # type: ignore[arg-type]  # pydantic checks that it is JSON
        )
        known = transact(lambda table: table.find(spec.id))
        if known is not None and read_spec(known.folder) is not None:
            return _again(known)
        temporary.mkdir(mode=0o700)
        prepare(temporary)
        (temporary / SPEC).write_text(spec.model_dump_json(indent=1), encoding="utf-8")
        job = transact(lambda table: _placed(table, spec, temporary))
    except OSError as error:
        raise JobError(
            f"the job could not be written to {jobs_folder()} ({error.strerror or error}): make "
            "room on the disk"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    tend()
    return find(job.id)


def _again(known: Job) -> Job:
    incomplete = known.state == "done" and not known.result.is_dir()
    return resume(known.id) if known.state in ("failed", "cancelled") or incomplete else known


def _placed(table: Table, spec: JobSpec, folder: Path) -> Job:
    job = Job(spec.id, spec.kind, spec.title, spec.subject, "queued", spec.created, 0)
    fresh = read_spec(job.folder) is None  # else another process was quicker
    if fresh:
        shutil.rmtree(job.folder, ignore_errors=True)
        folder.rename(job.folder)
    ended = sorted((j for j in table.all() if j.ended), key=lambda j: j.place, reverse=True)
    for old in ended[KEPT:]:
        table.remove(old.id)
        shutil.rmtree(old.folder, ignore_errors=True)
    known = None if fresh else table.find(spec.id)
    return table.queue(job) if known is None else known


def listed() -> list[Job]:
    """All jobs, whoever queued them, in the order in which they were queued."""
    tend()
    return transact(lambda table: table.all())


def find(identity: str) -> Job:
    """The job whose id begins so; UnknownName if there is none, or several."""
    jobs = [job for job in listed() if identity and job.id.startswith(identity)]
    if len(jobs) == 1:
        return jobs[0]
    if jobs:
        raise UnknownName(f"{len(jobs)} jobs have an id that begins with {identity!r}: give more")
    raise UnknownName(f"no job has the id {identity!r}: `jobs list` shows those there are")


def ahead(job: Job) -> int:
    """How many jobs are in the queue before this one; 0 if it is not waiting."""
    if job.state != "queued":
        return 0
    return sum(other.state == "queued" and other.place < job.place for other in listed())


def resume(identity: str) -> Job:
    """Queue a job again that failed or was cancelled: it goes on from its last checkpoint.

    UnknownName as `find`; JobError for one that is done or still at it.
    """
    job = find(identity)
    lost = job.state == "done" and not job.result.is_dir()
    if job.state not in ("failed", "cancelled") and not lost:
        raise JobError(f"job {job.id} is {job.state}: resume one that failed or was cancelled")

    def again(table: Table) -> None:
        now = table.find(job.id)
        if now is not None and now.ended:
            for name in (OUTCOME, WORKER):
                (now.folder / name).unlink(missing_ok=True)
            table.queue(now)

    transact(again)
    return find(job.id)


def cancel(identity: str) -> Job:
    """Ask a job to end; its last checkpoint is kept. UnknownName as `find`.

    A waiting job ends at once. A running one is asked, and after GRACE_SECONDS whoever looks ends
    it by force, with its children. One that has ended stays as it is.
    """
    job = find(identity)

    def asked(table: Table) -> None:
        now = table.find(job.id)
        if now is None or now.ended:
            return
        if now.state == "queued":
            end(table, now, "cancelled", "cancelled before it began")
        elif now.cancel_asked is None:
            table.put(replace(now, cancel_asked=time.monotonic()))

    transact(asked)
    return find(job.id)


def end(table: Table, job: Job, state: State, message: str) -> None:
    """Write down, in the table and in the job's folder, how it ended."""
    try:
        write_outcome(job.folder, Outcome(state=state, message=message))
    except OSError as error:
        message = f"{message} ({error.strerror or error})"
    table.put(replace(job, state=state, message=message, worker=None, seconds_left=None))


def tend() -> None:
    """See to the workers: write down who died, end who was asked to and did not, start who waits.

    Cheap when there is nothing to do. JobError if the table cannot be used.
    """
    processes.reap()
    transact(_tended)


def _tended(table: Table) -> None:
    jobs = table.all()
    running = [job for job in jobs if job.state == "running" and _is_at_work(table, job)]
    waiting = [job for job in jobs if job.state == "queued"]
    for job in waiting[: max(slots() - len(running), 0)]:
        try:
            worker = processes.start(
                command(job), job.folder / LOG, _environment(job)
            )  # fmt: skip
        except OSError as error:
            end(table, job, "failed", f"it could not be started ({error.strerror or error})")
            continue
        table.put(replace(job, state="running", worker=worker, beat=time.monotonic()))


def _is_at_work(table: Table, job: Job) -> bool:
    if job.worker is not None and job.worker.alive:
        late = job.cancel_asked is not None and (
            time.monotonic() - job.cancel_asked > GRACE_SECONDS
        )
        if not late:
            return True
        job.worker.kill()
        end(table, job, "cancelled", "ended by force: it did not answer")
        return False
    told = read_outcome(job.folder)
    if told is not None:
        end(table, job, told.state, told.message)
    elif job.cancel_asked is not None:
        end(table, job, "cancelled", "")
    else:
        end(table, job, "failed", f"{_DIED}: resume it to go on from its last checkpoint")
    return False


def command(job: Job) -> list[str]:
    """What starts a worker with this job."""
    return [sys.executable, "-m", "rsdtr.jobs.job_worker", job.id]


def _environment(job: Job) -> dict[str, str | None]:
    """What the job was queued with: whoever starts it may have other data folders."""
    spec = read_spec(job.folder)
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)} | (spec.environment if spec else {})


def claim(own: ProcessId, identity: str | None = None) -> Job | None:
    """The job that this worker was started with, or else the next one that waits and fits.

    A job queued under other environment variables is left to a worker of its own.
    None if there is none, or no slot for it.
    """

    def claimed(table: Table) -> Job | None:
        if identity is not None:
            job = table.find(identity)
            return job if job is not None and job.worker == own else None
        jobs = table.all()
        if sum(job.state == "running" for job in jobs) >= slots():
            return None
        for job in jobs:
            if job.state == "queued" and _is_ours(job):
                job = replace(job, state="running", worker=own, beat=time.monotonic())
                table.put(job)
                return job
        return None

    return transact(claimed)


def _is_ours(job: Job) -> bool:
    spec = read_spec(job.folder)
    return spec is not None and all(
        os.environ.get(name) == value for name, value in spec.environment.items()
    )


def report(own: ProcessId, job: Job) -> bool:
    """Write down how far this worker is with a job; whether it should stop."""

    def reported(table: Table) -> bool:
        now = table.find(job.id)
        if now is None or now.worker != own:
            return True  # somebody ended it by force, and we are still here
        table.put(
            replace(
                now, doing=job.doing, done=job.done, total=job.total,
                seconds_left=job.seconds_left, beat=time.monotonic(),
            )
        )  # fmt: skip
        return now.cancel_asked is not None

    return transact(reported)


def finish(own: ProcessId, job: Job, state: State, message: str = "") -> None:
    """Write down how a job of this worker ended. RsdtrError if the table cannot be written."""

    def finished(table: Table) -> None:
        now = table.find(job.id)
        if now is not None and now.worker == own:
            end(table, replace(now, done=job.done, total=job.total), state, message)

    transact(finished)
