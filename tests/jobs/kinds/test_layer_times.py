"""Timing layers: what is kept, how it is watched and stopped, and that it is done alone."""

import os

import psutil
import pytest

from rsdtr.errors import JobError, RsdtrError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.job_queue import cancel, find, listed, submit
from rsdtr.jobs.kinds import layer_times as times_job
from rsdtr.jobs.kinds.layer_times import latest_layer_times, queue_layer_times, run
from rsdtr.jobs.running import Running
from rsdtr.measuring import layer_times as measuring
from rsdtr.measuring.layer_times import DeviceProfile, LayerCase, own_path
from rsdtr.system import processes
from tests.support import job_kinds
from tests.support.made_up import layer_times
from tests.support.waiting import ended, until

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="processes of POSIX"),
    pytest.mark.usefixtures("own_jobs"),
]


@pytest.fixture(autouse=True)
def _kinds(monkeypatch):
    monkeypatch.setattr(job_queue, "command", job_kinds.command)


@pytest.fixture
def asleep(monkeypatch):
    """No job gets anywhere."""
    monkeypatch.setattr(job_queue, "command", lambda _: ["sleep", "100"])


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

    monkeypatch.setattr(measuring, "measure", measure)
    return asked


def as_it_runs(job: Job) -> Running:
    """A job as its worker would have it."""
    return Running(job, read_spec(job.folder).content)


@pytest.mark.usefixtures("asleep")
def test_each_layer_is_on_disk_when_it_is_told_of(monkeypatch):
    asked = made_up(monkeypatch)
    job = queue_layer_times("a model", [*cases(3), case(batch=1)])
    assert (job.title, job.exclusive, job.subject) == ("a model", True, "")
    me, steps = as_it_runs(job), []

    def progress(doing, done, total, left):
        steps.append((done, total, left))
        assert doing == "measuring, layers"
        assert len(DeviceProfile.own().layers) == len(asked)
        assert done in (len(asked), 0)

    monkeypatch.setattr(me, "progress", progress)
    assert run(me)
    assert [step[:2] for step in steps] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert (steps[0][2], steps[-1][2]) == (None, 0)
    assert len(asked) == 3
    assert run(me)
    assert steps[4:] == [(0, 0, None)]
    assert len(asked) == 3


@pytest.mark.usefixtures("asleep")
def test_what_is_known_is_measured_again_when_asked(monkeypatch):
    made_up(monkeypatch)
    assert run(as_it_runs(queue_layer_times("a model", cases(2))))
    asked = made_up(monkeypatch, best=5.0)
    assert run(as_it_runs(queue_layer_times("a model", cases(1), again=True)))
    assert asked == cases(1)
    best = [DeviceProfile.own().times(one).fastest.best_ms for one in cases(2)]
    assert best == [5.0, 1.0]


@pytest.mark.usefixtures("asleep")
def test_told_to_stop_it_keeps_what_was_measured(monkeypatch):
    made_up(monkeypatch)
    me = as_it_runs(queue_layer_times("a model", cases(3)))
    stops = iter([False, True])
    monkeypatch.setattr(me, "should_stop", lambda: next(stops))
    assert not run(me)
    assert (me.job.done, me.job.total) == (1, 3)
    assert DeviceProfile.own().missing(cases(3)) == tuple(cases(3)[1:])


@pytest.mark.usefixtures("asleep")
def test_the_one_that_runs_is_the_latest():
    assert latest_layer_times(listed()) is None
    first = queue_layer_times("first", cases(1))
    second = queue_layer_times("second", cases(1))
    other = submit("count", "count", {"steps": 1, "seconds": 0})
    assert [job.state for job in (first, second, other)] == ["running", "queued", "queued"]
    assert latest_layer_times(listed()).id == first.id
    cancel(second.id)
    job_queue.find(first.id).worker.kill()
    assert latest_layer_times(listed()).id == second.id


def test_measured_watched_and_ended():
    job = queue_layer_times("a model", cases(2))
    assert job.state == "running"
    assert queue_layer_times("a model", cases(2)).worker == job.worker  # one is enough
    job = ended(job)
    assert (job.state, job.message, job.done, job.total) == ("done", "", 2, 2)
    assert DeviceProfile.own().missing(cases(2)) == ()
    until(lambda: processes.started() == [])
    assert queue_layer_times("a model", cases(2)).state == "running"  # a result lost is made anew


def test_cancelled_it_keeps_what_it_has_measured():
    many = cases(60)
    job = queue_layer_times("a model", many)
    until(lambda: find(job.id).done > 0, 60)
    pid = find(job.id).worker.pid
    cancel(job.id)
    job = ended(job)
    assert (job.state, job.message) == ("cancelled", "")
    assert 0 < job.done < 60
    assert 60 - len(DeviceProfile.own().missing(many)) == job.done
    until(lambda: not psutil.pid_exists(pid))
    assert [path for path in own_path().parent.iterdir() if path.name.startswith(".")] == []


def test_nothing_else_runs_meanwhile():
    busy = submit("count", "count", {"steps": 4, "seconds": 0.25})
    times = queue_layer_times("a model", cases(1))
    behind = submit("count", "count", {"steps": 1, "seconds": 0})
    assert [find(job.id).state for job in (busy, times, behind)] == ["running", "queued", "queued"]
    until(lambda: find(times.id).state == "running", 30)
    assert find(busy.id).state == "done"
    assert find(behind.id).state == "queued"
    assert ended(behind).state == "done"
    assert find(times.id).state == "done"


@pytest.mark.usefixtures("asleep")
def test_what_cannot_be_measured_is_told(monkeypatch):
    job = queue_layer_times("a model", cases(1))

    def fails(_):
        raise RsdtrError("the disk is full: make room")

    monkeypatch.setattr(measuring, "measure", fails)
    with pytest.raises(RsdtrError, match="the disk is full: make room"):
        run(as_it_runs(job))
    with pytest.raises(JobError, match="it was queued by another version of this program"):
        times_job.run(Running(job, {"layers": 1}))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with monkeypatch.context() as patch:
        patch.setenv("RSDTR_CACHE", str(tmp_path / "file"))
        with pytest.raises(JobError, match=r"job could not be written to .*: make room"):
            queue_layer_times("a model", cases(1))
