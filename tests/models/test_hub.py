"""timm:NAME, hf:owner/name and folders that save_pretrained wrote."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from timm.data import resolve_model_data_config
from torch import nn

from rsdtr.compressed import compress, load
from rsdtr.compressed import save as save_compressed
from rsdtr.errors import RsdtrError, UnknownName, WeightsError
from rsdtr.models import hub, load_model, model_spec, zoo
from rsdtr.models.timm_networks import arguments_of, facts
from rsdtr.models.zoo import class_names, is_model
from rsdtr.planning import plan, profile
from tests.support.command_line import done, refused
from tests.support.hub_stand_in import COMMIT, stand_in

LABELS = ["bee", "cat", "dog", "eel", "fox"]
CONFIG = {
    "architecture": "resnet10t", "num_classes": 5, "label_names": LABELS,
    "model_args": {"num_classes": 5, "in_chans": 3},
    "pretrained_cfg": {
        "input_size": [3, 32, 40], "crop_pct": 0.8, "interpolation": "bilinear",
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "num_classes": 5,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(zoo, "_READ", {})
    hub.spec.cache_clear()
    yield
    hub.spec.cache_clear()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    with stand_in(tmp_path, monkeypatch) as files:
        yield files


def small() -> nn.Module:
    torch.manual_seed(3)
    return timm.create_model("resnet10t", num_classes=5).eval()


def folder(place: Path, **config: object) -> Path:
    """What save_pretrained writes of a network."""
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    save_file(small().state_dict(), place / "model.safetensors")
    return place


def test_timm_s_own_preparation_and_classes() -> None:
    spec = model_spec("timm:resnet50d")
    told = resolve_model_data_config(timm.create_model("resnet50d"))
    assert spec.input_shape == told["input_size"]
    assert (spec.mean, spec.std, spec.interpolation) == (told["mean"], told["std"], "bicubic")
    assert spec.resize == int(224 / told["crop_pct"]) == 256
    assert (spec.hub, spec.classes, spec.family) == ("timm/resnet50d.ra2_in1k", 1000, "imagenet")
    assert class_names(spec)[:2] == ("tench", "goldfish")
    assert model_spec("timm:resnet50d.a1_in1k").hub == "timm/resnet50d.a1_in1k"
    large = class_names(model_spec("timm:convnext_tiny.in12k"))
    assert (len(large), large[0]) == (11821, "n00005787")
    assert model_spec("timm:resnet10t@7").build().fc.out_features == 7
    assert not is_model("timm:resnet_of_nobody")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnet_of_nobody", "timm .* has no model 'resnet_of_nobody': it has .*resnet"),
        (
            "timm:resnet50d.nope",
            r"timm has no weights 'resnet50d\.nope': it has resnet50d\.a1_in1k",
        ),
        ("timm:", "has no model ''"),
    ],
)
def test_a_name_that_timm_lacks(name: str, said: str) -> None:
    with pytest.raises(UnknownName, match=said):
        model_spec(name)


def test_planned_with_seeded_weights_and_a_file(tmp_path: Path) -> None:
    told = done("plan", "timm:resnet10t", "--weights", "none", "--eps", "0.6", "--json").stdout
    assert json.loads(told)["pcr"] > 1
    save_file(small().state_dict(), tmp_path / "five.safetensors")
    told = done("plan", "timm:resnet10t", "--weights", str(tmp_path / "five.safetensors"), "--json")
    assert json.loads(told.stdout)["model"] == "timm:resnet10t@5"


def test_offline_a_sentence_says_which_file_goes_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused("plan", "timm:resnet10t")
    assert "model.safetensors of https://huggingface.co/timm/resnet10t.c3_in1k" in said
    assert "put it into $RSDTR_WEIGHTS as resnet10t.c3_in1k.safetensors" in said
    state = timm.create_model("resnet10t").state_dict()
    save_file(state, tmp_path / "resnet10t.c3_in1k.safetensors")
    monkeypatch.setenv("RSDTR_WEIGHTS", str(tmp_path))
    assert torch.equal(load_model("timm:resnet10t").fc.weight, state["fc.weight"])
    assert "of a compressed network its manifest.json, into a folder" in refused("plan", "hf:a/b")
    assert "is no repository: give hf:owner/name" in refused("plan", "hf:a")


def test_without_timm_a_sentence_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'rsdtr[timm]'" in refused("plan", "timm:resnet18d")
    assert "pip install 'rsdtr[timm]'" in refused("plan", "hf:a/b")


def test_a_repository_through_the_whole_path(served: dict[str, bytes], tmp_path: Path) -> None:
    served["me/net/config.json"] = json.dumps(CONFIG).encode()
    served["me/net/model.safetensors"] = save(small().state_dict())
    spec = model_spec("hf:me/net")
    assert (spec.input_shape, spec.resize, spec.class_names) == ((3, 32, 40), 40, tuple(LABELS))
    assert (spec.architecture, spec.hub) == ("timm:resnet10t", f"me/net@{COMMIT}")
    network = load_model("hf:me/net")
    images = torch.rand(2, 3, 32, 40)
    assert torch.equal(network(images), small()(images))
    decided = plan(profile(network, spec), 0.7)
    place = save_compressed(compress(network, decided), decided, tmp_path / "ring")
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["spec"]["source"] == f"Hugging Face, me/net@{COMMIT}"
    served.clear()  # and the folder is read without the hub, in a process that has not asked it
    hub.spec.cache_clear()
    again = load(place)
    assert again.spec == spec
    assert torch.equal(again.model(images), compress(network, decided)(images))
    assert model_spec("hf:me/net") == spec


def test_a_file_that_was_changed_in_the_cache_is_refused(served: dict[str, bytes]) -> None:
    served["me/net/config.json"] = json.dumps(CONFIG).encode()
    served["me/net/model.safetensors"] = save(small().state_dict())
    path = hub.file("me/net", "model.safetensors").resolve()
    assert path.name == hashlib.sha256(path.read_bytes()).hexdigest()
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"has SHA-256 .* expected .*: remove it"):
        load_model("hf:me/net")


def test_only_safetensors_are_read(served: dict[str, bytes]) -> None:
    served["me/net/config.json"] = json.dumps(CONFIG).encode()
    served["me/net/pytorch_model.bin"] = b"\x80\x04"
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors: only JSON and safeten"):
        load_model("hf:me/net")
    with pytest.raises(WeightsError, match=r"there is no repository http.*/no/one"):
        model_spec("hf:no/one")


def test_a_folder_from_the_command_line_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "net")
    done("compress", "net", "--eps", "0.7", "--out", "ring")
    state = load_file("ring/model.safetensors")
    assert "layer1.0.conv1.cores.0" in state
    (tmp_path / "net").rename(tmp_path / "gone")
    hub.spec.cache_clear()
    assert load("ring").spec.source == "the folder net"
    (tmp_path / "gone" / "model.safetensors").unlink()
    assert "gone holds no model.safetensors" in refused("plan", "gone")


def test_a_folder_of_torchvision_s(tmp_path: Path) -> None:
    place = folder(tmp_path / "net", architecture="resnet18", library_name="torchvision")
    spec = model_spec(str(place))
    network = spec.build()
    assert (spec.architecture, spec.classes) == ("torchvision:resnet18", 5)
    assert type(network).__module__ == "torchvision.models.resnet"
    save_file(network.state_dict(), place / "model.safetensors")
    assert torch.equal(load_model(str(place)).fc.weight, network.fc.weight)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": None, "model_type": "bert"}, "is a network of bert whose config"),
        ({"architecture": "nothing_at_all"}, "a nothing_at_all, which neither timm nor"),
        ({"model_args": {"checkpoint_path": "evil.bin"}}, "model_args say 'checkpoint_path'"),
        ({"model_args": {"act_layer": {"a": 1}}}, "model_args say 'act_layer'"),
        ({"model_args": 3}, "model_args are a int"),
        ({"pretrained_cfg": {"input_size": [3, "a", 4]}}, "what is told of resnet10t cannot be"),
        ({"pretrained_cfg": {"mean": [1, 2]}}, "2 means or deviations for 3 channels"),
        ({"pretrained_cfg": {"input_size": [3, 0, 4]}}, "is said to take 3×0×4"),
        ({"num_classes": 0}, "is published without a classifier"),
    ],
)  # fmt: skip
def test_a_config_of_another_kind_is_one_sentence(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    with pytest.raises(RsdtrError, match=said):
        model_spec(str(folder(tmp_path / "net", **config)))


def test_a_config_that_is_none(tmp_path: Path) -> None:
    place = folder(tmp_path / "net")
    for text, said in (("[1]", "holds a list"), ("{", "is not JSON")):
        (place / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(RsdtrError, match=said):
            model_spec(str(place))


def test_what_is_no_part_of_a_structure_is_not_built(tmp_path: Path) -> None:
    assert arguments_of({"num_classes": 3, "block_args": [1, 2]}) == (("block_args", (1, 2)),)
    spec = model_spec(str(folder(tmp_path / "net")))
    hostile = zoo.ModelSpec(**vars(spec) | {"arguments": (("pretrained", True),)})
    with pytest.raises(RsdtrError, match="resnet10t is not built with 'pretrained'"):
        hostile.build()
    odd = zoo.ModelSpec(**vars(spec) | {"arguments": (("block", "cube"),)})
    with pytest.raises(RsdtrError, match="timm does not build resnet10t"):
        odd.build()


def test_squashed_and_other_interpolations() -> None:
    told = facts("resnet10t", {"crop_mode": "squash", "interpolation": "lanczos"})
    assert (told.squash, told.interpolation, told.input_shape) == (True, "bicubic", (3, 224, 224))
