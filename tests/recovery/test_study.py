"""Factors against scratch, on a few digits for an epoch."""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from rsdtr.charts.recovery import study_figure
from rsdtr.commands.cli import cli
from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import load_data
from rsdtr.errors import RsdtrError
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.study import Study, factors_vs_scratch, from_scratch


@pytest.fixture(scope="module")
def dense():
    return load_model("digits_resnet20")


@pytest.fixture(scope="module")
def few():
    splits = load_data("digits", model_spec("digits_resnet20"))
    return replace(
        splits,
        train=splits.train.subset(300),
        validation=splits.validation.subset(100),
        test=splits.test.subset(100),
    )


@pytest.fixture(scope="module")
def begun(dense):
    decided = plan(profile(dense, model_spec("digits_resnet20")), 0.5)
    return Study(decided, "digits", FinetuneOptions(epochs=1, lr=0.01))


@pytest.fixture(scope="module")
def ended(dense, begun, few):
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    *_, last = factors_vs_scratch(dense, begun, few, [0, 1])
    for name, value in dense.state_dict().items():
        assert torch.equal(value, before[name])
    return last


def test_two_runs_for_every_seed(ended):
    assert [(run.start, run.seed) for run in ended.runs] == [
        ("factors", 0), ("scratch", 0), ("factors", 1), ("scratch", 1),
    ]  # fmt: skip
    for run in ended.runs:
        assert len(run.epochs) == 1
        assert run.test.n == 100


def test_factors_are_ahead_of_random_weights_before_and_after_an_epoch(ended):
    for factors, scratch in zip(ended.of("factors"), ended.of("scratch"), strict=True):
        assert factors.untrained.percent > scratch.untrained.percent + 30
        assert factors.test.percent > scratch.test.percent


def test_scratch_has_the_same_rings_and_none_of_the_weights(dense, begun):
    factors, scratch = compress(dense, begun.plan), compress(dense, begun.plan)
    from_scratch(scratch, seed=3)
    again = compress(dense, begun.plan)
    from_scratch(again, seed=3)
    ours, theirs = factors.state_dict(), scratch.state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}
    weights = [name for name, value in factors.named_parameters() if value.dim() > 1]
    assert all(not torch.equal(ours[name], theirs[name]) for name in weights)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in theirs.items())


def test_what_is_known_is_not_trained_again(dense, ended, few):
    assert list(factors_vs_scratch(dense, ended, few, [0, 1])) == []
    (third, _) = factors_vs_scratch(dense, ended, few, [0, 1, 2])
    assert third.runs[:4] == ended.runs


def test_a_run_that_is_stopped_does_not_count(dense, begun, few):
    assert list(factors_vs_scratch(dense, begun, few, [0], should_stop=lambda: True)) == []


def test_spread_by_hand(ended):
    first, second = (run.test.percent for run in ended.of("scratch"))
    mean, deviation = ended.spread("scratch")
    assert mean == pytest.approx((first + second) / 2)
    assert deviation == pytest.approx(abs(first - second) / 2**0.5)


def test_it_is_read_as_it_was_written(ended, tmp_path):
    ended.save(tmp_path / "deep" / "study.json")
    assert Study.load(tmp_path / "deep" / "study.json") == ended
    (tmp_path / "other.json").write_text('{"plan": 1}')
    with pytest.raises(RsdtrError, match="is no study"):
        Study.load(tmp_path / "other.json")
    with pytest.raises(RsdtrError, match="cannot be read"):
        Study.load(tmp_path / "nowhere.json")
    with pytest.raises(RsdtrError, match="could not be written"):
        ended.save(tmp_path / "other.json" / "study.json")


def test_the_figure_has_a_line_per_run_and_their_means(ended):
    figure = study_figure(ended, 99.0)
    assert len(figure.data) == 6
    mean = next(trace for trace in figure.data if str(trace.name).startswith("from its factors"))
    runs = ended.of("factors")
    assert list(mean.x) == [0, 1]
    assert mean.y[1] == pytest.approx(
        sum(run.epochs[0].validation.percent for run in runs) / len(runs)
    )
    assert figure.layout.yaxis.title.text == "validation accuracy (%)"


def test_on_the_command_line(tmp_path):
    def asked(*more):
        command = ["study", "factors-vs-scratch", "digits_resnet20", "--eps", "0.5", "--lr", "0.01"]
        return CliRunner().invoke(
            cli, [*command, "--epochs", "1", "--seeds", "1", "--out", str(tmp_path / "s"), *more]
        )

    result = asked()
    assert result.exit_code == 0, result.output
    assert "factors" in result.stdout
    assert "scratch" in result.stdout
    assert (tmp_path / "s" / "study.html").stat().st_size > 10_000
    found = json.loads((tmp_path / "s" / "study.json").read_text())
    assert [run["start"] for run in found["runs"]] == ["factors", "scratch"]
    refused = asked("--label-smoothing", "0.1")
    assert refused.exit_code == 2
    assert "holds another study" in refused.output
