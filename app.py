"""Explore: choose a model and ε_p, and see what the rings make of it."""

import streamlit as st

from rsdtr.charts import layers_figure, ratios_figure, stages_figure
from rsdtr.tables import layers_table
from rsdtr.ui import cached, metrics
from rsdtr.ui.measuring import CALIBRATION_IMAGES, known_stages, measured_stages
from rsdtr.ui.page import page, progress
from rsdtr.ui.widgets import chart, choose, choose_data

with page(
    "Explore",
    "Replace the convolutions of a trained network by tensor rings: choose a model, move εₚ, "
    "and see at once what it saves.",
):
    network, plan = choose()
    row = st.container()

    chart(
        layers_figure(plan),
        key="layers",
        alt=f"Kernel parameters of each convolution of {plan.model} before and after compression",
    )
    st.caption(
        "Grey is the kernel as trained, blue the ring that replaces it: the closer a blue bar is "
        "to the ground, the more its layer gives. A hatched bar stays dense; point at it to read "
        "why. The choice for each ring is on the Layers page."
    )

    left, right = st.columns(2, gap="large")
    curve = left.container()
    with right:
        st.subheader("Accuracy")
        test_set = choose_data(network.spec)
        asked = st.button("Measure accuracy", key="measure", icon=":material/speed:")
        stages = (
            measured_stages(network, plan, test_set)
            if asked
            else known_stages(network, plan, test_set)
        )
        if stages:
            chart(
                stages_figure(stages),
                key="accuracy",
                alt="Test accuracy of the dense, the compressed and the recalibrated network",
            )
            st.caption(
                f"Bars are 95 % intervals on {stages[0].accuracy.n:,} test images. Recalibrated: "
                f"BatchNorm statistics from up to {CALIBRATION_IMAGES:,} training images, no "
                "gradient. For more, go to Recover."
            )
        else:
            st.info(
                "Not measured yet at this εₚ: dense, compressed and recalibrated, without any "
                "training.",
                icon=":material/speed:",
            )
    with row:
        metrics.show(network, plan, stages)

    st.subheader("Layers")
    table = layers_table(plan)
    st.dataframe(
        table,
        hide_index=True,
        placeholder="–",
        column_config=metrics.LAYER_COLUMNS,
        key="layer_table",
        alt="What the plan makes of each convolution",
    )
    st.download_button(
        "Download this table (CSV)",
        table.to_csv(index=False),
        file_name=f"{plan.model}-eps-{plan.eps:.2f}.csv",
        mime="text/csv",
        icon=":material/table:",
        on_click="ignore",
    )

    with curve:
        cheap = cached.curve_is_cheap(network)
        if not cheap:
            st.subheader("PCR and FCR against εₚ")
            st.caption(metrics.curve_cost(plan))
        if cheap or st.button("Calculate the curve", key="curve", icon=":material/show_chart:"):
            with progress("Planning over εₚ") as show:
                points = cached.curve(network, show)
            chart(
                ratios_figure(points, cached.ratio_point(plan)),
                key="ratios",
                alt="Compression ratio of parameters and of FLOPs against the prescribed error",
            )
            st.caption(
                "Above the dotted line at 1 the network got smaller (PCR) or needs fewer "
                "multiplications (FCR); the stars are the present εₚ. FCR counts the paper's "
                "four sublayers, 1 MAC = 2 FLOPs."
            )
