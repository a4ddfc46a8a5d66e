"""Whoever looks at one batch gets a tensor of its own, in its own precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import DataSplits
from rsdtr.data.image_sets import LabelledImages
from rsdtr.exports.proof import write_cases
from rsdtr.exports.proof_process import compared
from rsdtr.measuring.accuracy import accuracy
from rsdtr.measuring.fidelity import Divergence, fidelity
from rsdtr.models import zoo
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import own_model
from rsdtr.planning.damage import measure_damage
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.graph_walk import Walk
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.recalibrate import recalibrate
from rsdtr.recovery.refit import refit
from tests.support.own_networks import (
    SHAPE,
    ImageNetwork,
    Network,
    chain,
    conv,
    decayed,
    writes_into_its_input,
)


@pytest.fixture(autouse=True)
def _models_are_made_known_for_one_test(monkeypatch):
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


class Pictures:
    """Noise, decoded already."""

    def __init__(self, count):
        self._all = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8)

    def __len__(self):
        return len(self._all)

    def pixels(self, indices):
        return self._all[indices]


def classifier(body):
    """Class scores from what a network makes of an image."""
    return ImageNetwork(
        lambda net, x: net.head(net.body(x).mean((2, 3))), body=body, head=nn.Linear(8, 4)
    )


def relu_in_place():
    return Network(lambda net, x: net.c1(F.relu(net.stem(F.relu(x, True)), True)),
                   stem=conv(3), c1=conv())  # fmt: skip


def module_in_place():
    return nn.Sequential(nn.ReLU(inplace=True), conv(3), nn.BatchNorm2d(8), conv())


def added_in_place():
    def use(net, x):
        x += 1
        return net.c1(net.stem(x.relu_()))

    return Network(use, stem=conv(3), c1=conv())


WRITERS = (writes_into_its_input, relu_in_place, module_in_place, added_in_place)


def made(body, double=False):
    """The network, its spec, and 12 labelled images of it."""
    net = decayed(classifier(body))
    net = net.double() if double else net
    spec = own_model("mine", lambda: net, SHAPE, 4, mean=(0.5,) * 3, std=(0.25,) * 3)
    labels = torch.arange(12) % 4
    return net, spec, LabelledImages("noise", tuple("0123"), labels, Pictures(12), spec)


@pytest.mark.parametrize("body", WRITERS)
def test_a_network_agrees_with_itself_and_its_inputs_stay(body):
    net, _, images = made(body())
    assert fidelity(net, net, images).relative_error == 0
    given = torch.randn(6, *SHAPE)
    before = given.clone()
    assert fidelity(net, copy.deepcopy(net), given, batch_size=3).relative_error == 0
    assert torch.equal(given, before)
    assert Divergence(net, images)(net) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("body", WRITERS)
def test_damage_is_measured_on_the_same_images_each_time(body):
    net, spec, images = made(body())
    found = profile(net, spec)
    once = measure_damage(net, found, images, 8, layers="all")
    again = measure_damage(copy.deepcopy(net), found, images, 8, layers="all")
    assert once == again
    assert all(damage < 1 for curve in once.curves.values() for _, damage in curve)


@pytest.mark.parametrize("body", WRITERS)
@torch.no_grad()
def test_a_walk_gives_what_the_network_gives(body):
    net, _, images = made(body())
    batches = [pixels for pixels, _ in images.batches(4)]
    before = [pixels.clone() for pixels in batches]
    expected = [net(pixels.clone()) for pixels in batches]
    walk = Walk(copy.deepcopy(net), batches, 1e9)
    for batch, wanted in enumerate(expected):
        for stop in (2, 5):
            values = walk.to(batch, stop)
        torch.testing.assert_close(walk.value(values, walk.nodes[-1]), wanted)
    assert all(torch.equal(one, other) for one, other in zip(batches, before, strict=True))


def test_a_teacher_sees_the_images_as_they_are():
    net, _, images = made(writes_into_its_input())
    seen = []

    def noted(_module, inputs):
        seen.append(inputs[0].clone())

    student, teacher = copy.deepcopy(net), copy.deepcopy(net)
    for network in (student, teacher):
        network.register_forward_pre_hook(noted)
    data = DataSplits(images, images, images)
    options = FinetuneOptions(epochs=1, batch_size=12, distill=1.0, augment="none")
    list(finetune(student, data, options, teacher=teacher))
    expected = next(images.batches(12))[0]
    assert all(x.min() >= expected.min() for x in seen), "one saw what the other had overwritten"


def test_a_proof_compares_on_the_images_that_were_shown(tmp_path):
    from safetensors.torch import load_file

    net, _, images = made(writes_into_its_input())
    write_cases(net, images, tmp_path / "cases.safetensors")
    cases = load_file(tmp_path / "cases.safetensors")
    shown = images.spec.normalise(images.pixels([0]))
    assert torch.equal(cases["inputs"][:1], shown)
    assert compared(net, cases)["max_difference"] < 1e-5


def test_double_precision_goes_through_all_that_looks_at_images():
    net, spec, images = made(module_in_place(), double=True)
    network = compress(net, plan(profile(net, spec), 0.5, layers="all"))
    assert {value.dtype for value in network.parameters()} == {torch.float64}
    assert accuracy(network, images).n == 12
    assert 0 < fidelity(network, net, images).relative_error < 2
    better = recalibrate(network, images, 12, reference=net)
    assert refit(better, net, images, 12).model(torch.zeros(1, *SHAPE).double()).shape == (1, 4)
    data = DataSplits(images, images, images)
    assert len(list(finetune(network, data, FinetuneOptions(epochs=1, batch_size=6)))) == 1


def test_nothing_is_done_to_the_network_that_was_given():
    net, spec, images = made(module_in_place())
    net.train()
    net.body[3].eval()
    before = copy.deepcopy(net.state_dict())
    model = load_model("mine")
    with torch.no_grad():
        for value in (*model.parameters(), *spec.build().parameters()):
            value.zero_()
    decided = plan(profile(net, spec), 0.5, layers="all")
    fidelity(compress(net, decided), net, images)
    recalibrate(net, images, 12)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.body] == [True, True, True, False]
    assert all(value.grad is None for value in net.parameters())
    zoo_net = chain(conv())
    own_model("other", lambda: zoo_net, SHAPE, 4)
    assert load_model("other") is not zoo_net
