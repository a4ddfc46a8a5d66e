"""A study as a job: what was trained before it was stopped is not trained again."""

import os

import pytest
from click.testing import CliRunner

from rsdtr.commands.cli import cli
from rsdtr.data.datasets import load_data
from rsdtr.jobs.job_queue import cancel, find, resume
from rsdtr.jobs.kinds.study import FIGURE, FILE, queue_study
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.study import Study
from tests.support.waiting import ended, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name == "nt", reason="processes of POSIX"),
    pytest.mark.usefixtures("own_jobs"),
]
DIGITS = "digits_resnet20"


def test_it_goes_on_after_the_last_training_that_was_made():
    dense, spec = load_model(DIGITS), model_spec(DIGITS)
    decided = plan(profile(dense, spec), 0.5)
    splits = load_data("digits", spec)
    recipe = FinetuneOptions(epochs=1, lr=0.01, batch_size=256)

    def queue():
        return queue_study(dense, decided, splits, recipe, 1, data="digits")

    job = queue()
    until((job.folder / FILE).exists)
    assert queue().id == job.id
    cancel(job.id)
    stopped = ended(job)
    assert stopped.state == "cancelled"
    assert "of 2, steps" in stopped.doing
    (first,) = Study.load(job.folder / FILE).runs
    resume(job.id)
    assert (ended(job).state, find(job.id).message) == ("done", "")
    made = Study.load(job.result / FILE)
    assert [run.start for run in made.runs] == ["factors", "scratch"]
    assert made.runs[0] == first
    assert "plotly" in (job.result / FIGURE).read_text(encoding="utf-8").lower()


def test_on_the_command_line_it_is_a_folder_or_a_job():
    words = ["study", "factors-vs-scratch", DIGITS, "--eps", "0.5", "--epochs", "1"]
    for more in ([], ["--out", "somewhere", "--job"]):
        refused = CliRunner().invoke(cli, [*words, *more])
        assert refused.exit_code == 2
        assert "give either --out, or --job" in refused.output
    queued = CliRunner().invoke(cli, [*words, "--seeds", "2", "--job"])
    assert queued.exit_code == 0, queued.output
    identity = queued.stdout.partition(":")[0]
    assert find(identity).title == f"{DIGITS} at ε_p 0.5, factors against scratch, 2 seeds"
    cancel(identity)
