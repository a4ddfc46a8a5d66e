import json

import pytest
import torch

from rsdtr.errors import PlanError, RingError
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.search.paper_rule import candidates, smallest
from tests.support.networks import varied, varied_spec


@pytest.fixture(scope="module")
def small():
    return profile(varied(), varied_spec())


def test_each_layer_gets_its_smallest_ring_or_a_reason(small):
    decided = {layer.name: layer for layer in plan(small, 0.4).layers}
    # A plan by the paper's policy has no line for the linear layer, which the paper knows none of.
    assert list(decided) == [layer.name for layer in small.layers if layer.kind == "conv"]
    assert "outside the layer policy 'paper'" in decided["stem"].kept_dense
    assert "outside the layer policy 'paper'" in decided["point"].kept_dense
    assert "outside the layer policy 'paper'" in decided["grouped"].kept_dense
    best = smallest(candidates(small.layer("wide").kernel, 0.4))
    wide = decided["wide"]
    assert wide.kept_dense is None
    assert (wide.shift, wide.r0, wide.ranks) == (best.shift, best.r0, best.ranks)
    assert wide.storage == best.storage < 20 * 16 * 15
    assert 0 < wide.relative_error <= 0.4


def test_ratios_follow_from_the_layers(small):
    made = plan(small, 0.4)
    saved = sum(
        small.layer(decided.name).kernel.numel() - decided.storage for decided in made.layers
    )
    assert made.params.original == small.params
    assert made.params.compressed == small.params - saved
    assert made.pcr == pytest.approx(small.params / (small.params - saved))
    head = 20 * 4
    assert made.macs.compressed == head + sum(layer.macs.compressed for layer in made.layers)
    assert made.fcr == pytest.approx(made.macs.original / made.macs.compressed)


def test_layer_policies(small):
    def rings(layers):
        made = plan(small, 0.4, layers=layers)
        return [layer.name for layer in made.layers if layer.kept_dense is None]

    assert rings("paper") == ["body", "wide"]
    assert rings("all") == ["body", "point", "wide"]
    assert rings(["wi*", "po*"]) == ["point", "wide"]
    assert rings("wide") == ["wide"]
    with pytest.raises(PlanError, match=r"no layer of varied matches 'layer9\*'"):
        plan(small, 0.4, layers=["layer9*"])


def test_a_ring_that_does_not_pay_is_refused():
    spec = model_spec("digits_resnet20")
    torch.manual_seed(0)
    made = plan(profile(spec.build(), spec), 0.02)
    reasons = {layer.kept_dense for layer in made.layers[1:]}
    assert None not in reasons
    assert all("the smallest ring at this ε_p stores" in reason for reason in reasons)
    assert made.pcr == made.fcr == 1


def test_json_round_trip_and_the_contract_s_fields(small):
    made = plan(small, 0.4)
    assert CompressionPlan.from_json(made.model_dump_json()) == made
    fields = json.loads(made.model_dump_json())
    assert set(fields) == {
        *("model", "eps", "rule", "objective", "pcr", "fcr", "params", "macs"),
        *("seconds", "layers", "not_counted", "target", "fcr_run", "measured_on"),
    }
    assert set(fields["layers"][1]) == {
        *("name", "shape", "stride", "kept_dense", "shift", "r0", "ranks", "storage", "form"),
        *("macs", "relative_error", "eps", "macs_run", "latency_ms", "runs_dense"),
    }


def test_a_plan_written_before_forms_were_chosen_still_loads(small):
    made = plan(small, 0.4)
    fields = json.loads(made.model_dump_json())
    for name in ("fcr_run", "measured_on"):
        assert fields.pop(name) is None
    for layer in fields["layers"]:
        for name in ("macs_run", "latency_ms", "runs_dense"):
            assert layer.pop(name) is None
    assert CompressionPlan.from_json(json.dumps(fields)) == made


def broken(made, **changes):
    fields = json.loads(made.model_dump_json())
    fields["layers"][1].update(changes)
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"storage": 7}, "storage and ranks do not agree"),
        ({"r0": 99}, "r0 and ranks do not agree"),
        ({"shift": None}, "needs shift, r0 and ranks, or kept_dense"),
        ({"kept_dense": "because"}, "is kept dense but has a ring"),
        ({"form": "conv3d"}, "this is no compression plan: layers.1.form"),
        ({"surplus": 1}, "this is no compression plan: layers.1.surplus"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(small, changes, sentence):
    with pytest.raises(PlanError, match=sentence):
        CompressionPlan.from_json(broken(plan(small, 0.4), **changes))


def test_text_that_is_no_plan():
    with pytest.raises(PlanError, match="this is no compression plan: the whole text"):
        CompressionPlan.from_json("{")


def test_eps_out_of_range(small):
    with pytest.raises(RingError, match=r"ε_p is 1\.2"):
        plan(small, 1.2)


def test_progress_ends_with_all_layers(small):
    seen = []
    plan(small, 0.4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(7)]


@pytest.mark.parametrize(("eps", "pcr"), [(0.5, 2.030), (0.6, 2.555), (0.7, 3.568)])
def test_compression_ratios_of_the_real_resnet20(offline, eps, pcr):
    found = profile(load_model("cifar10_resnet20"), model_spec("cifar10_resnet20"))
    made = plan(found, eps)
    assert found.params == 269_722
    assert made.pcr == pytest.approx(pcr, abs=5e-4)
    assert all(layer.relative_error <= eps for layer in made.layers)
