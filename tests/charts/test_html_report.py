"""The model card and the report: what they hold is what the plan and the measurements say."""

import json
import re

import pytest
from click.testing import CliRunner

from rsdtr.charts.html_report import report_html, saved_report
from rsdtr.charts.tables import pins_table
from rsdtr.commands.cli import cli
from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import load, save
from rsdtr.exports.model_card import ModelCard, model_card
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.measuring.latency import NetworkLatency, network_latency
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.planning.choices import Asked, Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.system.safetensors_format import saved_bytes

NAME = "digits_resnet20"
ACCURACIES = [("dense", Accuracy.of(99, 100)), ("<recalibrated>", Accuracy.of(90, 100))]


@pytest.fixture(scope="module")
def digits():
    return profile(load_model(NAME), model_spec(NAME))


@pytest.fixture(scope="module")
def card(digits):
    asked = Asked(NAME, Choices(eps=0.5))
    return model_card(digits, plan(digits, 0.5), accuracies=ACCURACIES, asked=asked)


def test_a_card_holds_the_plan_the_bytes_and_the_measurements(card, digits):
    model = load_model(NAME)
    assert card.bytes.original == saved_bytes(model)
    assert card.bytes.compressed == saved_bytes(compress(model, card.plan))
    assert card.weights_sha256 == digits.weights_sha256
    assert (card.reached.percent, card.reached.n) == (90, 100)
    assert card.reached.interval == Accuracy.of(90, 100).interval
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


def test_latency_is_on_the_card_only_when_all_of_it_was_measured(digits):
    from rsdtr.measuring.latency import network_cases
    from tests.support.made_up import device_profile

    decided = plan(digits, 0.5)
    cases = network_cases(decided, digits, batch=4, threads=2)
    measured = device_profile(cases.values(), "a machine", pipeline=4.0, dense=8.0)
    whole = network_latency(decided, digits, measured, batch=4, threads=2)
    asked = Asked(NAME, Choices(eps=0.5))
    found = model_card(digits, decided, latency=whole, asked=asked).latency
    assert (found.machine, found.batch) == ("a machine", 4)
    assert found.ratio == pytest.approx(found.runs_ms / found.dense_ms)
    assert found.ratio < 1
    lacking = NetworkLatency("a machine", 4, 2, whole.layers, ("conv1",), (), None)
    assert model_card(digits, decided, latency=lacking, asked=asked).latency is None


def test_the_report_needs_nothing_else_and_shows_the_numbers(card):
    text = report_html(card)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", text)
    assert text.count("Plotly.newPlot(") >= 2
    assert f"{card.plan.pcr:.2f} ×" in text
    assert f"{card.bytes.original:,} → {card.bytes.compressed:,}" in text
    assert "&lt;recalibrated&gt;" in text
    assert "<td><recalibrated>" not in text
    assert "90.00 % (82.56 to 94.48, n = 100)" in text  # Wilson's interval
    for layer in card.plan.layers:
        assert f"<td>{layer.name}</td>" in text
    assert "outside the layer policy" in text
    assert "python -m rsdtr plan digits_resnet20 --eps 0.5" in text
    assert report_html(card) == text  # to the bit


def test_the_report_of_a_saved_model_has_its_plan_and_its_accuracy(card, tmp_path):
    model = compress(load_model(NAME), card.plan)
    measured = {"accuracy": 90.0, "interval": [82.5, 94.5], "n": 100, "data": "digits"}
    text = saved_report(load(save(model, card.plan, tmp_path / "with", metrics=measured)))
    assert "90.00 % (82.50 to 94.50, n = 100)" in text
    assert f"{card.bytes.original:,} → {card.bytes.compressed:,}" in text
    assert weights_sha256(model) in text
    assert str(tmp_path) not in text
    bare = saved_report(load(save(model, card.plan, tmp_path / "bare", metrics={"accuracy": "?"})))
    assert "<td>Accuracy" not in bare


def test_two_cards_are_compared_figure_by_figure(card, digits):
    other = model_card(digits, plan(digits, 0.6), asked=Asked(NAME, Choices()))
    table = pins_table(card, other).set_index("figure")
    assert table.loc["PCR (×)", "B − A"] == pytest.approx(other.plan.pcr - card.plan.pcr)
    assert table.loc["file (bytes)", "A"] == card.bytes.compressed
    assert table.loc["accuracy (%)", "A"] == 90
    assert table.loc["accuracy (%)"].isna()["B"]
    assert table.loc["accuracy (%)"].isna()["B − A"]


def run(*words: str):
    return CliRunner().invoke(cli, ["report", NAME, *words], prog_name="python -m rsdtr")


def test_the_command_writes_a_card_and_a_report(tmp_path, digits):
    path = tmp_path / "card.json"
    result = run("--eps", "0.5", "--accuracy", "--out", str(path))
    assert result.exit_code == 0, result.stderr
    found = ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
    assert found.plan.params == plan(digits, 0.5).params
    assert [stage.stage for stage in found.accuracy] == ["dense", "compressed"]
    assert found.accuracy[0].percent > 98
    path = tmp_path / "report.HTML"
    assert run("--eps", "0.5", "--out", str(path)).exit_code == 0
    assert "Plotly.newPlot(" in path.read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", "report.HTML"]
    assert json.loads((tmp_path / "card.json").read_text())["latency"] is None


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("report.pdf", "give a file that ends in .html or .json"),
        ("nowhere/report.html", "there is no folder"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_the_work(tmp_path, out, sentence):
    result = run("--out", str(tmp_path / out))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "planning" not in result.stderr


def test_a_place_that_cannot_be_written_gets_one_sentence(tmp_path):
    (tmp_path / "report.html").mkdir()
    result = run("--eps", "0.5", "--out", str(tmp_path / "report.html"))
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
