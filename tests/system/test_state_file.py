"""State dicts as files: whatever torch lets them hold comes back, each memory written once."""

import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.saved import load, save
from rsdtr.data.datasets import load_data
from rsdtr.errors import ExportError, WeightsError
from rsdtr.exports.export import export
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models import zoo
from rsdtr.models.weights import fill, read_for
from rsdtr.models.zoo import own_model, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan, planned_bytes
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.system.safetensors_format import entries_of, safetensors_bytes, saved_bytes
from rsdtr.system.state_file import restored, state_bytes


@pytest.fixture(autouse=True)
def _own_models_are_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))


class Tied(nn.Module):
    """A trunk under two names, a head under two names, and one buffer under two."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        )
        self.fc = nn.Linear(16, 10)
        self.head = self.fc
        self.again = self.trunk[2]
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("alias", self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(x).mean((2, 3))) * self.scale


class Holds(nn.Module):
    """Everything that a state_dict may hold beside plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.register_buffer("mask", torch.full((3,), float("-inf")))
        self.register_buffer("wave", torch.arange(6.0).view(3, 2).to(torch.complex64))
        self.register_buffer("waves", torch.tensor(1 + 2j, dtype=torch.complex128))
        self.register_buffer("small", torch.arange(4.0).to(torch.float8_e4m3fn))
        self.register_buffer("wide", torch.tensor([1, 60_000], dtype=torch.uint16))
        self.register_buffer("none", torch.empty(0, 3))
        self.register_buffer("part", torch.arange(9.0)[2:5])  # of a larger memory
        self.register_buffer("turned", torch.rand(4, 6).t())
        self.register_buffer("frames", torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last))
        self.state: object = {"steps": 3, "sizes": (1, 2), "running": torch.ones(2), "raw": b"\0x"}

    def get_extra_state(self) -> object:
        return self.state

    def set_extra_state(self, state: object) -> None:
        self.state = state


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        raw = [value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*raw)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("build", [Tied, Holds, lambda: nn.Linear(2, 3)])
def test_a_state_dict_comes_back_as_it_was(tmp_path: Path, build) -> None:
    module = build()
    (tmp_path / "a.safetensors").write_bytes(state_bytes(module.state_dict()))
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata() or {}
    found = restored(safetensors.torch.load_file(tmp_path / "a.safetensors"), metadata)
    assert equal(dict(found), dict(module.state_dict()))
    again = build()
    fill(again, read_for(again, tmp_path / "a.safetensors"), "a.safetensors")
    assert weights_sha256(again) == weights_sha256(module)


def test_each_memory_is_written_once_and_plain_files_are_as_the_format_s_own() -> None:
    tied = Tied()
    content = state_bytes(tied.state_dict())
    scalars = sum(p.numel() for p in tied.parameters()) + 1
    assert len(content) - 8 - int.from_bytes(content[:8], "little") == 4 * scalars
    plain = nn.Conv2d(2, 3, 3)
    assert state_bytes(plain.state_dict()) == safetensors.torch.save(plain.state_dict())


@pytest.mark.parametrize("build", [Tied, Holds])
def test_sizes_are_told_without_writing(build) -> None:
    assert safetensors_bytes(entries_of(build())) == saved_bytes(build())


def test_the_hash_sees_everything_that_is_held() -> None:
    module = Holds()
    before = weights_sha256(module)
    module.state = module.state | {"steps": 4}
    steps = weights_sha256(module)
    module.state = module.state | {"running": torch.zeros(2)}
    assert len({before, steps, weights_sha256(module)}) == 3


def test_views_that_overlap_are_written_whole() -> None:
    memory = torch.arange(6.0)
    state = OrderedDict(a=memory[:4], b=memory[2:], c=memory.view(2, 3).t())
    found = safetensors.torch.load(state_bytes(state))
    assert {name: value.tolist() for name, value in found.items()} == {
        "a": [0, 1, 2, 3], "b": [2, 3, 4, 5], "c": [[0, 3], [1, 4], [2, 5]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2, device="meta"), "w has no values, being on the meta device"),
        (torch.eye(3).to_sparse(), "w is sparse, quantised or nested"),
        (nn.LazyLinear(2).weight, "w has no shape yet: run the network once"),
        ({"a": object()}, "w holds a object, which no file here can: let get_extra_state"),
    ],
)
def test_what_no_file_holds_is_told(value: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        state_bytes(OrderedDict(w=value))


@pytest.mark.parametrize(
    "told",
    [
        "[]", "{", '{"aliases": {"a": "nowhere"}}', '{"aliases": {"w": "w"}}', '{"aliases": 3}',
        '{"dtypes": {"w": "complex64"}}', '{"dtypes": {"w": "load"}}', '{"dtypes": {"x": "uint8"}}',
        '{"extra": {"e": {"tensor": "x"}}}', '{"extra": {"e": {"code": []}}}', '{"extra": [1]}',
        '{"extra": {"e": {"a": 1, "b": 2}}}', '{"extra": {"e": {"bytes": "zz"}}}',
    ],
)  # fmt: skip
def test_metadata_that_do_not_fit_are_refused(tmp_path: Path, told: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save({"w": torch.ones(3)}, {"state": told}))
    module = nn.Module()
    module.register_buffer("w", torch.zeros(3))
    with pytest.raises(WeightsError, match=r"a\.safetensors cannot be read: its metadata"):
        read_for(module, path)


def tied() -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    model = Tied().eval()
    own_model("tied", Tied, (1, 16, 16), 10)
    return model, zoo.model_spec("tied")


def test_a_network_with_tied_parts_goes_the_whole_way(tmp_path: Path) -> None:
    model, spec = tied()
    decided = plan(profile(model, spec), 0.3, layers="all")
    small = compress(model, decided)
    assert planned_bytes(profile(model, spec), decided) == saved_bytes(small)
    back = load(save(small, decided, tmp_path / "saved"))
    assert weights_sha256(back.model) == weights_sha256(small)
    assert back.model.head is back.model.fc
    splits = load_data("digits", spec)
    for item in export(back.model, decided, splits.test, ["safetensors", "onnx"], tmp_path / "out"):
        assert item.max_difference < 1e-4


def test_training_keeps_what_is_tied_and_moves_it_once(tmp_path: Path) -> None:
    model, spec = tied()
    splits = load_data("digits", spec)
    options = FinetuneOptions(epochs=2, lr=0.01, ema=0.9, batch_size=400)
    once = list(finetune(model, splits, options, checkpoint=tmp_path / "c"))
    again, _ = tied()
    for _ in finetune(again, splits, options, checkpoint=tmp_path / "d"):
        break
    resumed = list(finetune(tied()[0], splits, options, checkpoint=tmp_path / "d"))
    assert [epoch.validation for epoch in resumed] == [epoch.validation for epoch in once]
    assert model.head.weight is model.fc.weight
    assert accuracy(model, splits.validation).percent == max(e.validation.percent for e in once)


def test_what_would_not_be_read_back_is_not_written(tmp_path: Path, caplog) -> None:
    """Another network under the same name: its file would fill nothing."""
    model, spec = tied()
    decided = plan(profile(model, spec), 0.3, layers="all")
    small = compress(model, decided)
    small.extra = nn.Linear(2, 2)
    with pytest.raises(ExportError, match=r"would not be read back.* unexpected extra\.bias"):
        save(small, decided, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_infinities_is_no_training_that_diverged(tmp_path: Path) -> None:
    module = Holds()
    state = module.state_dict()
    state["conv.bias"] = torch.full((4,), float("inf"))
    (tmp_path / "a.safetensors").write_bytes(state_bytes(state))
    with pytest.raises(WeightsError, match=r"NaN or infinite values in conv\.bias \(1\)"):
        fill(module, read_for(module, tmp_path / "a.safetensors"), "a.safetensors")


def test_one_name_of_a_tied_tensor_is_enough(tmp_path: Path, caplog) -> None:
    """As safetensors.torch.save_model writes it."""
    model = Tied()
    safetensors.torch.save_model(model, str(tmp_path / "a.safetensors"))
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert "fc.weight" not in file.keys() or "head.weight" not in file.keys()  # noqa: SIM118
    again = Tied()
    with caplog.at_level(logging.INFO):
        fill(again, read_for(again, tmp_path / "a.safetensors"), "a.safetensors")
    assert weights_sha256(again) == weights_sha256(model)
