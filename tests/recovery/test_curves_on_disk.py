"""Curves on disk: what comes back, what counts as none, and those that come with the program."""

import json
import logging

import pytest

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import data_identity
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import Target
from rsdtr.recovery.curves_on_disk import BUNDLED, curve_path, file_name, load_curve, save_curve
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.recover import CALIBRATION_IMAGES
from rsdtr.recovery.tradeoff_curve import CurveKey, every_question
from rsdtr.search.candidate import RULES
from tests.support.curves import KEY, digits, made_up_curve, point


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "curves"


def test_what_was_stored_comes_back_equal():
    assert load_curve(KEY) is None
    curve = made_up_curve(point(0.4, 3.0, 98.0, refit=99.0))
    assert save_curve(curve)
    assert load_curve(KEY) == curve


def test_two_writers_keep_each_others_points():
    save_curve(made_up_curve(point(0.4, 3.0, 98.0)))
    save_curve(made_up_curve(point(0.5, 5.0, 97.0)))
    assert sorted(p.eps for p in load_curve(KEY).points) == [0.4, 0.5]


@pytest.mark.parametrize(
    "other",
    [
        {"weights_sha256": "1" * 64},
        {"data": "photos"},
        {"images": 99},
        {"rule": "tight"},
        {"objective": "macs"},
        {"layers": ("conv1",)},
    ],
)
def test_a_curve_is_for_exactly_one_question(other):
    save_curve(made_up_curve(point(0.4, 3.0, 98.0)))
    assert load_curve(KEY.model_copy(update=other)) is None


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"model": 3}'])
def test_a_damaged_file_counts_as_none_and_is_written_anew(content, folder, caplog):
    folder.mkdir(parents=True)
    curve_path(KEY).write_text(content)
    with caplog.at_level(logging.WARNING):
        assert load_curve(KEY) is None
    assert "is no trade-off curve" in caplog.text
    curve = made_up_curve(point(0.4, 3.0, 98.0))
    assert save_curve(curve)
    assert load_curve(KEY) == curve


def test_a_file_of_another_curve_under_this_name_is_not_believed(folder):
    save_curve(made_up_curve(point(0.4, 3.0, 98.0)))
    told = json.loads(curve_path(KEY).read_text())
    told["key"]["weights_sha256"] = "2" * 64
    curve_path(KEY).write_text(json.dumps(told))
    assert load_curve(KEY) is None


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "file"))
    assert not save_curve(made_up_curve())
    assert "the curve is lost" in caplog.text


@pytest.fixture(scope="module")
def network():
    return digits()


def bundled(network, rule):
    _, costs, _ = network
    identity = data_identity(None, model_spec("digits_resnet20"))
    return load_curve(CurveKey.of(costs, Choices(rule=rule), identity, 2000))


@pytest.mark.parametrize("rule", RULES)
def test_the_curve_of_the_bundled_network_is_there_for_the_whole_slider(network, rule):
    curve = bundled(network, rule)
    for asked in every_question(Choices(rule=rule)):
        found = curve.at(asked)
        assert found is not None, asked
        assert found.accuracy.recalibrated is not None


@pytest.mark.parametrize(
    "asked", [Choices(eps=0.6), Choices(target=Target(kind="pcr", value=8.0), rule="tight")]
)
def test_a_point_that_comes_with_the_program_is_what_is_measured_here(network, asked):
    """Two images in 360 may fall on the other side of a last bit of another machine."""
    dense, costs, data = network
    small = compress(dense, asked.decide(costs))
    again = recalibrate(small, data.train, CALIBRATION_IMAGES, reference=dense)
    told = bundled(network, asked.rule).at(asked).accuracy
    assert told.compressed.percent == pytest.approx(accuracy(small, data.test).percent, abs=0.6)
    assert told.recalibrated.percent == pytest.approx(accuracy(again, data.test).percent, abs=0.6)


def test_no_file_lies_there_that_nothing_reads(network):
    names = {file_name(bundled(network, rule).key) for rule in RULES}
    assert {path.name for path in BUNDLED.iterdir()} == names
