"""`explore`: a plan as a value, and what a notebook shows of it."""

import builtins
import importlib
import json
import sys

import pytest
import torch

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import load_data
from rsdtr.errors import DataError, RsdtrError, UnknownName
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.notebook import explore, explorer
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.curves_on_disk import curve_path
from rsdtr.recovery.recalibrate import recalibrate
from tests.support.networks import varied

WIDGET = "application/vnd.jupyter.widget-view+json"
FIGURE = "application/vnd.plotly.v1+json"
INPUTS = torch.rand(2, 3, 12, 12)


@pytest.fixture
def look():
    return explore("digits_resnet20")


def rings(decided):
    """The last digit of an error depends on the process that computed it."""
    return [(layer.name, layer.shift, layer.ranks, layer.kept_dense) for layer in decided.layers]


def test_the_plan_is_the_one_that_planning_makes(look):
    spec = model_spec("digits_resnet20")
    costs = profile(look.network, spec)
    assert rings(look.plan) == rings(plan(costs, 0.6))
    look.eps = 0.3
    look.rule = "tight"
    assert rings(look.plan) == rings(plan(costs, 0.3, rule="tight"))
    assert look.choices.eps == look.eps == 0.3
    assert look.choices.rule == look.rule == "tight"


def test_the_accuracy_that_comes_with_the_program_is_known_at_once(look):
    """Its numbers are checked against a measurement where the curve is tested."""
    assert look.measured == look.curve.at(look.choices)
    assert look.measured.pcr == pytest.approx(look.plan.pcr)
    name = f"{look.measured.accuracy.recalibrated.percent:.1f} % of 360 images"
    assert name in str(look)
    star = look.tradeoff_figure().data[-1]
    assert star.x[0] == look.plan.pcr
    assert star.y[0] == look.measured.accuracy.recalibrated.percent


def test_the_sizes_are_those_of_the_files(look, tmp_path):
    from rsdtr import save

    dense, small = look.bytes
    assert dense == 1_093_136
    network = look.compressed()
    assert network.plan == look.plan
    folder = save(network, network.plan, tmp_path / "small")
    assert (folder / "model.safetensors").stat().st_size == small


def test_a_layer_is_looked_at_by_its_name(look):
    assert look.candidates_figure() is None
    assert look.ring_figure() is None
    look.layer = "layer2.2.conv1"
    ring = next(layer for layer in look.plan.layers if layer.name == look.layer)
    assert f"{ring.storage:,} scalars instead of 9,216" in look.ring_figure().layout.title.text
    assert "Storage of the candidate" in look.candidates_figure().layout.title.text
    with pytest.raises(UnknownName, match="no layer 'layer9'"):
        look.layer = "layer9"
    assert look.layer == "layer2.2.conv1"


def test_a_network_of_ones_own_stays_what_it_is_and_is_not_labelled():
    network = varied()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    look = explore(network, INPUTS, eps=0.5)
    assert look.network is network
    assert look.plan.model == "Varied"
    assert [layer.name for layer in look.plan.layers if layer.ranks] == ["body", "point", "wide"]
    assert look.layers == ("stem", "body", "grouped", "point", "wide")  # and not the linear one
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert look.curve is look.measured is look.tradeoff_figure() is None
    with pytest.raises(DataError, match="accuracy of Varied is unknown: give explore data="):
        look.measure()


def test_accuracy_is_measured_as_anywhere_and_found_again():
    """Of other layers than those whose curve comes with the program."""
    name = "digits_resnet20"
    look = explore(name, eps=0.7, layers="layer3.*")
    assert look.curve is None
    point = look.measure()
    data = load_data("digits", model_spec(name))
    small = compress(load_model(name), look.plan)
    assert point.accuracy.compressed == accuracy(small, data.test)
    again = recalibrate(small, data.train, 2000, reference=look.network)
    assert point.accuracy.recalibrated == accuracy(again, data.test)
    assert look.measured == point
    assert curve_path(look.curve.key).is_file()
    assert explore(name, eps=0.7, layers="layer3.*").measured == point
    given = explore(name, eps=0.7, layers="layer3.*", data=data)
    assert given.measured is None  # nobody can say that they are the same images
    assert given.measure().accuracy == point.accuracy
    assert not curve_path(given.curve.key).exists()


def test_what_does_not_fit_is_one_sentence(look):
    for eps in (0.01, 0.99, float("nan")):
        with pytest.raises(RsdtrError, match=r"give one from 0\.02 to 0\.95"):
            look.eps = eps
    with pytest.raises(RsdtrError, match="no rule 'loose': give one of paper, tight"):
        look.rule = "loose"
    assert (look.eps, look.rule) == (0.6, "paper")
    with pytest.raises(RsdtrError, match="Varied was given no example_inputs"):
        explore(varied())
    with pytest.raises(RsdtrError, match="Varied was given weights"):
        explore(varied(), INPUTS, weights="none")
    with pytest.raises(RsdtrError, match="is the name of a model"):
        explore("digits_resnet20", INPUTS)
    with pytest.raises(DataError, match="accuracy needs labels"):
        explore("digits_resnet20", data="photos")
    other = explore(varied(), INPUTS, task="other")
    with pytest.raises(DataError, match="a network for other has none"):
        other.measure()


def test_synthetic_weights_have_no_accuracy():
    assert explore("digits_resnet20", weights="none").data is None


def test_a_notebook_is_given_widgets_and_for_readers_without_them_a_picture(look):
    bundle = look._repr_mimebundle_()
    assert set(bundle[WIDGET]) == {"version_major", "version_minor", "model_id"}
    assert bundle["text/plain"] == str(look)
    title = bundle[FIGURE]["layout"]["title"]
    assert "run the cell in a notebook with widgets" in title["subtitle"]["text"]
    assert len(bundle[FIGURE]["data"]) == len(look.tradeoff_figure().data)
    json.dumps(bundle)
    assert look._repr_mimebundle_()[WIDGET] == bundle[WIDGET]  # shown twice it is one


def test_without_widgets_it_is_a_picture_and_says_what_is_missing(look, monkeypatch):
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    monkeypatch.setattr(explorer, "find_spec", lambda name: None if name == "anywidget" else name)
    monkeypatch.setattr("plotly.io.renderers.default", "plotly_mimetype")
    bundle = look._repr_mimebundle_()
    missing = "anywidget is not installed: install it with pip install 'rsdtr[notebook]'"
    assert WIDGET not in bundle
    assert missing in bundle["text/plain"]
    assert missing in bundle[FIGURE]["layout"]["title"]["subtitle"]["text"]
    look.eps = 0.3  # it goes on in code
    assert look.plan.eps == 0.3


def test_without_plotly_one_sentence_names_the_extra(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == "plotly":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    for name in [
        name for name in sys.modules if name.startswith(("rsdtr.notebook", "rsdtr.charts"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(RsdtrError, match=r"plotly is not installed: .* 'rsdtr\[notebook\]'"):
        importlib.import_module("rsdtr.notebook")
