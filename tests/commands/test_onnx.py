"""plan, compress and verify with an ONNX file, as a person types them."""

import json

import numpy as np
import onnx
import pytest

from rsdtr.onnx_files.compress_onnx import METADATA
from tests.support.command_line import done, refused
from tests.support.onnx_graphs import answers, small_network, written


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    return written(small_network(noise=0.25), tmp_path / "net.onnx")


@pytest.fixture
def data(tmp_path):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(120, 3, 11, 9))
    values = sum(np.roll(values, (k, k), (2, 3)) for k in range(3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", values)
    return tmp_path / "x.npz"


def test_plan_takes_all_layers_that_store_less(net):
    result = done("plan", str(net), "--eps", "0.6", "--input-size", "11x9", "--json")
    plan = json.loads(result.stdout)
    assert plan["model"] == "net.onnx"
    layers = {layer["name"]: layer for layer in plan["layers"]}
    assert layers["point"]["kept_dense"] is None  # of one pixel: the paper's layers lack it
    assert layers["depth"]["kept_dense"].startswith("grouped convolution")
    assert layers["stem"]["macs"]["original"] == 12 * 27 * 99
    only = done("plan", str(net), "--layers", "paper", "--json")
    kept = {x["name"]: x["kept_dense"] for x in json.loads(only.stdout)["layers"]}
    assert kept["point"] == "outside the layer policy 'paper'"
    assert "costs are for 1×3×224×224 (--input-size)" in only.stderr
    assert "PCR" in done("plan", str(net), "--target-pcr", "1.5", "--input-size", "9").stdout


def test_compress_refits_proves_and_tells(net, data, tmp_path):
    out = tmp_path / "small.onnx"
    result = done(
        "compress", str(net), "--eps", "0.6", "--input-size", "11x9", "--out", str(out),
        "--refit", "120", "--data", str(data), "--json",
    )  # fmt: skip
    told = json.loads(result.stdout)
    assert told["bytes"] == {"original": net.stat().st_size, "compressed": out.stat().st_size}
    assert told["fidelity"]["n"] == 24
    assert told["fidelity"]["data"] == str(data)
    assert told["proof"]["relative_error"] < 1e-5
    assert [step["name"] for step in told["refit"]["steps"]][-1] == "cores"
    assert told["fcr_run"] is not None
    assert "warning" not in result.stderr
    model = onnx.load(out)
    (said,) = (part.value for part in model.metadata_props if part.key == METADATA)
    assert json.loads(said)["fidelity"] == told["fidelity"]
    verified = done(
        "verify", str(out), "--against", str(net), "--data", str(data), "--json"
    )  # fmt: skip
    again = json.loads(verified.stdout)
    assert again["manifest"]["source"]["file"] == "net.onnx"
    images = np.load(data)["arr_0"][:100]
    assert again["fidelity"]["n"] == 100
    assert answers(out, images=images)[0].shape == (100, 4)


def test_compress_without_data_warns_and_is_for_people(net, tmp_path):
    out = tmp_path / "small.onnx"
    result = done("compress", str(net), "--eps", "0.5", "--out", str(out), "--input-size", "11x9")
    assert "times smaller" in result.stdout
    assert "compared on random numbers" in result.stderr
    assert "no tensor was changed" in done(
        "verify", str(out), "--against", str(net), "--input-size", "11x9"
    ).stdout  # fmt: skip
    result = done(
        "compress", str(net), "--eps", "0.5", "--out", str(out), "--input-size", "11x9",
        "--refit", "10",
    )  # fmt: skip
    assert "refitting on random numbers" in result.stderr
    assert "with fewer than 100 it may harm the network" in result.stderr


def test_a_refit_that_helps_nothing_is_said_to(net, data, tmp_path, monkeypatch):
    from rsdtr.onnx_files.answers import Answers

    values = iter([0.1, 0.2])
    monkeypatch.setattr(Answers, "divergence_from", lambda *_: ("divergence", next(values)))
    result = done(
        "compress", str(net), "--eps", "0.6", "--input-size", "11x9", "--data", str(data),
        "--out", str(tmp_path / "small.onnx"), "--refit", "120",
    )  # fmt: skip
    assert "nothing of it was kept" in result.stderr


def test_forms_by_time(net, tmp_path):
    result = done(
        "compress", str(net), "--eps", "0.5", "--out", str(tmp_path / "s.onnx"), "--input-size",
        "11x9", "--fast", "1", "--json",
    )  # fmt: skip
    assert json.loads(result.stdout)["measured_on"]["batch"] == 1


def test_bad_requests_about_onnx_files_get_one_sentence(net, tmp_path):
    out = ["--out", str(tmp_path / "small.onnx")]
    for words, match in (
        (["plan", str(net), "--input-size", "big"], "give HEIGHTxWIDTH, as in 48x320"),
        (["plan", str(net), "--weights", "none"], "an ONNX file has its own weights"),
        (["plan", str(net), "--calibrate", "5", "--target-pcr", "2"], "--calibrate measures"),
        (["plan", str(net), "--objective", "latency"], "give compress --fast BATCH"),
        (["plan", str(net), "--input-size", "3x48x320"], "give HEIGHTxWIDTH, as in 48x320"),
        (["plan", "digits_resnet20", "--input-size", "9"], "digits_resnet20 says its own"),
        (["compress", str(net)], "give --out FILE.onnx"),
        (["compress", str(net), "--out", str(tmp_path / "dir")], "that ends in .onnx"),
        (["compress", str(net), "--out", str(tmp_path / "no" / "s.onnx")], "there is no folder"),
        (["compress", str(net), "--out", str(net)], "is the given file itself"),
        (["compress", str(net), *out, "--recalibrate", "5"], "give --refit N for an ONNX file"),
        (["compress", str(net), *out, "--mean", "a,b"], "is no list of numbers"),
        (["compress", "digits_resnet20", "--out", "x", "--bgr"], "are for ONNX files"),
        (["verify", str(net)], "give --against"),
        (["verify", str(tmp_path), "--against", str(net)], "--against is for an ONNX file"),
        (["bench", str(net)], "bench takes no ONNX file: plan, compress and verify do"),
        (["evaluate", str(net)], "evaluate takes no ONNX file"),
    ):
        assert match in refused(*words), words
    assert not (tmp_path / "small.onnx").exists()
