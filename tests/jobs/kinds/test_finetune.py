"""Fine-tuning as a job: the result is that of a training nobody interrupted, whatever happened."""

import importlib
import os
import signal
from pathlib import Path

import pytest
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import load
from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.errors import JobError, RsdtrError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.job_queue import cancel, find, resume
from rsdtr.jobs.kinds import finetune as finetune_job
from rsdtr.jobs.kinds.finetune import best_model, curve, queue_finetuning
from rsdtr.jobs.kinds.network_job import original
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from tests.support import job_kinds
from tests.support.waiting import ended, until

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]
DIGITS = "digits_resnet20"
OPTIONS = FinetuneOptions(epochs=2, batch_size=256, distill=0.5, ema=0.9, seed=3)
STEPS = 5  # an epoch, of 1,149 images


@pytest.fixture(autouse=True)
def cache(own_jobs, monkeypatch) -> Path:
    monkeypatch.setattr(job_queue, "command", job_kinds.command)
    return own_jobs


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, CompressionPlan, DataSplits, nn.Module]:
    """Dense, plan, data, and the network compressed a little, which is quick to train."""
    spec = model_spec(DIGITS)
    dense = load_model(DIGITS)
    decided = plan(profile(dense, spec), 0.6, layers=("layer3.2.conv2",))
    return dense, decided, load_data("digits", spec), compress(dense, decided)


@pytest.fixture(scope="module")
def uninterrupted(digits) -> tuple[str, list[float]]:
    """The weights and losses of the same training in this process."""
    dense, _, splits, start = digits
    model, losses = compress(dense, digits[1]), []
    assert weights_sha256(model) == weights_sha256(start)
    list(finetune(model, splits, OPTIONS, teacher=dense,
                  on_step=lambda step: losses.append(step.loss)))  # fmt: skip
    return weights_sha256(model), losses


def queue(digits, options: FinetuneOptions = OPTIONS, **more: object) -> Job:
    dense, decided, splits, start = digits
    return queue_finetuning(
        start, decided, splits, options, data="digits", dense=dense, **more
    )  # fmt: skip


def check(job: Job, uninterrupted: tuple[str, list[float]]) -> None:
    expected, losses = uninterrupted
    assert (job.state, job.message) == ("done", "")
    saved = load(job.result)
    assert weights_sha256(saved.model) == expected
    shown = curve(job)
    assert list(shown.losses) == pytest.approx(losses, rel=1e-5)
    assert [epoch.epoch for epoch in shown.epochs] == [1, 2]
    assert [epoch["epoch"] for epoch in saved.metrics["finetuned"]["epochs"]] == [1, 2]
    assert not (job.folder / finetune_job.CHECKPOINT).exists()
    assert not list(job.folder.glob(".writing-*"))


def kill(job: Job) -> None:
    os.kill(find(job.id).worker.pid, signal.SIGKILL)
    assert ended(job).state == "failed"


def test_it_gives_what_training_here_gives_and_shows_how(digits, uninterrupted):
    job = queue(digits, subject="ours")
    assert queue(digits, subject="ours").id == job.id
    check(ended(job, 120), uninterrupted)
    shown = curve(job)
    assert [reference.label for reference in shown.references] == ["dense", "start"]
    dense, _, splits, _ = digits
    assert shown.references[0].accuracy == accuracy(dense, splits.validation)
    assert len(shown.learning_rates) == 2 * STEPS
    assert max(shown.learning_rates) == pytest.approx(OPTIONS.lr, rel=0.05)
    again = queue(digits, subject="ours")
    assert (again.state, again.worker) == ("done", None)
    assert weights_sha256(best_model(again)) == uninterrupted[0]


def test_killed_in_the_middle_of_an_epoch(digits, uninterrupted):
    job = queue(digits)
    until(lambda: len(curve(job).epochs) >= 1 and find(job.id).done % STEPS, 120)
    kill(job)
    reached = len(curve(job).epochs)
    assert reached == 1
    assert weights_sha256(best_model(find(job.id))) != weights_sha256(digits[3])
    resume(job.id)
    check(ended(job, 120), uninterrupted)


@pytest.mark.parametrize("number", [1, 2])
def test_killed_while_it_writes_a_checkpoint(digits, uninterrupted, monkeypatch, number):
    monkeypatch.setenv("STALL_IN_CHECKPOINT", str(number))
    job = queue(digits)
    half = job.folder / ".writing-half"
    until(half.exists, 120)
    kill(job)
    assert half.exists()
    before = best_model(find(job.id))
    assert (before is None) == (number == 1)
    monkeypatch.delenv("STALL_IN_CHECKPOINT")
    resume(job.id)
    check(ended(job, 120), uninterrupted)


def test_cancelled_it_keeps_its_best_epoch(digits):
    job = queue(digits, FinetuneOptions(epochs=200, batch_size=256))
    until(lambda: len(curve(job).epochs) >= 1, 120)
    cancel(job.id)
    found = ended(job)
    assert found.state == "cancelled"
    epochs = curve(found).epochs
    best = max(epoch.validation.percent for epoch in epochs)
    reached = accuracy(best_model(found), digits[2].validation)
    assert reached.percent == pytest.approx(best)
    rows = len(curve(found).losses)
    assert rows >= STEPS * len(epochs)


def test_data_that_is_no_longer_the_same_is_refused(digits):
    dense, decided, splits, start = digits
    fewer = DataSplits(splits.train.subset(64), splits.validation, splits.test)
    job = queue_finetuning(start, decided, fewer, OPTIONS, data="digits", dense=dense)
    assert ended(job).message == (
        "the data or the original weights have changed since it was queued: queue it anew"
    )


def test_a_data_set_that_raises_ends_it_with_its_sentence(digits, tmp_path, monkeypatch):
    dense, decided, splits, start = digits
    monkeypatch.setenv("RSDTR_DATA", str(tmp_path))
    job = queue_finetuning(start, decided, splits, OPTIONS, data="gone", dense=dense)
    assert ended(job).message.startswith("'gone' is neither a data set (digits, cifar10, photos) ")
    assert read_spec(job.folder).environment["RSDTR_DATA"] == str(tmp_path)


def test_what_another_version_queued(digits, monkeypatch):
    job = job_queue.submit(finetune_job.KIND, "old", {"recipe": 1}, subject="s")
    assert finetune_job.training_runs([job]) == []
    assert ended(job).message.startswith("it was queued by another version of this program (")


def test_too_little_memory_is_refused_before_it_is_queued(digits, monkeypatch):

    monkeypatch.setattr(
        importlib.import_module("rsdtr.recovery.training_estimate"), "free_bytes", lambda _: 10_000
    )
    with pytest.raises(RsdtrError, match=r"in batches of 256 needs about 0\.\d GB and 0\.0 GB"):
        queue(digits)
    assert job_queue.listed() == []


def test_weights_that_are_gone_are_told_without_their_folder(tmp_path):
    with pytest.raises(JobError, match=r"^mine\.safetensors is there no longer: give it again"):
        original(DIGITS, WeightsSource(tmp_path / "mine.safetensors"))
