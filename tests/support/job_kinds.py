"""A worker process with kinds of jobs that are quick, slow, deaf, or fail.

    python -m tests.support.job_kinds ID

Called with `submit FIRST COUNT` it is a server instead: it queues so many jobs, says so, and waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from rsdtr.errors import RsdtrError
from rsdtr.jobs import job_queue, job_worker
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds import distillation as distill_job
from rsdtr.jobs.kinds import refit as refit_job
from rsdtr.jobs.running import Running
from rsdtr.measuring import layer_times
from rsdtr.measuring.layer_times import LayerCase, LayerTimes
from rsdtr.recovery import checkpoint
from rsdtr.system import processes
from rsdtr.system.atomic_files import replace_file
from tests.support.made_up import times_by_rank


def stop_all() -> None:
    """End every job and every process that a test has started."""
    for job in job_queue.listed():
        if job.worker is not None:
            job.worker.kill()
    for child in processes.started():
        child.kill()


def command(job: Job) -> list[str]:
    """What starts a worker of these kinds, in place of `job_queue.command`."""
    job_queue.quicken(job)
    return [sys.executable, "-m", "tests.support.job_kinds", job.id]


def count(running: Running) -> bool:
    """Counts to `steps`, each of `seconds`, and goes on from where it was."""
    state = running.folder / "state"
    first = int(state.read_text()) if state.exists() else 0
    sys.stdout.write(f"from {first}\n")
    total, seconds = int(running.content["steps"]), float(running.content["seconds"])
    for step in range(first, total):
        if running.should_stop():
            return False
        time.sleep(seconds)
        replace_file(state, str(step + 1).encode())
        running.progress("counting, steps", step + 1, total)
    running.job.result.mkdir(exist_ok=True)
    return True


def deaf(running: Running) -> bool:
    """Has a child, and never asks whether it should stop."""
    child = subprocess.Popen(["sleep", "100"])
    replace_file(running.folder / "child", str(child.pid).encode())
    running.progress("sleeping", 0, 0)
    time.sleep(100)
    return True


def fail(running: Running) -> bool:
    """Raises what it was told to."""
    raise {
        "full": OSError(28, "No space left on device"),
        "memory": MemoryError(),
        "allocator": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
        "request": RsdtrError("the loss became nan at step 3 of 9: give a learning rate below 1"),
        "bug": ValueError("seven\nis not eight"),
    }[str(running.content["how"])]


def hog(running: Running) -> bool:
    """Replaces a checkpoint by a larger one, until the disk is full."""
    for size in range(1, 1000):
        replace_file(running.folder / "state", json.dumps([size] * 20_000 * size).encode())
        running.progress("filling", size, 1000)
    return True


def _stall_in_checkpoint(module: ModuleType, number: int) -> None:
    """Let the writing of checkpoint `number` stop half way: somebody will kill the process."""
    written = 0

    def stalling(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written < number:
            replace_file(path, content)
            return
        with (path.parent / ".writing-half").open("wb") as file:
            file.write(content[: len(content) // 2])
        time.sleep(100)

    module.replace_file = stalling


def _slow_refit(seconds: float) -> None:
    """Let a refit wait after every layer."""
    write = refit_job._report

    def waiting(*report: object) -> None:
        write(*report)
        time.sleep(seconds)

    refit_job._report = waiting


def _made_up_times(seconds: float) -> None:
    """Let every layer take the same seconds to measure; the log tells of each, and how it waits."""

    def measure(cases: Iterable[LayerCase]) -> Iterator[LayerTimes]:
        for case in cases:
            time.sleep(seconds)
            sys.stdout.write(f"measured, {os.environ.get('OMP_WAIT_POLICY')}: {case}\n")
            yield times_by_rank(case)

    layer_times.measure = measure


def _serve(first: int, number: int) -> None:
    for which in range(first, first + number):
        job_queue.submit("count", f"job {which}", {"steps": 1, "seconds": 0.0, "which": which})
    sys.stdout.write("queued\n")
    sys.stdout.flush()
    time.sleep(100)


if __name__ == "__main__":
    job_queue.command = command
    for function in (count, deaf, fail, hog):
        job_worker.KINDS[function.__name__] = f"__main__:{function.__name__}"
    if sys.argv[1] == "submit":
        _serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        if stall := os.environ.get("STALL_IN_CHECKPOINT"):
            _stall_in_checkpoint(checkpoint, int(stall))
        if stall := os.environ.get("STALL_IN_REFIT"):  # it writes its steps after each checkpoint
            _stall_in_checkpoint(refit_job, 2 * int(stall) - 1)
        if stall := os.environ.get("STALL_IN_DISTILLATION"):
            distill_job.CHECKPOINT_SECONDS = 0.0
            _stall_in_checkpoint(distill_job, int(stall))
        if seconds := os.environ.get("SLOW_REFIT"):
            _slow_refit(float(seconds))
        if seconds := os.environ.get("MADE_UP_TIMES"):
            _made_up_times(float(seconds))
        job_worker.main(sys.argv[1])
