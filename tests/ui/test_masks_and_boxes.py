"""The pages on networks that answer masks or boxes."""

import pytest
import torch
from torch import nn

from rsdtr.models import zoo
from rsdtr.models.synthetic_weights import decaying_spectrum_
from tests.support.networks import Tiny
from tests.support.pages import app, metrics_of


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return decaying_spectrum_(Tiny())


@pytest.fixture(params=["segmentation", "detection"])
def task(request, monkeypatch) -> str:
    """A small network is known for one test as one of that task."""
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))
    zoo.own_model(f"tiny_{request.param}", tiny, (3, 16, 20), 2, task=request.param)
    return request.param


def test_explore_shows_fidelity_where_there_is_no_accuracy(task):
    test = app(model=f"tiny_{task}", eps="0.6")
    assert not test.exception
    assert not test.error
    assert "Fidelity" in {header.value for header in test.header}
    assert any(f"A network for {task} has no top-1 accuracy" in info.value for info in test.info)
    test.button(key="measure").click().run()
    assert not test.exception
    assert not test.error
    found = metrics_of(test)
    assert 0 < float(found["Relative error of the answers"]) < 1
    assert found["Pixels that agree"].endswith(" %")
    assert any("photos, without labels" in caption.value for caption in test.caption)


def test_recover_has_no_labels_to_learn_from_but_the_rest(task):
    test = app(model=f"tiny_{task}", eps="0.6")
    test.switch_page("pages/recover.py").run()
    assert not test.exception
    assert not test.error
    assert test.button(key="finetune").disabled
    assert test.button(key="estimate").disabled
    assert not test.button(key="refit").disabled
    assert any("no labels to learn from" in info.value for info in test.info)
    has_norm = any(isinstance(module, nn.BatchNorm2d) for module in tiny().modules())
    assert test.button(key="recalibrate").disabled == (not has_norm)
    told = any("nothing to recalibrate" in caption.value for caption in test.caption)
    assert told == (not has_norm)
    # No other process can build a network of one's own: said when it is asked for.
    test.button(key="refit").click().run()
    assert not test.exception
    assert any("a job cannot build" in error.value for error in test.error)


def test_pages_about_accuracy_say_why_not(task):
    test = app(model=f"tiny_{task}", eps="0.6")
    test.switch_page("pages/compare.py").run()
    assert not test.exception
    assert not test.error
    said = [info.value.replace("\\", "") for info in test.info]
    assert any(f"tiny_{task} is for {task}: it has no top-1 accuracy" in text for text in said)
    assert "export" not in {button.key for button in test.button}


def test_export_offers_what_torch_can(task):
    test = app(model=f"tiny_{task}", eps="0.6")
    test.switch_page("pages/export.py").run()
    assert not test.exception
    assert not test.error
    refused = [info.value for info in test.info if "safetensors alone" in info.value]
    assert len(refused) == (task == "detection")
