"""Saving and loading a folder: what comes back, what is refused, what a failure leaves."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from rsdtr.compressed.compress import compress
from rsdtr.compressed.manifest import MANIFEST, WEIGHTS
from rsdtr.compressed.saved import load, save, writable_folder, write_into
from rsdtr.errors import ExportError, PlanError, UnknownName, WeightsError
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.system import folder_exchange as folder_module

NAME = "digits_resnet20"


@pytest.fixture(scope="module")
def small() -> tuple[torch.nn.Module, CompressionPlan]:
    """The bundled network with one layer as a ring: quick, and every kind of tensor is there."""
    dense = load_model(NAME)
    decided = plan(profile(dense, model_spec(NAME)), 0.7, layers="layer3.2.conv2")
    return compress(dense, decided), decided


@pytest.fixture
def folder(small, tmp_path: Path) -> Path:
    return save(*small, tmp_path / "saved", metrics={"accuracy": 97.5})


def edited(folder: Path, **changes: object) -> Path:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_the_same_model_comes_back(small, folder):
    model, decided = small
    saved = load(folder)
    assert weights_sha256(saved.model) == weights_sha256(model)
    images = torch.rand(3, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(saved.model(images), model(images))
    assert not any(module.training for module in saved.model.modules())
    assert (saved.plan, saved.spec, saved.metrics) == (
        decided,
        model_spec(NAME),
        {"accuracy": 97.5},
    )


def test_manifest_tells_the_files_apart(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    content = (folder / WEIGHTS).read_bytes()
    assert manifest["files"] == {
        WEIGHTS: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    }
    assert manifest["libraries"]["torch"] == torch.__version__.partition("+")[0]
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, WEIGHTS]


def test_loading_leaves_the_random_state_alone(folder):
    before = torch.random.get_rng_state()
    load(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_saving_again_replaces(small, folder):
    save(*small, folder, metrics={"second": 1})
    assert load(folder).metrics == {"second": 1}
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]


def test_an_empty_folder_is_filled(small, tmp_path):
    (tmp_path / "empty").mkdir()
    save(*small, tmp_path / "empty")
    assert load(tmp_path / "empty").metrics == {}


def test_other_folders_and_files_are_never_replaced(small, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="holds no model of this program: give a folder that"):
        save(*small, other)
    (other / MANIFEST).write_text('{"name": "a web app"}')
    with pytest.raises(ExportError, match="holds no model of this program"):
        save(*small, other)
    assert (other / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ExportError, match="is a file: give the name of a folder"):
        save(*small, other / "thesis.txt")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"also holds notes\.txt, which would be lost"):
        save(*small, folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_failed_save_leaves_the_old_model_and_nothing_else(small, folder, monkeypatch):
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    before = load(folder).metrics
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ExportError, match=r"No space left on device\): give another folder"):
            save(*small, folder, metrics={"new": True})
    assert load(folder).metrics == before
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]


def test_the_old_model_comes_back_when_the_swap_fails(small, folder, monkeypatch):
    rename, calls = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_exchanged", lambda *_: False)  # as elsewhere than on Linux
        patch.setattr(Path, "rename", second_fails)
        with pytest.raises(ExportError, match="Input/output error"):
            save(*small, folder, metrics={"new": True})
    assert load(folder).metrics == {"accuracy": 97.5}
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]


def test_metrics_must_be_json(small, tmp_path):
    with pytest.raises(ExportError, match=r"cannot be written as JSON \(Object of type object"):
        save(*small, tmp_path / "saved", metrics={"model": object()})
    with pytest.raises(ExportError, match="give finite numbers, texts, lists and dicts"):
        save(*small, tmp_path / "saved", metrics={"loss": float("nan")})
    assert not list(tmp_path.iterdir())
    assert load(save(*small, tmp_path / "saved", metrics={"a": (1, 2)})).metrics == {"a": [1, 2]}


def test_a_changed_file_is_noticed(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ExportError, match=r"was changed since it was saved .* save the"):
        load(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ExportError, match="is missing: copy the whole folder"):
        load(folder)


def test_manifests_that_are_none(folder, tmp_path):
    with pytest.raises(ExportError, match=r"holds no manifest\.json: give a folder that compress"):
        load(tmp_path)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(ExportError, match="is not JSON"):
        load(folder)
    (folder / MANIFEST).write_text("[1]")
    with pytest.raises(ExportError, match="has format version None, this program reads 1 and 2"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 3}, "has format version 3, this program reads 1 and 2: save the model"),
        ({"surprise": 1}, "is not valid: surprise: Extra inputs"),
        ({"model": "cifar10_resnet20"}, "the model is cifar10_resnet20 and its plan is for digits"),
        ({"files": {"../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}}}, "files are .*passwd"),
        ({"files": {}}, r"files are none, expected model\.safetensors"),
        ({"plan": {}}, r"plan\.model: Field required"),
    ],
)
def test_manifests_that_say_something_else(folder, changes, message):
    with pytest.raises(ExportError, match=message):
        load(edited(folder, **changes))


def with_plan(folder: Path, **changes: object) -> Path:
    planned = json.loads((folder / MANIFEST).read_text())["plan"] | changes
    return edited(folder, plan=planned, model=planned["model"])


def test_version_1_is_read_and_an_older_one_refused_by_name(folder, small):
    content = json.loads((folder / MANIFEST).read_text())
    new = ("spec", "data", "proofs", "sha256")
    old = {name: value for name, value in content.items() if name not in new}
    (folder / MANIFEST).write_text(json.dumps(old | {"format_version": 1}))
    assert load(folder).plan == small[1]
    with pytest.raises(ExportError, match="has format version 0, this program reads 1 and 2"):
        load(edited(folder, format_version=0))


def test_rings_larger_than_the_file_are_refused_before_room_is_made(folder):
    layers = json.loads((folder / MANIFEST).read_text())["plan"]["layers"]
    for layer in layers:
        if layer["ranks"]:
            o, i, kh, kw = layer["shape"]
            ranks = layer["ranks"] = [
                1 << 20 if k != layer["shift"] else layer["r0"] for k in range(4)
            ]
            sizes = zip((o, i, kh, kw), ranks, ranks[1:] + ranks[:1], strict=True)
            layer["storage"] = sum(n * left * right for n, left, right in sizes)
    with pytest.raises(ExportError, match=r"plans rings of .* scalars and model\.safetensors has"):
        load(with_plan(folder, layers=layers))


def test_a_manifest_that_is_nested_without_end(folder):
    (folder / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(ExportError, match="is not JSON"):
        load(folder)


@pytest.mark.parametrize("half", [b"\xed\xa0\x80", b"\\ud800"])
def test_half_a_character_is_no_text(folder, half):
    """json.loads takes it for some, and pydantic cannot show it; found by mutation."""
    content = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(content.replace(b"digits", half, 1))
    with pytest.raises(ExportError, match="is not JSON"):
        load(folder)


def test_a_plan_for_another_network_is_refused(folder):
    with pytest.raises(UnknownName, match="no model 'nothing'"):
        load(with_plan(folder, model="nothing"))
    with pytest.raises(PlanError, match="the plan expects"):
        load(with_plan(folder, model="cifar10_vgg16_bn", layers=renamed(folder, "features.0")))


def renamed(folder: Path, name: str) -> list[dict[str, object]]:
    layers = json.loads((folder / MANIFEST).read_text())["plan"]["layers"]
    return [layer | {"name": name} for layer in layers if layer["ranks"]]


def test_weights_that_do_not_fit_are_refused(small, folder, tmp_path):
    with pytest.raises(ExportError, match=r"not be read back.*: missing layer3\.2\.conv2\.cores"):
        save(load_model(NAME), small[1], tmp_path / "dense")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    write_into(folder, load_model(NAME), small[1])
    with pytest.raises(WeightsError, match=r"does not fit the model: missing layer3\.2\.conv2"):
        load(folder)


def test_an_older_format_may_be_replaced_but_not_read(small, folder):
    edited(folder, format_version=0)
    assert writable_folder(folder) == folder
    save(*small, folder)
    assert load(folder).plan == small[1]
