"""rsdtr curve: what is measured is kept, and told in a table or as one JSON object."""

import json
from functools import partial

import pytest
from click.testing import CliRunner

from rsdtr.commands import curve as command
from rsdtr.commands.cli import cli
from rsdtr.measuring import layer_times
from rsdtr.planning.choices import Choices


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))


def run(*words: str):
    return CliRunner().invoke(cli, ["curve", "digits_resnet20", *words])


def test_the_bundled_curve_is_told_without_measuring(monkeypatch):
    monkeypatch.setattr(command, "dense_curve", lambda *_: pytest.fail("measured"))
    told = json.loads(run("--json").stdout)
    assert set(told) == {"model", "data", "n", "dense_accuracy", "dense_interval", "points"}
    assert (told["model"], told["data"], told["n"]) == ("digits_resnet20", "digits", 360)
    point = next(p for p in told["points"] if p.get("eps") == 0.6)
    assert set(point) == {
        "eps", "rule", "pcr", "fcr", "bytes", "accuracy", "interval", "latency",
    }  # fmt: skip
    assert set(point["accuracy"]) == {"compressed", "recalibrated", "refit"}
    assert point["interval"][0] < point["accuracy"]["refit"] < point["interval"][1]
    target = next(p for p in told["points"] if "target" in p)
    assert target["target"] == {"kind": "pcr", "value": 1.5}
    assert target["pcr"] >= 1.5


def test_the_table_goes_from_the_largest_network_to_the_smallest():
    lines = run().stdout.splitlines()
    assert lines[0].split()[:4] == ["asked", "PCR", "FCR", "bytes"]
    assert lines[1].startswith("εₚ 0.02")
    assert lines[-1].startswith("dense: 99.17 % of 360 images of digits")
    assert [line.split()[2] for line in lines if line.startswith("PCR ≥")][:3] == [
        "1.5",
        "2",
        "2.5",
    ]


def test_what_is_missing_is_measured_and_kept_for_the_next_time(monkeypatch):
    monkeypatch.setattr(command, "coarse_questions", lambda _: [Choices(eps=0.6)])
    words = ("--limit", "40", "--recover", "none", "--json")
    first = run(*words)
    assert first.exit_code == 0
    (point,) = json.loads(first.stdout)["points"]
    assert point["accuracy"]["recalibrated"] is None
    monkeypatch.setattr(command, "dense_curve", lambda *_: pytest.fail("measured dense again"))
    assert json.loads(run(*words).stdout) == json.loads(first.stdout)


def test_latency_is_there_once_it_was_measured(monkeypatch):
    """The sum of the times of its layers over that of the dense ones, by this machine's profile."""
    monkeypatch.setattr(command, "coarse_questions", lambda _: [Choices(eps=0.9)])
    words = ("--limit", "40", "--recover", "none", "--json")
    (before,) = json.loads(run(*words).stdout)["points"]
    assert before["latency"] is None
    once = partial(layer_times.measure, runs=1, seconds=0.0)
    monkeypatch.setattr(layer_times, "measure", once)
    (after,) = json.loads(run(*words, "--latency").stdout)["points"]
    assert after | {"latency": None} == before
    assert (after["latency"]["engine"], after["latency"]["batch"]) == ("torch", 1)
    assert after["latency"]["ratio"] > 0
    (again,) = json.loads(run(*words).stdout)["points"]
    assert again == after


def test_without_labels_fidelity_takes_the_place_of_accuracy(monkeypatch):
    monkeypatch.setattr(command, "coarse_questions", lambda _: [Choices(eps=0.9)])
    words = ("--data", "photos", "--recover", "none")
    told = json.loads(run(*words, "--json").stdout)
    assert "dense_accuracy" not in told
    (point,) = told["points"]
    assert "accuracy" not in point
    low, high = point["interval"]
    assert low <= point["fidelity"]["compressed"] <= high
    assert "fidelity to the dense network on 8 images of photos" in run(*words).stdout


def test_a_model_without_images_of_its_own_is_one_sentence():
    result = CliRunner().invoke(cli, ["curve", "resnet18", "--weights", "none"])
    assert result.exit_code == 2
    assert "has no data set of its own: give a folder of class folders" in result.stderr
