"""Measuring a trade-off curve as a job: every point is on disk when it is told of."""

from dataclasses import replace

import pytest

from rsdtr.data.datasets import data_identity, load_data
from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import read_spec
from rsdtr.jobs.kinds import tradeoff_curve as job_kind
from rsdtr.jobs.kinds.tradeoff_curve import curve_job, queue_curve, run
from rsdtr.jobs.running import Running
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import PUBLISHED
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.recovery.curves_on_disk import load_curve
from rsdtr.recovery.tradeoff_curve import CurveKey

NAME = "digits_resnet20"
FEW = (Choices(eps=0.5, objective="macs"), Choices(eps=0.7, objective="macs"))


@pytest.fixture(autouse=True)
def asleep(own_jobs, monkeypatch):
    """No worker, few questions, few images."""
    monkeypatch.setattr(job_queue, "tend", lambda: None)
    monkeypatch.setattr(job_kind, "coarse_questions", lambda _: list(FEW))
    few = load_data(None, model_spec(NAME))
    few = replace(few, train=few.train.subset(100))
    monkeypatch.setattr(job_kind, "load_data", lambda *_: few)


@pytest.fixture
def key() -> CurveKey:
    spec = model_spec(NAME)
    costs = profile(load_model(NAME), spec)
    return CurveKey.of(costs, Choices(objective="macs"), data_identity(None, spec), 40)


def queued(key: CurveKey) -> Running:
    job = queue_curve(NAME, PUBLISHED, None, key, "recalibrate")
    return Running(job, read_spec(job.folder).content)


def test_each_point_is_on_disk_when_it_is_told_of_and_a_second_run_measures_nothing(
    key, monkeypatch
):
    me, told = queued(key), []
    assert curve_job(NAME, PUBLISHED, None, key, "recalibrate").id == me.job.id

    def progress(doing, done, total, left=None):
        if total:
            told.append((done, total, len(load_curve(key).points)))

    monkeypatch.setattr(me, "progress", progress)
    assert run(me)
    assert told == [(0, 2, 0), (1, 2, 1), (2, 2, 2)]
    assert all(point.accuracy.recalibrated for point in load_curve(key).points)
    before = load_curve(key)
    monkeypatch.setattr(job_kind, "dense_curve", lambda *_: pytest.fail("measured dense again"))
    assert run(me)
    assert load_curve(key) == before


def test_a_job_that_is_stopped_keeps_its_points_and_goes_on_later(key, monkeypatch):
    me = queued(key)
    steps = iter((False, True, True))
    monkeypatch.setattr(me, "should_stop", lambda: next(steps))
    assert not run(me)
    assert len(load_curve(key).points) == 1
    assert run(Running(me.job, me.content))
    assert len(load_curve(key).points) == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weights_sha256": "0" * 64}, "the weights have changed"),
        ({"data": "photos"}, "the images have changed"),
    ],
)
def test_what_is_no_longer_what_it_was_queued_with_is_refused(key, changed, said):
    with pytest.raises(JobError, match=said):
        run(queued(key.model_copy(update=changed)))


def test_another_version_of_the_program_is_told(key):
    me = queued(key)
    with pytest.raises(JobError, match="another version"):
        run(Running(me.job, {"points": 1}))
