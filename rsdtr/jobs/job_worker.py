"""The process that runs jobs, one after the other: python -m rsdtr.jobs ID.

Whatever happens in a job ends as one sentence in the table; the details are in the job's log.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from rsdtr.errors import JobError, RsdtrError, first_line
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, State, begin, read_spec
from rsdtr.jobs.running import Running, beating, claim, finish
from rsdtr.system.processes import ProcessId

# What runs a job of each kind until its end (True) or until it is to stop (False): a function of
# a module, which is loaded only then.
KINDS = {
    "finetune": "rsdtr.jobs.kinds.finetune:run",
    "refit": "rsdtr.jobs.kinds.refit:run",
    "distill": "rsdtr.jobs.kinds.distillation:run",
    "study": "rsdtr.jobs.kinds.study:run",
    "compare": "rsdtr.jobs.kinds.comparison:run_job",
    "fastest": "rsdtr.jobs.kinds.fastest_rings:run",
    "export": "rsdtr.jobs.kinds.export:run",
    "autopilot": "rsdtr.jobs.kinds.autopilot:run",
    "grid_search": "rsdtr.jobs.kinds.grid_search:run",
    "tradeoff_curve": "rsdtr.jobs.kinds.tradeoff_curve:run",
    "layer_times": "rsdtr.jobs.kinds.layer_times:run",
    "onnx": "rsdtr.jobs.kinds.onnx_file:run",
}
_LIGHTER_TRAINING = "take a smaller batch size or a larger accumulate"
LIGHTER = {
    "finetune": _LIGHTER_TRAINING,
    "study": _LIGHTER_TRAINING,
    "refit": "take fewer images",
    "distill": "take a smaller batch size",
    "onnx": "take fewer inputs",
    "fastest": "take a smaller batch",
    "export": "export one format at a time",
    "autopilot": "take recalibration alone",
}
FULL = "the disk is full: make room, then resume it from its last checkpoint"
_log = logging.getLogger("rsdtr.jobs.job_worker")


def work(identity: str | None) -> None:
    """Run the job this process was started with, then others for as long as some wait."""
    own = ProcessId.own()
    told = threading.Event()  # by a signal, to end after this job
    with _signals(told):
        job = claim(own, identity)
        while job is not None:
            _run(own, job, told)
            job = None if told.is_set() else claim(own, nice=job.nice)
    with suppress(JobError):
        job_queue.tend()


def _run(own: ProcessId, job: Job, told: threading.Event) -> None:
    spec = read_spec(job.folder)
    state: State = "failed"
    if spec is None:
        finish(own, job, state, "its folder is damaged: queue it again")
        return
    running = Running(job, spec.content)
    try:
        begin(job.folder, own)
        torch.set_num_threads(spec.threads)
        with _log_into(job.log), beating(own, running, told):
            _log.info("%s: begun", job.title)
            try:
                finished, message = _function(job.kind)(running), ""
                state = "done" if finished else "queued" if running.makes_room else "cancelled"
                if told.is_set() and not finished:
                    state = "failed"
                    message = "its process was told to end: resume it from its last checkpoint"
            except BaseException as error:
                message = sentence(error, job.kind)
                _log.exception("%s", message)
            _log.info("%s: %s", job.title, state)
    except OSError as error:  # of the log, or of the folder
        message = sentence(error, job.kind)
    finish(own, running.job, state, message)


def sentence(error: BaseException, kind: str) -> str:
    """Why a job of a kind failed, in one sentence for whoever queued it."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    if any(_is_full(cause) for cause in causes):
        return FULL
    if any(_is_out_of_memory(cause) for cause in causes):
        lighter = f"{LIGHTER[kind]}, or " if kind in LIGHTER else ""
        return f"the memory did not suffice: {lighter}resume it when more memory is free"
    if isinstance(error, RsdtrError):
        return str(error.args[0]) if error.args else type(error).__name__
    first = first_line(error, "no message")
    return f"it broke off with {type(error).__name__}: {first}: its log has the details"


def _is_full(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The allocator of torch's CPU has no exception of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _function(kind: str) -> Callable[[Running], bool]:
    if kind not in KINDS:
        raise JobError(f"no job of kind {kind!r} is known here: it was queued by another version")
    module, _, name = KINDS[kind].partition(":")
    function: Callable[[Running], bool] = getattr(importlib.import_module(module), name)
    return function


@contextmanager
def _log_into(path: Path) -> Iterator[None]:
    """Everything this process and its libraries say goes to the end of this file."""
    with path.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    yield
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a full disk: what did not fit is lost, and only that
            stream.flush()


@contextmanager
def _signals(told: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the job politely."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: told.set()) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(identity: str) -> None:
    """A worker process from its beginning to its end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    work(identity)
