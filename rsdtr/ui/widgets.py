"""The inputs and outputs that several pages have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from rsdtr.charts.points import points_table
from rsdtr.fastest import planned_ring
from rsdtr.latency import NetworkLatency
from rsdtr.plan import CompressionPlan, LayerPlan
from rsdtr.profile import LayerProfile
from rsdtr.search import Candidate, Pruned
from rsdtr.tables import MEASURED, layers_table
from rsdtr.ui import cached, metrics, own, state, url
from rsdtr.ui.choosing import Chosen
from rsdtr.ui.page import plain
from rsdtr.ui.state import TestSet
from rsdtr.winners import Objective, Question
from rsdtr.zoo import ModelSpec

FORMAT_NAMES = {
    "safetensors": "safetensors + manifest",
    "onnx": "ONNX",
    "pt2": "torch.export (.pt2)",
    "int8": "ONNX in 8 bits",
}
TEST_LIMITS = (500, 2000, 10_000, 50_000)


def choose_data(spec: ModelSpec) -> TestSet:
    """Which images accuracy is measured on: data set or folder, and how many of its test split."""
    left, right = st.columns([3, 2], gap="medium", vertical_alignment="bottom")
    entered = left.text_input(
        "Data set or folder",
        key=state.DATA,
        placeholder=spec.data or "a folder with one sub-folder of pictures per class",
        help="digits, cifar10, photos, or a folder on this computer with train, validation and "
        "test folders of class folders (of any pictures, for networks without classes). Empty: "
        "the model's own, which is photos, without labels, for those.",
        persist_state="session",
    )
    limit = right.selectbox(
        "Test images at most",
        TEST_LIMITS,
        index=1,
        format_func="{:,}".format,
        key=state.TEST_IMAGES,
        persist_state="session",
    )
    return TestSet(str(entered).strip() or None, int(limit or TEST_LIMITS[1]))


def refuse_without_classes(spec: ModelSpec) -> None:
    """Stops a page that is about accuracy where the network has none."""
    if spec.task == "classification":
        return
    st.info(
        plain(
            f"{spec.name} is for {spec.task}: it has no top-1 accuracy to compare or to win back. "
            "Its rings and its fidelity are on Explore; `compress --recalibrate` of the command "
            "line recalibrates it."
        ),
        icon=":material/block:",
    )
    st.stop()


def choose_layer(plan: CompressionPlan) -> LayerPlan:
    """One convolution of the plan, in the URL too; at first the one with the most parameters."""
    layers = {layer.name: layer for layer in plan.layers}
    return layers[choose_name({name: layer.shape for name, layer in layers.items()})]


def choose_name(shapes: Mapping[str, Sequence[int]], inputs: bool = True) -> str:
    """The name of one convolution of these kernel shapes, in the URL too; at first the largest.

    inputs: whether the input is drawn.
    """
    largest = max(shapes, key=lambda name: math.prod(shapes[name]))
    url.read(state.LAYER, url.one_of(tuple(shapes)), largest)
    if inputs:
        st.selectbox(
            "Layer",
            tuple(shapes),
            format_func=lambda name: f"{name}   {'×'.join(map(str, shapes[name]))}",
            key=state.LAYER,
            filter_mode="contains",
            help="Convolutions in network order, with their kernel's O × I × KH × KW.",
        )
    url.say(state.LAYER, largest)
    url.tell()
    chosen = str(st.session_state[state.LAYER])
    return chosen if chosen in shapes else largest


@dataclass(frozen=True)
class Found:
    """What is to be seen of one layer's search, and the ring that the plan takes.

    unit: what the floors are counted in.
    """

    winner: Candidate
    computed: Sequence[Candidate]
    pruned: Sequence[Pruned]
    unit: Objective
    explained: str

    def clicked(self, selection: Any) -> Candidate:
        """The ring whose cell was clicked; the winner without a click, or of another search."""
        cells = [point.get("customdata") for point in selection["points"]]
        return next((ring for ring in self.computed if [ring.shift, ring.r0] in cells), self.winner)


def candidates_of(chosen: Chosen, layer: LayerProfile, eps: float) -> Found:
    """The search of one layer at ε_p, and on request the candidates that it did without."""
    unit = chosen.asked.solved_objective
    question = Question(chosen.asked.rule, unit, eps)
    with st.spinner("Searching this layer …"):
        result = cached.search(layer, chosen.network, question)
    winner = _fastest(chosen, layer) or result.winner
    fewest = _is_same(winner, result.winner)
    won = "won" if fewest else "is the fastest here, not the one of fewest MACs"
    cells = (
        "Each cell is one ring: its row says which mode comes first, its column how the first "
        f"rank is split. ★ is the one that {won}; ✕ would store no less than the kernel."
    )
    every = question.rule == "paper" and st.toggle(
        "Compute all candidates",
        key=state.EVERY_CANDIDATE,
        persist_state="session",
        help="The search rules most candidates out by a lower bound on their cost. This computes "
        "them all the same, as the published program does; it changes nothing.",
    )
    if every:
        with st.spinner("Computing every candidate of this layer …"):
            every_one = cached.candidates(chosen.network, layer.name, eps)
        rows = "Rows have gaps where r0 does not divide the first rank."
        return Found(winner, _with(winner, every_one), (), unit, f"{cells} {rows}")
    computed = _with(winner, result.computed)
    pruned = [cell for cell in result.pruned if (cell.shift, cell.r0) != (winner.shift, winner.r0)]
    spared = (
        f"Grey: {len(pruned)} of {len(pruned) + len(computed)} rings that "
        "the search never had to compute, because they cost at least the number shown."
    )
    return Found(winner, computed, pruned, unit, f"{cells} {spared}")


def _fastest(chosen: Chosen, layer: LayerProfile) -> Candidate | None:
    """The ring of a layer that was chosen by its time; None if it was not chosen so."""
    if chosen.plan.objective != "latency":
        return None
    return planned_ring(next(each for each in chosen.plan.layers if each.name == layer.name))


def _with(winner: Candidate, computed: Sequence[Candidate]) -> Sequence[Candidate]:
    return [*(ring for ring in computed if not _is_same(ring, winner)), winner]


def _is_same(one: Candidate, other: Candidate) -> bool:
    # Their errors may differ in the last digit, when another process has computed one of them.
    return (one.shift, one.r0, one.ranks) == (other.shift, other.r0, other.ranks)


def edit_layers(chosen: Chosen, latency: NetworkLatency) -> None:
    """The table of layers, whose ε_p and "keep dense" may be edited."""
    table = layers_table(chosen.plan, chosen.own, latency)
    badges = {"in time": [[status] for status in table["in time"]]}
    possible = set(own.ring_layers(chosen.network.profile))
    names = [name if name in possible else "" for name in table["layer"]]
    # A new key for every edit: the old table's edits are part of the plan then.
    key = f"{state.EDITS}-{st.session_state.get(state.EDITS, 0)}"
    measured = any(item.times for item in latency.layers)
    st.data_editor(
        table.assign(**badges),
        hide_index=True,
        placeholder="–",
        column_config=metrics.LAYER_COLUMNS,
        column_order=[name for name in table if measured or name not in MEASURED],
        disabled=[name for name in table if name not in (own.EPS_COLUMN, own.DENSE_COLUMN)],
        key=key,
        on_change=own.take_edits,
        args=(key, chosen.own, names),
        alt="What the plan makes of each convolution",
    )


def choose_images(key: str, usual: int, use: str = "") -> int:
    """How many training images a recovery looks at; use: a sentence on what becomes of them."""
    n = st.number_input(
        "Training images",
        min_value=50,
        max_value=50_000,
        value=usual,
        step=50,
        key=key,
        persist_state="session",
        help=f"{use} If the data set has fewer, all of them are used.".strip(),
    )
    return whole(n, 50, 50_000, usual)


def choose_formats(spec: ModelSpec) -> list[str]:
    """Which files to export: safetensors for this library, ONNX and pt2 for deployment."""
    if spec.task == "detection":
        st.info(
            "This network chooses its boxes by their values, which torch.export cannot follow: it "
            "is exported as safetensors alone, for this library to read.",
            icon=":material/block:",
        )
        return ["safetensors"]
    chosen = st.pills(
        "Formats",
        tuple(FORMAT_NAMES),
        selection_mode="multi",
        default=["safetensors", "onnx"],
        format_func=FORMAT_NAMES.__getitem__,
        key=state.FORMATS,
        persist_state="session",
        help="safetensors holds the cores: this library loads and trains them further, and "
        "rsdtr_model.py beside them needs torch alone; ONNX runs in other programs, in 8 bits with "
        "slightly other answers; .pt2 is torch.export's.",
    )
    return [name for name in FORMAT_NAMES if name in (chosen or ())]


def whole(value: float | None, lowest: int, highest: int, otherwise: int) -> int:
    """A number field as an int within its limits, which hold only in the browser."""
    return otherwise if value is None else min(max(int(value), lowest), highest)


def within(value: float | None, lowest: float, highest: float, otherwise: float) -> float:
    """A number field as a float within its limits, likewise."""
    return otherwise if value is None else min(max(float(value), lowest), highest)


def chart(figure: go.Figure, key: str, alt: str, stem: str | None = None) -> None:
    """A figure in the page's width with a text for those who cannot see it.

    stem: of the CSV of its points, offered under it; None where the page has a table of them.
    """
    st.plotly_chart(figure, key=key, alt=alt, width="stretch", config={"displaylogo": False})
    if stem is not None:
        offer_points(figure, key, alt, stem)


def csv_button(csv: str | Callable[[], str], stem: str, key: str | None = None) -> None:
    """Hands out the table above as STEM.csv; csv: its text, or what makes it once it is asked."""
    st.download_button(
        "Download this table (CSV)",
        csv,
        file_name=f"{stem}.csv",
        mime="text/csv",
        key=key,
        icon=":material/table:",
        on_click="ignore",
    )


def chart_to_click(figure: go.Figure, key: str, alt: str, stem: str | None = None) -> Any:
    """The same with points that can be clicked; the selection: `points`, each a mapping."""
    event = st.plotly_chart(
        figure, key=key, alt=alt, width="stretch", config={"displaylogo": False},
        on_select="rerun", selection_mode="points",
    )  # fmt: skip
    if stem is not None:
        offer_points(figure, key, alt, stem)
    return event["selection"]


def offer_points(figure: go.Figure, key: str, alt: str, stem: str) -> None:
    """The points of a figure as a table and as STEM-KEY.csv; nothing is made until it is opened."""
    st.fragment(_points)(figure, key, alt, stem)


def _points(figure: go.Figure, key: str, alt: str, stem: str) -> None:
    box = st.popover(
        "Table", key=f"{key}_points", icon=":material/table:", type="tertiary", on_change="rerun"
    )
    if not box.open:
        return
    with box:
        table = points_table(figure)
        real = table.select_dtypes("Float64")
        st.dataframe(
            table,
            hide_index=True,
            placeholder="–",
            width="content",
            column_config={name: st.column_config.NumberColumn(format="%.4g") for name in real},
            key=f"{key}_table",
            alt=f"{alt}, in numbers",
        )
        csv_button(table.to_csv(index=False), f"{stem}-{key}", f"{key}_csv")
