"""Exports of the bundled network: the files, their proofs, and what a failed one leaves."""

import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.manifest import (
    FILES,
    MANIFEST,
    REPORT,
    Proof,
    read_manifest,
)
from rsdtr.compressed.saved import load
from rsdtr.data.datasets import LabelledImages, load_data
from rsdtr.errors import ExportError, UnknownName
from rsdtr.exports import formats, proof
from rsdtr.exports.export import FORMATS, Artefact, export
from rsdtr.exports.onnx_export import compact, onnx_bytes, program
from rsdtr.exports.verify import unchanged, verify
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.system import fork_server
from tests.support.checkout import ROOT

pytestmark = pytest.mark.process

NAME = "digits_resnet20"
# `rsdtr.export` names the function; the module is what the tests have to reach into.
module = importlib.import_module("rsdtr.exports.export")


@pytest.fixture(scope="module")
def ring() -> tuple[nn.Module, CompressionPlan]:
    torch.set_num_threads(2)
    dense = load_model(NAME)
    decided = plan(profile(dense, model_spec(NAME)), 0.8, layers=["layer2.0.*", "layer3.[12].*"])
    assert decided.pcr > 1.5
    return compress(dense, decided), decided


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return load_data("digits", model_spec(NAME)).test


@pytest.fixture(scope="module")
def exported(ring, images, tmp_path_factory) -> dict[str, Artefact]:
    """One export in every format, which all tests look at."""
    out = tmp_path_factory.mktemp("export") / "out"
    steps: list[tuple[int, int]] = []
    artefacts = export(
        *ring, images, FORMATS, out, metrics={"epochs": 3}, report="<p>ε_p",
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(done, 10) for done in range(11)]
    return {artefact.format: artefact for artefact in artefacts}


@pytest.fixture
def believed(monkeypatch) -> None:
    """Files are written and not proved, where the proof is not what is looked at."""
    fine = Proof(max_difference=0.0, mean_difference=0.0, argmax_agreement=1.0, n=64)
    monkeypatch.setattr(module, "proved", lambda *_, **__: fine)


def logits(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(pixels)


def test_every_file_is_there_and_proved(exported):
    assert tuple(exported) == ("safetensors", "python", "onnx", "pt2", "int8")
    folder = exported["onnx"].path.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", MANIFEST, "model.int8.onnx", "model.onnx", "model.pt2", "model.safetensors",
        "report.html", "rsdtr_model.py",
    ]  # fmt: skip
    assert (folder / "report.html").read_text(encoding="utf-8") == "<p>ε_p"
    for artefact in exported.values():
        assert artefact.bytes == artefact.path.stat().st_size
        assert artefact.max_difference < (1 if artefact.format == "int8" else 1e-4)
        assert artefact.mean_difference < artefact.max_difference
        assert artefact.argmax_agreement >= (0.9 if artefact.format == "int8" else 1)
        assert artefact.n == 64
        assert artefact.seconds > 0


def test_files_are_smaller_than_the_dense_models(exported):
    for form in ("safetensors", "onnx"):
        assert exported[form].bytes < exported[form].dense_bytes / 1.4
    assert exported["pt2"].dense_bytes is None


def test_dense_bytes_are_those_of_the_dense_weights(exported):
    # 269,434 parameters, and for 19 BatchNorm layers a mean and a variance per channel.
    parameters = 4 * 269_434
    assert parameters < exported["onnx"].dense_bytes < 1.1 * parameters
    assert parameters < exported["safetensors"].dense_bytes < 1.1 * parameters


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_onnx_computes_the_same_for_any_batch(exported, ring, images, batch):
    session = onnxruntime.InferenceSession(exported["onnx"].path)
    pixels = images.spec.normalise(images.pixels(range(100, 100 + batch)))
    (found,) = session.run(["logits"], {"images": pixels.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), logits(ring[0], pixels), rtol=0, atol=1e-4)


def test_onnx_is_one_file_of_plain_convolutions(exported):
    model = onnx.load(exported["onnx"].path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds <= {"Conv", "Reshape", "Relu", "Add", "Slice", "Pad", "ReduceMean", "Gemm"}
    # What the pipeline folds into the batch are groups of a convolution here.
    assert [node.op_type for node in model.graph.node].count("Reshape") <= 1
    for node in model.graph.node:
        kernel = [list(a.ints) for a in node.attribute if a.name == "kernel_shape"]
        assert all(len(sizes) == 2 for sizes in kernel)  # no Conv3d


def test_no_file_tells_where_it_was_written(exported):
    here = str(ROOT).encode()
    for artefact in exported.values():
        assert here not in artefact.path.read_bytes()


@pytest.mark.parametrize("batch", [1, 9])
def test_pt2_computes_the_same_for_any_batch(exported, ring, images, batch):
    network = torch.export.load(exported["pt2"].path).module()
    pixels = images.spec.normalise(images.pixels(range(batch)))
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), logits(ring[0], pixels), rtol=0, atol=1e-5)


def test_pt2_holds_nobodys_picture(exported):
    (example,), _ = torch.export.load(exported["pt2"].path).example_inputs
    assert example.shape == (2, 1, 16, 16)
    assert not example.any()


def test_the_folder_is_one_that_load_reads(exported, ring, images):
    saved = load(exported["safetensors"].path.parent)
    pixels = images.spec.normalise(images.pixels(range(4)))
    assert torch.equal(logits(saved.model, pixels), logits(ring[0], pixels))
    assert saved.plan == ring[1]
    assert saved.metrics == {"epochs": 3}


def test_the_model_is_not_touched(ring, images, tmp_path):
    model = ring[0].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        # Few pictures are used again, so that every batch size is proved all the same.
        artefact, _ = export(model, ring[1], images.subset(3), ["safetensors"], tmp_path)
        assert model.training
    finally:
        model.eval()
    assert artefact.n == 64
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_nothing_is_said_on_the_way(images, capfd):
    small = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()).eval()
    onnx_bytes(program(small, images.spec))
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def wrong_weights(monkeypatch) -> None:
    """A writer whose file computes something else: every tensor is a little off."""
    write = formats.write_into

    def perturbed(folder: Path, model: nn.Module, *rest: object) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
        write(folder, model, *rest)

    monkeypatch.setattr(formats, "write_into", perturbed)


@pytest.mark.usefixtures("wrong_weights")
def test_a_failed_proof_leaves_nothing(ring, images, tmp_path):
    with pytest.raises(ExportError, match="the safetensors file computes something else: its log"):
        export(*ring, images, ["safetensors"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("wrong_weights")
def test_a_failed_proof_leaves_what_was_there(ring, images, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"of yesterday")
    with pytest.raises(ExportError, match=r"differ by up to .* less than 0\.0001 was expected"):
        export(*ring, images, ["safetensors"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"of yesterday"


def test_a_file_that_cannot_be_read_back(ring, images, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "onnx_bytes", lambda _: b"no graph")
    monkeypatch.setattr(formats, "program", lambda *_: None)
    monkeypatch.setattr(formats, "takes_sizes", lambda _: False)
    monkeypatch.setattr(module, "_dense_bytes", lambda *_: None)
    with pytest.raises(ExportError, match=r"the onnx file could not be read back and run \(.*onnx"):
        export(*ring, images, ["onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_proof_that_never_ends(ring, images, tmp_path, monkeypatch):
    def forever(command: list[str], seconds: float, **options: object) -> None:
        assert seconds == 900
        raise TimeoutError

    monkeypatch.setattr("rsdtr.exports.proof.run", forever)
    with pytest.raises(ExportError, match="took more than 900 s and nothing was kept"):
        export(*ring, images, ["safetensors"], tmp_path / "out")


def test_a_proof_has_seen_nothing_but_torch(tmp_path):
    """Whether it is a process by itself or, sooner, a fork: what it has imported is the same."""
    (tmp_path / "says.py").write_text(
        "import os, sys\nsys.stderr.write(' '.join([str(os.getppid()), *sorted("
        "{name.split('.')[0] for name in sys.modules} & {'rsdtr', 'torchvision', 'torch', 'onnx'"
        "})]))"
    )
    command = [sys.executable, "-P", str(tmp_path / "says.py")]
    ended = proof.run(command, 60, environment=proof.quiet(), imports=proof.TORCH)
    parent, *loaded = ended.said.split()
    assert loaded == ["torch"]
    assert (int(parent) != os.getpid()) == fork_server.POSSIBLE


def test_requests_that_make_no_export(ring, images, tmp_path):
    model, decided = ring
    with pytest.raises(UnknownName, match="'torchscript' is no format: choose from safet"):
        export(model, decided, images, ["torchscript"], tmp_path)
    with pytest.raises(ExportError, match="no format was given: choose from"):
        export(model, decided, images, [], tmp_path)
    other = decided.model_copy(update={"model": "cifar10_resnet20"})
    with pytest.raises(ExportError, match="the images are prepared for digits_resnet20, the plan"):
        export(model, other, images, ["onnx"], tmp_path)
    with pytest.raises(ExportError, match="no images to prove the export on"):
        export(model, decided, images.select(slice(0)), ["onnx"], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file: give the name of a folder"):
        export(model, decided, images, ["onnx"], tmp_path / "file")
    (tmp_path / MANIFEST).write_text('{"name": "a web app"}')
    with pytest.raises(ExportError, match="belongs to something else and would be lost"):
        export(model, decided, images, ["safetensors"], tmp_path)


def test_a_folder_that_cannot_be_written(ring, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"could not be written .*: give another folder"):
        export(*ring, images, ["onnx"], tmp_path / "file" / "out")


def test_a_broken_model_is_not_exported(ring, images, tmp_path):
    broken = compress(load_model(NAME), ring[1])
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(ExportError, match="NaN or infinite logits: recover it"):
        export(broken, ring[1], images, ["onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_depends_on_its_values_is_no_graph(images):
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"cannot be turned into a graph by torch\.export"):
        program(Branches(), images.spec)


def test_the_manifest_knows_every_file_and_its_proof(exported):
    folder = exported["onnx"].path.parent
    manifest = read_manifest(folder)
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {MANIFEST}
    assert (manifest.data, manifest.spec) == ("digits", model_spec(NAME))
    for form, artefact in exported.items():
        assert FILES[form] == artefact.path.name
        assert manifest.files[artefact.path.name].bytes == artefact.bytes
        assert manifest.proofs[form].max_difference == artefact.max_difference
    text = (folder / "README.md").read_text()
    assert "Architecture and weights: He et al. 2016; trained by scripts/train_digits.py" in text
    assert "rsdtr_model.load" in text
    assert "| model.onnx |" in text
    assert "`report.html`" in text


ALONE = """
import sys
sys.modules |= {"rsdtr": None, "torchvision": None, "safetensors": None, "numpy": None}
import torch, rsdtr_model
pixels = torch.arange(512, dtype=torch.int64).remainder(256).to(torch.uint8).view(2, 1, 16, 16)
network = rsdtr_model.load("model.safetensors")
with torch.no_grad():
    print(network(rsdtr_model.normalise(pixels)).tolist())
"""


def test_the_program_needs_torch_alone(exported, ring, images, tmp_path):
    for form in ("safetensors", "python"):
        (tmp_path / exported[form].path.name).write_bytes(exported[form].path.read_bytes())
    (tmp_path / "alone.py").write_text(ALONE)
    done = subprocess.run(
        [sys.executable, "alone.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    pixels = torch.arange(512).remainder(256).to(torch.uint8).view(2, 1, 16, 16)
    expected = logits(ring[0], images.spec.normalise(pixels))
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected, rtol=0, atol=1e-4)
    (tmp_path / "model.safetensors").write_bytes(b"another file")
    done = subprocess.run(
        [sys.executable, "alone.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "is not the file that this program was written for" in done.stderr


@pytest.mark.usefixtures("believed")
def test_a_zip_is_the_same_each_time_and_verifies(exported, ring, images, tmp_path):
    out = tmp_path / "one.zip"
    export(*ring, images, ["safetensors", "pt2"], out, metrics={"epochs": 3})
    with zipfile.ZipFile(out) as archive:
        assert sorted(archive.namelist()) == archive.namelist()
        for name in ("model.safetensors", "rsdtr_model.py", "model.pt2"):
            # The folder, of another export, holds the very same bytes.
            expected = (exported["onnx"].path.parent / name).read_bytes()
            assert archive.read(f"one/{name}") == expected
    assert list(tmp_path.iterdir()) == [out]
    assert set(verify(out)) == {"safetensors", "python", "pt2"}


@pytest.mark.usefixtures("believed")
def test_one_more_format_joins_the_files_of_the_same_model(ring, images, tmp_path):
    export(*ring, images, ["safetensors"], tmp_path)
    assert "`report.html`" not in (tmp_path / "README.md").read_text()
    export(*ring, images, ["pt2"], tmp_path, report="a report")
    manifest = read_manifest(tmp_path)
    assert set(manifest.proofs) == {"safetensors", "python", "pt2"}
    assert manifest.files[REPORT].bytes == len("a report")
    unchanged(tmp_path)
    with pytest.raises(ExportError, match=r"report\.html of another model"):
        export(ring[0], ring[1].model_copy(update={"seconds": 9.0}), images, FORMATS, tmp_path)
    assert load(tmp_path).plan == ring[1]
    other = compress(load_model(NAME), ring[1])
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    with pytest.raises(ExportError, match="of another model: give another folder"):
        export(other, ring[1], images, ["onnx"], tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("mine")
    with pytest.raises(ExportError, match=r"README\.md belongs to something else"):
        export(*ring, images, ["onnx"], tmp_path / "own")


def test_eight_bits_say_nothing_twice_and_answer_the_same(exported, images):
    whole = exported["onnx"].path.read_bytes()
    small = compact(whole)
    pixels = images.spec.normalise(images.pixels(range(5))).numpy()
    before, after = (
        onnxruntime.InferenceSession(content).run(["logits"], {"images": pixels})[0]
        for content in (whole, small)
    )
    assert (before == after).all()
    graph = onnx.load(exported["int8"].path).graph
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    assert max(map(len, names - {"images", "logits"})) <= 3
    assert not graph.value_info
    values = [
        (tensor.data_type, *tensor.dims, onnx.numpy_helper.to_array(tensor).tobytes())
        for tensor in graph.initializer
    ]
    assert len(values) == len(set(values))
    said = [part for node in graph.node if node.op_type == "Conv" for part in node.attribute]
    assert {part.name for part in said} == {"group", "pads", "strides"}
    assert not any(set(part.ints) == {0} or part.i == 1 for part in said)
    assert exported["int8"].bytes < 0.35 * exported["onnx"].bytes


def test_eight_bits_that_upset_the_classes_are_refused(ring, images, tmp_path, monkeypatch):
    monkeypatch.setattr("rsdtr.exports.proof.INT8_AGREEMENT", 1.01)
    monkeypatch.setattr(module, "_dense_bytes", lambda *_: None)
    with pytest.raises(ExportError, match=r"in eight bits .* % of the classes stay"):
        export(*ring, images, ["int8"], tmp_path / "out")
