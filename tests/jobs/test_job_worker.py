"""Real worker processes: what they run, how they end, and what a kill or a full disk leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from rsdtr.commands.cli import cli
from rsdtr.errors import RsdtrError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import RESERVE_BYTES, Job, jobs_folder
from rsdtr.jobs.job_queue import find, listed, resume, submit
from rsdtr.jobs.job_worker import FULL, sentence
from rsdtr.system import processes
from tests.support import job_kinds
from tests.support.checkout import ROOT
from tests.support.waiting import ended, until

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]


@pytest.fixture(autouse=True)
def cache(own_jobs, monkeypatch) -> Path:
    """A table of its own, one slot, and workers with the kinds of `job_kinds`."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(job_queue, "command", job_kinds.command)
    return own_jobs


def count(steps: int, seconds: float = 0.0, **more: object) -> Job:
    return submit("count", f"count to {steps}", {"steps": steps, "seconds": seconds, **more})


def counted(job: Job) -> int:
    path = job.folder / "state"
    return int(path.read_text()) if path.exists() else 0


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["jobs", *words], prog_name="python -m rsdtr")


def test_fifty_jobs_queued_at_once(monkeypatch):
    monkeypatch.setenv("RSDTR_JOBS", "2")
    # The last two take a second, so that it shows that they run side by side.
    found = [count(1, float(which >= 48), which=which) for which in range(50)]
    workers, most = set(), 0
    while not all(job.ended for job in listed()):
        now = listed()
        running = [job for job in now if job.state == "running"]
        workers |= {job.worker for job in running}
        most = max(most, len(running))
        time.sleep(0.1)
    now = listed()
    assert [job.id for job in now] == [job.id for job in found]
    assert {job.state for job in now} == {"done"}
    assert all(job.result.is_dir() for job in now)
    assert most == 2
    assert len(workers) < 10  # a worker goes on with the next job
    until(lambda: processes.started() == [])
    assert not [child for child in psutil.Process().children(recursive=True)
                if child.status() == psutil.STATUS_ZOMBIE]  # fmt: skip


def test_killed_in_the_middle_and_resumed_from_its_checkpoint():
    job = count(40, 0.05)
    until(lambda: counted(job) >= 5)
    os.kill(find(job.id).worker.pid, signal.SIGKILL)
    failed = ended(job)
    assert failed.state == "failed"
    assert failed.message.endswith("resume it to go on from its last checkpoint")
    reached = counted(job)
    assert 5 <= reached < 40
    assert resume(job.id).state == "running"
    assert ended(job).state == "done"
    assert job.log.read_text().count(f"from {reached}\n") == 1
    assert not (job.folder / "reserve").exists()


def test_cancelled_politely_watched_and_resumed_on_the_command_line():
    job = count(40, 0.05)
    until(lambda: find(job.id).done >= 3)
    rows = json.loads(run("list", "--json").stdout)
    assert (rows["slots"], len(rows["jobs"])) == (1, 1)
    row = json.loads(run("show", job.id[:6], "--json").stdout)
    assert list(row) == [
        "id", "kind", "title", "state", "ahead", "doing", "done", "total", "seconds_left",
        "message", "pid", "folder", "result", "exclusive", "nice",
    ]  # fmt: skip
    assert (row["state"], row["doing"], row["total"]) == ("running", "counting, steps", 40)
    assert row["pid"] == find(job.id).worker.pid
    text = run("list").stdout.splitlines()
    assert text[0].split() == ["id", "kind", "state", "progress", "what"]
    assert "counting, steps" in text[1]
    said = run("cancel", job.id)
    assert (said.exit_code, said.stdout) == (0, f"{job.id}: cancelled\n")
    reached = counted(job)
    assert 3 <= reached < 40
    assert "cancelled: " in run("show", job.id).stdout
    assert run("resume", job.id).stdout.startswith(f"{job.id}: ")
    done = ended(job)
    assert f"result: {done.result}" in run("show", job.id).stdout
    assert "from 0\n" in run("logs", job.id).stdout
    assert f"from {reached}\n" in run("logs", job.id).stdout
    refused = run("resume", job.id)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"Error: job {job.id} is done: resume one that failed" in refused.stderr


def test_who_does_not_listen_is_ended_by_force_with_its_children(monkeypatch):
    job = submit("deaf", "deaf", {})
    until((job.folder / "child").exists)
    child = psutil.Process(int((job.folder / "child").read_text()))
    monkeypatch.setattr(job_queue, "GRACE_SECONDS", 0.5)
    assert run("cancel", job.id).stdout == (
        f"{job.id}: cancelled, ended by force: it did not answer\n"
    )
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_every_failure_is_one_sentence_and_the_next_job_runs():
    ways = ("full", "memory", "allocator", "request", "bug")
    found = [submit("fail", how, {"how": how}) for how in ways]
    found += [submit("dance", "unknown", {})]
    last = count(1)
    assert ended(last).state == "done"
    messages = [find(job.id).message for job in found]
    assert {find(job.id).state for job in found} == {"failed"}
    assert messages[0] == FULL
    assert messages[1] == messages[2]
    assert messages[1] == "the memory did not suffice: resume it when more memory is free"
    assert messages[3] == "the loss became nan at step 3 of 9: give a learning rate below 1"
    assert messages[4] == "it broke off with ValueError: seven: its log has the details"
    assert messages[5].startswith("no job of kind 'dance' is known here")
    assert "ValueError: seven\nis not eight" in found[4].log.read_text()
    assert sum(job.log.read_text().count(": begun") for job in (*found, last)) == 7


def test_the_cause_of_an_error_counts():
    error = RsdtrError("the checkpoint could not be written")
    error.__cause__ = OSError(28, "No space left on device")
    assert sentence(error, "finetune") == FULL
    assert sentence(RsdtrError("the checkpoint could not be written"), "finetune") != FULL


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("finetune", "take a smaller batch size or a larger accumulate, or"),
        ("refit", "take fewer images, or"),
    ],
)
def test_what_to_do_without_memory_is_said_of_the_kind_of_job(kind: str, advice: str) -> None:
    assert sentence(MemoryError(), kind) == (
        f"the memory did not suffice: {advice} resume it when more memory is free"
    )


def test_a_job_whose_folder_was_damaged():
    first, second = count(20, 0.05), count(2)
    (second.folder / "job.json").write_text("{")
    assert ended(first).state == "done"
    assert ended(second).message == "its folder is damaged: queue it again"
    assert ended(count(2)).state == "done"  # the same content, in a new folder


def test_told_to_end_by_a_signal():
    job = count(400, 0.05)
    until(lambda: counted(job) >= 2)
    os.kill(find(job.id).worker.pid, signal.SIGTERM)
    assert ended(job).message == "its process was told to end: resume it from its last checkpoint"


def test_a_killed_server_leaves_its_jobs_running():
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.job_kinds", "submit", "0", "3"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline() == "queued\n"
    server.kill()
    server.communicate()
    until(lambda: [job.state for job in listed()] == ["done"] * 3, 60)


def test_the_table_made_anew_while_a_worker_runs():
    job = count(40, 0.05)
    until(lambda: counted(job) >= 2)
    worker = find(job.id).worker
    for path in jobs_folder().glob("jobs.db*"):
        path.write_bytes(b"nonsense" * 1000)
    assert find(job.id).worker == worker
    assert ended(job).state == "done"
    assert job.log.read_text().count("from ") == 1


@pytest.fixture
def small_disk(tmp_path, monkeypatch) -> Iterator[Path]:
    """A disk of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if mount is None or os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("no small disk can be mounted here: it takes root and tmpfs")
    monkeypatch.setenv("RSDTR_CACHE", str(place / "cache"))
    yield place
    job_kinds.stop_all()
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_ends_the_job_and_keeps_its_last_checkpoint(small_disk):
    job = submit("hog", "hog", {})
    failed = ended(job)
    assert (failed.state, failed.message) == ("failed", FULL)
    numbers = json.loads((job.folder / "state").read_text())
    assert len(numbers) == 20_000 * numbers[0]  # whole
    assert not list(job.folder.glob(".writing-*"))
    assert shutil.disk_usage(small_disk).free < 4e6 - len(json.dumps(numbers)) + RESERVE_BYTES
    assert find(job.id).state == "failed"
