"""The benchmark of a compressed network: variants × engines × batches, network and layers."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.errors import RsdtrError, UnknownName
from rsdtr.exports.onnx_export import onnx_file
from rsdtr.measuring.fastest_forms import in_one_form, use_forms
from rsdtr.measuring.stopwatch import Run, Timing, eager, timings
from rsdtr.models.surgery import LinearReplacement
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ring.forms import FORMS
from rsdtr.system.app_folder import APP_FOLDER

ENGINES = ("eager", "onnxruntime", "openvino", "torch.compile")
PEER = APP_FOLDER / "benchmarks" / "paper_pipeline.py"


def network_variants(
    dense: nn.Module, ring: nn.Module, fast: CompressionPlan, profile: ModelProfile
) -> dict[str, nn.Module]:
    """`dense`, `paper` where the repository has it, each form, and `auto`: the forms of `fast`.

    `ring` is the compressed network. Those in forms of ours lie channels-last, see
    `fast.use_forms`, and share their weights.
    """
    variants = {"dense": dense}
    peer = paper_network()
    if peer is not None and (rewritten := _written_by(peer, ring)) is not None:
        variants["paper"] = rewritten
    flat = {id(p): p for p in ring.parameters() if p.ndim != 4}
    base = copy.deepcopy(ring, flat)
    shared = {id(value): value for value in (*base.parameters(), *base.buffers())}
    for form in FORMS:
        if form != "dense":  # that is what "dense" is for
            variants[form] = copy.deepcopy(base, dict(shared))
            use_forms(variants[form], in_one_form(fast, profile, form))
    variants["auto"] = base
    use_forms(base, fast)
    return variants


def layer_variants(variants: Mapping[str, nn.Module], layer: str) -> dict[str, nn.Module]:
    """The same layer of every variant of a network."""
    return {name: network.get_submodule(layer) for name, network in variants.items()}


def paper_network() -> Callable[[nn.Module], nn.Module] | None:
    """The function that rewrites a network as the paper's program computes it; it is no part of
    this package: None where the repository's benchmarks/ is not there.
    """
    found = importlib.util.spec_from_file_location("paper_pipeline", PEER)
    if not PEER.is_file() or found is None or found.loader is None:
        return None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    rewrite: Callable[[nn.Module], nn.Module] = module.paper_network
    return rewrite


def _written_by(peer: Callable[[nn.Module], nn.Module], ring: nn.Module) -> nn.Module | None:
    try:
        return peer(ring)
    except RsdtrError:  # a padding that the paper's program cannot do
        return None


def checked_engines(names: Sequence[str]) -> tuple[str, ...]:
    """The engines, each once; UnknownName for one that does not exist or is not installed."""
    for name in names:
        if name not in ENGINES:
            raise UnknownName(f"{name!r} is no engine: choose from {', '.join(ENGINES)}")
    if "openvino" in names and importlib.util.find_spec("openvino") is None:
        raise UnknownName("openvino is not installed: pip install openvino, or leave it out")
    return tuple(dict.fromkeys(names))


def network_rows(
    variants: Mapping[str, nn.Module],
    spec: ModelSpec,
    engine: str,
    *,
    batch: int,
    runs: int,
    threads: int,
) -> list[Timing]:
    """Time all variants of a network in one engine; those that it cannot run have no row.

    `onnxruntime` and `openvino` run what `export` writes: fused, of plain convolutions.
    """
    running = {}
    noise = torch.zeros(batch, *spec.input_shape)
    for name, network in variants.items():
        run = _in_engine(network, spec, engine, threads)
        try:
            run(noise)
        except RuntimeError as error:
            # Inductor without a C++ compiler, for one: no failure of ours, and no row.
            if engine != "torch.compile":
                raise RsdtrError(f"{engine} cannot run the {name} network: {error}") from error
            continue
        running[name] = run
    return timings(
        running, spec.input_shape, engine=engine, batch=batch, runs=runs, threads=threads
    )


def layer_rows(
    variants: Mapping[str, nn.Module],
    profile: ModelProfile,
    *,
    batch: int,
    runs: int,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Timing]:
    """Time every ring layer by itself, eagerly: what it gets is laid out as in its network.

    progress: called with (layers done, layers in all).
    """
    rings = [n for n, m in variants["auto"].named_modules() if isinstance(m, RingLayer)]
    rows: list[Timing] = []
    for done, layer in enumerate(rings):
        if progress:
            progress(done, len(rings))
        found = profile.layer(layer)
        rows += timings(
            {
                name: _laid_out(module, name)
                for name, module in layer_variants(variants, layer).items()
            },
            found.input_shape,
            scope=layer,
            batch=batch,
            runs=runs,
            threads=threads,
        )
    if progress:
        progress(len(rings), len(rings))
    return rows


def _laid_out(module: nn.Module, variant: str) -> Run:
    if variant in ("dense", "paper"):
        return eager(module)
    kept: dict[str, Tensor] = {}

    def run(x: Tensor) -> None:
        if "x" not in kept:  # not timed: the first runs warm up
            image = x.ndim == 4 and not isinstance(module, nn.Linear | LinearReplacement)
            kept["x"] = x.contiguous(memory_format=torch.channels_last) if image else x
        with torch.inference_mode():
            module(kept["x"])

    return run


def _in_engine(network: nn.Module, spec: ModelSpec, engine: str, threads: int) -> Run:
    if engine == "eager":
        return eager(network)
    if engine == "torch.compile":
        return eager(torch.compile(network))  # type: ignore[arg-type]  # it is a module again
    content = onnx_file(network, spec)
    return (
        _onnxruntime(content, threads) if engine == "onnxruntime" else _openvino(content, threads)
    )


def _onnxruntime(content: bytes, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return lambda images: session.run(None, {entry.name: images.numpy()})


def _openvino(content: bytes, threads: int) -> Run:
    core: Any = import_module("openvino").Core()
    model = core.compile_model(
        core.read_model(content, b""), "CPU", {"INFERENCE_NUM_THREADS": threads}
    )
    return lambda images: model([images.numpy()])
