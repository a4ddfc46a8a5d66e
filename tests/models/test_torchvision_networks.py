"""torchvision's networks: built as they were published, filled under today's names."""

import pytest
import torch
from torch import nn
from torchvision import models

from rsdtr.models import torchvision_networks


def test_names_hold_what_answers_classes_masks_or_boxes_alone():
    names = torchvision_networks.names()
    assert names.index("resnet18") < names.index("fcn_resnet50") < names.index("ssd300_vgg16")
    assert not [name for name in names if name.startswith(("mask", "keypoint", "vit", "r3d"))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("task", ["", "segmentation", "detection"])
def test_names_are_those_that_torchvision_lists(task):
    package = getattr(models, task) if task else models
    assert list(torchvision_networks._listed(task)) == models.list_models(module=package)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_a_segmentation_network_answers_what_torchvisions_does(name):
    torch.manual_seed(0)
    ours = torchvision_networks.build(name).eval()
    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None, weights_backbone=None).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images)["out"])
    assert ours(images).shape == (2, 21, 64, 96)


def test_norms_that_were_trained_without_eps_have_none():
    torch.manual_seed(0)
    norms = [
        m for m in torchvision_networks.build("retinanet_resnet50_fpn").modules() if _is_norm(m)
    ]
    assert {norm.eps for norm in norms} == {0.0}
    assert {m.eps for m in torchvision_networks.build("resnet18").modules() if _is_norm(m)} == {
        1e-5
    }


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("name", "published", "today"),
    [
        # Before torchvision 0.13 these convolutions were no blocks of convolution and norm.
        ("fasterrcnn_resnet50_fpn", "backbone.fpn.inner_blocks.2.bias",
         "backbone.fpn.inner_blocks.2.0.bias"),
        ("fasterrcnn_resnet50_fpn", "backbone.fpn.layer_blocks.0.weight",
         "backbone.fpn.layer_blocks.0.0.weight"),
        ("fasterrcnn_resnet50_fpn", "rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
        ("fasterrcnn_resnet50_fpn", "rpn.head.conv.0.0.weight", "rpn.head.conv.0.0.weight"),
        ("fasterrcnn_resnet50_fpn", "rpn.head.cls_logits.bias", "rpn.head.cls_logits.bias"),
        ("retinanet_resnet50_fpn", "head.classification_head.conv.6.weight",
         "head.classification_head.conv.3.0.weight"),
        ("retinanet_resnet50_fpn", "head.regression_head.conv.0.bias",
         "head.regression_head.conv.0.0.bias"),
        ("fcos_resnet50_fpn", "head.regression_head.conv.3.bias",
         "head.regression_head.conv.3.bias"),
        ("densenet121", "features.denseblock1.denselayer1.norm.1.bias",
         "features.denseblock1.denselayer1.norm1.bias"),
    ],
)  # fmt: skip
def test_old_names_become_those_of_todays_classes(name, published, today):
    assert torchvision_networks.todays_name(name, published) == today


def test_today_s_names_of_a_detection_network_are_its_own():
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    state = torchvision_networks.build(name).state_dict()
    assert [torchvision_networks.todays_name(name, key) for key in state] == list(state)


@pytest.mark.parametrize("name", ["fcn_resnet101", "deeplabv3_mobilenet_v3_large"])
def test_the_head_that_only_training_needs_is_left_out(name):
    assert torchvision_networks.todays_name(name, "classifier.0.bias") == "classifier.0.bias"
    assert torchvision_networks.todays_name(name, "aux_classifier.0.bias") is None
