"""An export as a job: the same files as at once, one job for equal content, and how it ends."""

import json
import os

import pytest
from click.testing import CliRunner

from rsdtr.commands.cli import cli
from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import save
from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.errors import JobError, UnknownName
from rsdtr.exports.export import export
from rsdtr.exports.verify import unchanged
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job, read_spec
from rsdtr.jobs.job_queue import find
from rsdtr.jobs.kinds.export import ARTEFACTS, exported_files, queue_export, run
from rsdtr.jobs.running import Running
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from tests.support.waiting import ended

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name == "nt", reason="processes of POSIX"),
    pytest.mark.usefixtures("own_jobs"),
]
NAME = "digits_resnet20"


@pytest.fixture
def asleep(monkeypatch) -> None:
    """No job gets anywhere."""
    monkeypatch.setattr(job_queue, "command", lambda _: ["sleep", "100"])


@pytest.fixture(scope="module")
def decided() -> CompressionPlan:
    return plan(profile(load_model(NAME), model_spec(NAME)), 0.8, layers=["layer3.[12].*"])


@pytest.fixture(scope="module")
def splits() -> DataSplits:
    return load_data("digits", model_spec(NAME))


def queued(decided: CompressionPlan, splits: DataSplits, **more) -> Job:
    model = compress(load_model(NAME), decided)
    return queue_export(model, decided, splits, ["safetensors"], data="digits", **more)


def test_the_files_are_those_of_an_export_at_once(decided, splits, tmp_path):
    job = queued(decided, splits, metrics={"epochs": 3}, holds="as compressed")
    assert job.title == f"{NAME} at ε_p 0.8, export as safetensors"
    assert exported_files(job) is None
    later = decided.model_copy(update={"seconds": 99.0})
    assert queued(later, splits, metrics={"epochs": 3}, holds="as compressed").id == job.id
    assert queued(decided, splits, metrics={"epochs": 4}, images=70).id != job.id
    job = ended(job)
    assert (job.state, job.message) == ("done", "")
    made = exported_files(job)
    assert (made.holds, made.recovered) == ("as compressed", None)
    model = compress(load_model(NAME), decided)
    at_once = export(
        model, decided, splits.test, ["safetensors"], tmp_path / "out",
        calibration=splits.train, metrics={"epochs": 3},
    )  # fmt: skip
    assert [item.format for item in made.artefacts] == [item.format for item in at_once]
    for here, there in zip(at_once, made.artefacts, strict=True):
        assert there.path == job.result / here.path.name
        assert there.path.read_bytes() == here.path.read_bytes()
    assert unchanged(job.result).metrics == {"epochs": 3}
    (job.folder / ARTEFACTS).write_text("[{}]")
    assert exported_files(job) is None


def test_cancelled_it_leaves_no_file(decided, splits, asleep):
    job = queued(decided, splits)
    running = Running(job, read_spec(job.folder).content)
    running.stop.set()
    assert run(running) is False
    assert not job.result.exists()
    assert not list(job.folder.glob(".export-*"))
    assert exported_files(find(job.id)) is None


def test_other_images_than_it_was_queued_with_are_refused(decided, splits, asleep):
    job = queued(decided, splits)
    content = read_spec(job.folder).content | {"identity": "0" * 64}
    with pytest.raises(JobError, match="have changed since it was queued"):
        run(Running(job, content))


def test_a_format_that_there_is_not_is_refused_before_it_is_queued(decided, splits):
    with pytest.raises(UnknownName, match="'torchscript' is no format"):
        queue_export(
            compress(load_model(NAME), decided), decided, splits, ["torchscript"], data="digits"
        )
    assert job_queue.listed() == []


def test_from_the_command_line(decided, splits, asleep, tmp_path):
    save(compress(load_model(NAME), decided), decided, tmp_path / "saved")
    words = ["export", str(tmp_path / "saved"), "--format", "onnx"]
    result = CliRunner().invoke(cli, [*words, "--job"])
    assert result.exit_code == 0, result.output
    (job,) = job_queue.listed()
    assert result.stdout == f"{job.id}: running, {NAME} at ε_p 0.8, export as onnx\n"
    assert json.loads((job.folder / "job.json").read_text())["content"]["formats"] == ["onnx"]
    for wrong in (["--out", "x", "--job"], [], ["--job", "--json"]):
        refused = CliRunner().invoke(cli, [*words, *wrong])
        assert refused.exit_code == 2
        assert "give --out DIR for the files, or --job" in refused.output
