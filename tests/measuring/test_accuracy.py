"""Accuracy, its interval, and size."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from rsdtr.data.datasets import LabelledImages, load_data
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.errors import DataError
from rsdtr.measuring.accuracy import Accuracy, accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.system.safetensors_format import saved_bytes

DIGITS = model_spec("digits_resnet20")


class _Always(nn.Module):
    """Says class `answer` to everything."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(x), 10)
        logits[:, self.answer] = 1
        return logits


def _images(labels: list[int]) -> LabelledImages:
    pixels = torch.zeros(len(labels), *DIGITS.input_shape, dtype=torch.uint8)
    names = tuple("0123456789")
    return LabelledImages("zeros", names, torch.tensor(labels), ArrayPictures(pixels), DIGITS)


def test_the_interval_is_wilsons() -> None:
    # By hand, p = 8/10, z = 1.96, z² = 3.8416: centre (0.8 + 0.19208) / 1.38416 = 0.716738,
    # half √(0.8·0.2/10 + 3.8416/400) · 1.96 / 1.38416 = 0.226592 -> 49.01 … 94.33.
    reached = Accuracy.of(8, 10)
    assert reached.percent == 80
    assert reached.interval == pytest.approx((49.01, 94.33), abs=0.01)


@pytest.mark.parametrize(("correct", "inside"), [(0, 0.0), (10, 100.0)])
def test_the_interval_stays_in_percent_at_the_ends(correct: int, inside: float) -> None:
    reached = Accuracy.of(correct, 10)
    assert min(abs(end - inside) for end in reached.interval) < 1e-9
    assert 0 <= reached.interval[0] < reached.interval[1] <= 100


def test_accuracy_counts_every_image_once() -> None:
    seen: list[tuple[int, int]] = []
    images = _images([3, 3, 1, 3, 2, 0, 3])
    reached = accuracy(_Always(3), images, batch_size=3, progress=lambda *n: seen.append(n))
    assert reached.n == 7
    assert reached.percent == pytest.approx(100 * 4 / 7)
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="there are none: give a set with at least 1"):
        accuracy(_Always(0), _images([]))


def test_every_module_gets_its_mode_back_and_statistics_stay() -> None:
    model = DIGITS.build().train()
    model.get_submodule("layer1").eval()
    modes = [module.training for module in model.modules()]
    before = model.get_buffer("bn1.running_mean").clone()
    accuracy(model, _images([1, 2]))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.get_buffer("bn1.running_mean"), before)


def test_modes_are_restored_when_the_model_fails() -> None:
    model = nn.Sequential(nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        accuracy(model, _images([1]))
    assert model.training


def test_saved_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    model = load_model("digits_resnet20")
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert saved_bytes(model) == (tmp_path / "model.safetensors").stat().st_size
    assert saved_bytes(model) > 4 * sum(p.numel() for p in model.parameters())


def test_the_bundled_model_reaches_97_percent_of_held_out_digits() -> None:
    reached = accuracy(load_model("digits_resnet20"), load_data("digits", DIGITS).test)
    assert reached.n == 360
    assert reached.percent >= 97


def test_published_resnet20_on_a_part_of_cifar10(offline: Path) -> None:
    images = load_data(None, model_spec("cifar10_resnet20")).test.subset(1000)
    low, high = accuracy(load_model("cifar10_resnet20"), images).interval
    assert low < 91.73 < high


def test_published_resnet20_reaches_91_73_percent(offline: Path) -> None:
    images = load_data(None, model_spec("cifar10_resnet20")).test
    reached = accuracy(load_model("cifar10_resnet20"), images)
    assert reached.n == 10_000
    assert reached.percent == pytest.approx(91.73, abs=0.011)  # one image, for another BLAS
