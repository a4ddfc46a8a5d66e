"""The fastest rings as a job: one for equal content, and nothing that was measured is lost."""

import os
from pathlib import Path

import pytest

from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.job_queue import cancel, find
from rsdtr.jobs.kinds import fastest_rings as fastest_job
from rsdtr.jobs.kinds.fastest_rings import PLAN, fastest_plan, queue_fastest, run
from rsdtr.jobs.kinds.layer_times import queue_layer_times
from rsdtr.jobs.running import Running
from rsdtr.measuring import layer_times
from rsdtr.measuring.fastest_rings import fastest_rings
from rsdtr.measuring.layer_times import DeviceProfile, LayerCase
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import PUBLISHED, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan, plan
from tests.support import job_kinds
from tests.support.made_up import times_by_rank
from tests.support.waiting import ended, until

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]
DIGITS = "digits_resnet20"
LAYERS = ("layer1.0.conv1", "layer3.2.conv2")


@pytest.fixture(autouse=True)
def cache(own_jobs, monkeypatch) -> Path:
    monkeypatch.setenv("MADE_UP_TIMES", "0")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(job_queue, "command", job_kinds.command)
    return own_jobs


@pytest.fixture
def asleep(monkeypatch) -> None:
    """No job gets anywhere."""
    monkeypatch.setattr(job_queue, "command", lambda _: ["sleep", "100"])


@pytest.fixture
def here(monkeypatch) -> list[object]:
    """The cases that this very process measures, in no time."""
    cases: list[object] = []

    def measure(asked):
        for case in asked:
            cases.append(case)
            yield times_by_rank(case)

    monkeypatch.setattr(layer_times, "measure", measure)
    return cases


@pytest.fixture(scope="module")
def digits() -> ModelProfile:
    return profile(load_model(DIGITS), model_spec(DIGITS))


@pytest.fixture(scope="module")
def decided(digits) -> CompressionPlan:
    return plan(digits, 0.4, objective="macs", layers=LAYERS)


def rings(plan: CompressionPlan) -> list[tuple[object, ...]]:
    return [(layer.ranks, layer.shift, layer.form, layer.latency_ms) for layer in plan.layers]


def measured_in(job: Job) -> list[str]:
    return [line for line in job.log.read_text().splitlines() if line.startswith("measured")]


def running(decided: CompressionPlan) -> Running:
    """A job as its own code sees it, in this process."""
    job = queue_fastest(decided, PUBLISHED, 1)
    return Running(job, read_spec(job.folder).content)


def test_it_chooses_what_is_chosen_here_and_equal_content_is_one_job(digits, decided, here):
    assert fastest_plan(decided, PUBLISHED, 3) is None
    job = queue_fastest(decided, PUBLISHED, 3)
    assert (job.kind, job.subject) == ("fastest", "")
    assert job.title == f"{DIGITS} at ε_p 0.4, fastest rings at batch 3"
    layers = tuple(  # as after another search before this one
        layer.model_copy(update={"relative_error": layer.relative_error * (1 + 1e-14)})
        for layer in decided.layers
    )
    slower = decided.model_copy(update={"seconds": 99.0, "layers": layers})
    assert queue_fastest(slower, PUBLISHED, 3).id == job.id
    assert fastest_job.fastest_job(slower, PUBLISHED, 3).id == job.id
    job = ended(job)
    assert (job.state, job.message) == ("done", "")
    chosen = fastest_plan(decided, PUBLISHED, 3)
    assert measured_in(job)
    assert here == []  # not in this process
    expected = fastest_rings(decided, digits, batch=3)
    assert rings(chosen) == rings(expected)
    assert here == []  # what the job measured is in the table
    assert (chosen.objective, chosen.measured_on.batch) == ("latency", 3)
    assert [layer.ranks for layer in chosen.layers] != [layer.ranks for layer in decided.layers]
    assert fastest_plan(slower, PUBLISHED, 3) == chosen.model_copy(update={"seconds": 99.0})
    assert queue_fastest(decided, PUBLISHED, 3) == find(job.id)
    assert not list(job.result.glob(".writing-*"))


@pytest.mark.usefixtures("asleep")
def test_another_question_is_another_job(decided, monkeypatch):
    first = queue_fastest(decided, PUBLISHED, 1)
    assert fastest_job.fastest_job(decided, PUBLISHED, 2) is None
    others = [
        queue_fastest(decided, PUBLISHED, 2),
        queue_fastest(decided, PUBLISHED, 1, threads=1),
        queue_fastest(decided, WeightsSource(synthetic=True), 1),
        queue_fastest(decided.model_copy(update={"layers": decided.layers[1:]}), PUBLISHED, 1),
    ]
    monkeypatch.setattr(fastest_job, "machine", lambda: "a phone")
    others.append(queue_fastest(decided, PUBLISHED, 1))
    assert len({first.id, *(job.id for job in others)}) == 6


@pytest.mark.usefixtures("asleep")
def test_weights_are_the_same_from_wherever_they_are_named(decided, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        queue_fastest(decided, WeightsSource.of("own.pth"), 1).id
        == queue_fastest(decided, WeightsSource(tmp_path / "own.pth"), 1).id
    )


def test_cancelled_it_keeps_what_it_measured_and_goes_on_from_there(
    digits, decided, here, monkeypatch
):
    monkeypatch.setenv("MADE_UP_TIMES", "0.5")
    job = queue_fastest(decided, PUBLISHED, 1)
    until(lambda: DeviceProfile.own().layers, 60)
    cancel(job.id)
    job = ended(job)
    assert (job.state, job.message) == ("cancelled", "")
    assert fastest_plan(decided, PUBLISHED, 1) is None
    kept = len(DeviceProfile.own().layers)
    assert kept == len(measured_in(job)) > 0
    monkeypatch.setenv("MADE_UP_TIMES", "0")
    assert queue_fastest(decided, PUBLISHED, 1).id == job.id  # resumed
    job = ended(job)
    assert job.state == "done"
    assert len(measured_in(job)) == len(set(measured_in(job))) > kept
    assert fastest_plan(decided, PUBLISHED, 1) == fastest_rings(decided, digits)
    assert here == []


def test_its_threads_wait_as_those_of_any_other_measurement(decided):
    job = queue_fastest(decided, PUBLISHED, 1)
    assert read_spec(job.folder).environment["OMP_WAIT_POLICY"] is None
    assert all("measured, None: " in line for line in measured_in(ended(job)))
    quiet = job_queue.submit("count", "count", {"steps": 0, "seconds": 0})
    assert read_spec(quiet.folder).environment["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.usefixtures("asleep")
def test_it_does_not_measure_beside_another_measurement(decided):
    case = LayerCase(
        shape=(6, 4, 3, 2), ranks=(1, 2, 3, 2), stride=(1, 1), padding=(1, 0), input_size=(9, 8),
        batch=1, threads=1,
    )  # fmt: skip
    first = queue_layer_times("a model", [case])
    second, third = (
        queue_fastest(decided, PUBLISHED, 1),
        queue_layer_times("a model", [case], again=True),
    )
    assert [find(job.id).state for job in (first, second, third)] == ["running", "queued", "queued"]
    first.worker.kill()
    assert [find(job.id).state for job in (first, second, third)] == ["failed", "running", "queued"]


@pytest.mark.usefixtures("asleep")
def test_it_says_how_far_it_is(decided, here, monkeypatch):
    me = running(decided)
    said = []
    monkeypatch.setattr(me, "progress", lambda *told: said.append(told))
    assert run(me)
    total = len(here)
    doing = [told[0] for told in said]
    assert doing[:2] == ["reading the model", "listing the rings of every layer"]
    assert [told[1:3] for told in said[2:]] == [(done, total) for done in range(total + 1)]
    assert said[2][3] is None
    assert said[-1][3] == 0


@pytest.mark.usefixtures("asleep")
def test_told_to_stop_it_has_no_result(decided, here):
    me = running(decided)
    me.stop.set()
    assert not run(me)
    assert not me.job.result.exists()
    assert here == []


@pytest.mark.usefixtures("asleep", "here")
def test_a_result_that_cannot_be_read_is_made_anew(decided):
    me = running(decided)
    assert run(me)
    assert fastest_plan(decided, PUBLISHED, 1) is not None
    (me.job.result / PLAN).write_bytes(b"")
    assert fastest_plan(decided, PUBLISHED, 1) is None
    job = find(me.job.id)
    job_queue.transact(lambda table: job_queue.end(table, job, "done", ""))
    assert queue_fastest(decided, PUBLISHED, 1).state in ("queued", "running")
    assert not me.job.result.exists()


@pytest.mark.usefixtures("asleep")
def test_what_another_version_queued_is_refused():
    job = job_queue.submit(fastest_job.KIND, "old", {"rings": 1})
    with pytest.raises(JobError, match="it was queued by another version of this program"):
        run(Running(job, {"rings": 1}))
