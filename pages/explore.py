"""Explore: choose a model and what to ask of it, and see what the rings make of it."""

import streamlit as st

from rsdtr.charts.plan import fronts_figure, layers_figure, ratios_figure
from rsdtr.charts.tables import layers_table
from rsdtr.planning.coverage import coverage
from rsdtr.ui.compare import comparison
from rsdtr.ui.explore import (
    accuracy,
    clicked_point,
    curve,
    network_parts,
    sharing,
    tradeoff,
)
from rsdtr.ui.explore.layer_table import edit_layers
from rsdtr.ui.export import browser_run, smaller
from rsdtr.ui.plan import latency, model_card
from rsdtr.ui.plan.accuracy import measure_damage
from rsdtr.ui.plan.chosen_plan import choose
from rsdtr.ui.plan.plan_inputs import chosen_batch
from rsdtr.ui.shared import cards, figures, numbers
from rsdtr.ui.shared.figures import chart_to_click, csv_button
from rsdtr.ui.shared.frame import fold, lead, pair, progress
from rsdtr.ui.shared.widgets import choose_data

lead(
    "Replace the layers of a trained network by tensor rings: choose a model and an εₚ, or "
    "what it should reach, and see at once what it saves."
)
chosen = choose(whole=True)
network, plan = chosen.network, chosen.plan
st.caption(coverage(plan))
row = st.container()
test_set = choose_data(network.spec)
key = curve.key_of(chosen, test_set)
found = curve.known(key) if key else None
stages = accuracy.known(network, plan, test_set, curve.stages(found, chosen.asked))
times = latency.known(network, plan, chosen_batch())
card = model_card.card(chosen, stages, times)
with row:
    cards.show(
        card, times, sharing.pinned(), curve.between(found, chosen.asked),
        key.measure if key else "accuracy", curve.fidelity(found, chosen.asked),
    )  # fmt: skip
    smaller.offer(chosen, test_set)
beside, layers = pair("answer")
with beside:
    if key is not None:
        last = stages[-1].accuracy if stages else curve.fidelity(found, chosen.asked)
        others = comparison.cells(network, test_set) if key.measure == "accuracy" else ()
        curve.begin(chosen, test_set, key)
        curve.show(chosen, test_set, key, last, sharing.pinned(), times.batch, others)
    else:
        st.info(curve.why_none(network), icon=":material/block:")
with layers:
    selection = chart_to_click(
        layers_figure(plan, curve.HEIGHT),
        key="before_after",
        alt=f"Kernel parameters of each layer of {plan.model} before and after compression",
    )
    figures.open_clicked(selection, plan, "open_bar")
    st.caption(
        "Grey is the kernel as trained, blue the ring that replaces it: the closer a blue bar is "
        "to the ground, the more its layer gives. A hatched bar stays dense; point at it to read "
        "why. A layer that is clicked can be opened in Layers, where all its rings are."
    )
sharing.offer(card)
fold()

network_parts.offer(plan)
costs, ratios = pair("curves")
accuracy.show(network, plan, test_set, stages)
measure_damage(chosen, test_set)

if times.ratio is not None:  # until then it is a line with a button
    st.header("Latency")
batch = latency.choose_batch()
measuring = st.container()

st.header("Layers")
edit_layers(chosen, times)
st.caption(
    "Give a layer an εₚ of its own, or keep it dense: the plan follows at once, and a target "
    "is solved around it. An emptied εₚ is the plan's choice again. Once latency is measured, "
    "the table says which layers gain time, and in its last column why the others do not."
)
csv_button(
    lambda: layers_table(plan, chosen.own, times).to_csv(index=False), numbers.file_stem(plan)
)

# Last, because the first time they take a while: all of the page above is there by then.
with costs:
    if tradeoff.can_be_solved(network, chosen.asked):
        with progress("Solving for the least damage") as show:
            fronts = tradeoff.fronts(network, chosen.asked, show)
        reached, damage = tradeoff.axes(network, chosen.asked)
        selection = chart_to_click(
            fronts_figure(
                fronts.uniform,
                fronts.solved,
                tradeoff.point(network, chosen.asked, plan),
                reached=reached,
                damage=damage,
            ),
            key="fronts",
            alt="Damage against compression, for one ε_p for all layers and for one for each",
            stem=numbers.file_stem(plan),
        )
        clicked_point.offer(selection, tradeoff.kind_of(chosen.asked), "ask_front")
        st.caption(tradeoff.explained(network, chosen.asked))
    else:
        st.info(
            "What compression costs is drawn here once every ring has been searched.",
            icon=":material/hourglass_top:",
        )
with ratios:
    with progress("Planning over εₚ") as show:
        points = tradeoff.ratios(network, chosen.asked, batch, show)
    selection = chart_to_click(
        ratios_figure(points, tradeoff.ratio_point(network, plan, batch)),
        key="ratios",
        alt="Compression ratio of parameters, of FLOPs and of measured time against the "
        "prescribed error",
        stem=numbers.file_stem(plan),
    )
    clicked_point.offer(selection, tradeoff.kind_of(chosen.asked), "ask_ratio")
    st.caption(
        "One εₚ for all layers. Above the dotted line at 1 the network got smaller (PCR), "
        "needs fewer multiplications (FCR) or, where it was measured, less time; the stars "
        "are the present plan. FCR counts the paper's four sublayers, 1 MAC = 2 FLOPs. A point "
        "that is clicked, here or beside, can be asked for."
    )
with measuring:
    latency.measure(chosen, batch, curve=True)
    latency.show(chosen, times, browser_run.points(network))
