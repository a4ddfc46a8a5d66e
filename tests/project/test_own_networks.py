"""Networks as people have them: compressed as promised, or left dense with the reason."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import load, save
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import PlanError, RsdtrError
from rsdtr.models import zoo
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import own_model
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from tests.support import own_networks as own
from tests.support.own_networks import SHAPE, chain, conv, decayed
from tests.support.whole_walk import walked


@pytest.fixture(autouse=True)
def _models_are_made_known_for_one_test(monkeypatch):
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


@pytest.mark.parametrize(
    ("make", "rings", "reasons"),
    [
        (own.shared_kernel, ["stem", "c3"], {"c1": "shares its kernel with c2.weight"}),
        (own.kernel_held_by_parent, ["stem", "c2"], {"c1": "shares its kernel with Network."}),
        (own.shared_bias, ["stem", "c1", "c2"], {}),
        (lambda: nn.DataParallel(chain(conv())), ["module.stem", "module.c1"], {}),
        (own.kernels_in_the_same_memory, ["stem", "c1", "c2"], {}),
        (own.tied_transposed, ["stem"], {"c1": "used by other code as well"}),
        (own.tied_layers, ["stem", "c3"], {"c1": "shares its kernel with c2.weight"}),
        (own.one_under_two_names, ["stem", "c1"], {}),
        (own.loop, ["stem", "gates"], {}),
        (own.frames, ["stem", "c1"], {}),
        (own.kernel_in_a_list, ["stem"], {"c1": "used by other code as well"}),
        (own.listed, ["stem", "c1"], {}),
        (own.in_tuple_and_dict, ["stem", "c1"], {}),
        (own.looked_for_by_type, [], {"c1": "does not run another kind of layer"}),
        (own.breaks_at_another_type, ["stem", "c2"], {}),
        (own.hooked, ["stem", "c1", "c2"], {}),
        (own.Watching, ["stem", "c1"], {}),
        (own.reads_its_kernel, ["stem", "c1"], {}),
        (lambda: chain(conv(), own.Normed(8, 8), conv()), ["stem", "c1", "c3"],
         {"c2": "Normed is not a plain nn.Conv2d"}),
        (lambda: chain(own.Padded(8, 8), own.Padded(8, 8)), ["stem"],
         {"c1": "Padded is not a plain nn.Conv2d"}),
        (own.spectral, ["stem", "c3"],
         {"c1": "computes its weight by _SpectralNorm: torch.nn.utils.", "c2": "_WeightNorm"}),
        (own.old_norms, ["stem", "c4"],
         {"c1": "remove_weight_norm", "c2": "remove_spectral_norm", "c3": "prune.remove"}),
        (own.by_keyword, ["stem", "c1"], {}),
        (own.by_forward, ["stem", "c1"], {}),
        (own.patched_forward, ["stem", "c2"], {"c1": "its forward was replaced"}),
        (own.with_mask, ["stem", "c2"], {"c1": "holds mask beside its kernel"}),
        (own.with_attribute, ["stem", "c1"], {}),
        (own.keeps_activations, ["stem", "c1"], {}),
        (own.writes_into_its_input, ["stem", "c1"], {}),
        (lambda: chain(conv()).double(), ["stem", "c1"], {}),
        (lambda: conv(3), [""], {}),
        (lambda: torch.fx.symbolic_trace(nn.Sequential(conv(3), conv())), ["0", "1"], {}),
    ],
)  # fmt: skip
def test_what_becomes_a_ring_and_what_stays_dense(make, rings, reasons, tmp_path):
    found = walked(decayed(make()), tmp_path / "saved")
    assert found.rings == rings
    for layer, reason in reasons.items():
        assert reason in found.reason(layer)
    assert found.left_out.keys() <= {"c1", "c2", "Network"}
    assert 0 not in found.left_out.values()


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (own.functional, {"Network": 9 * 8 * 9 * 80}),
        (own.with_transposed, {"c2": 8 * 4 * 4 * 120}),
        (own.tied_transposed, {"c1": 8 * 8 * 9 * 120}),
        (own.in_a_closure, {"Network": 8 * 8 * 9 * 120, "c1": 0}),
        (own.bound_method, {"c1": 8 * 8 * 9 * 120}),
        (own.idle, {"never": 0, "flat": 0}),
        (own.spectral, {}),
    ],
)
def test_what_multiplies_elsewhere_is_told(make, parts, tmp_path):
    found = walked(decayed(make()), tmp_path / "saved")
    assert found.left_out == parts
    whole = found.plan.macs.original + sum(parts.values())
    for part in found.plan.not_counted:
        assert part.share == part.macs / whole
        assert part.macs or part.reason == "did not run on the example input"


def test_attention_is_told_though_torch_counts_it_not_at_all(tmp_path):
    found = walked(decayed(own.attention()), tmp_path / "saved", flops_known=False)
    assert found.left_out == {"mix": 4 * 120 * 8 * 8 + 2 * 120 * 120 * 8}


@pytest.mark.parametrize(
    ("layer", "inputs", "macs"),
    [
        (nn.LSTM(5, 7), (6, 1, 5), 6 * (5 * 28 + 7 * 28)),
        (nn.Bilinear(3, 4, 5), None, 3 * 4 * 5),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (1, 6, 8),
         4 * 6 * 64 + 2 * 36 * 8 + 2 * 6 * 8 * 16),
    ],
)  # fmt: skip
def test_other_layers_have_a_formula(layer, inputs, macs):
    def use(net, x):
        net.stem(x)
        given = (torch.zeros(1, 3), torch.zeros(1, 4)) if inputs is None else (torch.zeros(inputs),)
        return net.other(*given)

    net = own.Network(use, stem=conv(3), other=layer)
    spec = own_model("mine", lambda: net, SHAPE, 4)
    told = profile(load_model("mine"), spec).not_counted
    assert {part.name: part.macs for part in told} == {"other": macs}


def test_a_linear_layer_of_one_vector_is_counted():
    net = own.Network(
        lambda net, x: net.head(net.stem(x).mean((2, 3))[0]), stem=conv(3), head=nn.Linear(8, 5)
    )
    spec = own_model("mine", lambda: net, SHAPE, 4)
    assert profile(load_model("mine"), spec).macs == 3 * 8 * 9 * 120 + 40


@pytest.mark.parametrize(
    ("make", "frees"),
    [
        (own.shared_kernel, lambda net: setattr(
            net.c1, "weight", nn.Parameter(net.c1.weight.detach().clone()))),
        (own.spectral, lambda net: [
            parametrize.remove_parametrizations(net.c1, "weight"),
            parametrize.remove_parametrizations(net.c2, "weight")]),
        (own.old_norms, lambda net: [
            nn.utils.remove_weight_norm(net.c1), nn.utils.remove_spectral_norm(net.c2),
            prune.remove(net.c3, "weight")]),
    ],
)  # fmt: skip
def test_the_word_in_the_reason_frees_the_layer(make, frees, tmp_path):
    net = make()
    frees(net)
    found = walked(decayed(net), tmp_path / "saved")
    assert "c1" in found.rings
    assert {found.reason(layer.name) for layer in found.plan.layers} == {None}


def test_a_shared_bias_stays_shared():
    net = decayed(own.shared_bias())
    spec = own_model("mine", lambda: net, SHAPE, 4)
    network = compress(net, decided := plan(profile(net, spec), 0.5, layers="all"))
    assert network.c1.bias is network.c2.bias
    assert network.c1.bias is not net.c1.bias
    assert sum(p.numel() for p in network.parameters()) == decided.params.compressed


BATCH = torch.randn(4, *SHAPE), torch.randn(4, 8, 1, 1)


@pytest.mark.parametrize(
    ("make", "examples"),
    [
        (own.two_inputs, BATCH),
        (own.a_dict, ({"image": BATCH[0], "shift": BATCH[1]},)),
        (own.named_inputs, {"image": BATCH[0], "shift": BATCH[1]}),
        (lambda: chain(conv()), BATCH[0]),
    ],
    ids=["two", "a dict", "by name", "one tensor"],
)
def test_several_inputs_as_torch_export_takes_them(make, examples, tmp_path):
    net = decayed(make())
    spec = own_model("mine", lambda: net, SHAPE, 4)
    before = copy.deepcopy(examples)
    layers = profile(net, spec, examples).layers
    assert [(layer.name, layer.macs) for layer in layers] == [("stem", 25920), ("c1", 69120)]
    assert [layer.obstacle for layer in layers] == [None, None]
    one = torch.utils._pytree.tree_map(lambda tensor: tensor[:1], examples)
    assert walked(net, tmp_path / "saved", examples=one).rings == ["stem", "c1"]
    for tensor, old in zip(*map(torch.utils._pytree.tree_leaves, (examples, before)), strict=True):
        assert torch.equal(tensor, old)


def test_a_network_that_takes_something_else_says_what_to_give():
    net = own.two_inputs()
    spec = own_model("mine", lambda: net, SHAPE, 4)
    with pytest.raises(
        PlanError,
        match=r"mine does not run on one input of shape \(1, 3, 12, 10\)"
        r" \(.*'y'\): give the profile, or own_model, example_inp",
    ):
        profile(net, spec)  # fmt: skip
    with pytest.raises(PlanError, match=r"does not run on 3 inputs"):
        profile(net, spec, (*BATCH, 1))
    with pytest.raises(PlanError, match=r"does not run on 1 named inputs"):
        profile(net, spec, {"x": BATCH[0]})


@pytest.mark.parametrize(
    ("make", "tool"),
    [
        (lambda: torch.jit.script(nn.Sequential(conv(3), conv())), "torch.jit"),
        (lambda: torch.jit.trace(nn.Sequential(conv(3)), torch.zeros(1, *SHAPE)), "torch.jit"),
        (lambda: exported().module(), "torch.export"),
        (lambda: torch.export.unflatten(exported()), "torch.export"),
    ],
    ids=["scripted", "traced", "exported", "unflattened"],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_what_came_out_of_a_compiler_has_no_layers_to_replace(make, tool):
    net = make()
    spec = own_model("mine", lambda: net, SHAPE, 4)
    sentence = rf"has no nn\.Conv2d, for it came out of {tool}: give the nn\.Module"
    with pytest.raises(RsdtrError, match=sentence):
        load_model("mine")
    with pytest.raises(PlanError, match=sentence):
        profile(net, spec)


def exported():
    return torch.export.export(nn.Sequential(conv(3), conv()), (torch.zeros(1, *SHAPE),))


def test_a_compiled_network_is_profiled_as_the_one_inside_it():
    net = decayed(chain(conv()))
    spec = own_model("mine", lambda: torch.compile(net, backend="eager"), SHAPE, 4)
    model = load_model("mine")
    decided = plan(found := profile(model, spec), 0.5, layers="all")
    assert [layer.name for layer in found.layers] == ["_orig_mod.stem", "_orig_mod.c1"]
    assert [layer.macs for layer in found.layers] == [25920, 69120]
    rings = [m for m in compress(model, decided).modules() if isinstance(m, TRConv2d)]
    assert len(rings) == 2


def test_frozen_layers_stay_frozen():
    net = decayed(chain(conv(), conv()))
    net.c1.requires_grad_(False)
    net.c2.bias.requires_grad_(False)
    spec = own_model("mine", lambda: net, SHAPE, 4)
    network = compress(net, plan(profile(net, spec), 0.5, layers="all"))
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"stem", "c2"}
    assert "c2.bias" not in trained
    assert "stem.bias" in trained


def test_backward_hooks_move_too():
    net, seen = decayed(chain(conv())), []
    net.c1.register_full_backward_hook(lambda *_: seen.append("after"))
    net.c1.register_full_backward_pre_hook(lambda *_: seen.append("before"))
    spec = own_model("mine", lambda: net, SHAPE, 4)
    network = compress(net, plan(profile(net, spec), 0.5, layers="all"))
    assert isinstance(network.c1, TRConv2d)
    network(torch.zeros(1, *SHAPE, requires_grad=True)).sum().backward()
    assert seen == ["before", "after"]


def test_hooks_that_a_ring_has_no_place_for_keep_the_layer_dense():
    net = decayed(chain(conv(), conv()))
    net.c1.register_state_dict_post_hook(lambda *_: None)
    net.c2.weight.register_hook(lambda gradient: 0 * gradient)
    found = profile(net, own_model("mine", lambda: net, SHAPE, 4))
    assert "hooks on its state_dict" in found.layer("c1").obstacle
    assert "hooks on its gradient" in found.layer("c2").obstacle


def test_a_plan_cannot_be_forced_upon_a_layer_that_is_no_place_for_a_ring():
    net = decayed(chain(conv()))
    decided = plan(profile(net, own_model("mine", lambda: net, SHAPE, 4)), 0.5, layers="all")
    prune.l1_unstructured(net.c1, "weight", amount=0.3)
    with pytest.raises(PlanError, match=r"layer c1 cannot be a ring: its kernel is computed by L1"):
        compress(net, decided)


def test_the_kernel_of_a_ring_can_be_read_and_not_set():
    net = decayed(chain(conv()))
    decided = plan(profile(net, own_model("mine", lambda: net, SHAPE, 4)), 0.5, layers="all")
    ring = compress(net, decided).c1
    assert torch.equal(ring.weight, ring.kernel())
    with pytest.raises(RsdtrError, match="the kernel of a TRConv2d is merged from its cores"):
        ring.weight = torch.zeros(8, 8, 3, 3)


def test_what_holds_no_values_or_none_to_train_says_so():
    found = profile(own.made_for_inference(), own_model("mine", lambda: nn.Identity(), SHAPE, 4))
    assert "made in torch.inference_mode" in found.layer("c1").obstacle
    with torch.device("meta"):
        empty = chain(conv())
    with pytest.raises(PlanError, match=r"mine has no values yet \(stem.weight is on the meta dev"):
        profile(empty, own_model("mine", lambda: nn.Identity(), SHAPE, 4))


def test_what_cannot_be_copied_is_told():
    net = chain(conv())
    net.generator = (x for x in ())
    with pytest.raises(RsdtrError, match=r"Network cannot be copied \(cannot pickle 'generator'"):
        profile(net, own_model("mine", lambda: nn.Identity(), SHAPE, 4))


def test_the_profile_agrees_with_torch_on_the_same_pass():
    net = decayed(chain(conv(), own.Normed(8, 8), nn.ConvTranspose2d(8, 4, 2, stride=2)))
    found = profile(net, own_model("mine", lambda: net, SHAPE, 4))
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, *SHAPE))
    listed = sum(layer.macs for layer in found.layers)
    assert listed + sum(part.macs for part in found.not_counted) == counter.get_total_flops() // 2


def test_lazy_layers_get_their_weights_in_the_copy(tmp_path):
    net = nn.Sequential(conv(3), nn.LazyConv2d(8, 3))
    spec = own_model("mine", lambda: net, SHAPE, 4)
    model = load_model("mine")
    decided = plan(profile(model, spec), 0.6, layers="all")
    network = compress(model, decided)
    assert isinstance(net[1], nn.LazyConv2d)
    assert all(value.requires_grad for value in network.parameters())
    save(network, decided, tmp_path / "saved")
    x = torch.randn(2, *SHAPE)
    assert torch.equal(load(tmp_path / "saved").model(x), network(x))
