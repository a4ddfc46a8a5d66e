"""Ten networks that no list of cases has: from the plan to files that another process proves."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from rsdtr.compressed.compress import compress
from rsdtr.compressed.fuse import fuse
from rsdtr.compressed.saved import load, save
from rsdtr.data.tensor_images import images_of
from rsdtr.errors import DataError
from rsdtr.exports.export import export
from rsdtr.models import zoo
from rsdtr.models.model_loading import load_model
from rsdtr.models.run import fresh_input
from rsdtr.models.zoo import own_model
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.refit import refit
from tests.support.own_networks import ImageNetwork, Network, conv, decayed

SHAPE = (3, 16, 16)


@pytest.fixture(autouse=True)
def _models_are_made_known_for_one_test(monkeypatch):
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


def _pooled(net: nn.Module, x: Tensor) -> Tensor:
    return net.head(x.mean((2, 3)))


def _classifier(use, **parts: nn.Module) -> nn.Module:
    return ImageNetwork(use, stem=conv(3), **parts, head=nn.Linear(8, 4))


def called_through_functional() -> nn.Module:
    def use(net, x):
        x = net.stem(x).relu()
        for _ in range(2):
            x = F.conv2d(x, net.a.weight, net.a.bias, padding=1).relu()
        return _pooled(net, net.b(x))

    return _classifier(use, a=conv(), b=conv())


def normed_transposed() -> nn.Module:
    return ImageNetwork(
        lambda net, x: x + net.out(net.up(net.down(net.stem(x).relu()).relu()).relu()),
        stem=conv(3), down=nn.Conv2d(8, 16, 3, 2, 1),
        up=parametrizations.weight_norm(nn.ConvTranspose2d(16, 8, 2, 2)), out=conv(8, 3),
    )  # fmt: skip


def checkpointed() -> nn.Module:
    body = nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU(), conv())
    return _classifier(
        lambda net, x: _pooled(net, checkpoint(net.body, net.stem(x), use_reentrant=False)),
        body=body,
    )


def double() -> nn.Module:
    return _classifier(lambda net, x: _pooled(net, net.a(net.stem(x).relu())), a=conv()).double()


def orthogonal() -> nn.Module:
    return _classifier(
        lambda net, x: _pooled(net, net.b(net.a(net.stem(x).relu()).relu())),
        a=parametrizations.orthogonal(conv()), b=conv(),
    )  # fmt: skip


def unet() -> nn.Module:
    def use(net, x):
        first = net.d1(x).relu()
        deep = net.mid(net.d2(F.max_pool2d(first, 2)).relu()).relu()
        return net.out(net.u1(torch.cat([net.up(deep), first], 1)).relu())

    return ImageNetwork(
        use, d1=conv(1), d2=conv(8, 16), mid=conv(16, 16), up=nn.ConvTranspose2d(16, 8, 2, 2),
        u1=conv(16), out=nn.Conv2d(8, 1, 1),
    )  # fmt: skip


def bias_tied_to_a_norm() -> nn.Module:
    net = _classifier(
        lambda net, x: _pooled(net, net.b(net.norm(net.a(net.stem(x).relu())).relu())),
        a=conv(), norm=nn.BatchNorm2d(8), b=conv(),
    )  # fmt: skip
    net.norm.bias = net.a.bias
    return net


def in_frequencies() -> nn.Module:
    def use(net, x):
        seen = torch.fft.fft2(net.stem(x).relu()) * net.gain
        return _pooled(net, net.a(torch.fft.ifft2(seen).real).relu())

    net = _classifier(use, a=conv())
    net.gain = nn.Parameter(torch.ones(8, 1, 1, dtype=torch.complex64))
    return net


def lazy() -> nn.Module:
    return nn.Sequential(
        nn.LazyConv2d(8, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(),
        nn.LazyConv2d(8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(4),
    )  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize(
    ("make", "rings", "form", "at"),
    [
        (called_through_functional, ["stem", "b"], "safetensors", None),
        (normed_transposed, ["stem", "down", "out"], "onnx", (48, 80)),
        (checkpointed, ["stem", "body.0", "body.3"], "safetensors", None),
        (double, ["stem", "a"], "onnx", None),
        (orthogonal, ["stem", "b"], "onnx", None),
        (unet, ["d1", "d2", "mid", "u1"], "safetensors", (48, 80)),
        (bias_tied_to_a_norm, ["stem", "a", "b"], "pt2", None),
        (in_frequencies, ["stem", "a"], "safetensors", None),
        (lazy, ["0", "3"], "safetensors", None),
    ],
)
def test_from_plan_to_proved_file(make, rings, form, at, tmp_path):
    torch.manual_seed(0)
    net = make() if make is lazy else decayed(make())
    answers_pictures = make in (normed_transposed, unet)
    shape = (1, *SHAPE[1:]) if make is unet else SHAPE
    task = "other" if answers_pictures else "classification"
    spec = own_model("mine", lambda: net, shape, 1 if answers_pictures else 4, task=task)
    model = load_model("mine")
    if make is lazy:
        decayed(model)
    decided = plan(profile(model, spec), 0.6, layers="all")
    assert [layer.name for layer in decided.layers if layer.kept_dense is None] == rings
    network = compress(model, decided)
    images = images_of(torch.rand(8, *shape), spec)
    network = refit(network, model, images, 8).model
    save(network, decided, tmp_path / "saved")
    x = fresh_input(network, torch.rand(2, *shape))
    network.eval()
    assert torch.equal(load(tmp_path / "saved").model(x), network(x))
    artefacts = export(network, decided, images, [form], tmp_path / "files")
    assert {artefact.also_at for artefact in artefacts} == {at}


def test_a_network_of_several_inputs_is_compressed_and_no_image_set_is_given_to_it(tmp_path):
    def use(net, *, image, scale):
        x = net.a(net.stem(image).relu()) * scale
        return {"logits": net.head(x.mean((2, 3))), "features": x}

    net = decayed(Network(use, stem=conv(3), a=conv(), head=nn.Linear(8, 4)))
    examples = {"image": torch.rand(2, *SHAPE), "scale": torch.rand(2, 1, 1, 1)}
    spec = own_model("mine", lambda: net, SHAPE, 4, example_inputs=examples)
    model = load_model("mine")
    decided = plan(profile(model, spec), 0.6, layers="all")
    network = compress(model, decided)
    save(network, decided, tmp_path / "saved")
    again = load(tmp_path / "saved").model(**examples)
    assert torch.equal(again["logits"], network(**examples)["logits"])
    with pytest.raises(DataError, match="mine takes 2 inputs, and a set of images tells one"):
        images_of(torch.rand(4, *SHAPE), spec)


def test_a_complex_kernel_says_that_it_is_one():
    net = _classifier(
        lambda net, x: _pooled(net, net.a(net.stem(x).to(torch.complex64)).abs()),
        a=conv(dtype=torch.complex64),
    )
    found = profile(net.eval(), own_model("mine", lambda: net, SHAPE, 4))
    assert found.layer("a").obstacle == "a kernel of complex64: rings here are of real numbers"


def test_fusing_computes_what_is_parametrised():
    net = decayed(orthogonal())
    fused = fuse(net)
    x = torch.rand(2, *SHAPE)
    torch.testing.assert_close(fused(x), net(x))
    assert type(fused.a) is nn.Conv2d
    assert type(net.a) is not nn.Conv2d
