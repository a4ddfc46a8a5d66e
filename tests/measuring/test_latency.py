"""What a plan's layers take, from times that were made up: sums, ratios and reasons by hand."""

import pytest
from torch import nn

from rsdtr.charts.tables import MEASURED, layers_table
from rsdtr.errors import PlanError
from rsdtr.measuring.fastest_forms import in_one_form, layer_cases
from rsdtr.measuring.latency import LayerLatency, network_cases, network_latency
from rsdtr.measuring.layer_times import DeviceProfile
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from tests.support.made_up import device_profile, layer_times
from tests.support.networks import varied, varied_spec


@pytest.fixture(scope="module")
def found():
    model = varied()
    model.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=16)  # which cannot be a ring
    return profile(model, varied_spec())


@pytest.fixture(scope="module")
def made(found):
    return plan(found, 0.4)


@pytest.fixture(scope="module")
def measured(made, found):
    """body gains as O|IHW, wide runs dense; stem and point stay dense and take 10 ms each."""
    cases = network_cases(made, found)
    best = {"body": {"O_IHW": 2.0}, "wide": {"dense": 8.0}}
    layers = [layer_times(case, **best.get(name, {})) for name, case in cases.items()]
    return DeviceProfile(machine="a phone").extended(layers)


@pytest.fixture(scope="module")
def latency(made, found, measured):
    return network_latency(made, found, measured)


def test_rings_and_what_stays_dense_are_measured_and_what_cannot_be_a_ring_is_not(made, found):
    cases = network_cases(made, found, batch=3, threads=5)
    assert list(cases) == ["stem", "body", "point", "wide"]
    rings = layer_cases(made, found, batch=3, threads=5)
    assert {name: cases[name] for name in rings} == rings
    stem = cases["stem"]
    assert (stem.shape, stem.padding, stem.input_size) == ((12, 3, 3, 3), (1, 1), (14, 10))
    assert (stem.ranks, stem.batch, stem.threads) == ((1, 1, 1, 1), 3, 5)


def test_a_network_is_the_sum_of_its_layers(latency):
    assert (latency.machine, latency.batch, latency.threads) == ("a phone", 1, 2)
    assert latency.lacking == ()
    assert latency.left_out == ("grouped", "twice")
    assert latency.dense_ms == 10 + 10 + 10 + 8
    assert latency.runs_ms == 10 + 2 + 10 + 8
    assert latency.ratio == pytest.approx(30 / 38)


def test_fcr_as_it_runs_counts_the_forms_that_run(made, found, measured, latency):
    body, wide = (in_one_form(made, found, form) for form in ("O|IHW", "dense"))
    saved = [
        next(layer.macs.original - layer.macs_run for layer in of.layers if layer.name == name)
        for of, name in ((body, "body"), (wide, "wide"))
    ]
    assert saved[1] == 0
    assert latency.fcr_run == pytest.approx(found.macs / (found.macs - sum(saved)), rel=1e-12)


def test_each_layer_says_what_it_gains_or_why_not(latency):
    said = {item.layer.name: (item.status, item.reason) for item in latency.layers}
    assert said["body"] == ("gains", "O|IHW takes 0.20 × the dense time")
    assert said["wide"] == ("runs dense", "the ring is slower here (1.25 ×)")
    assert said["stem"] == ("kept dense", "outside the layer policy 'paper'")
    assert said["grouped"][0] == "kept dense"
    assert "outside the layer policy" in said["grouped"][1]
    assert latency.of("wide").runs.best_ms == 8.0
    assert latency.of("stem").ring is None
    assert latency.of("stem").runs.form == "dense"
    assert latency.of("grouped").runs is None


@pytest.mark.parametrize(
    ("ring", "words"), [(9.95, "no faster here (0.99 ×)"), (10.04, "no faster here (1.00 ×)")]
)
def test_a_ring_that_is_as_fast_is_not_called_slower(made, latency, ring, words):
    body = latency.of("body")
    every = dict.fromkeys(("pipeline", "O_IHW", "I_HWO", "IH_WO"), ring)
    close = LayerLatency(body.layer, layer_times(body.times.case, **every))
    assert close.status == "runs dense"
    assert close.reason == f"the ring is {words}"


def test_what_was_not_measured_is_not_guessed(made, found, measured):
    without = DeviceProfile(machine="a phone", layers=measured.layers[1:])  # of the stem
    partly = network_latency(made, found, without)
    assert partly.lacking == ("stem",)
    assert (partly.dense_ms, partly.runs_ms, partly.ratio, partly.fcr_run) == (None,) * 4
    assert partly.of("body").status == "gains"
    other = network_latency(made, found, measured, batch=2)
    assert other.lacking == ("stem", "body", "point", "wide")
    assert (other.of("body").status, other.of("body").reason) == ("not measured", "")
    assert other.of("stem").status == "kept dense"


def test_a_profile_of_another_model_is_refused(made, found, measured):
    with pytest.raises(PlanError, match="the plan is for other and the profile of varied"):
        network_latency(made.model_copy(update={"model": "other"}), found, measured)


def test_the_layer_table_holds_what_was_measured(made, latency):
    table = layers_table(made, latency=latency).set_index("layer")
    body, wide, stem = (table.loc[name] for name in ("body", "wide", "stem"))
    assert [body[name] for name in MEASURED] == ["gains", 0.2, 10.0, 2.0, "O|IHW"]
    assert [wide[name] for name in MEASURED] == ["runs dense", 1.25, 8.0, 10.0, "pipeline"]
    assert wide["because"] == "the ring is slower here (1.25 ×)"
    assert stem["dense (ms)"] == 10.0
    assert table.loc["stem", ["ring (ms)", "ring / dense (×)"]].isna().all()
    assert table.loc["grouped", ["dense (ms)", "ring (ms)"]].isna().all()


def test_without_measurements_the_table_has_the_same_columns(made, latency):
    bare = layers_table(made)
    assert list(bare) == list(layers_table(made, latency=latency))
    assert set(bare["in time"]) == {"not measured", "kept dense"}
    assert bare["dense (ms)"].isna().all()
    assert bare.set_index("layer").loc["stem", "because"] == "outside the layer policy 'paper'"


def test_every_form_alike(made, found):
    cases = network_cases(made, found)
    same = network_latency(made, found, device_profile(cases.values(), "here", dense=20.0))
    assert same.ratio == pytest.approx((2 * 20 + 2 * 10) / 80)
