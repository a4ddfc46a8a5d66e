"""The page of ONNX files: what is given, what is refused, and the whole way to a smaller file."""

import io
import os

import numpy as np
import onnx
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from rsdtr.jobs import job_queue
from rsdtr.onnx_files import network_inputs, read_onnx
from rsdtr.onnx_files.verify_onnx import verify_onnx
from rsdtr.planning.plan import plan
from rsdtr.ui.onnx_file import network_file
from rsdtr.ui.shared import session
from tests.support.onnx_graphs import small_network
from tests.support.pages import click, metrics_of, opened
from tests.support.waiting import until

PAGE = "pages/onnx_file.py"


@pytest.fixture
def read_here(monkeypatch):
    """Read files in this process alone: what another one is for, its own tests say."""
    monkeypatch.setattr(network_file, "check_readable", lambda *_: None)


def give(test: AppTest, *files: tuple[str, bytes], key: str = session.ONNX_FILES) -> AppTest:
    given = [(name, content, "application/octet-stream") for name, content in files]
    test.file_uploader(key=key).set_value(given if len(given) > 1 else given[0]).run()
    assert not test.exception
    return test


def network() -> bytes:
    return small_network(noise=0.25).SerializeToString()


def said(test: AppTest) -> str:
    places = (*test.error, *test.info, *test.warning, *test.caption, *test.markdown)
    return "\n".join(element.value for element in places)


def test_without_a_file_the_page_asks_for_one():
    test = opened(PAGE)
    assert not test.error
    assert "Give an ONNX file" in test.info[0].value


def test_a_file_is_planned_as_python_plans_it(read_here, tmp_path):
    test = give(opened(PAGE, eps="0.5"), ("net.onnx", network()))
    assert not test.error
    (tmp_path / "net.onnx").write_bytes(network())
    expected = plan(read_onnx(tmp_path / "net.onnx").profile, 0.5, layers="auto")
    assert metrics_of(test)["PCR"] == f"{expected.pcr:.2f}"
    assert "takes inputs of any size" in said(test)
    test.number_input(key=session.ONNX_HEIGHT).set_value(32).run()
    assert metrics_of(test)["Input"] == "1×3×32×224"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([("a.onnx", b"no graph")], "a.onnx cannot be read"),
        ([("a.onnx", network()[:2000])], "a.onnx cannot be read"),
        ([("a.txt", b"x")], "0 of these files end in .onnx"),
        ([("a.onnx", b"x"), ("b.onnx", b"y")], "2 of these files end in .onnx"),
    ],
    ids=["noise", "truncated", "text", "two"],
)
def test_what_cannot_be_read_is_one_sentence(read_here, files, sentence):
    test = give(opened(PAGE), *files)
    (error,) = test.error
    assert sentence in error.value.replace("\\", "")
    assert not test.metric
    assert str(os.sep) + "uploads" not in error.value


def test_external_data_is_given_beside_the_graph(read_here, tmp_path):
    model = small_network(noise=0.25)
    onnx.save(
        model, tmp_path / "net.onnx", save_as_external_data=True, location="net.onnx.data",
        size_threshold=64,
    )  # fmt: skip
    graph = (tmp_path / "net.onnx").read_bytes()
    alone = give(opened(PAGE), ("net.onnx", graph))
    assert "put that file beside it" in said(alone)
    data = (tmp_path / "net.onnx.data").read_bytes()
    test = give(opened(PAGE), ("net.onnx.data", data), ("net.onnx", graph))
    assert not test.error
    assert float(metrics_of(test)["PCR"]) > 1


def pictures(n: int) -> list[tuple[str, bytes]]:
    generator = np.random.default_rng(0)
    found = []
    for k in range(n):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), np.uint8)).save(file, "png")
        found.append((f"{k}.png", file.getvalue()))
    return found


def test_the_whole_way_with_pictures(read_here, tmp_path):
    test = give(opened(PAGE, eps="0.6"), ("net.onnx", network()))
    test.number_input(key=session.ONNX_HEIGHT).set_value(16)
    test.number_input(key=session.ONNX_WIDTH).set_value(16).run()
    test = give(test, *pictures(12), key=session.ONNX_INPUTS)
    assert "--refit 200 --data PICTURES_OR_NPZ" in test.code[0].value
    click(test, "compress_onnx")
    job = job_queue.find(test.query_params[session.JOB])
    until(lambda: job_queue.find(job.id).ended, seconds=60)
    assert job_queue.find(job.id).state == "done", job.log.read_text(encoding="utf-8")
    test.run()
    assert not test.error
    told = metrics_of(test)
    assert {"File", "Answers unchanged", "Time"} <= told.keys()
    assert "fewer than 100" in said(test)
    (download,) = [one for one in test.get("download_button") if "small" in one.proto.label]
    assert "net-small.onnx" in download.proto.label
    (tmp_path / "net.onnx").write_bytes(network())
    original = read_onnx(tmp_path / "net.onnx", (16, 16))
    inputs = network_inputs(original, None, 4)
    _, alike = verify_onnx(job.result / "net-small.onnx", original, inputs)
    assert 0 < alike.relative_error < 1
    test.slider(key=session.EPS).set_value(0.3).run()
    assert "Compress again to renew it" in said(test)


def test_pictures_and_arrays_are_not_mixed(read_here):
    test = give(opened(PAGE), ("net.onnx", network()))
    test = give(test, ("x.npz", b"z"), ("y.png", b"p"), key=session.ONNX_INPUTS)
    assert "give it alone" in said(test)
