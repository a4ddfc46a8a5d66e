"""The proof on the visitor's own device: dense and compressed ONNX, run by this very browser."""

from __future__ import annotations

import copy
import secrets
from dataclasses import dataclass
from pathlib import Path

import streamlit as st
import torch
from pydantic import ValidationError
from streamlit.components.v1 import declare_component
from streamlit.components.v1.custom_component import CustomComponent

from rsdtr.charts.latency import LatencyPoint
from rsdtr.compressed.manifest import FILES
from rsdtr.errors import ExportError
from rsdtr.exports.browser_runtime import VERSION, WebProof, runtime_folder
from rsdtr.exports.onnx_export import onnx_file
from rsdtr.jobs.kinds.export import ExportedFiles
from rsdtr.planning.plan import CompressionPlan
from rsdtr.system.atomic_files import replace_file
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.accuracy import splits
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import session
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.session import Configuration, Recovery, TestSet, WebRun

IMAGES = 16  # whose logits are compared
SECONDS = 4.0  # that the two networks are timed
MOST_MB = 100  # of both files: they go through the page's connection
_MOST_RUNS = 64
_PAGE = Path(__file__).with_name("in_browser.html")

_dense: Memo[bytes] = Memo(2)


@dataclass(frozen=True, eq=False)
class Task:
    """What a browser is to run: two ONNX files, images (n, *shape) and their logits, float32.

    name: no other run has it; weights_sha256: as of the files that were exported.
    """

    name: str
    configuration: Configuration
    weights_sha256: str | None
    dense: bytes
    compressed: bytes
    images: bytes
    logits: bytes
    shape: tuple[int, ...]


def offer(
    network: Network,
    plan: CompressionPlan,
    test_set: TestSet,
    recovery: Recovery | None,
    exported: ExportedFiles,
) -> None:
    """A button to run the exported ONNX file in this browser, how far that is, what it found."""
    configuration = network.configuration(plan)
    file = exported.folder / FILES["onnx"]
    if network.spec.task != "classification":
        st.caption("Browsers are asked about classes only: this network answers something else.")
        return
    if not file.is_file():
        st.caption("Export ONNX as well, to run it in this browser.")
        return
    if exported.recovered != (recovery.weights_sha256 if recovery else None):
        st.caption("Export again, to run the present model in this browser.")
        return
    known = session.web_runs().get(configuration)
    if known is not None and known.weights_sha256 != exported.recovered:
        known = None  # of an earlier model
    if st.button(
        "Run again in this browser" if known else "Run in this browser",
        key="in_browser",
        icon=":material/devices:",
        help="Your browser gets the dense and the compressed ONNX file and onnxruntime-web, all "
        "from this server, compares logits and times both networks on your device.",
    ):
        with st.spinner("Getting the files ready …"):
            runtime_folder()
            compressed = file.read_bytes()
            st.session_state[session.WEB_TASK] = _task(
                network, plan, test_set, recovery, exported, compressed
            )
    task: Task | None = st.session_state.get(session.WEB_TASK)
    if task is not None and task.configuration == configuration:
        _run(task, plan)
    elif known is not None:
        _show(known.found)
    else:
        st.caption("Not run yet: how fast both networks are on your own device.")


def points(network: Network) -> list[LatencyPoint]:
    """The plans of this network that this browser has run, in the trade-off."""
    weights = network.profile.weights_sha256
    return [run.point for at, run in session.web_runs().items() if at.weights_sha256 == weights]


@torch.inference_mode()
def _task(
    network: Network,
    plan: CompressionPlan,
    test_set: TestSet,
    recovery: Recovery | None,
    exported: ExportedFiles,
    compressed: bytes,
) -> Task:
    megabytes = (network.dense_bytes + len(compressed)) / 1e6
    if megabytes > MOST_MB:
        raise ExportError(
            f"the two networks have {megabytes:.0f} MB, more than the {MOST_MB} MB that a page "
            "hands to a browser: run model.onnx in a page of your own"
        )
    dense = _dense.of(
        network.profile.weights_sha256,
        lambda: onnx_file(copy.deepcopy(network.model).requires_grad_(False), network.spec),
    )
    test = splits(network, test_set).test
    images = test.first(IMAGES).inputs(slice(None))
    model = recovery.model if recovery else networks.compressed(network, plan)
    logits = copy.deepcopy(model).eval()(images)
    return Task(
        name=secrets.token_hex(8),
        configuration=network.configuration(plan),
        weights_sha256=exported.recovered,
        dense=dense,
        compressed=compressed,
        images=images.contiguous().numpy().tobytes(),
        logits=logits.contiguous().numpy().tobytes(),
        shape=network.spec.input_shape,
    )


def _run(task: Task, plan: CompressionPlan) -> None:
    """Have the browser run it; the page is drawn again once it has answered."""
    answer = _component()(
        dense=task.dense,
        compressed=task.compressed,
        images=task.images,
        logits=task.logits,
        shape=task.shape,
        seconds=SECONDS,
        key=f"in_browser-{task.name}",
        default=None,
    )
    if answer is None:
        return
    del st.session_state[session.WEB_TASK]
    if isinstance(answer, dict) and "error" in answer:
        reason = plain(str(answer["error"]))
        st.error(f"This browser could not run the networks ({reason}).", icon=":material/info:")
        return
    try:
        found = WebProof.model_validate(answer)
    except ValidationError:
        st.error("This browser's answer cannot be read: try again.", icon=":material/info:")
        return
    point = LatencyPoint(plan.label, plan.pcr, plan.fcr, found.ratio)
    run = WebRun(task.weights_sha256, found, point)
    session.keep(session.web_runs(), task.configuration, run, _MOST_RUNS)
    st.rerun()


def _component() -> CustomComponent:
    """Our page beside the runtime's files: Streamlit serves the folder, and nothing else does."""
    folder = runtime_folder()
    page = folder / "index.html"
    content = _PAGE.read_bytes()
    if not page.is_file() or page.read_bytes() != content:
        replace_file(page, content)
    return declare_component("in_browser", path=folder)


def _show(found: WebProof) -> None:
    columns = st.columns(3)
    columns[0].metric("Dense, here", f"{found.dense_ms:.3g} ms")
    columns[1].metric("Compressed, here", f"{found.compressed_ms:.3g} ms")
    columns[2].metric("Compressed / dense", f"{found.ratio:.2f} ×")
    st.caption(
        f"onnxruntime-web {VERSION} in {plain(found.device)}: one thread, one image at a time, "
        f"medians. Same class as PyTorch for {100 * found.argmax_agreement:.4g} % of {found.n} "
        f"images; logits within {found.max_difference:.1e}. Explore shows it in the trade-off "
        "of time."
    )
