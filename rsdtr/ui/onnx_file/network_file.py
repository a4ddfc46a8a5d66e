"""The ONNX file that a reader gives: kept, read by a process of its own, planned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from rsdtr.errors import RsdtrError, WeightsError
from rsdtr.onnx_files.onnx_network import OnnxNetwork, read_onnx
from rsdtr.onnx_files.onnx_reader import check_readable
from rsdtr.onnx_files.value_shapes import leaves_open
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import CompressionPlan
from rsdtr.planning.winners_on_disk import load_winners, save_winners
from rsdtr.ring.cost import Size
from rsdtr.ui.plan import plan_inputs, uploads
from rsdtr.ui.shared import session
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.frame import progress
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.widgets import whole

LEAST_SIDE, MOST_SIDE = 8, 2048
_networks: Memo[OnnxNetwork] = Memo(4)
_plans: Memo[CompressionPlan] = Memo(256)


@dataclass(frozen=True, eq=False)
class NetworkFile:
    """A network that a reader gave: where it is kept, and the size that costs are counted for."""

    path: Path
    network: OnnxNetwork
    size: Size | None


def choose_file() -> NetworkFile | None:
    """The network of the file that the reader gave; None: the page has asked for one.

    WeightsError or PlanError for a file that is not read: it is forgotten.
    """
    given = st.file_uploader(
        "ONNX file",
        accept_multiple_files=True,
        key=session.ONNX_FILES,
        on_change=_forget,
        help="One .onnx file in float32. Where its weights are external data, give those files "
        "with it. They stay on the machine that runs this app.",
    )
    path = st.session_state.get(session.ONNX_PLACE)
    if path is None or not os.path.isfile(path):
        if not given:
            st.info(
                "Give an ONNX file: its convolutions and matrices become rings in the graph "
                "itself, whose names, inputs, outputs and opset stay as they are.",
                icon=":material/upload_file:",
            )
            return None
        path = _kept([(file.name, file.getbuffer()) for file in given])
    try:
        network = _read(Path(path), None)
        size = _size(network) if leaves_open(network.model) else None
        network = _read(Path(path), size)
    except RsdtrError as error:
        _forget()
        if isinstance(error, WeightsError) and error.source is not None:
            raise WeightsError(error.reason, Path(error.source).name) from None
        raise
    st.session_state[session.ONNX_PLACE] = path
    return NetworkFile(Path(path), network, size)


def plan_of(of: NetworkFile, asked: Choices) -> CompressionPlan:
    """The plan that answers; PlanError for a target that is out of reach."""
    costs = of.network.profile

    def decide() -> CompressionPlan:
        load_winners(costs)
        with progress("Searching the best ring of each layer") as show:
            decided = asked.decide(costs, progress=show)
        save_winners(costs)
        return decided

    return _plans.of((of.network.sha256, of.size, asked), decide)


def ask_choices(of: NetworkFile) -> Choices:
    """What the reader asks of the plan, in the sidebar."""
    with st.sidebar:
        eps, target = plan_inputs.ask_question(of.network.bytes)
        with st.expander("More", icon=":material/tune:"):
            rule = plan_inputs.ask_rule()
            layers = st.segmented_control(
                "Layers",
                ("auto", "all", "paper"),
                required=True,
                default="auto",
                format_func=str.capitalize,
                key=session.ONNX_LAYERS,
                persist_state="session",
                help="Auto: every layer whose ring stores less. All: every convolution. Paper: "
                "every convolution but the first that is larger than 1 × 1.",
            )
    return Choices(eps=eps, target=target, rule=rule, layers=layers or "auto")


def _size(network: OnnxNetwork) -> Size:
    """The height and width that costs are counted for, where the graph leaves them open."""
    told = ", ".join("×".join(map(str, shape)) for shape in network.shapes.values())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.markdown(plain(f"The graph takes inputs of any size ({told} at first). Count for:"))
        sides = [
            whole(
                st.number_input(
                    label, LEAST_SIDE, MOST_SIDE, 224, key=key, persist_state="session", width=140
                ),
                LEAST_SIDE, MOST_SIDE, 224,
            )
            for label, key in (("Height", session.ONNX_HEIGHT), ("Width", session.ONNX_WIDTH))
        ]  # fmt: skip
    return sides[0], sides[1]


def _read(path: Path, size: Size | None) -> OnnxNetwork:
    def read() -> OnnxNetwork:
        with st.spinner(f"Reading {plain(path.name)} …"):
            if size is None:
                check_readable(path)
            return read_onnx(path, size)

    return _networks.of((str(path), size), read)


def _kept(files: Sequence[tuple[str, memoryview]]) -> str:
    """Where the one graph among some files lies, with the others beside it; WeightsError."""
    graphs = [k for k, (name, _) in enumerate(files) if name.lower().endswith(".onnx")]
    if len(graphs) != 1:
        names = ", ".join(name for name, _ in files)
        raise WeightsError(
            f"{names}: {len(graphs)} of these files end in .onnx: give one such file, and beside "
            "it only the files of its external data"
        )
    return uploads.kept(files)[graphs[0]]


def _forget() -> None:
    st.session_state.pop(session.ONNX_PLACE, None)
