"""A sample of the parity over the zoo; `make soak` compares every architecture in every form."""

import pytest
import torch

from rsdtr.models.zoo import model_names, model_spec
from rsdtr.ring.forms import FORMS
from tests.soak import parity
from tests.soak.parity import FORMATS, parameters, parities, small


@pytest.mark.parametrize(
    ("name", "eps", "forms", "formats"),
    [
        ("digits_resnet20", 0.6, FORMS, ["safetensors"]),
        ("digits_resnet20", 0.3, ["IH|WO"], FORMATS),
        ("squeezenet1_1", 0.6, ["pipeline"], FORMATS),
    ],
)
def test_what_is_read_back_computes_what_was_exported(name, eps, forms, formats):
    found = list(parities(name, eps, forms, formats))
    assert len(found) == len(forms) * (1 + len(formats))
    assert [parity for parity in found if not parity.right] == []


def test_a_file_that_computes_something_else_is_found(monkeypatch):
    def spoilt(folder):
        saved = original(folder)
        with torch.no_grad():
            next(saved.model.parameters()).mul_(1.01)
        return saved

    original = parity.load
    monkeypatch.setattr(parity, "load", spoilt)
    memory, file = parities("digits_resnet20", 0.6, ["O|IHW"], ["safetensors"])
    assert memory.right
    assert not file.right


def test_the_size_of_every_architecture_is_known_without_making_it():
    assert parameters("digits_resnet20") == 269_434
    assert parameters("resnet18") == 11_689_512
    assert all(parameters(name) > 200_000 for name in model_names())
    assert all(small(model_spec(name)).input_shape[1] <= 96 for name in model_names())
