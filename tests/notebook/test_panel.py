"""The panel: widgets that move the explorer, and follow it; moved from Python, without a screen."""

import pytest
import torch

from rsdtr.notebook import explore
from rsdtr.notebook.panel import Panel, numbers
from tests.support.networks import varied


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What another test has measured is not known here."""
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def look():
    return explore("digits_resnet20")


@pytest.fixture
def panel(look):
    look._repr_mimebundle_()
    return look._shown


def title(panel, name):
    return panel.figures[name].layout.title.text


def test_moving_the_slider_moves_plan_numbers_and_figures(look, panel):
    assert list(panel.figures) == ["curve", "layers"]
    before = [list(trace.y) for trace in panel.figures["layers"].data]
    panel.eps.value = 0.8
    assert look.eps == look.plan.eps == 0.8
    assert f"PCR {look.plan.pcr:.2f}" in panel.numbers.value
    assert f"{look.bytes[1]:,} bytes" in panel.numbers.value
    assert f"{look.measured.accuracy.recalibrated.percent:.1f} %" in panel.numbers.value
    assert title(panel, "layers").endswith("0.8")
    after = [list(trace.y) for trace in panel.figures["layers"].data]
    assert after != before
    assert after[1] == [layer.storage for layer in look.plan.layers if layer.ranks]
    assert panel.figures["curve"].data[-1].x[0] == look.plan.pcr


def test_the_rule_changes_the_plan(look, panel):
    panel.rule.value = "tight"
    assert look.plan.rule == "tight"
    assert title(panel, "layers").endswith("tight")


def test_a_layer_brings_its_rings_and_takes_them_away(look, panel):
    assert "layer2.2.conv1" in dict(panel.layer.options)
    panel.layer.value = "layer2.2.conv1"
    assert list(panel.figures) == ["curve", "layers", "candidates", "ring"]
    before = title(panel, "ring")
    panel.eps.value = 0.8
    assert title(panel, "ring") != before
    panel.layer.value = ""
    assert look.layer is None
    assert list(panel.figures) == ["curve", "layers"]
    assert len(panel._pictures.children) == 2


def test_it_follows_what_is_set_in_code(look, panel):
    look.eps, look.rule, look.layer = 0.4, "tight", "layer1.0.conv1"
    assert (panel.eps.value, panel.rule.value, panel.layer.value) == (0.4, "tight", look.layer)
    assert "ring" in panel.figures


def test_the_button_measures_the_plan():
    look = explore("digits_resnet20", layers="layer3.*", eps=0.7)
    panel = Panel(look)
    look._shown = panel
    assert "not measured" in panel.numbers.value
    assert list(panel.figures) == ["layers"]
    panel.measure.click()
    assert f"compressed <b>{look.measured.accuracy.compressed.percent:.1f} %" in panel.numbers.value
    assert set(panel.figures) == {"curve", "layers"}
    assert panel.message.value == ""
    assert not panel.measure.disabled


def test_without_labels_the_button_is_off_and_says_why():
    panel = Panel(explore(varied(), torch.rand(1, 3, 12, 12)))
    assert panel.measure.disabled
    assert "data=" in panel.measure.tooltip
    assert "No accuracy: give explore data=" in numbers(panel._of)


def test_what_cannot_be_done_is_said_in_the_panel(look, panel, monkeypatch):
    from rsdtr.errors import DataError

    def fail():
        raise DataError("no <images> here: give some")

    monkeypatch.setattr(look, "measure", fail)
    panel.measure.click()
    assert panel.message.value == "no &lt;images&gt; here: give some"
    assert not panel.measure.disabled
    panel.eps.value = 0.5
    assert panel.message.value == ""
