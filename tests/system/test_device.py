"""Which device a word means, and the precision that suits it."""

import pytest
import torch

from rsdtr.errors import RsdtrError
from rsdtr.system.device import chosen_device, usual_precision


class Gpu:
    type = "cuda"


def test_auto_is_the_accelerator_there_is(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert chosen_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: Gpu)
    assert chosen_device("auto") is Gpu
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert chosen_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(RsdtrError, match="the device is cuda:2 and this machine has 2 of cuda"):
        chosen_device("cuda:2")
    with pytest.raises(RsdtrError, match="the device is mps and this machine has cuda alone"):
        chosen_device("mps")


def test_what_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert chosen_device("cpu") == torch.device("cpu")
    with pytest.raises(RsdtrError, match="is cuda:1 and this machine has cpu alone: give auto"):
        chosen_device("cuda:1")
    with pytest.raises(
        RsdtrError, match="the device is 'gpu': give auto, cpu, cuda, cuda:N or mps"
    ):
        chosen_device("gpu")


@pytest.mark.parametrize(("has", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_where_the_processor_has_it(monkeypatch, has, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    assert usual_precision(torch.device("cpu")) == precision
