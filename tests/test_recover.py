"""Recalibration and fine-tuning: what changes, what must not, and when it stops."""

import copy
import dataclasses
import itertools

import pytest
import torch
from torch import nn

from rsdtr.data import DataSplits, LabelledImages, load_data
from rsdtr.errors import DataError, RsdtrError
from rsdtr.evaluate import accuracy
from rsdtr.pictures import ArrayPictures
from rsdtr.recover import EpochResult, FinetuneOptions, _Run, finetune, recalibrate
from rsdtr.zoo import ModelSpec, load_model, model_spec, weights_sha256

DIGITS = model_spec("digits_resnet20")
SMALL = dataclasses.replace(DIGITS, input_shape=(1, 4, 4))


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    """Digits, fewer of them: training takes half a second an epoch."""
    whole = load_data("digits", DIGITS)
    return DataSplits(whole.train.subset(300), whole.validation.subset(100), whole.test.subset(100))


def _brightness(count: int, seed: int, spec: ModelSpec = SMALL) -> LabelledImages:
    """Dark (0) and bright (1) pictures with noise: one linear layer learns them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    noise = torch.randint(100, (count, *spec.input_shape), generator=generator)
    pixels = (noise + 150 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    return LabelledImages("light", ("dark", "bright"), labels, ArrayPictures(pixels), spec)


@pytest.fixture
def light() -> DataSplits:
    return DataSplits(_brightness(64, 0), _brightness(32, 1), _brightness(32, 2))


def _tiny() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(16, 2),
    )


# --- recalibrate ---


def test_recalibrated_statistics_are_the_average_over_batches(light: DataSplits) -> None:
    model = _tiny().eval()
    new = recalibrate(model, light.train, n=64, batch_size=32, seed=3)
    generator = torch.Generator().manual_seed(3)
    convolution = model.get_submodule("0")
    outputs = [convolution(x) for x, _ in light.train.batches(32, generator)]  # (32, 4, 2, 2) each
    means = torch.stack([y.mean((0, 2, 3)) for y in outputs])
    variances = torch.stack([y.var((0, 2, 3)) for y in outputs])
    torch.testing.assert_close(new.get_buffer("1.running_mean"), means.mean(0))
    torch.testing.assert_close(new.get_buffer("1.running_var"), variances.mean(0))


def test_recalibrate_changes_only_a_copys_statistics(light: DataSplits) -> None:
    model = _tiny()
    model.get_submodule("1").eval()
    before = weights_sha256(model)
    new = recalibrate(model, light.train)
    assert weights_sha256(model) == before
    changed = {
        name
        for name, value in new.state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    }
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert [m.training for m in new.modules()] == [m.training for m in model.modules()]
    assert new.get_submodule("1").momentum == 0.1
    assert all(p.grad is None for p in new.parameters())


def test_recalibrate_repairs_spoilt_statistics(digits: DataSplits) -> None:
    model = load_model("digits_resnet20")
    for name, statistic in model.named_buffers():
        if name.endswith("running_mean"):
            statistic += 1
    assert accuracy(model, digits.test).percent < 60
    seen: list[tuple[int, int]] = []
    new = recalibrate(model, digits.train, n=200, progress=lambda *n: seen.append(n))
    assert accuracy(new, digits.test).percent > 90
    assert seen == [(200, 200)]


def test_recalibrate_is_the_same_for_a_seed_and_leaves_the_random_state(light: DataSplits) -> None:
    model = _tiny()
    state = torch.get_rng_state()
    hashes = [weights_sha256(recalibrate(model, light.train, 20, seed=s)) for s in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert torch.equal(state, torch.get_rng_state())


def test_recalibrate_without_batchnorm_is_a_copy(light: DataSplits) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    new = recalibrate(model, light.train)
    assert new is not model
    assert weights_sha256(new) == weights_sha256(model)


def test_recalibrate_does_without_a_last_batch_of_one() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 4), nn.BatchNorm2d(2))  # one output pixel
    new = recalibrate(model, _brightness(5, 0), batch_size=4)
    assert new.get_buffer("1.num_batches_tracked") == 1


def test_recalibrate_refuses_what_has_no_variance(light: DataSplits) -> None:
    with pytest.raises(DataError, match="asked for with 1 images: give at least 2"):
        recalibrate(_tiny(), light.train, n=1)
    with pytest.raises(DataError, match="asked for with 1 images: give at least 2"):
        recalibrate(_tiny(), _brightness(1, 0))
    with pytest.raises(RsdtrError, match="batch_size=1: give at least 2"):
        recalibrate(_tiny(), light.train, batch_size=1)


# --- finetune ---


def test_finetune_learns_digits_from_nothing(digits: DataSplits) -> None:
    model = DIGITS.build()
    options = FinetuneOptions(epochs=4, lr=0.1, batch_size=32)
    results = list(finetune(model, digits, options))
    assert [result.epoch for result in results] == [1, 2, 3, 4]
    assert results[-1].train_loss < results[0].train_loss
    assert results[-1].learning_rate < 1e-3 < results[1].learning_rate
    assert accuracy(model, digits.test).percent > 60


def test_the_model_ends_with_the_best_epoch_by_validation(light: DataSplits) -> None:
    states = {}
    model = _tiny()
    results: list[EpochResult] = []
    for result in finetune(model, light, FinetuneOptions(epochs=6, lr=0.02, batch_size=16)):
        results.append(result)
        states[result.epoch] = weights_sha256(model)
    percents = [result.validation.percent for result in results]
    assert len(set(percents)) > 1  # otherwise there was nothing to choose
    best = max(result.epoch for result in results if result.validation.percent == max(percents))
    assert weights_sha256(model) == states[best]
    so_far = list(itertools.accumulate(percents, max))
    assert [r.best for r in results] == [p >= m for p, m in zip(percents, so_far, strict=True)]


def test_the_best_epoch_is_kept_when_a_later_one_is_worse(
    light: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsdtr import recover
    from rsdtr.evaluate import Accuracy

    reached = iter([Accuracy.of(n, 10) for n in (5, 9, 7)])
    monkeypatch.setattr(recover, "accuracy", lambda *_: next(reached))
    model, states = _tiny(), {}
    for result in finetune(model, light, FinetuneOptions(epochs=3)):
        states[result.epoch] = weights_sha256(model)
    assert weights_sha256(model) == states[2]
    assert len(set(states.values())) == 3


def test_the_test_set_is_never_looked_at(light: DataSplits) -> None:
    class Forbidden(LabelledImages):
        def pixels(self, indices: object) -> torch.Tensor:
            raise AssertionError("the test set was looked at")

    test = Forbidden("no", ("a", "b"), torch.zeros(2).long(), ArrayPictures(torch.zeros(2)), SMALL)
    with pytest.raises(AssertionError, match="looked at"):
        accuracy(_tiny(), test)
    results = finetune(_tiny(), dataclasses.replace(light, test=test), FinetuneOptions(epochs=1))
    assert len(list(results)) == 1


@pytest.mark.parametrize("augment", ["none", "crop", "crop+flip"])
def test_a_seed_gives_the_same_weights_and_leaves_the_random_state(
    light: DataSplits, augment: str
) -> None:
    start = _tiny().state_dict()
    hashes = []
    for seed, noise in ((1, 0), (1, 99), (2, 0)):
        torch.manual_seed(noise)
        model = _tiny()
        model.load_state_dict(start)
        state = torch.get_rng_state()
        options = FinetuneOptions(epochs=2, batch_size=16, seed=seed, augment=augment)
        list(finetune(model, light, options))
        assert torch.equal(state, torch.get_rng_state())
        hashes.append(weights_sha256(model))
    assert hashes[0] == hashes[1] != hashes[2]


def test_stopping_before_an_epoch_is_finished_gives_the_first_weights_back(
    light: DataSplits,
) -> None:
    model = _tiny().eval()
    before = weights_sha256(model)
    steps: list[tuple[int, int, float]] = []
    results = finetune(
        model,
        light,
        FinetuneOptions(epochs=2, batch_size=16),
        should_stop=lambda: len(steps) >= 3,
        on_step=lambda *step: steps.append(step),
    )
    assert list(results) == []
    assert weights_sha256(model) == before
    assert not model.training
    assert [(step, steps_in_all) for step, steps_in_all, _ in steps] == [(1, 8), (2, 8), (3, 8)]


def test_closing_keeps_the_best_epoch_so_far(light: DataSplits) -> None:
    model = _tiny()
    before = weights_sha256(model)
    results = finetune(model, light, FinetuneOptions(epochs=5))
    assert next(results).best
    reached = weights_sha256(model)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert weights_sha256(model) == reached != before
    assert all(module.training for module in model.modules())


def test_a_last_batch_of_one_is_left_out(light: DataSplits) -> None:
    data = dataclasses.replace(light, train=light.train.subset(33))
    steps: list[int] = []
    results = finetune(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.BatchNorm1d(2)),
        data,
        FinetuneOptions(epochs=2, batch_size=16),
        on_step=lambda step, _all, _loss: steps.append(step),
    )
    assert len(list(results)) == 2
    assert steps == [1, 2, 3, 4]


def test_a_single_step_is_enough(light: DataSplits) -> None:
    model = _tiny()
    before = weights_sha256(model)
    data = dataclasses.replace(light, train=light.train.subset(2))
    assert len(list(finetune(model, data, FinetuneOptions(epochs=1)))) == 1
    assert weights_sha256(model) != before


def test_a_loss_that_is_not_finite_stops_with_the_best_weights(light: DataSplits) -> None:
    class Overflow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float("inf") if self.training else x

    model = nn.Sequential(_tiny(), Overflow())
    before = weights_sha256(model)
    message = r"the loss became nan at step 1 of 12: give a learning rate below 0\.05$"
    with pytest.raises(RsdtrError, match=message):
        list(finetune(model, light, FinetuneOptions(epochs=3, batch_size=16)))
    assert weights_sha256(model) == before


def test_too_few_images_are_refused(light: DataSplits) -> None:
    data = dataclasses.replace(light, train=light.train.subset(1))
    with pytest.raises(DataError, match="given 1 training and 32 validation images: give at least"):
        finetune(_tiny(), data)


# --- augmentation ---


def test_a_crop_shifts_every_picture_by_its_own_draw_and_never_mirrors(light: DataSplits) -> None:
    pixels = torch.arange(16.0).view(1, 1, 1, 16).repeat(200, 1, 16, 1)  # columns 0, 1, … 15
    run = _Run(_tiny(), light, FinetuneOptions(augment="crop"), lambda: False, None)
    out = run._augmented(pixels)
    shifts = (out[:, 0, 8, 8] - 8).tolist()
    assert set(shifts) == {-2, -1, 0, 1, 2}  # 1/8 of 16 to either side
    for picture, shift in zip(out, shifts, strict=True):
        expected = (torch.arange(16.0) + shift).clamp(0, 15)  # the border is repeated
        assert torch.equal(picture[0], expected.expand(16, 16))


def test_a_flip_mirrors_about_half_of_the_pictures(light: DataSplits) -> None:
    pixels = torch.arange(16.0).view(1, 1, 1, 16).repeat(200, 2, 16, 1)
    run = _Run(_tiny(), light, FinetuneOptions(augment="crop+flip"), lambda: False, None)
    out = run._augmented(pixels)
    falling = (out[:, 0, 0, 15] < out[:, 0, 0, 0]).float().mean()
    assert out.shape == pixels.shape
    assert torch.equal(out[:, 0], out[:, 1])
    assert 0.35 < falling < 0.65


def test_no_augmentation_is_none(light: DataSplits) -> None:
    pixels = torch.rand(3, 1, 16, 16)
    run = _Run(_tiny(), light, FinetuneOptions(augment="none"), lambda: False, None)
    assert run._augmented(pixels) is pixels


# --- options ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0: give at least 1"),
        ({"batch_size": 1}, "batch_size is 1: give at least 2"),
        ({"seed": -1}, "seed is -1: give at least 0"),
        ({"lr": 0.0}, r"lr is 0\.0: give a number above 0"),
        ({"lr": float("nan")}, "lr is nan: give a number above 0"),
        ({"clip": float("inf")}, "clip is inf: give a number above 0"),
        ({"momentum": 1.0}, r"momentum is 1\.0: give a number in 0 ≤ x < 1"),
        ({"weight_decay": -0.1}, r"weight_decay is -0\.1: give a number in"),
        ({"label_smoothing": 1.5}, r"label_smoothing is 1\.5: give a number in"),
        ({"augment": "flip"}, r"augment is 'flip': give one of none, crop, crop\+flip"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RsdtrError, match=message):
        FinetuneOptions(**changes)  # type: ignore[arg-type]  # wrong values are the point


def test_with_the_dense_network_as_reference_nothing_moves_that_compression_did_not_move():
    spec = model_spec("digits_resnet20")
    dense = load_model(spec.name)
    images = load_data("digits", spec).train
    plain = recalibrate(dense, images, 200)
    referred = recalibrate(dense, images, 200, reference=dense)
    name = "layer2.0.bn1.running_var"
    trained = dense.state_dict()
    assert not torch.allclose(plain.state_dict()[name], trained[name], rtol=1e-3)
    for key, value in referred.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(value, trained[key], rtol=1e-4, atol=1e-5)


def test_a_shifted_layer_is_shifted_back():
    spec = model_spec("digits_resnet20")
    dense = load_model(spec.name)
    images = load_data("digits", spec).train
    moved = copy.deepcopy(dense)
    with torch.no_grad():
        moved.conv1.weight *= 3
    repaired = recalibrate(moved, images, 200, reference=dense)
    ratio = repaired.state_dict()["bn1.running_var"] / dense.state_dict()["bn1.running_var"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 9.0), rtol=1e-3, atol=0)
    repaired_mean = repaired.state_dict()["bn1.running_mean"]
    assert not torch.allclose(repaired_mean, dense.state_dict()["bn1.running_mean"])


def test_a_reference_of_another_architecture_is_refused():
    spec = model_spec("digits_resnet20")
    images = load_data("digits", spec).train
    other = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    with pytest.raises(RsdtrError, match="reference with other BatchNorm layers"):
        recalibrate(load_model(spec.name), images, 64, reference=other)
