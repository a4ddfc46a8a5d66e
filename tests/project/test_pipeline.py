"""The whole way on real input: published weights, real pictures, saved and read back."""

import torch

from rsdtr import (
    accuracy,
    compress,
    load,
    load_data,
    load_model,
    model_spec,
    plan,
    profile,
    recalibrate,
    save,
)


def test_cifar10_resnet20_from_published_weights_to_a_saved_network(offline, tmp_path):
    spec = model_spec("cifar10_resnet20")
    dense = load_model(spec.name)
    data = load_data(spec.data, spec)
    test = data.test.subset(1000)
    decided = plan(profile(dense, spec), 0.6)
    network = compress(dense, decided)
    # All 10,000 test images give 91.73, 19.07 and 77.96 %; 1,000 of them lie within 3 points.
    assert abs(accuracy(dense, test).percent - 91.73) < 3
    assert abs(accuracy(network, test).percent - 19.07) < 4
    network = recalibrate(network, data.train, 2000)
    recovered = accuracy(network, test)
    assert abs(recovered.percent - 77.96) < 4
    folder = save(network, decided, tmp_path / "rings", metrics={"accuracy": recovered.percent})
    again = load(folder)
    assert again.plan == decided
    assert again.metrics["accuracy"] == recovered.percent
    x = torch.randn(4, *spec.input_shape)
    with torch.inference_mode():
        assert torch.equal(again.model(x), network.eval()(x))
