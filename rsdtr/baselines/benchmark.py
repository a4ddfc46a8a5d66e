"""The benchmark of a compressed network: variants × engines × batches, network and layers."""

from __future__ import annotations

import copy
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn

from rsdtr.compressed.fuse import fuse
from rsdtr.compressed.ring_layer import RingLayer
from rsdtr.errors import RsdtrError, UnknownName
from rsdtr.exports.onnx_export import onnx_file
from rsdtr.measuring.fastest_forms import in_one_form, use_forms
from rsdtr.measuring.stopwatch import Run, Timing, Told, eager, timings
from rsdtr.measuring.times_in_network import times_in_networks
from rsdtr.models.surgery import copied
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ring.forms import FORMS, Form
from rsdtr.system.app_folder import APP_FOLDER

ENGINES = ("eager", "onnxruntime", "openvino", "torch.compile")
PEER = APP_FOLDER / "benchmarks" / "paper_pipeline.py"


def network_forms(
    ring: nn.Module, plan: CompressionPlan, profile: ModelProfile
) -> dict[Form, nn.Module]:
    """The compressed network in each form. They lie channels-last, see `use_forms`, and share their
    weights; `ring` is not changed.
    """
    flat = {id(p): p for p in ring.parameters() if p.ndim != 4}
    base = copy.deepcopy(ring, flat)
    return {form: in_forms(base, in_one_form(plan, profile, form)) for form in FORMS}


def in_forms(network: nn.Module, plan: CompressionPlan) -> nn.Module:
    """The network in the forms of the plan, channels-last; it shares the weights of the given."""
    shared = {id(value): value for value in (*network.parameters(), *network.buffers())}
    new = copy.deepcopy(network, shared)
    use_forms(new, plan)
    return new


def network_variants(
    dense: nn.Module, ring: nn.Module, forms: Mapping[Form, nn.Module], fast: CompressionPlan
) -> dict[str, nn.Module]:
    """`dense`, `paper` where the repository has it, each form, and `auto`: the forms of `fast`.

    `ring` is the compressed network and `forms` what `network_forms` made of it.
    """
    variants = {"dense": dense}
    peer = paper_network()
    if peer is not None and (rewritten := _written_by(peer, ring)) is not None:
        variants["paper"] = rewritten
    variants |= {form: network for form, network in forms.items() if form != "dense"}
    return variants | {"auto": in_forms(forms["pipeline"], fast)}


def dense_variants(dense: nn.Module) -> dict[str, nn.Module]:
    """The dense network as it may be deployed: as it is, with BatchNorm folded, and that
    channels-last as well. The fastest of them is what a ring has to beat.
    """
    folded = fuse(dense)
    return {
        "dense": dense,
        "dense, folded": folded,
        "dense, folded, channels-last": copied(folded).to(memory_format=torch.channels_last),
    }


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
    seconds: float = math.inf,
    written: MutableMapping[nn.Module, bytes] | None = None,
    progress: Told | None = None,
) -> list[Timing]:
    """Time all variants of a network in one engine; those that it cannot run have no row, nor those
    that no time is left for.

    `onnxruntime` and `openvino` run what `export` writes: fused, of plain convolutions. seconds:
    about as long as it may take, see `interleaved`; written: the ONNX files of networks, which are
    added to it.
    """
    started = time.perf_counter()
    running: dict[str, Run] = {}
    noise = torch.zeros(1, *spec.input_shape)
    files = {} if written is None else written
    for done, (name, network) in enumerate(variants.items()):
        left = max(0.0, seconds - (time.perf_counter() - started))
        if running and not left and engine != "eager":
            break  # what is not even written, or compiled, gets no row
        if progress:
            progress(done, (1 + runs) * len(variants), left)
        try:
            run = _in_engine(network, spec, engine, threads, files)
            run(noise)
        except RuntimeError as error:
            # Inductor without a C++ compiler, for one: no failure of ours, and no row.
            if engine != "torch.compile":
                raise RsdtrError(f"{engine} cannot run the {name} network: {error}") from error
            continue
        running[name] = run

    def told(done: int, total: int, left: float) -> None:
        if progress:
            progress(len(variants) + done, len(variants) + total, left)

    return timings(
        running, spec.input_shape, engine=engine, batch=batch, runs=runs, threads=threads,
        seconds=seconds - (time.perf_counter() - started), progress=told,
    )  # fmt: skip


def layer_rows(
    variants: Mapping[str, nn.Module],
    spec: ModelSpec,
    *,
    batch: int,
    runs: int,
    threads: int,
    seconds: float = math.inf,
    progress: Told | None = None,
) -> list[Timing]:
    """Time every ring layer inside each variant of its network, eagerly; seconds: as `network_rows`
    has them.
    """
    rings = [n for n, m in variants["auto"].named_modules() if isinstance(m, RingLayer)]
    found = times_in_networks(
        variants, rings, torch.randn(batch, *spec.input_shape),
        runs=runs, seconds=seconds, threads=threads, progress=progress,
    )  # fmt: skip
    return [
        Timing(layer, "eager", batch, name, taken.median_ms, taken.iqr_ms)
        for layer, times in found.items()
        for name, taken in times.items()
    ]


def _in_engine(
    network: nn.Module, spec: ModelSpec, engine: str, threads: int,
    written: MutableMapping[nn.Module, bytes],
) -> Run:  # fmt: skip
    if engine == "eager":
        return eager(network)
    if engine == "torch.compile":
        return eager(torch.compile(network))  # type: ignore[arg-type]  # it is a module again
    if network not in written:
        written[network] = onnx_file(network, spec)
    content = written[network]
    return (
        _onnxruntime(content, threads) if engine == "onnxruntime" else _openvino(content, threads)
    )


def _onnxruntime(content: bytes, threads: int) -> Run:
    import onnxruntime  # starts a thread

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
