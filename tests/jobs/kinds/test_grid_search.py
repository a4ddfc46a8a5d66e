"""Searching ahead: what is stored, how it is watched and stopped, and what a kill leaves."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from rsdtr.commands.cli import cli
from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.job_queue import cancel, find, listed, submit
from rsdtr.jobs.kinds import grid_search
from rsdtr.jobs.kinds.grid_search import queue_search, search_job
from rsdtr.jobs.running import Running
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import PUBLISHED, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning import winners_on_disk
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.winners_on_disk import fill_store, load_winners
from rsdtr.search.candidate import GRID, OBJECTIVES, RULES, Question
from rsdtr.system import processes
from tests.support import job_kinds
from tests.support.networks import varied, varied_spec
from tests.support.waiting import ended, until

NAME = "digits_resnet20"
LAYER = "layer1.0.conv1"
SYNTHETIC = WeightsSource(synthetic=True)
PER_LAYER = len(GRID) * len(RULES) * len(OBJECTIVES)
posix = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")


@pytest.fixture(autouse=True)
def cache(own_jobs, monkeypatch) -> Path:
    """A table of its own, and workers that know `count` as well."""
    monkeypatch.setattr(job_queue, "command", job_kinds.command)
    return own_jobs


def fresh() -> ModelProfile:
    return profile(varied(), varied_spec())


def digits() -> ModelProfile:
    """Weights whose rings do not come with the program."""
    return profile(load_model(NAME, SYNTHETIC), model_spec(NAME))


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["profile", "--weights", "none", *words])


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rsdtr", "profile", NAME, "--weights", "none", *words]


def running(*words: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    env = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(
        command(*words), env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def at_work(of: ModelProfile) -> Job | None:
    """The job that searches, once it has found something."""
    job = search_job(of, SYNTHETIC)
    return job if job is not None and job.state == "running" and job.done > 0 else None


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def gone(members: list[psutil.Process]) -> bool:
    return not any(
        member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in members
    )


def test_what_is_found_is_stored_and_never_searched_again():
    first = fresh()
    steps = list(fill_store(first, processes=2, layers={"body"}))
    assert (steps[-1].done, steps[-1].total, steps[-1].seconds_left) == (PER_LAYER, PER_LAYER, 0)
    second = fresh()
    (only,) = fill_store(second, processes=2, layers={"body"})
    assert only.done == PER_LAYER
    assert set(second.winners) == set(first.winners)


def test_a_reader_sees_the_store_grow(monkeypatch):
    monkeypatch.setattr(winners_on_disk, "SAVE_SECONDS", 0.0)
    reader, seen = fresh(), set()
    for step in fill_store(fresh(), processes=1, layers={"body"}):
        stored = load_winners(reader)
        assert stored == step.done
        seen.add(stored)
    assert len(seen) > 2


def test_closing_in_the_middle_stores_what_was_found():
    found = fresh()
    work = fill_store(found, processes=2)
    while next(work).done < 30:
        pass
    work.close()
    assert load_winners(fresh()) == len(found.winners) >= 30


def test_a_store_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setenv("RSDTR_CACHE", str(tmp_path / "file"))
        result = run(NAME, "--layers", LAYER, "--json")
        with pytest.raises(JobError, match=r"could not be written to .*: make room"):
            queue_search(fresh(), PUBLISHED)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["known"] == PER_LAYER
    assert "winners are kept in memory only" in caplog.text
    assert f"no job for {NAME}" in caplog.text


def test_nobody_has_searched_yet(cache):
    assert search_job(fresh(), PUBLISHED) is None
    assert not cache.exists()


def test_asking_is_cheap(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: ["sleep", "100"])
    found = fresh()
    queue_search(found, PUBLISHED)
    spent = []
    for _ in range(20):
        started = time.process_time()  # not of the clock: other tests run beside this one
        assert search_job(found, PUBLISHED).state == "running"
        spent.append(time.process_time() - started)
    assert min(spent) < 0.02


def test_the_command_in_a_process_of_its_own():
    process = running("--layers", LAYER, "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert list(found) == [
        "model", "weights_sha256", "layers", "questions", "known", "seconds", "coarse_seconds",
    ]  # fmt: skip
    assert (found["model"], found["layers"]) == (NAME, 1)
    assert found["questions"] == found["known"] == PER_LAYER
    assert 0 < found["coarse_seconds"] < found["seconds"]
    assert "searching the rings of digits_resnet20" in err
    (job,) = listed()
    assert (job.kind, job.state, job.message, job.nice) == (grid_search.KIND, "done", "", True)
    assert (job.title, job.done) == (f"{NAME}, rings for the whole slider", PER_LAYER)
    warm = run(NAME, "--layers", LAYER)
    assert warm.exit_code == 0, warm.stderr
    assert warm.stdout == f"{NAME}: {PER_LAYER} of {PER_LAYER} winners known, 1 layers\n"
    assert [job.state for job in listed()] == ["done"]


def test_plan_takes_from_the_store(monkeypatch):
    found = digits()
    list(fill_store(found, processes=1, layers={LAYER}))

    def search(*_: object) -> None:
        raise AssertionError("a search")

    monkeypatch.setattr(LayerProfile, "search", search)
    result = CliRunner().invoke(
        cli, ["plan", NAME, "--weights", "none", "--layers", LAYER, "--eps", "0.7", "--json"]
    )
    assert result.exit_code == 0, result.stderr
    (ring,) = (row for row in json.loads(result.stdout)["layers"] if row["name"] == LAYER)
    winner = found.winners.known(LAYER, Question("paper", "storage", 0.7))
    assert tuple(ring["ranks"]) == winner.ranks


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_with_all_that_was_found(number):
    found = digits()
    process = running("--json")
    until(lambda: at_work(found), 60)
    all_of_them = family(process.pid)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what was found is kept" in err
    assert "Traceback" not in err
    assert load_winners(digits()) == json.loads(out)["known"] > 0
    assert search_job(found, SYNTHETIC).state == "cancelled"
    until(lambda: gone(all_of_them), 5)


@posix
def test_after_a_kill_nothing_blocks_and_nobody_is_left():
    found = digits()
    process = running()
    until(lambda: at_work(found), 60)
    all_of_them = family(process.pid)
    assert len(all_of_them) > 1
    process.kill()
    process.communicate()
    until(lambda: gone(all_of_them), 30)
    job = search_job(found, SYNTHETIC)
    assert job.state == "failed"
    assert 0 < job.done < job.total
    stored = load_winners(digits())
    result = run(NAME, "--layers", LAYER, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["known"] == PER_LAYER
    assert load_winners(digits()) >= stored


@posix
def test_started_watched_and_cancelled_by_the_app():
    found = digits()
    job = queue_search(found, SYNTHETIC)
    assert job.state == "running"
    pid = job.worker.pid
    assert queue_search(found, SYNTHETIC).worker.pid == pid  # one is enough
    until(lambda: at_work(found), 60)
    second = run(NAME, "--layers", LAYER)
    assert second.exit_code == 0
    assert "another process is searching the rings of digits_resnet20" in second.stderr
    assert find(job.id).worker.pid == pid
    assert psutil.Process(pid).nice() == job_queue.NICE
    all_of_them = family(pid)
    assert len(all_of_them) > 1
    cancel(job.id)
    job = ended(job)
    assert (job.state, job.message) == ("cancelled", "")
    until(lambda: gone(all_of_them), 5)
    assert load_winners(digits()) == job.done > 0
    assert f"{job.title}: cancelled" in job.log.read_text()
    until(lambda: pid not in [one.pid for one in processes.started()], 5)
    until(lambda: not psutil.pid_exists(pid), 5)  # no zombie stays


@posix
def test_cancelled_on_a_page_the_command_ends_as_if_interrupted():
    process = running("--json")
    until(lambda: at_work(digits()), 60)
    (job,) = listed()
    assert job.worker.pid == process.pid
    cancel(job.id)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what was found is kept" in err
    assert (find(job.id).state, find(job.id).message) == ("cancelled", "")
    assert load_winners(digits()) == json.loads(out)["known"] > 0


@posix
def test_it_makes_room_for_times_and_goes_on_after_them():
    found = digits()
    search = queue_search(found, SYNTHETIC)
    until(lambda: at_work(found), 60)
    all_of_them = family(search.worker.pid)
    times = submit("count", "count", {"steps": 8, "seconds": 0.25}, exclusive=True)
    assert times.state == "queued"
    until(lambda: find(times.id).state == "running", 30)
    assert find(search.id).state == "queued"
    until(lambda: gone(all_of_them), 5)
    kept = load_winners(digits())
    assert kept > 0
    until(lambda: find(search.id).state == "running", 30)
    assert find(times.id).state == "done"
    until(lambda: load_winners(digits()) > kept, 60)
    assert "queued" in find(search.id).log.read_text()
    cancel(search.id)
    assert ended(search).state == "cancelled"


def test_other_weights_than_it_was_queued_with_are_refused(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: ["sleep", "100"])
    job = queue_search(digits(), SYNTHETIC)
    content = read_spec(job.folder).content | {"weights_sha256": "0" * 64}
    with pytest.raises(JobError, match="the weights have changed since it was queued"):
        grid_search.run(Running(job, content))
    with pytest.raises(JobError, match="it was queued by another version of this program"):
        grid_search.run(Running(job, {"rings": 1}))
