"""A refit as a job: the result is that of a refit nobody interrupted, whatever happened."""

import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch import nn

from rsdtr.commands.cli import cli
from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import load
from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.errors import DataError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.job_queue import cancel, find, resume
from rsdtr.jobs.kinds import refit as refit_job
from rsdtr.jobs.kinds.refit import expected_seconds, queue_refit, refit_model, report
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.recovery.refit import Begun, Refitted, Step, refit
from tests.support import job_kinds
from tests.support.waiting import ended, until

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]
DIGITS = "digits_resnet20"
LAYERS = ("layer1.0.conv1", "layer2.1.conv2", "layer3.2.conv2")
IMAGES = 60


@pytest.fixture(autouse=True)
def cache(own_jobs, monkeypatch) -> Path:
    monkeypatch.setattr(job_queue, "command", job_kinds.command)
    return own_jobs


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, CompressionPlan, DataSplits, nn.Module]:
    """Dense, plan, data, and the network compressed so much that there is something to gain."""
    spec = model_spec(DIGITS)
    dense = load_model(DIGITS)
    decided = plan(profile(dense, spec), 0.9, layers=LAYERS)
    return dense, decided, load_data("digits", spec), compress(dense, decided)


@pytest.fixture(scope="module")
def uninterrupted(digits) -> Refitted:
    dense, _, splits, start = digits
    return refit(start, dense, splits.train, IMAGES)


def queue(digits, images: int = IMAGES, **more: object) -> Job:
    dense, decided, splits, start = digits
    return queue_refit(start, decided, splits, images, data="digits", dense=dense, **more)


def check(job: Job, uninterrupted: Refitted) -> None:
    assert (job.state, job.message) == ("done", "")
    saved = load(job.result)
    assert weights_sha256(saved.model) == weights_sha256(uninterrupted.model)
    assert weights_sha256(refit_model(job)) == weights_sha256(uninterrupted.model)
    assert report(job).steps == uninterrupted.steps
    told = saved.metrics["refitted"]
    assert (told["data"], told["images"]) == ("digits", IMAGES)
    assert [step["name"] for step in told["steps"]] == [s.name for s in uninterrupted.steps]
    assert not (job.folder / refit_job.CHECKPOINT).exists()
    assert not list(job.folder.glob(".writing-*"))


def test_it_gives_what_a_refit_here_gives_and_shows_how(digits, uninterrupted):
    assert any(step.kept for step in uninterrupted.steps)
    assert expected_seconds(DIGITS, IMAGES) is None
    job = queue(digits, subject="ours")
    assert queue(digits, subject="ours").id == job.id
    assert queue(digits, images=IMAGES + 1).id != job.id
    check(ended(job), uninterrupted)
    again = queue(digits, subject="ours")
    assert (again.state, again.worker) == ("done", None)
    ended(queue(digits, images=IMAGES + 1))
    cancel(queue(digits, images=IMAGES + 2).id)  # says nothing about time
    seconds = report(find(queue(digits, images=IMAGES + 1).id)).seconds
    expected = expected_seconds(DIGITS, 10 * (IMAGES + 1))
    assert expected == pytest.approx(10 * seconds)
    assert expected_seconds("resnet18", IMAGES) is None


@pytest.mark.parametrize("number", [1, 2])
def test_killed_between_two_layers_it_goes_on_to_the_same_end(
    digits, uninterrupted, monkeypatch, number
):
    """Number: of the checkpoint that is half written when the process dies."""
    monkeypatch.setenv("STALL_IN_REFIT", str(number))
    job = queue(digits)
    half = job.folder / ".writing-half"
    until(half.exists, 60)
    os.kill(find(job.id).worker.pid, signal.SIGKILL)
    killed = ended(job)
    assert killed.state == "failed"
    assert killed.message.endswith("resume it to go on from its last checkpoint")
    assert refit_model(killed) is None
    assert (job.folder / refit_job.CHECKPOINT).exists() == (number == 2)
    before = report(killed).steps
    assert before == uninterrupted.steps[: len(before)]
    assert {step.name for step in before} == set(LAYERS[: number - 1])
    monkeypatch.delenv("STALL_IN_REFIT")
    resume(job.id)
    check(ended(job), uninterrupted)
    assert ("going on after layer 1" in job.log.read_text()) == (number == 2)


def test_cancelled_it_has_no_result_and_can_go_on(digits, uninterrupted, monkeypatch):
    monkeypatch.setenv("SLOW_REFIT", "1")  # seconds after each layer
    job = queue(digits)
    until(lambda: report(find(job.id)).steps, 60)
    cancel(job.id)
    found = ended(job)
    assert (found.state, found.message) == ("cancelled", "")
    assert refit_model(found) is None
    assert 0 < len(report(found).steps) < len(uninterrupted.steps)
    monkeypatch.delenv("SLOW_REFIT")
    resume(job.id)
    check(ended(job), uninterrupted)


def test_a_damaged_checkpoint_is_ignored(tmp_path, caplog):
    path = tmp_path / refit_job.CHECKPOINT
    assert refit_job._read_checkpoint(path) == (0.0, None)
    path.write_bytes(b"half")
    assert refit_job._read_checkpoint(path) == (0.0, None)
    assert "the refit begins anew" in caplog.text


def test_a_step_that_is_infinitely_bad_is_stored_as_it_is(tmp_path):
    step = Step("cores", "divergence", 0.25, float("inf"))
    stored = refit_job._Stored(steps=(step,), seconds=2.0)
    refit_job._report(tmp_path, stored)
    assert refit_job._read_report(tmp_path) == stored
    refit_job._write_checkpoint(tmp_path / "c", stored, Begun(3, (step,), {}))
    seconds, begun = refit_job._read_checkpoint(tmp_path / "c")
    assert (seconds, begun.steps) == (2.0, (step,))


def test_data_that_is_no_longer_the_same_is_refused(digits):
    dense, decided, splits, start = digits
    fewer = DataSplits(splits.train.subset(64), splits.validation, splits.test)
    job = queue_refit(start, decided, fewer, IMAGES, data="digits", dense=dense)
    assert ended(job).message == (
        "the data or the original weights have changed since it was queued: queue it anew"
    )


def test_one_image_is_refused_before_it_is_queued(digits):
    with pytest.raises(DataError, match=r"a refit was asked for with 1 images: give at least 2"):
        queue(digits, images=1)
    assert job_queue.listed() == []


def test_what_another_version_queued(digits):
    job = job_queue.submit(refit_job.KIND, "old", {"cores": 1})
    assert report(job) is None
    assert ended(job).message.startswith("it was queued by another version of this program (")


def test_from_the_command_line(digits):
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == 0, result.output
        return result.stdout

    choices = ("--eps", "0.9", "--layers", LAYERS[0])
    printed = run("compress", DIGITS, *choices, "--refit", "40", "--data", "digits", "--job")
    identity, _, rest = printed.partition(": ")
    assert rest.endswith(f"{DIGITS} at ε_p 0.9, refit on 40 images of digits\n")
    assert ended(find(identity)).state == "done"
    (row,) = json.loads(run("jobs", "list", "--json"))["jobs"]
    assert (row["kind"], row["state"]) == ("refit", "done")
    assert load(json.loads(run("jobs", "show", identity, "--json"))["result"]).plan.eps == 0.9
    assert "refit on 40 images of digits: done" in run("jobs", "logs", identity)
    assert "result: " in run("jobs", "show", identity)


@pytest.mark.parametrize("arguments", [(), ("--job",), ("--job", "--refit", "9", "--out", "x")])
def test_a_result_has_one_place(arguments):
    result = CliRunner().invoke(cli, ["compress", DIGITS, "--eps", "0.9", *arguments])
    assert result.exit_code == 2
    assert "give --out DIR for the compressed model, or --job with --refit N" in result.stderr
