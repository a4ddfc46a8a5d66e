"""The benchmark's variants and engines; their times are nobody's expectation."""

import importlib.util

import pytest
import torch

from rsdtr.baselines import benchmark
from rsdtr.baselines.benchmark import (
    checked_engines,
    layer_rows,
    network_forms,
    network_rows,
    network_variants,
    paper_network,
)
from rsdtr.compressed.compress import compress
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import RingError, RsdtrError, UnknownName
from rsdtr.measuring.fastest_forms import in_one_form
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from tests.support.networks import varied, varied_spec

VARIANTS = ["dense", "paper", "pipeline", "O|IHW", "I|HWO", "IH|WO", "auto"]


@pytest.fixture(scope="module")
def planned():
    found = profile(varied(), varied_spec())
    return found, plan(found, 0.4)


@pytest.fixture
def variants(planned):
    found, decided = planned
    ring = compress(varied(), decided)
    return made_of(varied(), ring, decided, found)


def made_of(dense, ring, decided, found):
    forms = network_forms(ring, decided, found)
    return network_variants(dense, ring, forms, in_one_form(decided, found, "IH|WO"))


def test_every_variant_computes_the_compressed_network(variants):
    assert list(variants) == VARIANTS
    x = torch.randn(2, 3, 14, 10)
    with torch.inference_mode():
        expected = variants["pipeline"](x)
        for name, network in variants.items():
            if name != "dense":
                torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)
        assert not torch.allclose(variants["dense"](x), expected, atol=1e-5)
    forms = {
        name: {m.form for m in network.modules() if isinstance(m, TRConv2d)}
        for name, network in variants.items()
    }
    assert forms == {
        "dense": set(), "paper": set(), "pipeline": {"pipeline"}, "O|IHW": {"O|IHW"},
        "I|HWO": {"I|HWO"}, "IH|WO": {"IH|WO"}, "auto": {"IH|WO"},
    }  # fmt: skip


def test_the_given_networks_are_not_touched_and_weights_are_shared(planned):
    found, decided = planned
    dense, ring = varied(), compress(varied(), decided)
    made = made_of(dense, ring, decided, found)
    assert made["dense"] is dense
    assert dense.body.weight.is_contiguous()
    assert ring.stem.weight.is_contiguous()
    assert not ring.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert ring.body.form == "pipeline"
    assert made["auto"].head.weight is ring.head.weight
    assert made["auto"].body.cores[0] is made["I|HWO"].body.cores[0]


def test_the_paper_s_pipeline_is_tensordot_and_conv3d(planned):
    ring = compress(varied(), planned[1])
    layer = paper_network()(ring).wide
    x = torch.randn(2, 16, 14, 10)
    torch.testing.assert_close(layer(x), ring.wide(x), rtol=0, atol=1e-5)
    graph = torch.export.export(layer, (x,)).graph
    calls = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert sum("conv3d" in call for call in calls) == 2
    assert sum("tensordot" in call for call in calls) == 2


def test_a_padding_that_the_paper_cannot_do_has_no_paper_row(planned):
    found, decided = planned
    ring = compress(varied(), decided)
    ring.wide = TRConv2d(16, 20, (3, 5), decided.layers[-1].ranks, stride=(2, 1), padding=(1, 2),
                         padding_mode="reflect")  # fmt: skip
    with pytest.raises(RingError, match="pads with numbers of zeros, not padding="):
        paper_network()(ring)
    made = made_of(varied(), ring, decided, found)
    assert list(made) == [name for name in VARIANTS if name != "paper"]


def test_without_the_repository_there_is_no_paper_row(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "PEER", tmp_path / "paper_pipeline.py")
    assert paper_network() is None
    found, decided = planned
    made = made_of(varied(), compress(varied(), decided), decided, found)
    assert list(made) == [name for name in VARIANTS if name != "paper"]


@pytest.mark.parametrize("engine", ["eager", "onnxruntime"])
def test_a_row_for_every_variant_of_the_network(variants, engine):
    rows = network_rows(variants, varied_spec(), engine, batch=2, runs=2, threads=1)
    assert [(r.scope, r.engine, r.batch, r.variant) for r in rows] == [
        ("network", engine, 2, name) for name in VARIANTS
    ]
    assert all(row.median_ms > 0 for row in rows)


def test_a_row_for_every_variant_of_every_ring(variants):
    seen = []
    rows = layer_rows(variants, varied_spec(), batch=1, runs=2, threads=1,
                      progress=lambda done, total, left: seen.append((done, total)))  # fmt: skip
    assert [(r.scope, r.engine, r.variant) for r in rows] == [
        (layer, "eager", name) for layer in ("body", "wide") for name in VARIANTS
    ]
    assert seen[0] == (0, 2 * len(VARIANTS))
    assert all(row.median_ms > 0 for row in rows)


def test_an_onnx_file_is_written_once_for_all_batches(variants, monkeypatch):
    writing = []
    real = benchmark.onnx_file
    monkeypatch.setattr(
        benchmark, "onnx_file", lambda *given: writing.append(given[0]) or real(*given)
    )
    few = {name: variants[name] for name in ("dense", "auto")}
    written = {}
    for batch in (1, 2):
        rows = network_rows(few, varied_spec(), "onnxruntime", batch=batch, runs=2, threads=1,
                            written=written)  # fmt: skip
        assert [row.variant for row in rows] == ["dense", "auto"]
    assert writing == [variants["dense"], variants["auto"]]


def test_compiled_networks_that_cannot_be_compiled_have_no_row(variants, monkeypatch):
    def no_compiler(network):
        def run(x):
            raise RuntimeError("no C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    assert network_rows(variants, varied_spec(), "torch.compile", batch=1, runs=2, threads=1) == []
    monkeypatch.setattr(torch, "compile", lambda network: network)
    rows = network_rows(variants, varied_spec(), "torch.compile", batch=1, runs=2, threads=1)
    assert [row.engine for row in rows] == ["torch.compile"] * len(VARIANTS)


def test_an_engine_that_fails_on_a_network_says_so(variants, monkeypatch):
    def failing(*_):
        def run(x):
            raise RuntimeError("no such operator")

        return run

    monkeypatch.setattr(benchmark, "_onnxruntime", failing)
    with pytest.raises(RsdtrError, match="onnxruntime cannot run the dense network: no such op"):
        network_rows(variants, varied_spec(), "onnxruntime", batch=1, runs=2, threads=1)


def test_engines(monkeypatch):
    assert checked_engines(["eager", "onnxruntime", "eager"]) == ("eager", "onnxruntime")
    with pytest.raises(UnknownName, match="'tvm' is no engine: choose from eager, onnx"):
        checked_engines(["tvm"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnknownName, match="openvino is not installed"):
        checked_engines(["openvino"])
