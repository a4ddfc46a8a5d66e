"""Files are read first where they can break nothing."""

import pytest
from onnx import helper

from rsdtr.errors import PlanError, WeightsError
from rsdtr.onnx_files import onnx_reader
from rsdtr.onnx_files.onnx_reader import check_readable
from tests.support.onnx_graphs import graph, small_network, written


def test_what_is_read_and_what_is_not(tmp_path, capsys, monkeypatch):
    limits = []
    monkeypatch.setattr(onnx_reader, "_limit", limits.append)  # they would be this process's
    path = written(small_network(), tmp_path / "net.onnx")
    assert onnx_reader.main(str(path)) == 0
    assert limits == [path.stat().st_size]
    path.write_bytes(b"no graph")
    assert onnx_reader.main(str(path)) == onnx_reader.REFUSED
    assert capsys.readouterr().err.startswith("cannot be read: give an .onnx file that is whole")


def test_a_process_of_its_own_reads_a_file_and_tells_why_not(tmp_path):
    node = helper.make_node("Relu", ["images"], ["logits"], "r")
    path = written(graph([node], {}), tmp_path / "net.onnx")
    with pytest.raises(PlanError, match=r"^net.onnx has no Conv, Gemm or MatMul"):
        check_readable(path)  # torch is imported anew: some seconds


def test_a_process_that_ends_is_told_as_the_files_fault(tmp_path, monkeypatch):
    path = written(small_network(), tmp_path / "net.onnx")
    monkeypatch.setattr(onnx_reader, "__name__", "os.no_such_module")
    with pytest.raises(WeightsError, match=r"net.onnx ends whoever reads it"):
        check_readable(path)


def test_a_file_that_takes_too_long_is_a_sentence(tmp_path, monkeypatch):
    path = written(small_network(), tmp_path / "net.onnx")
    monkeypatch.setattr(onnx_reader, "SECONDS", 0.01)
    with pytest.raises(WeightsError, match=r"could not be read within 0.01 s"):
        check_readable(path)
