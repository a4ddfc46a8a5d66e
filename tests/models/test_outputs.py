"""The numbers that networks are compared by, whatever holds them."""

import pytest
import torch
from torch import nn
from torchvision import models

from rsdtr.errors import RsdtrError
from rsdtr.models.outputs import (
    Boxes,
    answers,
    chooses_boxes,
    compared_output,
    detections,
)
from tests.support.networks import Saying

IMAGES = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)


def test_tensors_are_found_in_whatever_holds_them():
    network = Saying(lambda x: {"out": x, "more": [x[:, :1], (x.int(), "words", None)]})
    found = answers(network, IMAGES)
    assert torch.equal(found, torch.cat([IMAGES.flatten(1), IMAGES[:, :1].flatten(1)], 1))


def test_one_number_for_each_image_is_a_row_too():
    found = answers(Saying(lambda x: [x.mean((1, 2, 3)), x[:, 0, 0]]), IMAGES)
    assert torch.equal(found, torch.tensor([[5.5, 0, 1], [17.5, 12, 13]]))


@pytest.mark.parametrize(
    ("say", "shapes"),
    [
        (lambda x: x.sum(), r"\(\)"),
        (lambda x: (x, x[:1]), r"\(2, 3, 2, 2\), \(1, 3, 2, 2\)"),
        (lambda x: "words", "no tensor"),
    ],
)
def test_answers_without_a_row_for_each_image_are_refused(say, shapes):
    with pytest.raises(RsdtrError, match=f"answers 2 images with {shapes}: only tensors"):
        answers(Saying(say), IMAGES)


def test_one_tensor_is_compared_as_it_is_and_others_as_rows():
    assert torch.equal(compared_output(Saying(lambda x: x), IMAGES), IMAGES)
    rows = compared_output(Saying(lambda x: [x]), IMAGES)
    assert torch.equal(rows, IMAGES.flatten(1))


def test_boxes_above_a_score_come_highest_first():
    found = Boxes(
        torch.arange(12.0).reshape(3, 4), torch.tensor([5, 6, 7]), torch.tensor([0.5, 0.9, 0.4])
    )
    kept = found.above(0.5)
    assert kept.labels.tolist() == [6, 5]
    assert kept.boxes[:, 0].tolist() == [4, 0]


# Where each part of a network has its last word.
HEADS = {
    "ssdlite320_mobilenet_v3_large": (
        "head.classification_head.module_list.5.1", "head.regression_head.module_list.0.1",
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        "rpn.head.cls_logits", "rpn.head.bbox_pred",
        "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=HEADS)
def detector(request):
    torch.manual_seed(0)
    network = models.get_model(request.param, weights=None, weights_backbone=None).eval()
    network.heads = HEADS[request.param]
    return network


@torch.inference_mode()
def test_every_part_of_a_detection_network_has_a_say(detector):
    """A change anywhere, in the second stage too, moves the numbers behind the boxes."""
    assert chooses_boxes(detector)
    images = torch.rand(2, 3, 64, 64)
    before = answers(detector, images)
    assert before.shape[0] == 2
    assert torch.equal(answers(detector, images), before)
    torch.testing.assert_close(answers(detector, images[1:]), before[1:], atol=1e-5, rtol=1e-4)
    for head in detector.heads:
        detector.get_submodule(head).bias.add_(1.0)
        after = answers(detector, images)
        assert not torch.equal(after, before)
        before = after


@torch.inference_mode()
def test_boxes_are_those_that_the_network_chooses(detector):
    images = torch.rand(1, 3, 64, 64)
    (found,) = detections(detector, images)
    (expected,) = detector([images[0]])
    assert torch.equal(found.boxes, expected["boxes"])
    assert torch.equal(found.labels, expected["labels"])


def test_other_networks_choose_no_boxes():
    assert not chooses_boxes(nn.Linear(2, 2))
    assert not chooses_boxes(models.resnet18())
