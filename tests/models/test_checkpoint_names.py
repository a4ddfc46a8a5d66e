"""Checkpoints as people have them: prefixes, mappings, endings, another number of classes."""

import argparse
import collections
import pathlib
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from rsdtr.errors import RsdtrError, UnknownName, WeightsError
from rsdtr.models import pth_reader, zoo
from rsdtr.models.checkpoint_names import fitting
from rsdtr.models.model_loading import load_model, with_classes
from rsdtr.models.weights import fill, read_for
from rsdtr.models.zoo import class_names, model_spec, own_model, weights_sha256

DIGITS = "digits_resnet20"


@pytest.fixture(autouse=True)
def _own_models_are_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


class Small(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, classes)


class Wrapped(nn.Module):
    """A network with an attribute of the name that DataParallel's wrapper has."""

    def __init__(self) -> None:
        super().__init__()
        self.module = Small()
        self.model = nn.Linear(2, 2)


def renamed(module: nn.Module, prefix: str) -> "OrderedDict[str, torch.Tensor]":
    return OrderedDict((prefix + name, value) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "_orig_mod.", "model.", "net.", "backbone.", "model._orig_mod.",
        "module.model.", "_orig_mod.module.", "trainer.student.net.", "encoder_q.",
    ],
)  # fmt: skip
def test_any_prefix_under_which_every_name_fits(prefix: str) -> None:
    one, other = Small(), Small()
    fill(other, fitting(renamed(one, prefix), other.state_dict()), "a.pth")
    assert weights_sha256(other) == weights_sha256(one)


def test_wrappers_within_a_network() -> None:
    """DataParallel of a part, as in the ImageNet example's VGG; torch.compile of another."""
    one, other = Small(), Small()
    inside = {"stem.": "stem.module.", "norm.": "norm._orig_mod."}
    state = OrderedDict()
    for name, value in one.state_dict().items():
        first = name.partition(".")[0] + "."
        state[name.replace(first, inside.get(first, first))] = value
    fill(other, fitting(state, other.state_dict()), "a.pth")
    assert weights_sha256(other) == weights_sha256(one)


def test_what_lies_beside_the_network_is_left_aside() -> None:
    one, other = Small(), Small()
    state = renamed(one, "model.")
    state |= {"criterion.weight": torch.ones(2), "ema.stem.weight": torch.zeros(2, 1, 3, 3)}
    fill(other, fitting(state, other.state_dict()), "a.ckpt")
    assert weights_sha256(other) == weights_sha256(one)


def test_an_averaged_model_counts_beside_the_network() -> None:
    one, other = Small(), Small()
    averaged = torch.optim.swa_utils.AveragedModel(one)
    fill(other, fitting(averaged.state_dict(), other.state_dict()), "ema.pt")
    assert weights_sha256(other) == weights_sha256(one)


def test_a_network_whose_own_names_are_those_of_wrappers(tmp_path: Path) -> None:
    one, other = Wrapped(), Wrapped()
    for state in (one.state_dict(), renamed(one, "module."), renamed(one, "_orig_mod.")):
        fill(other, fitting(state, other.state_dict()), "a.pth")
        assert weights_sha256(other) == weights_sha256(one)
        other = Wrapped()
    bare = Small()
    safetensors.torch.save_file(renamed(bare, "module."), tmp_path / "a.safetensors")
    again = Small()
    fill(again, read_for(again, tmp_path / "a.safetensors"), "a.safetensors")
    assert weights_sha256(again) == weights_sha256(bare)


def test_names_that_fit_in_two_ways_are_told(tmp_path: Path) -> None:
    state = renamed(Small(), "teacher.") | renamed(Small(), "pupil.")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth cannot be read: it holds the network several"):
        read_for(Small(), tmp_path / "a.pth")
    both = renamed(Small(), "model.stem.") | renamed(Small(), "model._orig_mod.stem.")
    with pytest.raises(WeightsError, match="both with and without `module"):
        fitting(both, renamed(Small(), "stem."))


def test_names_that_do_not_fit_are_told_without_the_prefix() -> None:
    state = renamed(Small(), "model.")
    del state["model.fc.bias"]
    with pytest.raises(WeightsError, match=r"missing fc\.bias \(1\); give weights"):
        fill(Small(), fitting(state, Small().state_dict()), "a.pth")
    with pytest.raises(WeightsError, match=r"unexpected (bias, weight|weight, bias)"):
        fill(Small(), fitting(nn.Linear(2, 2).state_dict(), Small().state_dict()), "a.pth")


def test_versions_of_modules_keep_their_modules() -> None:
    state = nn.Sequential(OrderedDict(model=Small())).state_dict()
    found = fitting(state, Small().state_dict())
    assert found._metadata["norm"] == {"version": 2}
    assert found._metadata[""] == {"version": 1}


# --- where trainers put a state_dict ---


def _foreign(name: str, **classes: type) -> types.ModuleType:
    """A module of somebody else's, whose classes are gone when the file is read."""
    module = types.ModuleType(name)
    for word, made in classes.items():
        made.__module__, made.__qualname__, made.__name__ = name, word, word
        setattr(module, word, made)
    return module


STATE = Small().state_dict()
BESIDE = {
    "options": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs")),
    "counts": collections.defaultdict(list, {1: [2]}),
    "best": np.float64(93.2),
    "curve": np.ones(3),
}


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model", "net", "model_state_dict", "ema", "network", "generator"],
)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin", ".pth.tar"])
def test_mappings_around_a_state_dict(tmp_path: Path, key: str, suffix: str) -> None:
    optimizer = {"state": {0: {"momentum": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    path = tmp_path / f"a{suffix}"
    torch.save({key: STATE, "epoch": 3, "optimizer": optimizer} | BESIDE, path)
    found, versions = pth_reader.tensors(path)
    assert found.keys() == STATE.keys()
    assert versions["norm"] == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"model": STATE, "ema": {"fc.weight": torch.ones(1)}}, STATE.keys()),
        ({"checkpoint": {"model": {"state_dict": STATE}}}, STATE.keys()),
        ({"epoch": 3, **STATE}, STATE.keys()),
        ({**STATE, "fc._extra_state": {"scale": 1}}, STATE.keys()),
    ],
)
def test_the_plainest_of_several_and_what_is_no_tensor(tmp_path, content, expected) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert pth_reader.tensors(tmp_path / "a.pth")[0].keys() == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"g": STATE, "d": STATE}, "holds several state_dicts, 'g', 'd': save one of them alone"),
        ({"epoch": 3, "loss": 0.1}, r"holds no state_dict: .* \('epoch', 'loss' are there\)"),
        ({"optimizer": {"a": torch.ones(1)}}, r"holds no state_dict: .*'optimizer' are there"),
    ],
)
def test_what_is_there_instead_is_named(tmp_path: Path, content, message: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(pth_reader.Refused, match=message):
        pth_reader.tensors(tmp_path / "a.pth")


def test_objects_of_other_programs_do_nothing(tmp_path: Path, monkeypatch) -> None:
    class Config:
        def __setstate__(self, state: object) -> None:
            raise AssertionError("code of a class ran")

    class Options(dict):
        def __setitem__(self, key: object, value: object) -> None:
            raise AssertionError("code of a class ran")

    module = _foreign("elsewhere", Config=Config, Options=Options)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "elsewhere", module)
        config = Config()
        config.lr = 0.1
        options = Options()
        dict.update(options, a=1)
        torch.save({"state_dict": STATE, "hyper_parameters": options}, tmp_path / "options.ckpt")
        torch.save({"state_dict": STATE, "config": config}, tmp_path / "config.ckpt")
    for name in ("options.ckpt", "config.ckpt"):
        assert pth_reader.tensors(tmp_path / name)[0].keys() == STATE.keys()


class Runs:
    """Unpickling it as pickle does would run a command."""

    def __init__(self, function: object, *args: object) -> None:
        self.asked = function, args

    def __reduce__(self):
        return self.asked


@pytest.mark.parametrize(
    "hostile", [Runs(eval, "1/0"), Runs(getattr, "a", "b"), Runs(__import__, "os"), Runs(exec, "")]
)
def test_functions_of_python_are_refused(tmp_path: Path, hostile: Runs) -> None:
    torch.save({"state_dict": STATE, "x": hostile}, tmp_path / "a.pth")
    with pytest.raises(pth_reader.Refused, match="cannot be read: give"):
        pth_reader.tensors(tmp_path / "a.pth")


# --- another number of classes ---


def test_the_number_of_classes_is_read_from_the_last_layer(tmp_path: Path) -> None:
    own = load_model("squeezenet1_1@7", "none")
    torch.save({"state_dict": renamed(own, "model.")}, tmp_path / "seven.ckpt")
    assert with_classes("squeezenet1_1", tmp_path / "seven.ckpt") == "squeezenet1_1@7"
    spec = model_spec("squeezenet1_1@7")
    assert (spec.classes, spec.data, spec.weights_url) == (7, None, None)
    assert class_names(spec) == tuple("0123456")
    for name in ("squeezenet1_1@7", "squeezenet1_1"):
        loaded = load_model(name, tmp_path / "seven.ckpt")
        assert weights_sha256(loaded) == weights_sha256(own)


def test_names_with_a_number_of_classes() -> None:
    assert with_classes(DIGITS, "none", 5) == f"{DIGITS}@5"
    assert with_classes(DIGITS, None, 10) == DIGITS
    assert model_spec(f"{DIGITS}@10") == model_spec(DIGITS)
    assert model_spec(f"{DIGITS}@5").build()(torch.zeros(1, 1, 16, 16)).shape == (1, 5)
    own_model("mine", Small, (1, 8, 8), 2)
    with pytest.raises(RsdtrError, match="mine has the classes that it was made known with"):
        with_classes("mine", None, 3)
    for wrong in ("nothing@5", f"{DIGITS}@0", f"{DIGITS}@-1", f"{DIGITS}@", "mine@3"):
        with pytest.raises(UnknownName, match="there is no model"):
            model_spec(wrong)
    with pytest.raises(WeightsError, match="digits_resnet20@5 has no published weights"):
        load_model(f"{DIGITS}@5")


def test_a_file_that_differs_by_more_than_its_last_layer_tells_no_number(tmp_path: Path) -> None:
    state = model_spec(DIGITS).build().state_dict()
    state["linear.bias"] = torch.zeros(7)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    assert with_classes(DIGITS, tmp_path / "a.safetensors") == DIGITS
    with pytest.raises(WeightsError, match=r"mis-shaped linear\.bias \(7,\) for \(10,\)"):
        load_model(DIGITS, tmp_path / "a.safetensors")
