"""objective=latency against times that are known beforehand."""

import json

import pytest
from click.testing import CliRunner

from rsdtr.commands.cli import cli
from rsdtr.measuring import layer_times
from rsdtr.measuring.fastest_rings import TRIED, Stopped, fastest_rings, planned_ring
from rsdtr.measuring.layer_times import DeviceProfile
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ring.cost import form_macs
from rsdtr.ring.forms import FORMS
from tests.support.made_up import times_by_rank
from tests.support.networks import varied, varied_spec


@pytest.fixture(scope="module")
def found():
    return profile(varied(), varied_spec())


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A machine on which a ring takes as many ms as R_2 says, and dense as good as for ever."""
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    cases = []

    def measure(asked):
        for case in asked:
            cases.append(case)
            yield times_by_rank(case)

    monkeypatch.setattr(layer_times, "measure", measure)
    return cases


def looked_at(found, layer, eps):
    """The plan's ring and the TRIED others of fewest MACs, as they should be."""
    profiled = found.layer(layer.name)
    sizes = profiled.input_size, profiled.output_size
    others = {
        ring.ranks: ring
        for ring in profiled.spectra.candidates(eps)
        if ring.storage < profiled.kernel.numel() and ring.ranks != layer.ranks
    }

    def macs(ring):
        forms = [form for form in FORMS if form != "dense"]
        return min(form_macs(form, profiled.shape, ring.ranks, *sizes) for form in forms)

    best = sorted(others.values(), key=lambda ring: (macs(ring), ring.storage))[:TRIED]
    return [layer.ranks, *(ring.ranks for ring in best)]


def test_the_fastest_of_the_promising_rings_is_taken(found, measured):
    smallest = plan(found, 0.4)
    fastest = fastest_rings(smallest, found, batch=3, threads=1)
    assert fastest.objective == "latency"
    assert (fastest.measured_on.batch, fastest.measured_on.threads) == (3, 1)
    rings = [pair for pair in zip(smallest.layers, fastest.layers, strict=True) if pair[0].ranks]
    assert len(rings) == 2
    for before, after in rings:
        ranks = looked_at(found, before, 0.4)
        assert after.ranks[2] == min(each[2] for each in ranks)
        assert after.ranks in ranks
        assert after.relative_error <= 0.4
        assert after.eps == before.eps
    assert fastest.layers != smallest.layers
    assert {(case.batch, case.threads) for case in measured} == {(3, 1)}


def test_costs_follow_the_rings(found, measured):
    fastest = fastest_rings(plan(found, 0.4), found)
    saved = sum(found.layer(layer.name).kernel.numel() - layer.storage for layer in fastest.layers)
    assert fastest.params.compressed == found.params - saved
    assert fastest.pcr == pytest.approx(found.params / (found.params - saved))


def test_the_tight_rule_s_own_rings_are_looked_at_too(found, measured):
    tight = plan(found, 0.4, rule="tight")
    fastest = fastest_rings(tight, found)
    assert fastest.rule == "tight"
    assert all(layer.relative_error <= 0.4 for layer in fastest.layers)
    asked = {case.ranks for case in measured}
    assert {layer.ranks for layer in tight.layers if layer.ranks} <= asked


def test_stopped_it_chooses_nothing_and_goes_on_with_what_it_has_measured(found, measured):
    smallest = plan(found, 0.4)
    with pytest.raises(Stopped):
        fastest_rings(smallest, found, should_stop=lambda: len(measured) == 3)
    assert [times.case for times in DeviceProfile.own().layers] == measured
    assert len(measured) == 3
    chosen = fastest_rings(smallest, found)
    assert len(measured) == len(set(measured)) > 3
    assert fastest_rings(smallest, found, should_stop=lambda: False) == chosen
    with pytest.raises(Stopped):  # before it looks for rings, too
        fastest_rings(smallest, found, should_stop=lambda: True)


def test_a_planned_ring_is_the_candidate_it_was_made_from(found):
    layers = plan(found, 0.4).layers
    rings = [layer for layer in layers if layer.ranks]
    assert all(
        planned_ring(layer) in found.layer(layer.name).spectra.candidates(0.4) for layer in rings
    )
    assert planned_ring(next(layer for layer in layers if not layer.ranks)) is None


def test_on_the_command_line(measured):
    asked = ["plan", "digits_resnet20", "--objective", "latency", "--latency-batch", "4", "--json"]
    result = CliRunner().invoke(cli, asked)
    assert result.exit_code == 0, result.output
    decided = json.loads(result.stdout)
    assert decided["objective"] == "latency"
    assert decided["measured_on"]["batch"] == 4


def test_its_batch_is_for_nothing_else():
    result = CliRunner().invoke(cli, ["plan", "digits_resnet20", "--latency-batch", "4"])
    assert result.exit_code == 2
    assert "--latency-batch is for --objective latency" in result.output
