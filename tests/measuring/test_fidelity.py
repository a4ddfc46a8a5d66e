"""Fidelity: numbers by hand, and networks that see, segment and detect."""

import pytest
import torch
from torch import nn
from torchvision import models

from rsdtr.data.datasets import load_data
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.measuring.fidelity import Fidelity, fidelity, matched
from rsdtr.models.model_loading import load_model
from rsdtr.models.outputs import Boxes
from rsdtr.models.zoo import model_spec
from tests.support.networks import Saying


def always(*rows) -> nn.Module:
    """Gives image k the answer rows[k], whatever it shows."""
    return Saying(lambda images: torch.tensor(rows)[: len(images)])


def test_the_error_and_the_classes_by_hand():
    # Image 1: z = (3, 4), off by (0, 2.5): 2.5/5 = 0.5. Image 2: (0, 2), off by (3, -1): √10/2.
    found = fidelity(
        always([3.0, 6.5], [3.0, 1.0]), always([3.0, 4.0], [0.0, 2.0]), torch.zeros(2, 1)
    )
    assert found.relative_error == pytest.approx((0.5 + 10**0.5 / 2) / 2)
    assert (found.agreement, found.counted, found.of, found.n) == (50.0, "images", 2, 2)
    assert str(found) == "relative error of the answers 1.041, 50.00 % of 2 images agree"


def test_masks_are_counted_by_pixel():
    dense = torch.zeros(1, 3, 2, 2)
    dense[0, 0] = 1.0
    dense[0, :2, 1, 1] = torch.tensor([0.0, 1.0])  # classes 0 0 / 0 1
    ring = torch.zeros(1, 3, 2, 2)
    ring[0, 0] = 1.0  # class 0 everywhere
    found = fidelity(Saying(lambda x: ring), Saying(lambda x: dense), torch.zeros(1, 1))
    assert (found.agreement, found.counted, found.of) == (75.0, "pixels", 4)
    assert found.relative_error == pytest.approx(2**0.5 / 2)  # two entries off by 1, norm 2


def test_answers_of_another_kind_have_an_error_alone():
    found = fidelity(always([2.0], [1.0]), always([1.0], [1.0]), torch.zeros(2, 1))
    assert (found.relative_error, found.agreement, found.counted, found.of) == (0.5, None, None, 0)
    assert str(found) == "relative error of the answers 0.500"


def test_what_is_not_finite_counts_as_all_of_the_answer():
    nan = float("nan")
    found = fidelity(
        always([nan, 0.0], [1.0, 0.0]), always([1.0, 0.0], [1.0, 0.0]), torch.zeros(2, 1)
    )
    assert found.relative_error == 0.5
    both = always([nan, 0.0], [1.0, 0.0])
    assert fidelity(both, both, torch.zeros(2, 1)).agreement == 50  # nan is no class


BOX = [0.0, 0.0, 10.0, 10.0]


def boxes(*rows: tuple[list[float], int, float]) -> Boxes:
    """(corners, label, score) each."""
    return Boxes(
        torch.tensor([row[0] for row in rows]).reshape(-1, 4),
        torch.tensor([row[1] for row in rows]),
        torch.tensor([row[2] for row in rows]),
    )


@pytest.mark.parametrize(
    ("one", "other", "paired"),
    [
        ([(BOX, 1, 0.9)], [(BOX, 1, 0.6)], 1),
        ([(BOX, 1, 0.9)], [(BOX, 2, 0.9)], 0),  # another label
        ([(BOX, 1, 0.9)], [([0.0, 0.0, 10.0, 5.0], 1, 0.9)], 1),  # IoU 50/100
        ([(BOX, 1, 0.9)], [([0.0, 0.0, 10.0, 4.9], 1, 0.9)], 0),  # IoU 49/100
        ([(BOX, 1, 0.9)], [(BOX, 1, 0.9), (BOX, 1, 0.8)], 1),  # each has one partner at most
        ([], [(BOX, 1, 0.9)], 0),
        ([], [], 0),
        # The better one takes the only box that the second could have had as well.
        ([(BOX, 1, 0.9), ([0.0, 0.0, 10.0, 30.0], 1, 0.9)],
         [(BOX, 1, 0.9), ([0.0, 0.0, 10.0, 9.0], 1, 0.8)], 1),
    ],
)  # fmt: skip
def test_boxes_are_paired_by_hand(one, other, paired):
    assert matched(boxes(*one), boxes(*other)) == (2 * paired, len(one) + len(other))


def test_no_images_and_networks_that_do_not_belong_together():
    with pytest.raises(DataError, match="fidelity needs images and there are none"):
        fidelity(nn.Identity(), nn.Identity(), torch.zeros(0, 3, 4, 4))
    with pytest.raises(RsdtrError, match=r"answer an image with 2 and 1 numbers: give the dense"):
        fidelity(always([1.0]), always([1.0, 2.0]), torch.zeros(1, 1))


def test_percent_is_what_is_left_of_the_answers_with_its_interval_over_images():
    far = fidelity(always([0.5], [1.0]), always([1.0], [1.0]), torch.zeros(2, 1))
    assert far.percent == 75.0  # of errors 0.5 and 0
    # Wider than there is room for: 75 ± 1.96 · 35.36 / √2 is 26 to 124.
    assert far.interval == (pytest.approx(26.0, abs=0.01), 100.0)
    two = fidelity(
        always([1.0, 0.0], [1.0, 0.0]), always([1.0, 0.0], [0.0, 1.0]), torch.zeros(2, 1)
    )
    assert (two.percent, two.interval) == (50.0, Accuracy.of(1, 2).interval)
    assert fidelity(always([2.5]), always([1.0]), torch.zeros(1, 1)).percent == 0.0


def test_a_set_of_images_modes_and_progress():
    spec = model_spec("digits_resnet20")
    model, images = load_model(spec.name).train(), load_data(None, spec).test.subset(40)
    seen: list[tuple[int, int]] = []
    found = fidelity(model, load_model(spec.name), images, progress=lambda *n: seen.append(n))
    assert found == Fidelity(0.0, 100.0, "images", 40, 40, None, Accuracy.of(40, 40).interval)
    assert found.percent == 100.0
    assert seen == [(32, 40), (40, 40)]
    assert model.training


def test_a_detection_network_by_its_boxes():
    torch.manual_seed(0)
    name = "ssdlite320_mobilenet_v3_large"
    dense, moved = (models.get_model(name, weights=None, weights_backbone=None) for _ in range(2))
    moved.load_state_dict(dense.state_dict())
    images = torch.rand(2, 3, 320, 320)
    same = fidelity(moved, dense, images, score=0.0)
    assert (same.relative_error, same.agreement, same.counted) == (0.0, 100.0, "boxes")
    assert same.of == 2 * 2 * 300  # all that it may answer, of both networks
    none = fidelity(moved, dense, images)  # untrained: no score is near a half
    assert (none.agreement, none.of) == (None, 0)
    assert str(none) == "relative error of the answers 0.000, no boxes to compare"
    with torch.no_grad():
        for parameter in moved.head.regression_head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    off = fidelity(moved, dense, images, score=0.0)
    assert off.relative_error > 0
    assert off.agreement is not None
    assert off.agreement < 100
