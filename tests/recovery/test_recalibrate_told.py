"""What has no BatchNorm is not said to be recalibrated; what BatchNorm switched off is skipped."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from rsdtr.commands.cli import cli
from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import load
from rsdtr.data.datasets import load_data
from rsdtr.models import zoo
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.recalibrate import nothing_to_recalibrate, recalibrate
from rsdtr.recovery.refit import refit


def plain() -> nn.Module:
    """Digits without BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(12, 10),
    )  # fmt: skip


def normed(**options: bool) -> nn.Module:
    network = plain()
    network.insert(3, nn.BatchNorm2d(12, **options))
    return network


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))
    torch.manual_seed(0)
    network = plain().eval()
    return zoo.own_model("mine", lambda: copy.deepcopy(network), (1, 16, 16), 10)


@pytest.mark.parametrize(
    ("network", "has"),
    [
        (plain(), False),
        (normed(), True),
        (normed(track_running_stats=False), False),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8)), False),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.InstanceNorm2d(8)), False),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.SyncBatchNorm(8)), True),
    ],
)
def test_only_a_batchnorm_that_keeps_statistics_can_be_recalibrated(
    network: nn.Module, has: bool
) -> None:
    reason = nothing_to_recalibrate(network)
    assert (reason is None) == has
    assert has or "no BatchNorm" in str(reason)


def test_the_command_says_so_and_the_manifest_does_not_claim_it(
    own: ModelSpec, tmp_path: Path
) -> None:
    out = tmp_path / "ring"
    words = ["compress", own.name, "--layers", "all", "--eps", "0.6", "--data", "digits"]
    done = CliRunner().invoke(cli, [*words, "--recalibrate", "20", "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    assert "no BatchNorm that keeps statistics: nothing to recalibrate" in done.stderr
    assert "recalibrated" not in json.loads((out / "manifest.json").read_text())["metrics"]
    assert "recalibrated" not in load(out).metrics


def test_where_there_is_one_the_manifest_tells_it(tmp_path: Path) -> None:
    out = tmp_path / "ring"
    words = ["compress", "digits_resnet20", "--layers", "layer3.2.conv2", "--eps", "0.7"]
    done = CliRunner().invoke(cli, [*words, "--recalibrate", "20", "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    assert "nothing to recalibrate" not in done.stderr
    assert load(out).metrics["recalibrated"] == {"data": "digits", "images": 20}


# --- a BatchNorm that lets nothing through ---


def switched_off(*names: str, part: float = 1.0) -> nn.Module:
    network = load_model("digits_resnet20")
    for name in names:
        norm = network.get_submodule(name)
        gone = round(part * len(norm.weight))
        with torch.no_grad():
            norm.weight[:gone] = 0
    return network


@pytest.mark.parametrize("part", [1.0, 0.75])
def test_a_layer_behind_which_every_gamma_is_zero_is_skipped(part: float) -> None:
    dense = switched_off("layer1.0.bn2", "layer2.1.bn2", part=part)
    spec = zoo.model_spec("digits_resnet20")
    names = ["layer1.0.conv2", "layer2.1.conv2", "layer1.1.conv1"]
    rings = compress(dense, plan(profile(dense, spec), 0.8, layers=names))
    images = load_data("digits", spec).train.subset(100)
    found = refit(rings, dense, images, 100)
    skipped = {step.name for step in found.steps if step.skipped}
    assert skipped == ({"layer1.0.conv2", "layer2.1.conv2"} if part == 1 else set())
    for step in found.steps:
        assert not (step.skipped and step.kept)
        assert step.skipped is None or "γ" in step.skipped
    assert next(step for step in found.steps if step.name == "layer1.1.conv1").kept
    (cores,) = (step for step in found.steps if step.name == "cores")
    assert cores.after < cores.before
    assert all(value.isfinite().all() for value in found.model.state_dict().values())


def test_a_network_that_begins_with_zero_residuals_is_refitted_as_far_as_it_goes() -> None:
    """Every block's last γ is 0, as with torchvision's zero_init_residual."""
    dense = load_model("digits_resnet20")
    last = [name for name, _ in dense.named_modules() if name.endswith("bn2")]
    dense = switched_off(*last)
    spec = zoo.model_spec("digits_resnet20")
    rings = compress(dense, plan(profile(dense, spec), 0.8, layers=["layer1.*", "layer3.0.*"]))
    found = refit(rings, dense, load_data("digits", spec).train.subset(60), 60)
    assert {step.name for step in found.steps if step.skipped} == {
        "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2", "layer3.0.conv2",
    }  # fmt: skip


def test_recalibrating_what_has_no_batchnorm_is_still_a_copy(own: ModelSpec) -> None:
    images = load_data("digits", own).train.subset(10)
    network = own.build()
    new = recalibrate(network, images, 10)
    assert new is not network
    assert all(map(torch.equal, new.state_dict().values(), network.state_dict().values()))
