"""The worker process: what it stores, how it is watched and stopped, and what a kill leaves."""

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
from rsdtr.models.zoo import load_model, model_spec
from rsdtr.planning import grid_process
from rsdtr.planning.grid_process import cancel, fill_store, progress, start
from rsdtr.planning.model_profile import LayerProfile, ModelProfile, profile
from rsdtr.planning.winners_on_disk import load_winners, store_path
from rsdtr.search.candidate import GRID, OBJECTIVES, RULES, Question
from rsdtr.system import processes
from rsdtr.system.processes import ProcessId
from tests.support.checkout import ROOT
from tests.support.networks import varied, varied_spec
from tests.support.waiting import until

NAME = "digits_resnet20"
LAYER = "layer1.0.conv1"
PER_LAYER = len(GRID) * len(RULES) * len(OBJECTIVES)
posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "profiles"


def fresh() -> ModelProfile:
    return profile(varied(), varied_spec())


def digits() -> ModelProfile:
    return profile(load_model(NAME), model_spec(NAME))


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["profile", *words])


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rsdtr", "profile", NAME, *words]


def running(*words: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(*words), env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def working(of: ModelProfile) -> bool:
    at = progress(of)
    return at is not None and at.alive and at.done > 0


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )


def test_what_is_found_is_stored_and_never_searched_again():
    first = fresh()
    steps = list(fill_store(first, processes=2, layers={"body"}))
    assert steps[-1].done == PER_LAYER
    at = progress(first)
    assert (at.done, at.total, at.seconds_left) == (PER_LAYER, PER_LAYER, 0)
    second = fresh()
    (only,) = fill_store(second, processes=2, layers={"body"})
    assert only.done == PER_LAYER
    assert set(second.winners) == set(first.winners)


def test_a_reader_sees_the_store_grow(monkeypatch):
    monkeypatch.setattr(grid_process, "SAVE_SECONDS", 0.0)
    reader, seen = fresh(), set()
    for step in fill_store(fresh(), processes=1, layers={"body"}):
        stored = load_winners(reader)
        assert stored == progress(reader).done == step.done
        seen.add(stored)
    assert len(seen) > 2


def test_closing_in_the_middle_stores_what_was_found():
    found = fresh()
    work = fill_store(found, processes=2)
    while next(work).done < 30:
        pass
    work.close()
    assert load_winners(fresh()) == len(found.winners) >= 30
    assert progress(found).done == len(found.winners)


def test_a_store_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "file"))
    found = fresh()
    with caplog.at_level(logging.WARNING):
        assert list(fill_store(found, processes=1, layers={"body"}))[-1].done == PER_LAYER
        start(found)
    assert "winners are kept in memory only" in caplog.text
    assert "no worker for varied" in caplog.text
    assert progress(found) is None


def test_nobody_has_worked_yet(folder):
    assert progress(fresh()) is None
    cancel(fresh())
    assert not folder.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"model": "varied", "pid": -4}'])
def test_a_damaged_status_is_none(folder, content):
    folder.mkdir(parents=True)
    store_path(fresh()).with_suffix(".json").write_text(content)
    assert progress(fresh()) is None


def test_a_pid_that_was_given_away_again_is_nobody(folder):
    folder.mkdir(parents=True)
    path = store_path(fresh()).with_suffix(".json")
    me = ProcessId.own()
    path.write_text(json.dumps({"model": "varied", "pid": me.pid, "born": me.born}))
    assert progress(fresh()).alive
    path.write_text(json.dumps({"model": "varied", "pid": me.pid, "born": "another time"}))
    assert not progress(fresh()).alive
    cancel(fresh())  # else this very process would end here


def test_asking_is_cheap():
    found = fresh()
    list(fill_store(found, processes=1, layers={"body"}))
    spent = []
    for _ in range(20):
        started = time.process_time()  # not of the clock: other tests run beside this one
        progress(found)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.005


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
    warm = run(NAME, "--layers", LAYER)
    assert warm.exit_code == 0, warm.stderr
    assert warm.stdout == f"{NAME}: {PER_LAYER} of {PER_LAYER} winners known, 1 layers\n"


def test_plan_takes_from_the_store(monkeypatch):
    found = digits()
    list(fill_store(found, processes=1, layers={LAYER}))

    def search(*_: object) -> None:
        raise AssertionError("a search")

    monkeypatch.setattr(LayerProfile, "search", search)
    result = CliRunner().invoke(cli, ["plan", NAME, "--layers", LAYER, "--eps", "0.7", "--json"])
    assert result.exit_code == 0, result.stderr
    (ring,) = (row for row in json.loads(result.stdout)["layers"] if row["name"] == LAYER)
    winner = found.winners.known(LAYER, Question("paper", "storage", 0.7))
    assert tuple(ring["ranks"]) == winner.ranks


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_with_all_that_was_found(number):
    found = digits()
    process = running("--json")
    until(lambda: working(found))
    all_of_them = family(process.pid)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what was found is kept" in err
    assert "Traceback" not in err
    assert load_winners(digits()) == json.loads(out)["known"] > 0
    assert not progress(found).alive
    until(lambda: gone(all_of_them), 5)


@posix
def test_after_a_kill_nothing_blocks_and_nobody_is_left():
    found = digits()
    process = running()
    until(lambda: working(found))
    all_of_them = family(process.pid)
    assert len(all_of_them) > 1
    process.kill()
    process.communicate()
    until(lambda: gone(all_of_them), 30)
    at = progress(found)
    assert not at.alive
    assert 0 < at.done < at.total
    stored = load_winners(digits())
    result = run(NAME, "--layers", LAYER, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["known"] == PER_LAYER
    assert load_winners(digits()) >= stored


def test_others_wait_while_as_many_as_may_are_at_work(folder, monkeypatch):
    """Each search takes every core: five networks opened at once were ten processes."""
    me, begun = ProcessId.own(), []
    monkeypatch.setattr(processes, "start", lambda command, *_: begun.append(command) or me)
    folder.mkdir(parents=True)
    status = {"model": "varied", "pid": me.pid, "born": me.born}
    for other in range(grid_process.MOST_AT_WORK):
        assert not begun
        (folder / f"{other}-v2.json").write_text(json.dumps(status | {"born": "another time"}))
    assert start(digits())  # those have ended
    assert len(begun) == 1
    (folder / "0-v2.json").write_text(json.dumps(status))
    assert not start(fresh())
    assert start(digits())  # it is at work already
    assert len(begun) == 1
    (folder / "0-v2.json").unlink()
    assert start(fresh())
    assert len(begun) == 2


@posix
def test_started_watched_and_cancelled_by_the_app():
    found = digits()
    start(found)
    pid = json.loads(store_path(found).with_suffix(".json").read_text())["pid"]
    assert progress(found).alive
    start(found)  # one is enough
    assert json.loads(store_path(found).with_suffix(".json").read_text())["pid"] == pid
    until(lambda: working(found))
    second = run(NAME, "--layers", LAYER)
    assert second.exit_code == 0
    assert "another process is searching the rings of digits_resnet20" in second.stderr
    assert psutil.Process(pid).nice() == grid_process.NICE
    all_of_them = family(pid)
    cancel(found)
    until(lambda: not progress(found).alive)
    until(lambda: gone(all_of_them), 5)
    assert load_winners(digits()) == progress(found).done > 0
    assert "stopped at" in store_path(found).with_suffix(".log").read_text()

    def left() -> list[int]:
        progress(found)
        return [started.pid for started in processes._started]

    until(lambda: pid not in left(), 5)  # no zombie stays, once its last thread has ended
