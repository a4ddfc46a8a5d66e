import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rsdtr.models.zoo import own_model
from rsdtr.planning.model_profile import profile

SHAPE = (3, 8, 6)


class Ending(nn.Module):
    """A convolution to (5, 8, 6), what `end` makes of it, and a linear layer of so many inputs."""

    def __init__(self, inputs, end):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.drop, self.flat = nn.Dropout(), nn.BatchNorm1d(inputs)
        self.linear = nn.Linear(inputs, 4)
        self.end = end

    def forward(self, x):
        return self.linear(self.end(self, self.conv(x)))


def found(inputs, end):
    net = Ending(inputs, end).eval()
    spec = own_model("ending", lambda: net, SHAPE, 4, task="other")
    return profile(net, spec).layer("linear")


MAPS = {
    "flatten": (240, lambda net, x: torch.flatten(x, 1), (8, 6)),
    "view": (240, lambda net, x: x.view(len(x), -1), (8, 6)),
    "two steps": (240, lambda net, x: x.flatten(2).flatten(1), (8, 6)),
    "vgg": (60, lambda net, x: net.drop(F.max_pool2d(net.norm(x).relu(), 2).flatten(1)), (4, 3)),
    "alexnet": (10, lambda net, x: net.drop(F.adaptive_avg_pool2d(x, (2, 1)).flatten(1)), (2, 1)),
    "in place": (240, lambda net, x: x.relu_().flatten(1).mul_(2), (8, 6)),
    "norm behind": (240, lambda net, x: net.flat(x.flatten(1)), (8, 6)),
    "shortcut": (240, lambda net, x: (x + net.norm(x)).reshape(1, -1), (8, 6)),
}
VECTORS = {
    "pooled": (5, lambda net, x: x.mean((2, 3))),
    "channels last": (240, lambda net, x: x.permute(0, 2, 3, 1).flatten(1)),
    "shuffled": (240, lambda net, x: x.transpose(2, 3).reshape(1, -1)),
    "part of it": (192, lambda net, x: x[:, :4].flatten(1)),
    "joined": (480, lambda net, x: torch.cat([x.flatten(1), x.flatten(1)], 1)),
    "sorted": (240, lambda net, x: x.flatten(1).sort(1).values),
}


@pytest.mark.parametrize("how", MAPS)
def test_a_flattened_map_is_known(how):
    inputs, end, size = MAPS[how]
    layer = found(inputs, end)
    assert layer.shape == (4, 5, *size)
    assert (layer.input_size, layer.output_size) == (size, (1, 1))
    assert layer.macs == 4 * inputs
    assert layer.input_shape == (inputs,)


@pytest.mark.parametrize("how", VECTORS)
def test_what_is_no_flattened_map_is_taken_for_a_vector(how):
    inputs, end = VECTORS[how]
    layer = found(inputs, end)
    assert layer.shape == (4, inputs, 1, 1)
    assert (layer.input_size, layer.output_size) == ((1, 1), (1, 1))


def test_a_linear_layer_at_every_pixel_runs_at_as_many_positions():
    layer = found(5, lambda net, x: x.permute(0, 2, 3, 1))
    assert layer.shape == (4, 5, 1, 1)
    assert (layer.input_size, layer.output_size) == ((8, 6), (8, 6))
    assert layer.macs == 4 * 5 * 48
    assert layer.input_shape == (8, 6, 5)
    assert layer.obstacle is None
