"""Forms chosen from a made-up device profile: nothing is timed here."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.compressed.compress import compress
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import PlanError, UnknownName
from rsdtr.measuring import layer_times
from rsdtr.measuring.fastest_forms import (
    in_one_form,
    layer_cases,
    measured_forms,
    use_forms,
    with_forms,
)
from rsdtr.measuring.layer_times import DeviceProfile, FormTime, LayerTimes
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.ring.forms import FORMS
from tests.support.networks import varied, varied_spec


@pytest.fixture(scope="module")
def found():
    return profile(varied(), varied_spec())


@pytest.fixture(scope="module")
def made(found):
    return plan(found, 0.4)


def times(case, **milliseconds):
    """10 ms for every form, but for what is given (O_IHW for O|IHW)."""
    given = {name.replace("_", "|"): value for name, value in milliseconds.items()}
    return LayerTimes(
        case=case,
        forms=tuple(
            FormTime(form=f, median_ms=99.0, iqr_ms=0.0, best_ms=given.get(f, 10.0)) for f in FORMS
        ),
    )


def fast_plan(made, found, **options):
    """body is fastest as O|IHW; for wide, every ring form is slower than dense."""
    cases = layer_cases(made, found, **options)
    layers = (times(cases["body"], O_IHW=2.5), times(cases["wide"], dense=8.0))
    measured = DeviceProfile(machine="a phone", layers=layers)
    return with_forms(made, found, measured, **options)


def test_a_case_is_the_layer_as_the_network_uses_it(made, found):
    cases = layer_cases(made, found, batch=3, threads=5, training=True)
    assert list(cases) == ["body", "wide"]
    case = cases["wide"]
    assert (case.shape, case.stride) == ((20, 16, 3, 5), (2, 1))
    assert (case.padding, case.input_size) == ((1, 2), (14, 10))
    assert (case.batch, case.threads, case.mode) == (3, 5, "training")
    assert case.ranks == made.layers[-1].ranks


def test_each_ring_gets_its_fastest_form_or_says_why_it_runs_dense(made, found):
    fast = fast_plan(made, found, batch=4)
    layers = {layer.name: layer for layer in fast.layers}
    body, wide = layers["body"], layers["wide"]
    assert (body.form, body.runs_dense) == ("O|IHW", None)
    assert (body.latency_ms.original, body.latency_ms.compressed) == (10.0, 2.5)
    assert wide.form == "dense"
    assert wide.runs_dense == (
        "the fastest ring form, pipeline, takes 10 ms, dense 8 ms (batch 4, 2 threads, inference)"
    )
    assert wide.kept_dense is None
    assert wide.storage < 20 * 16 * 15
    assert fast.measured_on.model_dump() == {
        "machine": "a phone", "device": "cpu", "threads": 2, "batch": 4, "mode": "inference",
    }  # fmt: skip
    assert fast_plan(made, found, training=True).measured_on.mode == "training"


def test_what_the_plan_stores_does_not_change(made, found):
    fast = fast_plan(made, found)
    assert (fast.pcr, fast.fcr, fast.params, fast.macs) == (
        made.pcr, made.fcr, made.params, made.macs,
    )  # fmt: skip
    for before, after in zip(made.layers, fast.layers, strict=True):
        assert (before.ranks, before.storage, before.macs) == (
            after.ranks, after.storage, after.macs,
        )  # fmt: skip
        if before.kept_dense is not None:
            assert after == before
    assert made.layers[1].form == "pipeline"
    assert CompressionPlan.from_json(fast.model_dump_json()) == fast


def macs_that_run(decided):
    """MACs of the compressed network, its kernels being merged already."""
    model = compress(varied(), decided).requires_grad_(False)
    x = torch.zeros(1, 3, 14, 10)
    model(x)
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("form", FORMS)
def test_fcr_run_is_that_of_the_network_that_runs(made, found, form):
    decided = in_one_form(made, found, form)
    assert decided.fcr == made.fcr
    assert decided.fcr_run == pytest.approx(found.macs / macs_that_run(decided), rel=1e-12)
    if form == "pipeline":
        assert decided.fcr_run == pytest.approx(made.fcr)
    if form == "dense":
        assert decided.fcr_run == 1.0
    assert all(layer.form == form for layer in decided.layers if layer.ranks)


def test_the_chosen_forms_are_counted_too(made, found):
    fast = fast_plan(made, found)
    assert fast.fcr_run == pytest.approx(found.macs / macs_that_run(fast), rel=1e-12)


def test_in_one_form_forgets_older_measurements(made, found):
    decided = in_one_form(fast_plan(made, found), found, "dense")
    assert decided.measured_on is None
    assert all(layer.latency_ms is None and layer.runs_dense is None for layer in decided.layers)


def test_a_compressed_model_can_be_given_other_forms(made, found):
    model, fast = compress(varied(), made), fast_plan(made, found)
    x = torch.randn(2, 3, 14, 10)
    before, weights = model(x), copy.deepcopy(model.state_dict())
    use_forms(model, fast)
    rings = {name: m.form for name, m in model.named_modules() if isinstance(m, TRConv2d)}
    assert rings == {"body": "O|IHW", "wide": "dense"}
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.stem(x).is_contiguous(memory_format=torch.channels_last)
    assert not model.stem(x).is_contiguous()


def test_forms_for_another_model_are_refused_and_change_nothing(made, found):
    model, fast = compress(varied(), made), fast_plan(made, found)
    model.wide = nn.Conv2d(16, 20, (3, 5))
    with pytest.raises(PlanError, match="layer wide is Conv2d, expected a ring"):
        use_forms(model, fast)
    assert model.body.form == "pipeline"
    del model.wide
    with pytest.raises(PlanError, match="layer wide is NoneType"):
        use_forms(model, fast)


def test_what_was_not_measured_is_not_guessed(made, found):
    measured = DeviceProfile(machine="a phone")
    with pytest.raises(PlanError, match=r"of a phone lacks layer body \(batch 2, 1 threads, tra"):
        with_forms(made, found, measured, batch=2, threads=1, training=True)


def test_a_profile_of_another_model_is_refused(made, found):
    other = made.model_copy(update={"model": "other"})
    with pytest.raises(PlanError, match="the plan is for other and the profile of varied"):
        layer_cases(other, found)
    fields = json.loads(made.model_dump_json())
    fields["layers"][1]["name"] = "elsewhere"
    with pytest.raises(UnknownName, match="no layer 'elsewhere'"):
        layer_cases(CompressionPlan.from_json(json.dumps(fields)), found)


def test_measuring_fills_the_profile_and_chooses(made, found, tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    monkeypatch.setattr(
        layer_times, "measure", lambda cases: (times(case, IH_WO=1.0) for case in cases)
    )
    seen = []
    fast = measured_forms(made, found, progress=lambda done, total: seen.append((done, total)))
    assert [layer.form for layer in fast.layers if layer.ranks] == ["IH|WO", "IH|WO"]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    # A second time, nothing is left to measure.
    monkeypatch.setattr(layer_times, "measure", None)
    assert measured_forms(made, found) == fast
