"""The process that measures: what it keeps, how it is watched and stopped, what it refuses."""

import json
import os
import subprocess

import psutil
import pytest

from rsdtr.errors import RsdtrError
from rsdtr.measuring import layer_times_process
from rsdtr.measuring.layer_times import DeviceProfile, LayerCase
from rsdtr.measuring.layer_times_process import (
    cancel,
    folder,
    measured,
    progress,
    start,
)
from rsdtr.system import processes
from rsdtr.system.processes import ProcessId
from tests.support.made_up import layer_times
from tests.support.waiting import until

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))


def case(**changes):
    fields = {
        "shape": (6, 4, 3, 2), "ranks": (1, 2, 3, 2), "stride": (2, 1), "padding": (1, 0),
        "input_size": (9, 8), "batch": 2, "threads": 1,
    }  # fmt: skip
    return LayerCase(**(fields | changes))


def cases(count):
    return [case(batch=batch) for batch in range(1, count + 1)]


def made_up(monkeypatch, best=1.0):
    """Instead of measuring: all that was to be measured."""
    asked = []

    def measure(several):
        for one in several:
            asked.append(one)
            yield layer_times(one, O_IHW=best)

    monkeypatch.setattr(layer_times_process, "measure", measure)
    return asked


def status(**changes):
    """Write a status file, of this very process unless told otherwise."""
    me = ProcessId.own()
    fields = {"label": "a model", "pid": me.pid, "born": me.born, "done": 1, "total": 4}
    folder().mkdir(parents=True, exist_ok=True)
    (folder() / layer_times_process.STATUS).write_text(json.dumps(fields | changes))


def test_each_layer_is_on_disk_when_it_is_told_of(monkeypatch):
    asked = made_up(monkeypatch)
    for step in measured("a model", [*cases(3), case(batch=1)]):
        assert (step.label, step.total, step.alive) == ("a model", 3, True)
        assert len(DeviceProfile.own().layers) == step.done == len(asked)
    assert step.seconds_left == 0
    assert list(measured("a model", cases(3)))[-1].total == 0
    assert len(asked) == 3


def test_what_is_known_is_measured_again_when_asked(monkeypatch):
    made_up(monkeypatch)
    list(measured("a model", cases(2)))
    asked = made_up(monkeypatch, best=5.0)
    assert [step.done for step in measured("a model", cases(1), again=True)] == [0, 1]
    assert asked == cases(1)
    best = [DeviceProfile.own().times(one).fastest.best_ms for one in cases(2)]
    assert best == [5.0, 1.0]


def test_told_to_stop_it_keeps_what_was_measured(monkeypatch):
    made_up(monkeypatch)
    stops = iter([False, True])
    steps = list(measured("a model", cases(3), lambda: next(stops)))
    assert [step.done for step in steps] == [0, 1]
    assert DeviceProfile.own().missing(cases(3)) == tuple(cases(3)[1:])


def test_nobody_has_measured_yet():
    assert progress() is None
    cancel()
    assert not folder().exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"label": "x", "pid": -4}'])
def test_a_damaged_status_is_none(content):
    folder().mkdir(parents=True)
    (folder() / layer_times_process.STATUS).write_text(content)
    assert progress() is None


def test_a_pid_that_was_given_away_again_is_nobody():
    status()
    assert progress().alive
    status(born="another time")
    assert not progress().alive
    cancel()  # else this very process would end here
    status(pid=2**22 + 1)  # more than Linux gives out
    assert not progress().alive


def test_only_one_measures_at_a_time():
    status()
    assert not start("another", cases(1))
    assert progress().label == "a model"
    assert not (folder() / layer_times_process.REQUEST).exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "file"))
    with pytest.raises(RsdtrError, match=r"measuring could not be started \(.*RSDTR_CACHE"):
        start("a model", cases(1))


def test_started_watched_and_ended():
    assert start("a model", cases(2))
    assert progress().alive
    assert not start("a model", cases(2))  # one is enough
    until(lambda: not progress().alive)
    at = progress()
    assert (at.label, at.done, at.total, at.failure) == ("a model", 2, 2, None)
    assert DeviceProfile.own().missing(cases(2)) == ()
    assert (folder() / layer_times_process.LOG).read_bytes() == b""
    assert processes._started == []


@posix
def test_cancelled_it_keeps_what_it_has_measured():
    many = cases(60)
    start("a model", many)
    pid = json.loads((folder() / layer_times_process.STATUS).read_text())["pid"]
    until(lambda: progress().done > 0)
    cancel()
    until(lambda: not progress().alive, 10)
    done = progress().done
    assert 0 < done < 60
    # One more may be on disk than was told of: it was stopped between the two.
    assert 60 - len(DeviceProfile.own().missing(many)) in (done, done + 1)
    assert not psutil.pid_exists(pid)
    assert [path for path in folder().iterdir() if path.name.startswith(".")] == []


def test_a_failure_is_told_in_a_sentence(monkeypatch):
    def fails(_):
        raise RsdtrError("the disk is full: make room")

    request = layer_times_process._Request(label="a model", cases=tuple(cases(1)))
    folder().mkdir(parents=True)
    path = folder() / layer_times_process.REQUEST
    path.write_text(request.model_dump_json())
    monkeypatch.setattr(layer_times_process.signal, "signal", lambda *_: None)
    monkeypatch.setattr(layer_times_process, "measure", fails)
    layer_times_process._work(path)
    assert progress().failure == "the disk is full: make room"

    def breaks(_):
        raise ZeroDivisionError

    monkeypatch.setattr(layer_times_process, "measure", breaks)
    with pytest.raises(ZeroDivisionError):
        layer_times_process._work(path)
    assert progress().failure.startswith("measuring failed (ZeroDivisionError): see ")
    assert progress().failure.endswith(layer_times_process.LOG)


def test_a_process_that_cannot_be_started_is_one_sentence(monkeypatch):
    def no_process(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    with pytest.raises(RsdtrError, match=r"could not be started \(Cannot allocate memory\)"):
        start("a model", cases(1))
