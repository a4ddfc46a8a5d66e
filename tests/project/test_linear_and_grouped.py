"""A network whose weight lies in linear layers and grouped convolutions, through the whole path."""

import json
from importlib import import_module

import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

from rsdtr.commands.cli import cli
from rsdtr.compressed import TRConv2d, TRLinear, compress, fuse, load, save
from rsdtr.compressed.compress import skeleton
from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.data.tensor_images import images_of
from rsdtr.errors import PlanError
from rsdtr.exports.export import export
from rsdtr.measuring.fastest_forms import in_one_form, layer_cases, use_forms
from rsdtr.models import zoo
from rsdtr.models.zoo import model_spec, own_model
from rsdtr.planning import Target, measure_damage, plan, profile, solve
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.refit import GROUPED, TOO_WIDE, refit
from rsdtr.ring.forms import FORMS
from rsdtr.ring.tensor_ring import TensorRing, ring_shapes
from tests.support.oracles import ring_by_einsum
from tests.support.own_networks import decayed

SHAPE = (3, 8, 8)


class Classifier(nn.Module):
    """Two convolutions, one of them grouped, and two linear layers behind the flattened map."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 32, 3, padding=1, groups=2)
        self.hidden = nn.Linear(32 * 4 * 4, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        x = F.max_pool2d(self.grouped(self.first(x).relu()).relu(), 2)
        return self.head(self.hidden(x.flatten(1)).relu())


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return decayed(Classifier())


@pytest.fixture
def spec(net, monkeypatch):
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))
    return own_model("classifier", lambda: net, SHAPE, 5)


@pytest.fixture
def pictures(spec):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2000, *SHAPE), generator=generator, dtype=torch.uint8)
    return images_of(pixels, spec)


def test_auto_is_the_default_of_other_networks_and_paper_of_the_paper_s(net, spec):
    assert model_spec("digits_resnet20").usual_layers == "paper"
    assert model_spec("cifar10_vgg19_bn").usual_layers == "paper"
    assert model_spec("resnet18@7").usual_layers == "paper"
    assert model_spec("regnet_y_400mf").usual_layers == "auto"
    found = profile(net, spec)
    usual = plan(found, 0.4)
    assert usual.layers == plan(found, 0.4, layers="auto").layers
    assert [layer.name for layer in usual.layers] == ["first", "grouped", "hidden", "head"]
    paper = plan(found, 0.4, layers="paper")
    assert [layer.name for layer in paper.layers] == ["first", "grouped"]
    assert all("outside the layer policy 'paper'" in layer.kept_dense for layer in paper.layers)
    pinned = plan(found, 0.4, layers="paper", own={"hidden": 0.5})
    assert [layer.name for layer in pinned.layers] == ["first", "grouped", "hidden"]
    for policy in ("all", ["g*"], "first"):
        listed = [layer.name for layer in plan(found, 0.4, layers=policy).layers]
        assert listed == ["first", "grouped"]
    named = plan(found, 0.4, layers=["h*"])
    assert [layer.name for layer in named.layers if layer.ranks] == ["hidden", "head"]
    assert [layer.name for layer in named.layers] == ["first", "grouped", "hidden", "head"]


def test_the_plan_says_what_a_layer_is_and_only_where_it_is_no_usual_convolution(net, spec):
    made = plan(profile(net, spec), 0.4)
    told = {layer["name"]: layer for layer in json.loads(made.model_dump_json())["layers"]}
    assert not {"kind", "groups"} & told["first"].keys()
    assert (told["grouped"]["groups"], told["grouped"]["shape"]) == (2, [32, 4, 3, 3])
    assert (told["hidden"]["kind"], told["hidden"]["shape"]) == ("linear", [24, 32, 4, 4])
    assert told["hidden"]["stride"] == [1, 1]
    assert CompressionPlan.from_json(made.model_dump_json()) == made


@pytest.mark.parametrize("eps", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("rule", ["paper", "tight"])
def test_no_kernel_is_off_by_more_than_was_asked(net, spec, eps, rule):
    made = plan(profile(net, spec), eps, rule=rule)
    network = compress(net, made)
    rings = {n: m for n, m in network.named_modules() if isinstance(m, RingLayer)}
    assert {"grouped", "hidden"} <= rings.keys()
    for layer in made.layers:
        if layer.name in rings:
            weight = net.get_submodule(layer.name).weight.detach().double()
            rebuilt = ring_by_einsum(rings[layer.name].ring.cores).double().reshape(weight.shape)
            error = float((weight - rebuilt).norm() / weight.norm())
            assert error == pytest.approx(layer.relative_error, abs=1e-5)
            assert error <= eps
    stored = sum(p.numel() for p in network.parameters())
    assert made.params.compressed == stored


@pytest.mark.parametrize("layer", ["grouped", "hidden"])
def test_a_ring_is_found_again(net, spec, layer):
    found = profile(net, spec)
    shape = found.layer(layer).shape
    module = net.get_submodule(layer)
    before = module.weight.detach().clone()
    ring = TensorRing.random(shape, (1, 3, 2, 2), seed=4)
    with torch.no_grad():
        module.weight.copy_(ring_by_einsum(ring.cores).reshape(module.weight.shape))
    try:
        made = plan(profile(net, spec), 0.001, layers=layer)
        (planned,) = [item for item in made.layers if item.name == layer]
        assert planned.storage <= ring.storage
        again = compress(net, made).get_submodule(layer).weight
        torch.testing.assert_close(again, module.weight, rtol=1e-3, atol=1e-3)
    finally:
        with torch.no_grad():
            module.weight.copy_(before)


def test_a_ring_of_groups_runs_in_what_takes_the_fewest_macs(net, spec):
    found = profile(net, spec).layer("grouped")
    cheap, dear = (1, 2, 2, 1), (2, 8, 8, 4)
    # All groups: I/g·R1·R2 + R1·R2·KH·R3 + R1·R3·KW·R0 each, and R1·R0·O once, at 64 pixels.
    assert found.pipeline_macs(cheap) == 64 * (2 * (4 * 4 + 4 * 3 + 2 * 3) + 2 * 32)
    assert found.planned_form(cheap) == "pipeline"
    assert found.planned_form(dear) == "dense"
    assert found.planned_macs(dear) == found.macs == 64 * 32 * 4 * 9
    small = next(layer for layer in plan(profile(net, spec), 0.1).layers if layer.name == "grouped")
    assert small.form == found.planned_form(small.ranks)
    assert small.macs.compressed == found.planned_macs(small.ranks) <= found.macs


@pytest.mark.parametrize("form", FORMS)
def test_every_form_merges_saves_and_loads(net, spec, form, tmp_path):
    found = profile(net, spec)
    made = in_one_form(plan(found, 0.5), found, form)
    network = compress(net, made)
    x = torch.randn(3, *SHAPE)
    with torch.no_grad():
        answer = network(x)
        torch.testing.assert_close(fuse(network)(x), answer, rtol=1e-4, atol=1e-5)
        save(network, made, tmp_path / "saved")
        again = load(tmp_path / "saved")
        torch.testing.assert_close(again.model(x), answer)
    assert {type(m) for m in again.model.children()} >= {TRConv2d, TRLinear}
    assert again.model.grouped.form == form


def test_forms_are_measured_as_the_layers_run(net, spec):
    found = profile(net, spec)
    made = plan(found, 0.5)
    cases = layer_cases(made, found, batch=2)
    assert cases["hidden"].input().shape == (2, 512)
    assert cases["grouped"].input().shape == (2, 8, 8, 8)
    for name, case in cases.items():
        layer = case.layer("O|IHW")
        assert type(layer) is type(compress(net, made).get_submodule(name))
        assert layer(case.input()).shape[0] == 2
    network = compress(net, made)
    use_forms(network, in_one_form(made, found, "I|HWO"))
    assert network.hidden.form == "I|HWO"


def test_a_target_and_damage_reach_linear_layers(net, spec, pictures):
    found = profile(net, spec)
    damage = measure_damage(net, found, pictures, 8)
    assert {"grouped", "hidden"} <= damage.curves.keys()
    made = solve(found, Target(kind="pcr", value=3), damage=damage)
    assert made.pcr >= 3
    with pytest.raises(PlanError, match="cannot reach PCR ≥ 3"):
        solve(found, Target(kind="pcr", value=3), layers="all")  # the convolutions alone


def test_a_refit_learns_linear_layers(net, spec, pictures, monkeypatch):
    made = plan(profile(net, spec), 0.8)
    network = compress(net, made)
    found = refit(network, net, pictures, 2000)
    by_name = {step.name: step for step in found.steps}
    assert by_name["hidden"].skipped is None
    assert by_name["hidden"].after < by_name["hidden"].before
    assert by_name["grouped"].skipped == GROUPED
    monkeypatch.setattr(import_module("rsdtr.recovery.refit"), "MOST_INPUTS", 511)
    steps = {step.name: step for step in refit(network, net, pictures, 2000).steps}
    assert steps["hidden"].skipped == TOO_WIDE


def test_every_file_of_an_export_computes_the_same(net, spec, pictures, tmp_path):
    made = plan(profile(net, spec), 0.5)
    network = compress(net, made)
    out = tmp_path / "out"
    files = export(network, made, pictures, ["safetensors", "onnx", "pt2", "int8"], out)
    exact = {item.format: item.max_difference for item in files if item.format != "int8"}
    assert exact.keys() >= {"safetensors", "onnx", "pt2"}
    assert max(exact.values()) < 1e-4
    assert (out / "rsdtr_model.py").is_file()  # by which the safetensors file was read back
    (int8,) = [item for item in files if item.format == "int8"]
    assert 0 < int8.mean_difference < 0.1 * answers_spread(network, pictures)
    kinds = [node.op_type for node in onnx.load(out / int8.path.name).graph.node]
    # The linear rings' sublayers are products or convolutions of weights in eight bits.
    assert kinds.count("DequantizeLinear") > len(made.layers)


def answers_spread(network, pictures):
    with torch.no_grad():
        return float(network(pictures.inputs(slice(0, 200))).std())


def test_rings_of_every_kind_come_back_from_a_state_dict(net, spec):
    made = plan(profile(net, spec), 0.5)
    network = compress(net, made)
    blank = skeleton(net, made)
    state = network.state_dict()
    assert [tuple(state[f"grouped.cores.{k}"].shape) for k in range(4)] == [
        tuple(core) for core in ring_shapes((32, 4, 3, 3), made.layers[1].ranks)
    ]
    assert [tuple(state[f"hidden.cores.{k}"].shape) for k in range(4)] == [
        tuple(core) for core in ring_shapes((24, 32, 4, 4), made.layers[2].ranks)
    ]
    assert not {"grouped.weight", "hidden.weight"} & state.keys()
    assert blank.load_state_dict(state, strict=True).missing_keys == []
    x = torch.randn(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(blank(x), network(x), rtol=0, atol=0)


def test_the_command_line_takes_auto():
    done = CliRunner().invoke(cli, ["plan", "digits_resnet20", "--layers", "auto", "--json"])
    layers = json.loads(done.stdout)["layers"]
    assert [layer["name"] for layer in layers if layer.get("kind") == "linear"] == ["linear"]
    usual = json.loads(CliRunner().invoke(cli, ["plan", "digits_resnet20", "--json"]).stdout)
    assert "linear" not in [layer["name"] for layer in usual["layers"]]
