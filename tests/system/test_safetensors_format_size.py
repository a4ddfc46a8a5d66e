import pytest
import safetensors.torch
import torch

from rsdtr.compressed.compress import skeleton
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan, planned_bytes
from rsdtr.system.safetensors_format import entries_of, safetensors_bytes, saved_bytes
from tests.support.networks import varied, varied_spec


@pytest.mark.parametrize("name", ["digits_resnet20", "cifar10_vgg16_bn", "squeezenet1_1"])
def test_equal_to_the_file_that_is_written(name):
    model = model_spec(name).build()
    assert safetensors_bytes(entries_of(model)) == saved_bytes(model)


def test_every_dtype_has_its_place():
    module = torch.nn.Module()
    for k, dtype in enumerate((torch.int8, torch.float64, torch.float16, torch.bool, torch.int64)):
        module.register_buffer(f"b{k}", torch.zeros(3, k + 1, dtype=dtype))
    written = len(safetensors.torch.save(module.state_dict()))
    assert safetensors_bytes(entries_of(module)) == written


@pytest.mark.parametrize("eps", [0.2, 0.6])
def test_a_plan_s_file_before_there_is_one(eps):
    model = varied()
    decided = plan(profile(model, varied_spec()), eps)
    assert any(layer.kept_dense is None for layer in decided.layers)
    assert planned_bytes(profile(model, varied_spec()), decided) == saved_bytes(
        skeleton(model, decided)
    )


def test_scalars_of_one_size_have_an_order_too():
    """Where each tensor lies is written in digits, of which there are more or fewer."""
    for count in range(1, 40):
        module = torch.nn.Module()
        for k in range(count):
            module.register_buffer(f"a{k}", torch.zeros(1 + 5 * k, dtype=torch.float64))
        module.register_buffer("z", torch.zeros(1, dtype=torch.int64))
        assert safetensors_bytes(entries_of(module)) == saved_bytes(module), count
