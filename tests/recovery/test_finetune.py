"""Fine-tuning: what it learns, when it stops, and that resuming it changes nothing."""

import copy
import dataclasses
import importlib
import itertools
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import DataSplits, LabelledImages
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.errors import DataError, RsdtrError
from rsdtr.measuring.accuracy import Accuracy, accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.recovery.checkpoint import EpochResult, kept_epoch, training_record
from rsdtr.recovery.finetune import Step, finetune
from rsdtr.recovery.optimizer import dense_parameters
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.training_forms import training_form
from tests.support.lights import DIGITS, SMALL, few_digits, lights, tiny

# `rsdtr.finetune` is the function where the package was imported; monkeypatch needs the module.
module: ModuleType = importlib.import_module("rsdtr.recovery.finetune")


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return few_digits()


@pytest.fixture
def light() -> DataSplits:
    return lights()


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
    model = tiny()
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
    reached = iter([Accuracy.of(n, 10) for n in (3, 5, 9, 7)])  # the start first
    monkeypatch.setattr(module, "accuracy", lambda *_: next(reached))
    model, states = tiny(), {}
    for result in finetune(model, light, FinetuneOptions(epochs=3)):
        states[result.epoch] = weights_sha256(model)
    assert weights_sha256(model) == states[2]
    assert len(set(states.values())) == 3


def test_the_test_set_is_never_looked_at(light: DataSplits) -> None:
    class Forbidden(LabelledImages):
        def inputs(self, indices: object) -> torch.Tensor:
            raise AssertionError("the test set was looked at")

    test = Forbidden("no", ("a", "b"), torch.zeros(2).long(), ArrayPictures(torch.zeros(2)), SMALL)
    with pytest.raises(AssertionError, match="looked at"):
        accuracy(tiny(), test)
    results = finetune(tiny(), dataclasses.replace(light, test=test), FinetuneOptions(epochs=1))
    assert len(list(results)) == 1


@pytest.mark.parametrize("augment", ["none", "crop", "crop+flip"])
def test_a_seed_gives_the_same_weights_and_leaves_the_random_state(
    light: DataSplits, augment: str
) -> None:
    start = tiny().state_dict()
    hashes = []
    for seed, noise in ((1, 0), (1, 99), (2, 0)):
        torch.manual_seed(noise)
        model = tiny()
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
    model = tiny().eval()
    before = weights_sha256(model)
    steps: list[Step] = []
    results = finetune(
        model,
        light,
        FinetuneOptions(epochs=2, batch_size=16),
        should_stop=lambda: len(steps) >= 3,
        on_step=steps.append,
    )
    assert list(results) == []
    assert weights_sha256(model) == before
    assert not model.training
    assert [(step.number, step.total) for step in steps] == [(1, 8), (2, 8), (3, 8)]


def test_closing_keeps_the_best_epoch_so_far(light: DataSplits) -> None:
    model = tiny()
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
        on_step=lambda step: steps.append(step.number),
    )
    assert len(list(results)) == 2
    assert steps == [1, 2, 3, 4]


def test_a_single_step_is_enough(light: DataSplits) -> None:
    model = tiny()
    before = weights_sha256(model)
    data = dataclasses.replace(light, train=light.train.subset(2))
    assert len(list(finetune(model, data, FinetuneOptions(epochs=1)))) == 1
    assert weights_sha256(model) != before


def test_a_loss_that_is_not_finite_stops_with_the_best_weights(light: DataSplits) -> None:
    class Overflow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float("inf") if self.training else x

    model = nn.Sequential(tiny(), Overflow())
    before = weights_sha256(model)
    message = r"the loss became nan at step 1 of 12: give a learning rate below 0\.02$"
    with pytest.raises(RsdtrError, match=message):
        list(finetune(model, light, FinetuneOptions(epochs=3, batch_size=16)))
    assert weights_sha256(model) == before


def test_too_few_images_are_refused(light: DataSplits) -> None:
    data = dataclasses.replace(light, train=light.train.subset(1))
    with pytest.raises(DataError, match="given 1 training and 32 validation images: give at least"):
        finetune(tiny(), data)


# --- the options, one by one ---


def after(options: FinetuneOptions, data: DataSplits, teacher: nn.Module | None = None):
    """A tiny network after a training, and what it was before."""
    torch.manual_seed(5)
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(finetune(model, data, options, teacher=teacher))
    return model, before


def test_adamw_learns_what_sgd_does_not_need(light: DataSplits) -> None:
    options = FinetuneOptions(epochs=8, lr=0.02, batch_size=16, optimizer="adamw")
    model, _ = after(options, light)
    assert accuracy(model, light.test).percent > 90


def test_the_loss_is_the_weighted_sum_of_labels_and_teacher(light: DataSplits) -> None:
    """By hand: logits (0, 0) and a teacher's (T·ln 3, 0), whose softmax at T is (3/4, 1/4)."""
    temperature, weight = 4.0, 0.25

    class Teacher(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[temperature * torch.tensor(3.0).log(), 0.0]]).expand(len(x), 2)

    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    options = FinetuneOptions(distill=weight, temperature=temperature, augment="none")
    run = module.Run(student, light, options, Teacher())
    ln2, ln34, ln14 = (torch.tensor(v).log() for v in (2.0, 0.75, 0.25))
    divergence = 0.75 * (ln34 + ln2) + 0.25 * (ln14 + ln2)
    expected = (1 - weight) * ln2 + weight * temperature**2 * divergence
    loss = run.learner._loss(torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 0, 1, 1, 0]))
    torch.testing.assert_close(loss.detach(), expected)


def test_distillation_alone_needs_no_labels_and_leaves_the_teacher(light: DataSplits) -> None:
    torch.manual_seed(3)
    teacher = tiny()
    list(finetune(teacher, light, FinetuneOptions(epochs=8, lr=0.1, batch_size=16)))
    before = weights_sha256(teacher)
    wrong = LabelledImages(
        "wrong", ("dark", "bright"), 1 - light.train.labels, light.train._pictures, SMALL
    )
    data = dataclasses.replace(light, train=wrong)
    options = FinetuneOptions(epochs=8, lr=0.05, batch_size=16, distill=1.0)
    model, _ = after(options, data, teacher)
    assert accuracy(model, light.test).percent > 90
    assert weights_sha256(teacher) == before
    assert teacher.training


def test_distillation_without_a_teacher_is_refused(light: DataSplits) -> None:
    with pytest.raises(RsdtrError, match=r"distill is 0\.5 and there is no teacher: give the orig"):
        finetune(tiny(), light, FinetuneOptions(distill=0.5))


def test_frozen_batchnorm_keeps_its_statistics_and_learns_its_scale(light: DataSplits) -> None:
    model, before = after(FinetuneOptions(epochs=1, batch_size=16, freeze_bn=True), light)
    now = model.state_dict()
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(now[name], before[name])
    assert not torch.equal(now["1.weight"], before["1.weight"])


def test_frozen_dense_layers_keep_their_weights_and_are_free_again(light: DataSplits) -> None:
    options = FinetuneOptions(epochs=1, batch_size=16, freeze_dense=True)
    model, before = after(options, light)
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {
        "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    }  # fmt: skip
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.fixture(scope="module")
def ring() -> nn.Module:
    spec = model_spec("digits_resnet20")
    dense = load_model(spec.name)
    return compress(dense, plan(profile(dense, spec), 0.6, layers=("layer3.2.*",)))


def test_rings_are_trained_where_dense_layers_are_frozen(ring) -> None:
    frozen = {id(parameter) for parameter in dense_parameters(ring)}
    names = {name for name, value in ring.named_parameters() if id(value) in frozen}
    rings = {name for name in dict(ring.named_parameters()) if ".cores." in name}
    assert len(rings) == 8
    assert not rings & names
    assert {"conv1.weight", "layer1.0.conv1.weight", "linear.weight"} <= names


def test_rings_are_trained_in_their_training_forms(ring, digits: DataSplits) -> None:
    network, forms = copy.deepcopy(ring), []
    layer = network.get_submodule("layer3.2.conv2")
    options = FinetuneOptions(epochs=1, batch_size=512)
    for _ in finetune(network, digits, options, on_step=lambda _: forms.append(layer.form)):
        pass
    assert set(forms) == {training_form(layer)}
    assert layer.form == "pipeline" != training_form(layer)
    assert network.conv1.weight.is_contiguous()


def test_with_nothing_left_to_train_it_says_so(light: DataSplits) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(RsdtrError, match="no weight is left to train: the network has no rings"):
        finetune(model, light, FinetuneOptions(freeze_dense=True))


def test_averaged_weights_are_what_is_measured_and_kept(light: DataSplits) -> None:
    """One linear weight, three steps, by hand: the decay of step k is (1 + k) / (10 + k)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    seen = [model.state_dict()["1.weight"].clone()]
    data = dataclasses.replace(light, train=light.train.subset(48))
    options = FinetuneOptions(epochs=1, batch_size=16, ema=0.9)
    list(finetune(model, data, options, on_step=lambda _: seen.append(
        model.state_dict()["1.weight"].clone())))  # fmt: skip
    expected = seen[0]
    for step, value in enumerate(seen[1:], 1):
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(model.state_dict()["1.weight"], expected)
    assert not torch.equal(expected, seen[-1])


@pytest.mark.parametrize(("patience", "epochs"), [(0, 6), (1, 3), (2, 4)])
def test_it_stops_early_after_epochs_without_a_gain(
    light: DataSplits, monkeypatch: pytest.MonkeyPatch, patience: int, epochs: int
) -> None:
    reached = iter([Accuracy.of(n, 10) for n in (3, 5, 9, 9, 7, 6, 9)])
    monkeypatch.setattr(module, "accuracy", lambda *_: next(reached))
    results = list(finetune(tiny(), light, FinetuneOptions(epochs=6, patience=patience)))
    assert len(results) == epochs
    assert [result.best for result in results][:3] == [True, True, True]


def test_parts_of_a_batch_add_up_to_its_gradient(light: DataSplits) -> None:
    """Without BatchNorm and Dropout; the last batch has 5 pictures, for two parts of 3 and 2."""
    data = dataclasses.replace(light, train=light.train.subset(37))
    torch.manual_seed(0)
    start = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).state_dict()
    states = []
    for parts in (1, 3):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        model.load_state_dict(start)
        list(finetune(model, data, FinetuneOptions(epochs=2, batch_size=16, accumulate=parts)))
        states.append(model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)
        assert not torch.equal(value, start[name])


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_in_float32(
    light: DataSplits,
) -> None:
    torch.manual_seed(0)
    start = tiny().state_dict()
    losses: dict[str, list[float]] = {}
    for precision in ("float32", "bfloat16"):
        model, kinds, steps = tiny(), set(), []
        model.load_state_dict(start)
        first = next(m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
        first.register_forward_hook(
            lambda module, _, output, kinds=kinds: (
                kinds.add(output.dtype) if module.training else None
            )
        )
        options = FinetuneOptions(epochs=2, batch_size=16, distill=0.5, precision=precision)
        list(finetune(model, light, options, teacher=tiny(), on_step=steps.append))
        assert kinds == {getattr(torch, precision)}
        assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())
        losses[precision] = [step.loss for step in steps]
    # bfloat16 has 8 bits of mantissa: the same training, but for its rounding.
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"][0] == pytest.approx(losses["float32"][0], rel=0.05)


# --- resume ---

RECIPES = {
    "sgd": FinetuneOptions(epochs=4, batch_size=16, augment="crop+flip"),
    "adamw, averages, teacher": FinetuneOptions(
        epochs=4, lr=0.01, batch_size=16, optimizer="adamw", ema=0.9, distill=0.5, accumulate=2
    ),
    "frozen, patient": FinetuneOptions(
        epochs=4, batch_size=16, freeze_bn=True, freeze_dense=True, patience=3, label_smoothing=0.1
    ),
    "mixed precision": FinetuneOptions(epochs=4, batch_size=16, precision="bfloat16"),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("interrupted_at", [1, 6, 13])
def test_resumed_is_uninterrupted_bit_for_bit(
    light: DataSplits, tmp_path, name: str, interrupted_at: int
) -> None:
    """Stopped in the middle of epoch 1, 2 or 4 of four steps each, and gone on with."""
    torch.manual_seed(9)
    teacher, start = tiny(), tiny().state_dict()
    file = tmp_path / "state.safetensors"

    def trained(*, stop_at: int | None, checkpoint) -> tuple[str, list[EpochResult], list[Step]]:
        model, steps = tiny(), []
        model.load_state_dict(start)
        results = finetune(
            model, light, RECIPES[name], teacher=teacher, checkpoint=checkpoint,
            should_stop=lambda: stop_at is not None and len(steps) >= stop_at,
            on_step=steps.append,
        )  # fmt: skip
        kept = [dataclasses.replace(result, seconds=0.0) for result in results]
        return weights_sha256(model), kept, steps

    whole, results, steps = trained(stop_at=None, checkpoint=None)
    _, before, _ = trained(stop_at=interrupted_at, checkpoint=file)
    assert len(before) == interrupted_at // 4
    torch.manual_seed(interrupted_at)  # another process has another random state
    resumed, again, rest = trained(stop_at=None, checkpoint=file)
    assert resumed == whole
    assert again == results
    assert rest == steps[4 * len(before) :]
    finished, thrice, none = trained(stop_at=None, checkpoint=file)
    assert (finished, thrice, none) == (whole, results, [])


def test_a_channels_last_network_is_resumed_too(light: DataSplits, tmp_path) -> None:
    def network() -> nn.Module:
        torch.manual_seed(4)
        head = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 2), nn.Flatten())
        return head.to(memory_format=torch.channels_last)

    options, file = FinetuneOptions(epochs=3, batch_size=16), tmp_path / "state.safetensors"
    whole, stopped, resumed = network(), network(), network()
    assert not whole.state_dict()["1.weight"].is_contiguous()
    list(finetune(whole, light, options))
    results = finetune(stopped, light, options, checkpoint=file)
    next(results)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(list(finetune(resumed, light, options, checkpoint=file))) == 3
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=1e-6, atol=1e-7)


def test_a_checkpoint_of_another_training_is_refused(light: DataSplits, tmp_path) -> None:
    file = tmp_path / "state.safetensors"
    torch.manual_seed(1)
    start = tiny()
    other = dataclasses.replace(light, train=light.train.subset(48))
    list(finetune(tiny(), light, FinetuneOptions(epochs=1), checkpoint=file))
    for model, data, seed in ((start, light, 0), (start, other, 0), (start, light, 1)):
        results = finetune(model, data, FinetuneOptions(epochs=1, seed=seed), checkpoint=file)
        with pytest.raises(RsdtrError, match="belongs to another training: give the same start"):
            next(results)


def test_a_checkpoint_that_cannot_be_written_keeps_the_one_before(
    light: DataSplits, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.safetensors"
    model = tiny()
    results = finetune(model, light, FinetuneOptions(epochs=3), checkpoint=file)
    next(results)
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RsdtrError, match=r"checkpoint of epoch 2 could not be written \(No space"):
        next(results)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_a_damaged_checkpoint_is_ignored_with_a_warning(
    light: DataSplits, tmp_path, caplog: pytest.LogCaptureFixture, keep: int
) -> None:
    file = tmp_path / "state.safetensors"
    torch.manual_seed(2)
    start = tiny().state_dict()
    hashes = []
    for _ in range(2):
        model = tiny()
        model.load_state_dict(start)
        assert len(list(finetune(model, light, FinetuneOptions(epochs=2), checkpoint=file))) == 2
        hashes.append(weights_sha256(model))
        file.write_bytes(file.read_bytes()[:keep])
    assert hashes[0] == hashes[1]
    assert "is damaged" in caplog.text


def test_a_training_that_harms_leaves_the_start(light: DataSplits) -> None:
    model = tiny()
    for _ in finetune(model, light, FinetuneOptions(epochs=4, lr=0.05, batch_size=16)):
        pass
    start, before = accuracy(model, light.validation).percent, weights_sha256(model)
    assert start > 90
    flipped = DataSplits(_flipped(light.train), light.validation, light.test)
    options = FinetuneOptions(epochs=3, lr=0.2, batch_size=16)
    results = list(finetune(model, flipped, options))
    assert all(result.validation.percent < start for result in results)
    assert not any(result.best for result in results)
    assert kept_epoch(results) == 0
    assert training_record("light", options, results)["kept_epoch"] == 0
    assert weights_sha256(model) == before
    assert accuracy(model, light.validation).percent == start


def test_one_harmful_epoch_resumed_leaves_the_start(light: DataSplits, tmp_path: Path) -> None:
    model = tiny()
    for _ in finetune(model, light, FinetuneOptions(epochs=4, lr=0.05, batch_size=16)):
        pass
    before = weights_sha256(model)
    flipped = DataSplits(_flipped(light.train), light.validation, light.test)
    options = FinetuneOptions(epochs=2, lr=0.2, batch_size=16)
    again = copy.deepcopy(model)
    first = finetune(model, flipped, options, checkpoint=tmp_path / "checkpoint")
    next(first)
    first.close()
    assert weights_sha256(model) == before
    resumed = list(finetune(again, flipped, options, checkpoint=tmp_path / "checkpoint"))
    assert len(resumed) == 2
    assert weights_sha256(again) == before


def test_averaged_weights_that_are_worse_than_the_start_are_not_kept(light: DataSplits) -> None:
    model = tiny()
    for _ in finetune(model, light, FinetuneOptions(epochs=4, lr=0.05, batch_size=16)):
        pass
    before = weights_sha256(model)
    flipped = DataSplits(_flipped(light.train), light.validation, light.test)
    list(finetune(model, flipped, FinetuneOptions(epochs=2, lr=0.2, batch_size=16, ema=0.5)))
    assert weights_sha256(model) == before


def test_patience_counts_from_the_start(light: DataSplits) -> None:
    model = tiny()
    for _ in finetune(model, light, FinetuneOptions(epochs=4, lr=0.05, batch_size=16)):
        pass
    flipped = DataSplits(_flipped(light.train), light.validation, light.test)
    options = FinetuneOptions(epochs=6, lr=0.2, batch_size=16, patience=2)
    assert len(list(finetune(model, flipped, options))) == 2


def _flipped(images: LabelledImages) -> LabelledImages:
    """The same pictures, every label wrong."""
    return LabelledImages(
        images.name, images.classes, 1 - images.labels,
        ArrayPictures(images.pixels(slice(None))), images.spec,
    )  # fmt: skip
