"""What planning needs of an ONNX file: sizes, costs, what is not counted, the whole path."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from rsdtr.errors import PlanError
from rsdtr.onnx_files import read_onnx
from rsdtr.planning import Target, plan, solve
from rsdtr.planning.plan import CompressionPlan, planned_bytes
from rsdtr.planning.winners_on_disk import load_winners, save_winners
from tests.support.onnx_graphs import graph, one_conv, ring_kernel, small_network, written


@pytest.fixture
def network(tmp_path):
    return read_onnx(written(small_network(), tmp_path / "net.onnx"), (10, 8))


def test_costs_are_counted_by_hand(network):
    sizes = {layer.name: (layer.input_size, layer.output_size) for layer in network.profile.layers}
    assert network.shapes == {"images": (1, 3, 10, 8)}
    assert sizes["stem"] == sizes["point"] == ((10, 8), (10, 8))
    assert sizes["head"] == ((1, 1), (1, 1))
    macs = {layer.name: layer.macs for layer in network.profile.layers}
    assert macs == {
        "stem": 12 * 27 * 80, "block": 12 * 108 * 80, "depth": 12 * 9 * 80,
        "point": 24 * 12 * 80, "head": 4 * 24,
    }  # fmt: skip
    assert network.profile.macs == sum(macs.values())
    assert network.profile.not_counted == ()
    stored = 12 * 27 + 12 + 12 * 108 + 12 * 9 + 24 * 12 + 4 * 24 + 4 + 4 * 12
    assert network.profile.params == stored


def test_open_sizes_are_224_unless_another_is_given(tmp_path):
    network = read_onnx(written(small_network(), tmp_path / "net.onnx"))
    assert network.shapes == {"images": (1, 3, 224, 224)}
    (stem, *_) = network.profile.layers
    assert stem.macs == 12 * 27 * 224**2


def test_the_plan_is_json_and_its_pcr_is_that_of_the_scalars(network):
    decided = plan(network.profile, 0.3, layers="auto")
    assert CompressionPlan.from_json(decided.model_dump_json()) == decided
    rings = {layer.name: layer for layer in decided.layers if layer.ranks}
    assert set(rings) >= {"stem", "block", "point"}
    saved = sum(network.layer(name).kernel.numel() - ring.storage for name, ring in rings.items())
    assert decided.pcr == network.profile.params / (network.profile.params - saved)
    assert json.loads(decided.model_dump_json())["model"] == "net.onnx"


def test_targets_are_met_by_scalars_macs_and_bytes(network):
    for target in (Target(kind="pcr", value=1.6), Target(kind="fcr", value=1.3)):
        decided = solve(network.profile, target, layers="auto")
        assert getattr(decided, target.kind) >= target.value
    everything = plan(network.profile, None, layers="auto",
                      own=dict.fromkeys((x.name for x in network.layers), None))  # fmt: skip
    # Dense, the count of bytes is that of the file, but for padding to eight.
    assert abs(planned_bytes(network.profile, everything) - network.bytes) <= 8


def test_the_paper_s_layers_are_those_of_several_pixels_but_the_first(network):
    decided = plan(network.profile, 0.3, layers="paper")
    assert [layer.name for layer in decided.layers if layer.ranks] == ["block"]


def test_every_layer_is_looked_at_unless_others_are_asked_for(network):
    usual = plan(network.profile, 0.3)
    assert usual.layers == plan(network.profile, 0.3, layers="auto").layers
    assert [(layer.name, layer.kind) for layer in usual.layers] == [
        ("stem", "conv"), ("block", "conv"), ("depth", "conv"), ("point", "conv"),
        ("head", "linear"),
    ]  # fmt: skip
    convolutions = plan(network.profile, 0.3, layers="all").layers
    assert [layer.name for layer in convolutions] == ["stem", "block", "depth", "point"]


def test_winners_lie_on_disk_by_weights_and_sizes(network, tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    plan(network.profile, 0.5, layers="auto")
    assert save_winners(network.profile)
    again = read_onnx(tmp_path / "net.onnx", (10, 8))
    assert load_winners(again.profile) == len(network.profile.winners)
    assert load_winners(read_onnx(tmp_path / "net.onnx", (12, 12)).profile) == 0


def test_what_else_multiplies_is_told_with_its_macs(tmp_path):
    up = np.ones((3, 5, 2, 2), np.float32)
    nodes = [
        helper.make_node("ConvTranspose", ["images", "up"], ["u"], "up", strides=[2, 2]),
        helper.make_node("Conv", ["u", "weight"], ["c"], "conv"),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["c", "t"], ["logits"], "squares"),
    ]
    model = graph(
        nodes,
        {"up": up, "weight": ring_kernel((4, 5, 1, 1), (1, 2, 1, 1))},
        outputs={"logits": ["batch", 4, "rows", "rows2"]},
    )
    network = read_onnx(written(model, tmp_path / "net.onnx"), (6, 5))
    told = {part.name: part for part in network.profile.not_counted}
    assert told["up"].macs == 3 * 6 * 5 * 5 * 4
    assert told["squares"].macs == 4 * 12 * 10 * 12
    total = network.profile.macs + sum(part.macs for part in told.values())
    assert told["squares"].share == told["squares"].macs / total
    assert network.profile.macs == 4 * 5 * 12 * 10


def test_what_runs_within_a_branch_is_told(tmp_path):
    inner = one_conv(ring_kernel((4, 3, 1, 1), (1, 2, 1, 1))).graph
    del inner.input[:]
    inner.node[0].output[0] = inner.output[0].name = "inner"
    nodes = [
        helper.make_node(
            "If", ["flag"], ["branch"], "choice", then_branch=inner, else_branch=inner
        ),
        helper.make_node("Conv", ["branch", "w"], ["logits"], "conv"),
    ]
    model = graph(nodes, {"flag": np.array(True), "w": ring_kernel((4, 4, 1, 1), (1, 2, 1, 1))},
                  outputs={"logits": ["batch", 4, "h", "w2"]})  # fmt: skip
    network = read_onnx(written(model, tmp_path / "net.onnx"))
    assert [layer.name for layer in network.layers] == ["conv"]
    assert {str(part) for part in network.profile.not_counted} == {
        "choice (If: what runs within it (Conv))"
    }


def test_sizes_that_inference_leaves_open_are_seen_in_a_pass(tmp_path):
    nodes = [
        helper.make_node("NonZero", ["images"], ["where"]),  # of as many columns as values
        helper.make_node("Shape", ["where"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["count"]),
        helper.make_node("Mul", ["count", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "five"], ["width"]),
        helper.make_node("Concat", ["ones", "width"], ["target"], axis=0),
        helper.make_node("Expand", ["small", "target"], ["wide"]),
        helper.make_node("Conv", ["wide", "weight"], ["logits"], "conv"),
    ]
    tensors = {
        "one": np.array([1]), "zero": np.array([0]), "five": np.array([5]),
        "ones": np.array([1, 3, 4]), "small": np.ones((1, 3, 4, 1), np.float32),
        "weight": ring_kernel((4, 3, 1, 1), (1, 2, 1, 1)),
    }  # fmt: skip
    model = graph(nodes, tensors, outputs={"logits": ["batch", 4, "h", "w"]})
    network = read_onnx(written(model, tmp_path / "net.onnx"))
    assert network.profile.layers[0].output_size == (4, 5)


def test_a_size_that_the_graph_does_not_take_is_one_sentence(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["r"]),
        helper.make_node("NonZero", ["r"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=1),
        helper.make_node("MatMul", ["f", "weight"], ["logits"], "m"),
    ]
    tensors = {"shape": np.array([5, -1]), "weight": np.ones((3, 4), np.float32)}
    path = written(graph(nodes, tensors), tmp_path / "net.onnx")
    with pytest.raises(PlanError, match=r"not known for images 1×3×7×7 .*--input-size"):
        read_onnx(path, (7, 7))


def test_a_graph_without_layers_is_one_sentence(tmp_path):
    model = graph([helper.make_node("Relu", ["images"], ["logits"])], {})
    with pytest.raises(PlanError, match="no Conv, Gemm or MatMul with a constant kernel"):
        read_onnx(written(model, tmp_path / "net.onnx"))


def test_inputs_that_are_no_tensors_are_one_sentence(tmp_path):
    model = one_conv(ring_kernel((4, 3, 1, 1), (1, 2, 1, 1)))
    model.graph.input.append(
        helper.make_tensor_sequence_value_info("many", onnx.TensorProto.FLOAT, None)
    )
    with pytest.raises(PlanError, match="input 'many' is no tensor"):
        read_onnx(written(model, tmp_path / "net.onnx"))


def test_a_layer_that_is_missing(network):
    with pytest.raises(PlanError, match=r"a layer 'nobody' that net\.onnx lacks"):
        network.layer("nobody")


def test_pictures_with_channels_last_and_fixed_sizes(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["images"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "weight"], ["logits"], "conv"),
    ]
    model = graph(nodes, {"weight": ring_kernel((4, 3, 3, 3), (1, 2, 2, 1))},
                  inputs={"images": ["n", "h", "w", 3]},
                  outputs={"logits": ["n", 4, "h2", "w2"]})  # fmt: skip
    network = read_onnx(written(model, tmp_path / "net.onnx"), (12, 9))
    assert network.shapes == {"images": (1, 12, 9, 3)}
    assert network.profile.layers[0].output_size == (10, 7)
