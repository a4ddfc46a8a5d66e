"""Any network in, a smaller one out: rsdtr.shrink."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import rsdtr
from rsdtr.compressed import RingNetwork
from rsdtr.data import images_of
from rsdtr.errors import DataError, RsdtrError, UnknownName
from rsdtr.measuring import fidelity
from rsdtr.models import model_names, weights_sha256
from rsdtr.recovery import refit
from tests.support.own_networks import conv, decayed, named_inputs, two_inputs

SHAPE = (3, 12, 12)


class Stranger(nn.Module):
    """A classifier of ten classes that this program has never seen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 16), conv(16, 16)
        self.norm, self.head = nn.BatchNorm2d(16), nn.Linear(16, 10)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(self.body(self.stem(x).relu())).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    return decayed(Stranger())


def images(n: int = 40) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_a_stranger_gets_smaller_and_stays_what_it_was(net: nn.Module, caplog, capsys) -> None:
    names, before = model_names(), weights_sha256(net)
    known = set(vars(net))
    with caplog.at_level(logging.INFO, "rsdtr"):
        small = rsdtr.shrink(net, images(1), eps=0.5)
    assert isinstance(small, Stranger)
    assert weights_sha256(net) == before
    assert set(vars(net)) == known
    assert model_names() == names  # no name was made known
    count = sum(value.numel() for value in small.parameters())
    assert small.plan.params.compressed == count < small.plan.params.original
    assert small.plan.params.original / count == pytest.approx(small.plan.pcr)
    assert small.features(images(2)).shape == (2, 16, 12, 12)
    assert small(images(2)).shape == (2, 10)
    assert str(small.plan) in caplog.text
    assert "2 of 2 convolutions and 1 of 1 linear layer are rings" in str(small.plan)
    assert capsys.readouterr().out == ""
    assert small.training == net.training


@pytest.mark.parametrize(
    ("asked", "reached"),
    [
        ({"target_pcr": 1.5}, lambda plan: plan.pcr >= 1.5),
        ({"target_fcr": 1.2}, lambda plan: plan.fcr >= 1.2),
        ({"target_mb": 0.012}, lambda plan: plan.params.compressed * 4 < 12_000),
    ],
)
def test_targets_are_reached(net: nn.Module, asked: dict[str, float], reached) -> None:
    assert reached(rsdtr.shrink(net, images(1), **asked).plan)


@pytest.mark.parametrize("asked", [{}, {"eps": 0.5, "target_pcr": 2}])
def test_one_thing_is_asked_for(net: nn.Module, asked: dict[str, float]) -> None:
    with pytest.raises(RsdtrError, match="of eps, target_pcr, target_fcr and target_mb: give one"):
        rsdtr.shrink(net, images(1), **asked)


def test_a_target_below_nothing_is_refused(net: nn.Module) -> None:
    with pytest.raises(RsdtrError, match=r"targets \{'pcr': -1\}: give a number above 0"):
        rsdtr.shrink(net, images(1), target_pcr=-1)


def test_images_bring_the_answers_nearer(net: nn.Module) -> None:
    # Inputs with a mean and channels that go together: what a layer sees has directions.
    seen = images(64).cumsum(2)
    plain = rsdtr.shrink(net, images(1), eps=0.7)
    refitted = rsdtr.shrink(net, images(1), eps=0.7, images=seen)
    held_out = images(96)[64:].cumsum(2)
    errors = [fidelity(one, net, held_out).relative_error for one in (plain, refitted)]
    assert errors[1] < errors[0]
    assert refitted.plan == plain.plan.model_copy(update={"seconds": refitted.plan.seconds})


@pytest.mark.parametrize("kind", ["dataset", "loader", "pair"])
def test_whatever_holds_images_serves(net: nn.Module, kind: str) -> None:
    pair = (images(8), torch.zeros(8, dtype=torch.int64))
    dataset = torch.utils.data.TensorDataset(*pair)
    source = {
        "dataset": dataset, "loader": torch.utils.data.DataLoader(dataset, 4), "pair": pair,
    }[kind]  # fmt: skip
    expected = rsdtr.shrink(net, images(1), eps=0.7, images=images(8))
    found = rsdtr.shrink(net, images(1), eps=0.7, images=source)
    assert torch.equal(found(images(2)), expected(images(2)))


def test_a_folder_of_pictures_needs_mean_and_std(net: nn.Module, tmp_path: Path) -> None:
    for number in range(12):
        pixels = (images(12)[number] * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    with pytest.raises(DataError, match="nobody said how Stranger takes them: give mean= and std="):
        rsdtr.shrink(net, images(1), eps=0.7, images=tmp_path)
    with pytest.raises(DataError, match="is no folder of pictures"):
        rsdtr.shrink(net, images(1), eps=0.7, images=tmp_path / "none")
    told = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    small = rsdtr.shrink(net, images(1), eps=0.7, images=tmp_path, **told)
    plain = rsdtr.shrink(net, images(1), eps=0.7)
    assert not torch.equal(small.body.kernel(), plain.body.kernel())
    assert (small.spec.mean, small.spec.std) == ((0.5,) * 3, (0.25,) * 3)


def test_saved_and_read_back_with_the_network(net: nn.Module, tmp_path: Path) -> None:
    small = rsdtr.shrink(net, images(1), eps=0.5)
    folder = rsdtr.save(small, small.plan, tmp_path / "small")
    fresh = Stranger()
    again = rsdtr.load(folder, fresh)
    assert torch.equal(again.model(images(3)), small.eval()(images(3)))
    assert again.model.plan == again.plan == small.plan
    assert again.spec.source.endswith("test_shrink.Stranger, given by its user")
    assert again.spec.written == small.spec.written
    assert rsdtr.save(again.model, again.plan, tmp_path / "again").is_dir()
    with pytest.raises(UnknownName, match="in Python give it to load"):
        rsdtr.load(folder)
    assert RingNetwork(small, small.plan).spec is small.spec


def test_exported_and_proved(net: nn.Module, tmp_path: Path) -> None:
    small = rsdtr.shrink(net, images(1), eps=0.5)
    written = rsdtr.export(small, small.plan, images(8), ["safetensors", "onnx"], tmp_path / "out")
    assert [one.format for one in written] == ["safetensors", "python", "onnx"]
    assert all(one.max_difference < 1e-4 for one in written)
    assert written[0].bytes < written[0].dense_bytes


def test_what_follows_knows_it(net: nn.Module) -> None:
    small = rsdtr.shrink(net, images(1), eps=0.7)
    assert refit(small, net, images(16), 16).model.plan == small.plan
    copied = copy.deepcopy(small)
    assert copied.spec is small.spec
    assert torch.equal(copied(images(2)), small(images(2)))
    labelled = images_of((images(4), torch.tensor([0, 1, 2, 9])), small.spec)
    assert rsdtr.accuracy(small, labelled).n == 4


def test_several_inputs(caplog) -> None:
    net = decayed(two_inputs())
    given = (torch.rand(2, 3, 12, 10), torch.rand(2, 8, 12, 10))
    small = rsdtr.shrink(net, given, eps=0.5)
    assert small.plan.pcr > 1
    assert small(*given).shape == (2, 8, 12, 10)
    assert small.spec.task == "other"
    with pytest.raises(RsdtrError, match="takes several inputs"):
        rsdtr.shrink(net, given, eps=0.5, images=torch.rand(4, 3, 12, 10))
    named = {"image": given[0], "shift": given[1]}
    assert rsdtr.shrink(decayed(named_inputs()), named, eps=0.5).plan.pcr > 1


def test_nothing_to_win_is_said(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        small = rsdtr.shrink(conv(8, 8), torch.rand(1, 8, 6, 6), eps=0.02)  # a flat spectrum
    assert small.plan.pcr == 1
    assert "no layer became a ring: the smallest ring at this ε_p stores" in caplog.text


def test_what_cannot_be_run_is_told(net: nn.Module) -> None:
    with pytest.raises(RsdtrError, match=r"does not run on example inputs of shape \(1, 5, 8, 8\)"):
        rsdtr.shrink(net, torch.rand(1, 5, 8, 8), eps=0.5)
    with pytest.raises(RsdtrError, match="was given str as example inputs: give a tensor"):
        rsdtr.shrink(net, "image", eps=0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epsilon'"):
        rsdtr.shrink(net, images(1), eps=0.5, epsilon=0.5)
    with pytest.raises(RsdtrError, match="has layers without weights yet"):
        rsdtr.shrink(nn.LazyConv2d(8, 3), images(1), eps=0.5)


def test_a_plan_of_its_own_is_not_overwritten(net: nn.Module) -> None:
    net.plan = "mine"
    with pytest.raises(RsdtrError, match="has an attribute 'plan' of its own"):
        rsdtr.shrink(net, images(1), eps=0.5)
