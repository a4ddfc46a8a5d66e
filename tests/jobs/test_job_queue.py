"""The table of jobs: queue, slots, sharing, damage, and workers that are nobody's."""

import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from rsdtr.errors import JobError, UnknownName
from rsdtr.jobs import job_queue, job_table, turns
from rsdtr.jobs.job import (
    Job,
    Outcome,
    begin,
    content_id,
    jobs_folder,
    read_outcome,
    write_outcome,
)
from rsdtr.jobs.job_queue import (
    ahead,
    cancel,
    find,
    listed,
    resume,
    submit,
    tend,
)
from rsdtr.jobs.job_table import transact
from rsdtr.jobs.running import claim
from rsdtr.system import processes
from rsdtr.system.processes import ProcessId
from tests.support.checkout import ROOT
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A table of its own, two slots, and workers that only sleep."""
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RSDTR_JOBS", "2")
    monkeypatch.setattr(job_queue, "command", lambda _: ["sleep", "100"])
    yield tmp_path / "cache"
    for child in processes.started():
        child.kill()


def queued(number: int, **content: object) -> list[Job]:
    return [submit("count", f"job {k}", {"which": k, **content}) for k in range(number)]


def states() -> list[str]:
    return [job.state for job in listed()]


def zombies() -> list[int]:
    return [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.status() == psutil.STATUS_ZOMBIE
    ]


def test_as_many_run_as_there_are_slots_and_the_others_know_their_place():
    queued(5)
    found = listed()
    assert [job.state for job in found] == ["running", "running", "queued", "queued", "queued"]
    assert [ahead(job) for job in found] == [0, 0, 0, 1, 2]
    assert len({job.worker.pid for job in found[:2]}) == 2
    assert all(job.worker.alive for job in found[:2])


def test_equal_content_is_one_job():
    first, second = queued(2)
    assert queued(2, other=1)[0].id not in (first.id, second.id)
    assert submit("count", "another title", {"which": 0}).id == first.id
    assert submit("other kind", "job 0", {"which": 0}).id != first.id
    assert len(listed()) == 5
    assert find(first.id).worker == first.worker


def test_a_job_that_failed_is_resumed_by_queueing_it_again():
    (job,) = queued(1)
    job.worker.kill()
    assert find(job.id).state == "failed"
    assert queued(1)[0].state == "running"


def test_only_jobs_on_one_subject_are_taken_for_equal():
    first = submit("count", "a", {"which": 0}, subject="x")
    assert submit("count", "b", {"which": 0}, subject="y").id != first.id
    assert submit("count", "c", {"which": 0}, subject="x").id == first.id


def test_an_id_cannot_be_told_from_the_content(tmp_path, monkeypatch, cache):
    """Elsewhere the same content has another id: it depends on a secret, which is kept."""
    first = content_id("count", {"which": 0}, "")
    assert first == content_id("count", {"which": 0}, "")
    secret = cache / "jobs" / "secret"
    assert (len(secret.read_bytes()), secret.stat().st_mode & 0o777) == (32, 0o600)
    assert [path.name for path in (cache / "jobs").iterdir()] == ["secret"]
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "other"))
    assert content_id("count", {"which": 0}, "") != first


def test_a_worker_that_was_killed_is_noticed_and_the_next_job_starts():
    found = queued(3)
    os.kill(found[0].worker.pid, 9)
    until(lambda: states() == ["failed", "running", "running"])
    message = find(found[0].id).message
    assert message.startswith("its process was killed, or the machine ran out of memory")
    assert zombies() == []
    again = resume(found[0].id)
    assert (again.state, ahead(again)) == ("queued", 0)
    assert [job.id for job in listed()][-1] == again.id  # at the end of the queue


def test_a_pid_that_was_given_away_again_is_left_alone():
    """The table says that this very process, which began at another time, works on the job."""
    (job,) = queued(1)
    job.worker.kill()
    stranger = ProcessId(os.getpid(), "another time")
    transact(lambda table: table.put(replace(table.find(job.id), worker=stranger, cancel_asked=0)))
    assert find(job.id).state == "cancelled"


def test_cancelling():
    running, _, waiting = queued(3)
    assert cancel(waiting.id).state == "cancelled"
    assert find(waiting.id).message == "cancelled before it began"
    assert cancel(running.id).state == "running"  # it has time to answer
    assert find(running.id).cancel_asked is not None
    assert cancel(waiting.id).message == "cancelled before it began"


def test_who_does_not_answer_is_ended_by_force_with_its_children(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: ["sh", "-c", "sleep 100 & wait"])
    (job,) = queued(1)
    until(lambda: psutil.Process(job.worker.pid).children())
    family = [psutil.Process(job.worker.pid), *psutil.Process(job.worker.pid).children()]
    monkeypatch.setattr(job_queue, "GRACE_SECONDS", 0.0)
    cancel(job.id)
    until(lambda: find(job.id).state == "cancelled")
    assert find(job.id).message == "ended by force: it did not answer"
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    assert zombies() == []


def test_the_outcome_that_a_worker_could_still_write_is_what_counts():
    (job,) = queued(1)
    write_outcome(job.folder, Outcome(state="failed", message="the disk is full"))
    job.worker.kill()
    assert (find(job.id).state, find(job.id).message) == ("failed", "the disk is full")


def test_a_worker_that_cannot_be_started(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: ["/no/such/program"])
    (job,) = queued(1)
    assert job.state == "failed"
    assert job.message == "it could not be started (No such file or directory)"


def test_what_cannot_be_asked_for(monkeypatch):
    first, _ = queued(2)
    with pytest.raises(UnknownName, match="no job has the id 'zz'"):
        find("zz")
    with pytest.raises(UnknownName, match="no job has the id ''"):
        find("")
    with pytest.raises(JobError, match=f"job {first.id} is running: resume one that failed or"):
        resume(first.id)
    assert find(first.id[:8]).id == first.id
    same = [submit("count", "x", {"n": n}) for n in range(40)]
    letter = next(j.id[0] for j in same if sum(o.id[0] == j.id[0] for o in same) > 1)
    with pytest.raises(UnknownName, match=f"jobs have an id that begins with '{letter}': give mor"):
        find(letter)
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("RSDTR_JOBS", wrong)
        with pytest.raises(JobError, match=f"RSDTR_JOBS is '{wrong}': give a whole number"):
            listed()


def test_slots_follow_the_machine(monkeypatch):
    monkeypatch.delenv("RSDTR_JOBS")
    for cores, expected in ((None, 1), (1, 1), (2, 1), (8, 4)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert turns.slots() == expected


def test_a_job_that_cannot_be_written_is_no_job(monkeypatch):
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(JobError, match=r"job could not be written to .* \(No space left on device"):
        submit("count", "x", {}, prepare=full)
    assert listed() == []
    assert [path.name for path in jobs_folder().iterdir() if path.is_dir()] == []


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "file"))
    with pytest.raises(JobError, match=r"the job table in .* cannot be used"):
        listed()


def test_only_the_owner_may_look():
    queued(1)
    assert jobs_folder().stat().st_mode & 0o777 == 0o700


def test_the_oldest_of_many_ended_jobs_go_with_their_folders(monkeypatch):
    monkeypatch.setattr(job_queue, "KEPT", 2)
    found = queued(6)
    for job in found[2:]:
        cancel(job.id)
    late = submit("count", "late", {"late": 1})
    assert [job.id for job in listed()] == [job.id for job in (*found[:2], *found[4:], late)]
    folders = {path.name for path in jobs_folder().iterdir() if path.is_dir()}
    assert folders == {job.id for job in listed()}


def test_searches_and_measurements_push_no_results_out(monkeypatch):
    monkeypatch.setattr(job_queue, "KEPT", 2)
    result = submit("count", "a result", {"which": 0})
    result.worker.kill()
    background = [submit("times", "x", {"which": k}, exclusive=True) for k in range(2)]
    background += [submit("search", "x", {"which": k}, nice=True) for k in range(2)]
    for job in background:
        find(job.id)
        if find(job.id).worker is not None:
            find(job.id).worker.kill()
        cancel(job.id)
    last = submit("count", "last", {"which": 1})
    assert [job.id for job in listed()] == [result.id, *(j.id for j in background[2:]), last.id]


# --- turns ---


def job(letters: str, number: int) -> Job:
    """Of a letter: o(rdinary), e(xclusive) or n(ice)."""
    return Job(
        str(number), "x", "", "", "queued", 0.0, number,
        exclusive=letters == "e", nice=letters == "n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("running", "waiting", "expected"),
    [
        ("", "ooo", [0, 1, 2]),  # each of them may be the next one
        ("o", "on", [0, 1]),
        ("oo", "on", [1]),
        ("nn", "on", [0]),
        ("", "e", [0]),
        ("n", "e", []),
        ("o", "e", []),
        ("e", "oen", []),
        ("", "eon", [0]),
        ("", "oen", [0]),
        ("", "ne", [1]),
        ("o", "eno", [1]),  # what it waits for has no end yet: the nice one is not held up
        ("n", "eno", []),
        ("on", "enn", [1, 2]),
        ("onn", "enn", []),
    ],
)
def test_whose_turn_it_is(running, waiting, expected):
    """By two slots. Nice jobs have slots of their own; an exclusive one runs alone, in its turn."""
    at_work = [job(letter, 100 + number) for number, letter in enumerate(running)]
    queue = [job(letter, number) for number, letter in enumerate(waiting)]
    assert [int(found.id) for found in turns.startable(at_work, queue)] == expected


@pytest.mark.parametrize(
    ("running", "waiting", "expected"),
    [("n", "e", True), ("nn", "oe", True), ("n", "o", False), ("on", "e", False), ("n", "", False)],
)
def test_who_makes_room(running, waiting, expected):
    at_work = [
        replace(job(letter, 100 + number), state="running") for number, letter in enumerate(running)
    ]
    queue = [job(letter, number) for number, letter in enumerate(waiting)]
    assert turns.makes_room(at_work[-1], [*at_work, *queue]) is expected
    assert not turns.makes_room(replace(at_work[-1], nice=False), [*at_work, *queue])


def test_nice_ones_have_slots_of_their_own():
    """Each search takes every core: five networks opened at once were ten processes."""
    searches = [submit("search", "x", {"which": k}, nice=True) for k in range(3)]
    ordinary = queued(3)
    found = [find(job.id).state for job in (*searches, *ordinary)]
    assert found == ["running", "running", "queued"] * 2
    nice = {psutil.Process(find(job.id).worker.pid).nice() for job in searches[:2]}
    assert nice == {psutil.Process().nice() + job_queue.NICE} or nice == {job_queue.NICE}
    find(searches[0].id).worker.kill()
    assert [find(job.id).state for job in (*searches, *ordinary)] == [
        "failed", "running", "running", "running", "running", "queued",
    ]  # fmt: skip


def test_a_worker_takes_over_only_jobs_of_its_own_priority(monkeypatch):
    """What is nice once can never be less so."""
    for name, text in processes.quiet().items():
        monkeypatch.setenv(name, text)
    searches = [submit("search", "x", {"which": k}, nice=True) for k in range(3)]
    ordinary = queued(3)

    def ended(table: job_table.Table) -> None:
        for job in (searches[0], ordinary[0]):
            job_queue.end(table, job, "done", "")

    transact(ended)
    own = ProcessId.own()
    assert claim(own, nice=True).id == searches[2].id
    assert claim(own, nice=True) is None
    assert claim(own, nice=False).id == ordinary[2].id
    transact(lambda table: [table.remove(job.id) for job in (searches[2], ordinary[2])])


# --- damage ---


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database " * 400)


def _halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200:] = os.urandom(len(content) - 200)
    path.write_bytes(content)


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE jobs (other TEXT)")
        other.execute("PRAGMA user_version = 1")
    other.close()


def _checkpointed(path: Path) -> None:
    """All of the table in its one file, so that damaging this one damages it all."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize("damage", [_garbage, _halved, _middle, _emptied, _foreign, Path.unlink])
def test_a_damaged_table_is_made_anew_and_no_job_is_lost(damage):
    found = queued(5)
    for job in found[:2]:
        begin(job.folder, job.worker)  # as their workers would
    cancel(found[4].id)
    table = jobs_folder() / "jobs.db"
    _checkpointed(table)
    for name in ("jobs.db-wal", "jobs.db-shm"):
        (jobs_folder() / name).unlink(missing_ok=True)
    damage(table)
    again = {job.id: job for job in listed()}
    assert {job.id: job.title for job in found} == {job.id: job.title for job in again.values()}
    assert [again[job.id].state for job in found] == [
        "running", "running", "queued", "queued", "cancelled",
    ]  # fmt: skip
    assert [again[job.id].worker for job in found[:2]] == [job.worker for job in found[:2]]
    assert read_outcome(found[4].folder).state == "cancelled"


def test_a_folder_that_is_no_job_is_left_alone():
    queued(1)
    (jobs_folder() / "something").mkdir()
    (jobs_folder() / "0123456789abcdef").mkdir()
    (jobs_folder() / "0123456789abcdef" / "job.json").write_text("{")
    assert len(listed()) == 1


def test_errors_that_are_not_the_files_are_told(monkeypatch):
    def busy(_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    queued(1)
    with pytest.raises(JobError, match=r"cannot be used \(database or disk is full\): see that"):
        transact(busy)
    assert not list(jobs_folder().glob("damaged-*"))
    monkeypatch.setattr(job_table, "BUSY_SECONDS", 0.05)
    with sqlite3.connect(jobs_folder() / "jobs.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JobError, match=r"cannot be used \(database is locked\)"):
            listed()
        other.execute("ROLLBACK")
    other.close()
    assert len(listed()) == 1


# --- the clock, and others ---


def test_setting_the_clock_ends_nobody(monkeypatch):
    found = queued(3)
    real = time.time
    for step in (-86_400.0, 86_400.0):
        monkeypatch.setattr(time, "time", lambda step=step: real() + step)
        submit("count", "later", {"step": step})
        assert [job.state for job in listed()][:3] == ["running", "running", "queued"]
        assert [job.silent_seconds for job in listed()][:2] == [0.0, 0.0]
    assert [job.title for job in listed()][2:] == ["job 2", "later", "later"]
    assert find(found[0].id).worker == found[0].worker


def test_a_worker_that_says_nothing_is_told(monkeypatch):
    (job,) = queued(1)
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 60.0)
    assert 59 < find(job.id).silent_seconds < 70


SERVER = """
import sys
from rsdtr.jobs import job_queue
from rsdtr.system import processes
job_queue.command = lambda _: ["sleep", "100"]
most = 0
for which in range(int(sys.argv[1]), int(sys.argv[1]) + 20):
    job_queue.submit("count", f"job {which}", {"which": which})
    most = max(most, sum(job.state == "running" for job in job_queue.listed()))
print(most, len(processes._started))
for child in processes._started:
    child.kill()
    child.wait()
"""


def test_two_servers_on_one_table_start_every_job_once():
    """Each queues 20, and 10 of them are the same as the other's."""
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", SERVER, first],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in ("0", "10")
    ]
    said = [server.communicate(timeout=120)[0].split() for server in servers]
    assert [server.returncode for server in servers] == [0, 0]
    assert max(int(most) for most, _ in said) == 2
    tend()
    titles = [job.title for job in transact(lambda table: table.all())]
    assert sorted(titles) == sorted(f"job {which}" for which in range(30))
