"""The network that carries its plan: what comes back is what was saved, from the disk alone."""

import json
import socket

import pytest
import torch

from rsdtr import compress, load, load_model, model_spec, plan, profile
from rsdtr.compressed.pretrained import RingNetwork
from rsdtr.errors import ExportError

NAME = "digits_resnet20"


@pytest.fixture(scope="module")
def network() -> RingNetwork:
    dense = load_model(NAME)
    decided = plan(profile(dense, model_spec(NAME)), 0.7, layers="layer3.2.conv2")
    return RingNetwork(compress(dense, decided), decided, {"accuracy": 97.5})


def test_it_comes_back_with_its_plan_and_without_a_network(network, tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(socket, "socket", refused)
    folder = network.save_pretrained(tmp_path / "small")
    again = RingNetwork.from_pretrained(folder)
    images = torch.rand(3, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(again(images), network.eval()(images))
    assert (again.plan, again.spec, again.metrics) == (
        network.plan, model_spec(NAME), {"accuracy": 97.5},
    )  # fmt: skip
    assert not again.training
    assert load(folder).plan == network.plan  # it is what `save` writes
    assert again.save_pretrained(tmp_path / "again").is_dir()
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("small", "again")]
    assert written[0] == written[1]
    assert json.loads((folder / "manifest.json").read_text())["metrics"] == {"accuracy": 97.5}


def test_without_a_network_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=r"somebody/resnet20 is no folder.* cannot be downloaded"):
        RingNetwork.from_pretrained("somebody/resnet20")
