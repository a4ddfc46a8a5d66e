"""The autopilot as a job: what it tries is told, finished early it writes the best so far."""

from dataclasses import replace

import pytest

from rsdtr.autopilot import Budget, search, trials_on_disk
from rsdtr.data.datasets import load_data
from rsdtr.errors import JobError
from rsdtr.exports.verify import unchanged
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import read_spec
from rsdtr.jobs.kinds import autopilot as job_kind
from rsdtr.jobs.kinds.autopilot import finish, found_files, queue_autopilot, run, tried
from rsdtr.jobs.running import Running
from rsdtr.models.weights_source import PUBLISHED
from rsdtr.models.zoo import model_spec

NAME = "digits_resnet20"
BUDGET = Budget(4.0, recover="recalibrate")


@pytest.fixture(autouse=True)
def asleep(own_jobs, tmp_path, monkeypatch):
    """No worker, few images, no trial of before, one format."""
    monkeypatch.setattr(job_queue, "tend", lambda: None)
    few = load_data(None, model_spec(NAME))
    few = replace(few, train=few.train.subset(200))
    monkeypatch.setattr(job_kind, "load_data", lambda *_: few)
    monkeypatch.setattr(trials_on_disk, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(job_kind, "formats_for", lambda int8: ("safetensors",))


def queued(budget: Budget = BUDGET) -> Running:
    job = queue_autopilot(NAME, PUBLISHED, None, budget)
    return Running(job, read_spec(job.folder).content)


def test_it_is_finished_with_the_best_so_far_and_its_files_are_proved():
    me = queued()
    note = me.progress

    def progress(doing, done, total, left=None):
        note(doing, done, total, left)
        if any(network.held for network in tried(me.job)):
            finish(me.job)

    me.progress = progress
    assert run(me)
    networks = tried(me.job)
    held = [network for network in networks if network.held]
    assert len(held) == 1
    made = found_files(replace(me.job, state="done"))
    assert made.plan.pcr == held[0].pcr
    assert made.sentence.startswith(f"{made.plan.pcr:.1f} times fewer parameters, ")
    manifest = unchanged(me.job.result)
    assert manifest.plan.pcr == made.plan.pcr
    assert manifest.metrics["recovered"] == "recalibrated"
    assert manifest.metrics["n"] == 180
    assert found_files(me.job) is None  # it is not done yet


def test_cancelled_it_ends_without_a_file_and_goes_on_with_what_was_tried(monkeypatch):
    me = queued()
    note = me.progress

    def progress(doing, done, total, left=None):
        note(doing, done, total, left)
        if tried(me.job):
            me.stop.set()

    me.progress = progress
    assert not run(me)
    assert not me.job.result.exists()
    (first,) = tried(me.job)
    again, made = Running(me.job, me.content), []
    monkeypatch.setattr(search, "recovered", lambda small, *_: made.append(small) or small)
    monkeypatch.setattr(again, "progress", lambda *_: again.stop.set() if made else None)
    assert not run(again)
    assert tried(me.job)[0] == first  # and nothing was made for it


def test_the_same_budget_is_the_same_job_and_speed_is_taken_alone():
    one = queue_autopilot(NAME, PUBLISHED, None, BUDGET)
    assert queue_autopilot(NAME, PUBLISHED, None, BUDGET).id == one.id
    other = queue_autopilot(NAME, PUBLISHED, None, replace(BUDGET, max_drop=5.0))
    assert other.id != one.id
    assert one.title == "digits_resnet20, the smallest within 4 points"
    fast = queue_autopilot(NAME, PUBLISHED, None, Budget(2.0, "speed"))
    assert fast.title == "digits_resnet20, the fastest within 2 points"
    assert read_spec(fast.folder).exclusive
    assert not read_spec(one.folder).exclusive


def test_images_that_have_changed_are_one_sentence(monkeypatch):
    me = queued()
    monkeypatch.setattr(job_kind, "data_identity", lambda *_: "others")
    with pytest.raises(JobError, match="the images have changed since it was queued"):
        run(me)
