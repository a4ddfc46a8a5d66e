"""Explore: choose a model and what to ask of it, and see what the rings make of it."""

import streamlit as st

from rsdtr.charts.accuracy import stages_figure
from rsdtr.charts.plan import fronts_figure, layers_figure, ratios_figure
from rsdtr.tables import layers_table
from rsdtr.ui import latency, metrics, sharing, tradeoff
from rsdtr.ui.choosing import choose
from rsdtr.ui.measuring import CALIBRATION_IMAGES, asked_stages, known_stages, measure_damage
from rsdtr.ui.page import page, pair, progress
from rsdtr.ui.widgets import chart, choose_data, edit_layers

with page(
    "Explore",
    "Replace the convolutions of a trained network by tensor rings: choose a model and an εₚ, or "
    "what it should reach, and see at once what it saves.",
):
    chosen = choose(whole=True)
    network, plan = chosen.network, chosen.plan
    row = st.container()

    chart(
        layers_figure(plan),
        key="before_after",
        alt=f"Kernel parameters of each convolution of {plan.model} before and after compression",
    )
    st.caption(
        "Grey is the kernel as trained, blue the ring that replaces it: the closer a blue bar is "
        "to the ground, the more its layer gives. A hatched bar stays dense; point at it to read "
        "why. The choice for each ring is on the Layers page."
    )

    costs, ratios = pair("curves")

    st.subheader("Accuracy")
    test_set = choose_data(network.spec)
    asked = st.button(
        "Measure accuracy", key="measure", icon=":material/speed:", disabled=network.synthetic
    )
    stages = (
        asked_stages(network, plan, test_set) if asked else known_stages(network, plan, test_set)
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
    elif network.synthetic:
        st.info("Synthetic weights: there is no accuracy to measure.", icon=":material/block:")
    else:
        st.info(
            "Not measured yet for this plan: dense, compressed and recalibrated, without any "
            "training.",
            icon=":material/speed:",
        )
    measure_damage(chosen, test_set)

    st.subheader("Latency")
    batch = latency.choose_batch()
    times = latency.known(network, plan, batch)
    measuring = st.container()
    with row:
        card = sharing.card(chosen, stages, times)
        metrics.show(card, times, sharing.pinned())
        sharing.offer(card)

    st.subheader("Layers")
    edit_layers(chosen, times)
    st.caption(
        "Give a layer an εₚ of its own, or keep it dense: the plan follows at once, and a target "
        "is solved around it. An emptied εₚ is the plan's choice again. Once latency is measured, "
        "the table says which layers gain time, and in its last column why the others do not."
    )
    st.download_button(
        "Download this table (CSV)",
        lambda: layers_table(plan, chosen.own, times).to_csv(index=False),
        file_name=f"{metrics.file_stem(plan)}.csv",
        mime="text/csv",
        icon=":material/table:",
        on_click="ignore",
    )

    # Last, because the first time they take a while: all of the page above is there by then.
    with costs:
        if tradeoff.can_be_solved(network, chosen.asked):
            with progress("Solving for the least damage") as show:
                fronts = tradeoff.fronts(network, chosen.asked, show)
            reached, damage = tradeoff.axes(network, chosen.asked)
            chart(
                fronts_figure(
                    fronts.uniform,
                    fronts.solved,
                    tradeoff.point(network, chosen.asked, plan),
                    reached=reached,
                    damage=damage,
                ),
                key="fronts",
                alt="Damage against compression, for one ε_p for all layers and for one for each",
            )
            st.caption(tradeoff.explained(network, chosen.asked))
        else:
            st.info(
                "What compression costs is drawn here once every ring has been searched.",
                icon=":material/hourglass_top:",
            )
    with ratios:
        with progress("Planning over εₚ") as show:
            points = tradeoff.ratios(network, chosen.asked, batch, show)
        chart(
            ratios_figure(points, tradeoff.ratio_point(network, plan, batch)),
            key="ratios",
            alt="Compression ratio of parameters, of FLOPs and of measured time against the "
            "prescribed error",
        )
        st.caption(
            "One εₚ for all layers. Above the dotted line at 1 the network got smaller (PCR), "
            "needs fewer multiplications (FCR) or, where it was measured, less time; the stars "
            "are the present plan. FCR counts the paper's four sublayers, 1 MAC = 2 FLOPs."
        )
    with measuring:
        latency.measure(chosen, batch, curve=True)
        latency.show(chosen, times)
