"""Layers: every candidate ring of one convolution, and why the winner won."""

import streamlit as st

from rsdtr.charts.layer import candidates_figure, ring_figure, spectra, spectra_figure
from rsdtr.charts.tables import candidates_table
from rsdtr.ui.layers.candidates import candidates_of
from rsdtr.ui.plan import latency, layer_overrides
from rsdtr.ui.plan.chosen_plan import choose
from rsdtr.ui.shared import cards, columns, numbers
from rsdtr.ui.shared.figures import chart, chart_to_click, csv_button
from rsdtr.ui.shared.frame import lead, pair
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.widgets import choose_layer

lead(
    "One convolution under the lens: every circular shift and every divisor that the search "
    "tried, and the ring that won."
)
chosen = choose()
network, plan = chosen.network, chosen.plan
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    decided = choose_layer(plan)
    layer = network.profile.layer(decided.name)
    eps = chosen.eps_of(decided)
    if layer.obstacle is None:
        layer_overrides.choose(layer.name, chosen.own, eps)
if decided.kept_dense is not None:
    st.info(plain(f"This layer stays dense: {decided.kept_dense}."))
if layer.obstacle is not None:
    st.stop()

stem = f"{numbers.file_stem(plan)}-{layer.name}"
card = st.container()
left, right = pair("rings", (3, 2))
with left:
    found = candidates_of(chosen, layer, eps)
    selection = chart_to_click(
        candidates_figure(
            found.computed, found.winner, layer.kernel.numel(), found.pruned, found.unit
        ),
        key="candidates",
        alt="Cost of every candidate ring by circular shift and divisor",
    )
    st.caption(found.explained)
with card:
    cards.show_layer(layer, found.winner)
with right:
    ring = found.clicked(selection)
    name = "★ The ring" if ring == found.winner else f"Shift {ring.shift}, r<sub>0</sub> {ring.r0}"
    chart(
        ring_figure(layer.shape, ring.ranks, ring.storage, name),
        key="ring",
        alt="The ring's four cores and the ranks of the bonds between them",
    )
    st.caption(
        "Four cores, one per mode of the kernel: the area of a core follows its number of "
        "scalars, the width of a bond its rank. A computed cell that is clicked is drawn here."
    )

chart(
    spectra_figure(spectra(layer.spectra), eps),
    key="spectra",
    alt="Singular values of the four first unfoldings and the error of truncating each",
    stem=stem,
)
st.caption(
    "Left: how fast the singular values of each shift's first unfolding fall. Right: what is "
    "lost by keeping r of them; the first rank under the dashed line, drawn large, is kept by "
    "the paper's rule, where each of the three truncations may spend εₚ/√3. The tight rule "
    "tries ranks beside it too."
)

st.header("Latency")
batch = latency.choose_batch()
latency.measure(chosen, batch, curve=False)
latency.show_layer(latency.known(network, plan, batch).of(decided.name))

st.header("Candidates")
table = candidates_table(found.computed, found.winner, layer.kernel.numel(), found.pruned)
st.dataframe(
    table,
    hide_index=True,
    placeholder="–",
    column_config=columns.CANDIDATE_COLUMNS,
    key="candidate_table",
    alt="Every candidate of this layer",
)
csv_button(table.to_csv(index=False), stem)
