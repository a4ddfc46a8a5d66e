import copy
import dataclasses

import pytest
import torch
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import load_data
from rsdtr.errors import DataError
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.damage import MEASURED_EPS, measure_damage
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from tests.support.networks import Varied

LAYERS = ["layer1.0.*", "layer3.2.conv2"]


@pytest.fixture(scope="module")
def spec():
    return model_spec("digits_resnet20")


@pytest.fixture(scope="module")
def images(spec):
    return load_data("digits", spec).train


def test_damage_is_how_far_the_output_moves(spec, images):
    model = load_model(spec.name)
    before = copy.deepcopy(model.state_dict())
    costs = profile(model, spec)
    seen = []
    found = measure_damage(
        model, costs, images, 64, layers=LAYERS, progress=lambda *step: seen.append(step)
    )
    assert set(found.curves) == {"layer1.0.conv1", "layer1.0.conv2", "layer3.2.conv2"}
    assert seen[-1] == (3 * len(MEASURED_EPS), 3 * len(MEASURED_EPS))
    for points in found.curves.values():
        assert [error for error, _ in points] == sorted(error for error, _ in points)
        assert all(damage > 0 for _, damage in points)
        assert points[-1][1] > points[0][1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    # The same by hand for one layer: a compressed network on the statistics of the batch.
    made = compress(model, plan(costs, 0.8, layers="layer3.2.conv2"))
    generator = torch.Generator().manual_seed(0)
    ((pixels, _),) = images.subset(64, 0).batches(64, generator)
    with torch.no_grad():
        expected = copy.deepcopy(model).train()(pixels)
        moved = made.train()(pixels)
    ratio = float(((expected - moved).square().sum(1) / expected.square().sum(1)).mean())
    error = next(x.relative_error for x in plan(costs, 0.8).layers if x.name == "layer3.2.conv2")
    by_error = dict(found.curves["layer3.2.conv2"])
    assert by_error[error] == pytest.approx(ratio, rel=1e-3)


def test_one_image_is_too_few(spec, images):
    model = load_model(spec.name)
    with pytest.raises(DataError, match="damage was to be measured on 1 images"):
        measure_damage(model, profile(model, spec), images, 1)


def test_few_images_stand_for_all_where_answers_are_large(spec):
    """16 of 20, if every pixel has an answer."""
    masks = dataclasses.replace(spec, name="masks", family="voc")
    model, images = Varied().eval(), load_data("digits", masks).train
    model.stem = nn.Conv2d(1, 12, 3, padding=1)
    batches: list[int] = []
    model.stem.register_forward_hook(lambda _, inputs, output: batches.append(len(inputs[0])))
    costs = profile(model, masks)
    batches.clear()
    measure_damage(model, costs, images, 20, layers=["body"])
    assert batches
    assert set(batches) == {16}
