"""ONNX: a network that lies in an ONNX file, made smaller as the graph that it is."""

import streamlit as st

from rsdtr.charts.plan import layers_figure
from rsdtr.charts.tables import MEASURED, layers_table
from rsdtr.planning.coverage import coverage
from rsdtr.ui.onnx_file import given_inputs, network_file, smaller_file
from rsdtr.ui.plan import plan_inputs
from rsdtr.ui.shared import columns, numbers
from rsdtr.ui.shared.figures import chart, csv_button
from rsdtr.ui.shared.frame import lead
from rsdtr.ui.shared.markdown import plain

lead(
    "Give an ONNX file and take a smaller one away. Nothing is converted: rings take the place of "
    "convolutions and matrices in the graph, and are refit in ONNX Runtime without labels."
)
plan_inputs.read()
file = network_file.choose_file()
if file is None:
    st.stop()
network = file.network
asked = network_file.ask_choices(file)
plan = network_file.plan_of(file, asked)
st.caption(plain(f"{network.name}: {coverage(plan)}"))
cards = st.columns(4, gap="medium")
for card, (label, value, note, help) in zip(
    cards,
    (
        ("PCR", f"{plan.pcr:.2f}", "parameters, before / after", plan.label),
        ("FCR", f"{plan.fcr:.2f}", "FLOPs, before / after", "Of the paper's four sublayers."),
        ("File", numbers.size(network.bytes), "as it is", None),
        (
            "Input",
            "×".join(map(str, next(iter(network.shapes.values())))),
            "costs are for it",
            None,
        ),
    ),
    strict=True,
):
    card.metric(
        label, value, note, delta_color="off", delta_arrow="off", border=True, help=help
    )  # fmt: skip
for part in plan.not_counted:
    st.caption(plain(f"Not counted: {part}"))

st.header("Inputs")
inputs = given_inputs.choose_inputs()
smaller_file.offer(file, asked, plan, inputs)

st.header("Layers")
chart(
    layers_figure(plan),
    key="onnx-layers",
    alt=f"Kernel parameters of each layer of {plan.model} before and after compression",
)
st.caption(
    "Grey is the kernel as trained, blue the ring that replaces it. A hatched bar stays dense; "
    "point at it to read why."
)
table = layers_table(plan)
st.dataframe(
    table,
    hide_index=True,
    placeholder="–",
    column_config=columns.LAYER_COLUMNS,
    column_order=[name for name in table if name not in (*MEASURED, "keep dense")],
    key="onnx-layers-table",
    alt="What the plan makes of each layer",
)
csv_button(table.to_csv(index=False), numbers.file_stem(plan))
