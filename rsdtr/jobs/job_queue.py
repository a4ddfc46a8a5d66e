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
from rsdtr.jobs.turns import startable
from rsdtr.system import processes
from rsdtr.system.app_folder import INSTALLED
from rsdtr.system.processes import ROOT

GRACE_SECONDS = 10.0  # between a polite cancel and a forced one
KEPT = 200  # jobs that have ended, with their results; the oldest go first
NICE = 10  # it steps back behind the page that is waiting for its user
IMPORTS = ("rsdtr.jobs.job_worker", "rsdtr.jobs.kinds")  # of a worker
_VARIABLES = ("RSDTR_DATA", "RSDTR_WEIGHTS")
_DIED = "its process was killed, or the machine ran out of memory or was restarted"


def submit(
    kind: str,
    title: str,
    content: Mapping[str, object],
    *,
    subject: str = "",
    exclusive: bool = False,
    nice: bool = False,
    prepare: Callable[[Path], None] = lambda _: None,
) -> Job:
    """Queue a job, and start it if there is room; the job of equal content if there is one.

    That one is taken as it is while it waits, runs, or is done, and else resumed. content: all that
    the result depends on, JSON-able. subject: whose it is and what it is about, empty for the
    command line; only jobs on the same subject are taken for equal. exclusive: it takes times, so
    that nothing else runs meanwhile, and its threads wait as they do in any other process. nice: of
    low priority, beside the slots of the others; it can be stopped at any instant, for it makes
    room for exclusive ones. prepare: writes what the job needs into its folder. JobError if it
    cannot be written.
    """
    spec = new_spec(kind, title, content, subject=subject, exclusive=exclusive, nice=nice)
    known = transact(lambda table: table.find(spec.id))
    if known is not None and read_spec(known.folder) is not None:
        return _again(known)
    job = placed(spec, lambda table, job: job, prepare)
    tend()
    return find(job.id)


def new_spec(
    kind: str,
    title: str,
    content: Mapping[str, object],
    *,
    subject: str = "",
    exclusive: bool = False,
    nice: bool = False,
) -> JobSpec:
    """What a job is made of, as `submit` has it, here and now. JobError if it cannot be written."""
    environment = {name: os.environ.get(name) for name in (*_VARIABLES, processes.WAITING)}
    environment |= {} if exclusive else processes.quiet()
    try:
        identity = content_id(kind, content, subject)
    except OSError as error:
        raise _unwritten(error) from error
    return JobSpec(
        id=identity,
        kind=kind,
        title=title,
        subject=subject,
        created=time.time(),
        threads=torch.get_num_threads(),
        environment=environment,
        content=dict(content),  # type: ignore[arg-type]  # pydantic checks that it is JSON
        exclusive=exclusive,
        nice=nice,
    )


def placed(
    spec: JobSpec,
    then: Callable[[Table, Job], Job],
    prepare: Callable[[Path], None] = lambda _: None,
) -> Job:
    """Give a job its folder and its row; then: what is to happen with that, in one transaction.

    JobError if it cannot be written.
    """
    temporary = jobs_folder() / f".{uuid4().hex}"
    try:
        temporary.mkdir(mode=0o700)
        prepare(temporary)
        (temporary / SPEC).write_text(spec.model_dump_json(indent=1), encoding="utf-8")
        return transact(lambda table: then(table, _placed(table, spec, temporary)))
    except OSError as error:
        raise _unwritten(error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritten(error: OSError) -> JobError:
    return JobError(
        f"the job could not be written to {jobs_folder()} ({error.strerror or error}): make "
        "room on the disk"
    )


def _again(known: Job) -> Job:
    incomplete = known.state == "done" and not known.result.is_dir()
    return resume(known.id) if known.state in ("failed", "cancelled") or incomplete else known


def _placed(table: Table, spec: JobSpec, folder: Path) -> Job:
    job = Job(
        spec.id, spec.kind, spec.title, spec.subject, "queued", spec.created, 0,
        exclusive=spec.exclusive, nice=spec.nice,
    )  # fmt: skip
    fresh = read_spec(job.folder) is None  # else another process was quicker
    if fresh:
        shutil.rmtree(job.folder, ignore_errors=True)
        folder.rename(job.folder)
    ended = sorted((j for j in table.all() if j.ended), key=lambda j: j.place, reverse=True)
    # Those of background work, of which there are many, push no others out.
    background = [j for j in ended if j.exclusive or j.nice]
    others = [j for j in ended if not (j.exclusive or j.nice)]
    for old in (*background[KEPT:], *others[KEPT:]):
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
    while (job := next(startable(running, waiting), None)) is not None:
        waiting.remove(job)
        try:
            worker = processes.start(
                command(job), job.folder / LOG, _environment(job), NICE if job.nice else 0,
                imports=IMPORTS,
            )  # fmt: skip
        except OSError as error:
            end(table, job, "failed", f"it could not be started ({error.strerror or error})")
            continue
        running.append(replace(job, state="running", worker=worker, beat=time.monotonic()))
        table.put(running[-1])


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
    return [sys.executable, "-m", "rsdtr.jobs", job.id]


def quicken(job: Job) -> None:
    """Let such jobs as this process starts from now on begin at once, where that is possible.

    For a process that lives on: a server of forks then imports what they all need.
    """
    processes.prepare(IMPORTS, _environment(job))


def _environment(job: Job) -> dict[str, str | None]:
    """What the job was queued with: whoever starts it may have other data folders."""
    spec = read_spec(job.folder)
    return _python_path() | (spec.environment if spec else {})


def _python_path() -> dict[str, str | None]:
    path = [*([] if INSTALLED else [str(ROOT)]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)}
