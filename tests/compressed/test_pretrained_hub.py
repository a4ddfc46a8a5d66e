"""Compressed networks on a hub: pushed, downloaded, and read without this package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants

from rsdtr.compressed import RingNetwork, compress, load
from rsdtr.errors import ExportError, WeightsError
from rsdtr.models import load_model, model_spec
from rsdtr.planning import plan, profile
from tests.support.command_line import done, refused
from tests.support.hub_stand_in import stand_in

NAME = "digits_resnet20"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    with stand_in(tmp_path, monkeypatch) as files:
        yield files


@pytest.fixture(scope="module")
def network() -> RingNetwork:
    dense = load_model(NAME)
    decided = plan(profile(dense, model_spec(NAME)), 0.7, layers="layer3.*")
    told = {"accuracy": 97.5, "interval": [95.0, 98.8], "data": "digits"}
    return RingNetwork(compress(dense, decided), decided, told).eval()


def test_pushed_and_downloaded_it_is_the_same(
    network: RingNetwork, hub: dict[str, bytes], tmp_path: Path
) -> None:
    address = network.push_to_hub("somebody/rings", token="hf_x")
    assert address.endswith("/somebody/rings/commit/0123456789abcdef0123456789abcdef01234567")
    assert set(hub) >= {
        f"somebody/rings/{name}" for name in ("model.safetensors", "manifest.json", "README.md")
    }
    again = RingNetwork.from_pretrained("somebody/rings")
    images = torch.rand(3, 1, 16, 16)
    assert torch.equal(again(images), network(images))
    assert (again.plan, again.metrics) == (network.plan, network.metrics)


def test_a_repository_that_is_none_and_one_that_is_closed(
    network: RingNetwork, hub: dict[str, bytes]
) -> None:
    with pytest.raises(ExportError, match=r"nobody/none is no folder.*there is no repository http"):
        RingNetwork.from_pretrained("nobody/none")
    hub["somebody/other/config.json"] = b"{}"
    with pytest.raises(ExportError, match=r"holds no manifest\.json: only JSON and safetensors"):
        RingNetwork.from_pretrained("somebody/other")
    with pytest.raises(WeightsError, match=r"closed/rings could not be pushed .*hf auth login"):
        network.push_to_hub("closed/rings", token="hf_x")


def test_the_card_tells_what_is_known_and_loads_it_without_this_package(
    network: RingNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = network.save_pretrained(tmp_path / "rings")
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["library_name"] == "rsdtr"
    assert told["pipeline_tag"] == "image-classification"
    assert told["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 97.5}]
    assert "Accuracy 97.50 % (95 % interval 95.00 to 98.80) on digits." in body
    assert f"(PCR {network.plan.pcr:.3f})" in body
    monkeypatch.chdir(folder)
    code = body.partition("## Without it")[2].partition("```python\n")[2].partition("```")[0]
    assert "rsdtr" not in code
    names: dict[str, object] = {}
    exec(code, names)
    dense = model_spec(NAME).build().eval()
    dense.load_state_dict(names["state"])
    images = torch.rand(4, 1, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(dense(images), network(images), atol=1e-4)
    assert network.save_pretrained(folder).is_dir()  # its own card is replaced
    (folder / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(ExportError, match=r"also holds README\.md, which would be lost"):
        network.save_pretrained(folder)


def test_a_word_opens_what_was_pushed_in_python_and_on_the_command_line(
    network: RingNetwork, hub: dict[str, bytes]
) -> None:
    network.push_to_hub("somebody/rings", token="hf_x")
    images = torch.rand(3, 1, 16, 16)
    saved = load("hf:somebody/rings")
    assert torch.equal(saved.model(images), network(images))
    assert torch.equal(RingNetwork.from_pretrained("hf:somebody/rings")(images), network(images))
    told = json.loads(done("evaluate", "hf:somebody/rings", "--limit", "20", "--json").stdout)
    assert (told["n"], told["params"]) == (20, saved.plan.params.compressed)
    for command in (["plan", "hf:somebody/rings"], ["compress", "hf:somebody/rings", "--out", "x"]):
        assert "hf:somebody/rings is compressed already: evaluate" in refused(*command)


def test_offline_a_word_says_which_file_goes_where(
    network: RingNetwork, hub: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    network.push_to_hub("somebody/rings", token="hf_x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = refused("evaluate", "hf:somebody/rings")
    assert "download its model.safetensors and its config.json, of a compressed network" in told
    assert "into a folder and give that" in told
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    load("hf:somebody/rings")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("hf:somebody/rings").plan == network.plan  # from the hub's cache folder
