"""Networks that answer masks or boxes, from the command line to their files."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.manifest import MANIFEST, read_manifest
from rsdtr.compressed.saved import load
from rsdtr.data.datasets import load_data
from rsdtr.errors import ExportError
from rsdtr.exports.export import export
from rsdtr.exports.verify import verify
from rsdtr.measuring.fidelity import fidelity
from rsdtr.models import model_loading, zoo
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from tests.support.command_line import done, refused
from tests.support.networks import Tiny

pytestmark = pytest.mark.process

MASKS, BOXES = "lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"
SOME = ["--layers", "classifier.*", "--layers", "backbone.16.*", "--eps", "0.5"]


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("beyond") / "masks"
    done("compress", MASKS, "--weights", "none", *SOME, "--out", str(out))
    return out


def test_a_segmentation_network_is_told_by_its_fidelity(masks):
    words = ["evaluate", str(masks), "--dense", "none", "--limit", "1"]
    found = json.loads(done(*words, "--json").stdout)
    assert list(found) == ["model", "data", "n", "fidelity", "params", "macs", "bytes"]
    assert (found["model"], found["data"], found["n"]) == (MASKS, "photos", 1)
    alike = found["fidelity"]
    assert list(alike) == [
        "relative_error", "agreement", "counted", "of", "residual_error", "interval", "psnr",
    ]  # fmt: skip
    assert (alike["residual_error"], alike["psnr"]) == (None, None)
    assert (alike["counted"], alike["of"]) == ("pixels", 520 * 520)
    assert 0 < alike["relative_error"] < 1
    assert found["params"] == load(masks).plan.params.compressed


def test_fidelity_asks_for_the_dense_network_and_a_compressed_one(masks, tmp_path):
    other = tmp_path / "other.pth"
    torch.save(zoo.model_spec(MASKS).build().state_dict(), other)
    said = refused("evaluate", str(masks), "--dense", str(other))
    assert "was compressed from other weights of lraspp_mobilenet_v3_large: name them by" in said
    said = refused("evaluate", MASKS, "--weights", "none")
    assert "photos has no labels for lraspp_mobilenet_v3_large" in said
    assert "give the folder of a compressed one" in said
    said = refused("evaluate", "digits_resnet20", "--dense", "none")
    assert "--dense is for images without labels: digits has some" in said


def test_what_needs_classes_is_refused_in_a_sentence(masks, tmp_path):
    words = ["--data", "photos", "--epochs", "1", "--out", str(tmp_path / "t")]
    said = refused("finetune", str(masks), *words)
    assert "fine-tuning needs labels, and those of photos tell nothing to lraspp" in said
    words = ["--weights", "none", "--methods", "tt", "--pcr", "2", "--out", str(tmp_path / "c")]
    assert "a comparison needs labels" in refused("compare", MASKS, *words)


def test_a_detection_network_is_exported_as_safetensors_alone(tmp_path):
    folder, out = tmp_path / "boxes", tmp_path / "out"
    few = ["--layers", "backbone.features.1.*", "--eps", "0.5"]
    done("compress", BOXES, "--weights", "none", *few, "--out", str(folder))
    assert load(folder).plan.pcr > 1
    said = refused("export", str(folder), "--format", "onnx", "--out", str(out))
    assert "chooses its boxes by their values, which torch.export cannot follow: export it" in said
    done("export", str(folder), "--format", "safetensors", "--out", str(out))
    manifest = read_manifest(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", MANIFEST, "model.safetensors", "report.html",
    ]  # fmt: skip
    assert manifest.proofs.keys() == {"safetensors"}
    assert manifest.proofs["safetensors"].n == 5
    assert 'found["boxes"]' in (out / "README.md").read_text(encoding="utf-8")


class InDict(Tiny):
    """The same masks, but in a dict."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"masks": super().forward(x)}


@pytest.fixture
def own(monkeypatch) -> zoo.ModelSpec:
    """`tiny`, made known for one test."""
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))
    return zoo.own_model("tiny", Tiny, (3, 16, 20), 2, task="segmentation")


def ring_of(spec: zoo.ModelSpec) -> tuple[nn.Module, nn.Module, CompressionPlan]:
    dense = model_loading.load_model(spec.name, "none")
    decided = plan(profile(dense, spec), 0.6, layers=["second"])
    assert decided.layers[1].ranks is not None
    return dense, compress(dense, decided), decided


def test_a_network_of_ones_own_is_exported_proved_and_verified(own, tmp_path):
    dense, ring, decided = ring_of(own)
    images = load_data(None, own).test
    artefacts = export(ring, decided, images, ["safetensors", "onnx"], tmp_path / "out")
    assert [item.format for item in artefacts] == ["safetensors", "python", "onnx"]
    assert all(item.argmax_agreement == 1 and item.n == 5 for item in artefacts)
    assert artefacts[0].max_difference == artefacts[1].max_difference
    text = artefacts[1].path.read_text(encoding="utf-8")
    assert "Images (B, 3, 16, 20) -> logits (B, 2, 16, 20)." in text
    assert verify(tmp_path / "out").keys() == {"safetensors", "python", "onnx"}
    back = load(tmp_path / "out").model
    assert fidelity(back, ring, images).relative_error == 0
    assert 0 < fidelity(back, dense, images).relative_error < 1


@pytest.mark.parametrize("build", [lambda: Tiny(also=True), InDict])
def test_what_is_not_one_tensor_is_compressed_and_makes_no_graph(build, monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))
    spec = zoo.own_model("several", build, (3, 16, 20), 2, task="other")
    dense, ring, decided = ring_of(spec)
    images = load_data(None, spec).test
    found = fidelity(ring, dense, images)
    assert (found.counted, found.n) == ("pixels", 8)
    with pytest.raises(
        ExportError, match=r"several answers something else than one tensor.*rsdtr\.save"
    ):
        export(ring, decided, images, ["onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
