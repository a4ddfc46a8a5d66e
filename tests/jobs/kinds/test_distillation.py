"""A distillation as a job: the result is that of one nobody interrupted, whatever happened."""

import math
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
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.job_queue import cancel, find, resume
from rsdtr.jobs.kinds import distillation as module
from rsdtr.jobs.kinds.distillation import (
    distill_report,
    distilled_model,
    expected_seconds,
    queue_distillation,
)
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.recovery.distill import Distilled, distill
from rsdtr.recovery.options import DistillOptions
from rsdtr.recovery.refit import Step
from tests.support import job_kinds
from tests.support.waiting import ended, until

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]
DIGITS = "digits_resnet20"
IMAGES = 60
OPTIONS = DistillOptions(steps=8, batch_size=16, lr=5e-4, moving_norms=0.0, precision="float32")


@pytest.fixture(autouse=True)
def cache(own_jobs, monkeypatch) -> Path:
    monkeypatch.setattr(job_queue, "command", job_kinds.command)
    return own_jobs


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, CompressionPlan, DataSplits, nn.Module]:
    """Dense, plan, data, and the network compressed so much that there is something to gain."""
    spec = model_spec(DIGITS)
    dense = load_model(DIGITS)
    decided = plan(profile(dense, spec), 0.9, layers=["layer1.0.conv1", "layer2.1.conv2"])
    return dense, decided, load_data("digits", spec), compress(dense, decided)


@pytest.fixture(scope="module")
def uninterrupted(digits) -> Distilled:
    dense, _, splits, start = digits
    return distill(start, dense, splits.train, IMAGES, options=OPTIONS)


def queue(digits, images: int = IMAGES, **more: object) -> Job:
    dense, decided, splits, start = digits
    asked: dict = {"data": "digits", "dense": dense, "options": OPTIONS} | more
    return queue_distillation(start, decided, splits, images, **asked)


def check(job: Job, uninterrupted: Distilled) -> None:
    assert (job.state, job.message) == ("done", "")
    saved = load(job.result)
    assert weights_sha256(saved.model) == weights_sha256(uninterrupted.model)
    assert weights_sha256(distilled_model(job)) == weights_sha256(uninterrupted.model)
    shown = distill_report(job)
    assert shown.judged == uninterrupted.judged
    assert len(shown.losses) == OPTIONS.steps
    told = saved.metrics["distilled"]
    assert (told["data"], told["images"], told["steps"]) == ("digits", IMAGES, OPTIONS.steps)
    assert not (job.folder / module.CHECKPOINT).exists()


def test_it_gives_what_a_distillation_here_gives(digits, uninterrupted):
    assert uninterrupted.judged.kept
    assert expected_seconds(DIGITS, IMAGES) is None
    job = queue(digits)
    assert queue(digits).id == job.id
    assert queue(digits, images=IMAGES + 1).id != job.id
    check(ended(job), uninterrupted)
    cancel(queue(digits, images=IMAGES + 1).id)
    seconds = distill_report(find(job.id)).seconds
    assert expected_seconds(DIGITS, IMAGES) == pytest.approx(400 / OPTIONS.steps * seconds)
    assert expected_seconds("resnet18", IMAGES) is None


@pytest.mark.parametrize("number", [1, 4])
def test_killed_between_two_steps_it_goes_on_to_the_same_end(
    digits, uninterrupted, monkeypatch, number
):
    """Number: of the checkpoint that is half written when the process dies."""
    monkeypatch.setenv("STALL_IN_DISTILLATION", str(number))
    job = queue(digits)
    half = job.folder / ".writing-half"
    until(half.exists, 60)
    os.kill(find(job.id).worker.pid, signal.SIGKILL)
    killed = ended(job)
    assert killed.message.endswith("resume it to go on from its last checkpoint")
    assert distilled_model(killed) is None
    monkeypatch.delenv("STALL_IN_DISTILLATION")
    resume(job.id)
    check(ended(job), uninterrupted)
    assert ("going on after step 3" in job.log.read_text()) == (number == 4)


def test_a_damaged_checkpoint_is_ignored(tmp_path, caplog):
    path = tmp_path / module.CHECKPOINT
    assert module._read_checkpoint(path) == (0.0, None)
    path.write_bytes(b"half")
    assert module._read_checkpoint(path) == (0.0, None)
    assert "the distillation begins anew" in caplog.text


def test_a_verdict_that_is_infinitely_bad_is_stored_as_it_is():
    reached = module._Reached(judged=Step("distillation", "divergence", 0.25, math.inf))
    assert module._Reached.model_validate_json(reached.model_dump_json()) == reached


def test_data_that_is_no_longer_the_same_is_refused(digits):
    dense, decided, splits, start = digits
    fewer = DataSplits(splits.train.subset(64), splits.validation, splits.test)
    job = queue_distillation(start, decided, fewer, IMAGES, data="digits", dense=dense)
    assert ended(job).message == (
        "the data or the original weights have changed since it was queued: queue it anew"
    )


def test_two_images_are_refused_before_it_is_queued(digits):
    with pytest.raises(DataError, match="a distillation was asked for with 2 images: give at"):
        queue(digits, images=2)
    assert job_queue.listed() == []


def test_what_another_version_queued(digits):
    job = job_queue.submit(module.KIND, "old", {"images": 1})
    assert distill_report(job) is None
    assert ended(job).message.startswith("it was queued by another version of this program (")


def test_the_command_line_refits_here_and_queues_the_rest(digits, monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: ["sleep", "100"])
    asked = ("--eps", "0.9", "--layers", "layer1.0.conv1", "--refit", "40")
    arguments = ("compress", DIGITS, *asked, "--distill-unlabelled", "50", "--data", "digits")
    result = CliRunner().invoke(cli, [*arguments, "--job"])
    assert result.exit_code == 0, result.output
    identity, _, rest = result.stdout.partition(": ")
    assert rest.endswith(f"{DIGITS} at ε_p 0.9, distilled on 50 images of digits\n")
    job = find(identity)
    assert read_spec(job.folder).content["images"] == 50
    assert load(job.folder / "start").metrics["refitted"]["images"] == 40
    cancel(identity)
