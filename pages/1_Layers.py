"""Layers: every candidate ring of one convolution, and why the winner won."""

import streamlit as st

from rsdtr.layer_charts import candidates_figure, ring_figure, spectra, spectra_figure
from rsdtr.search import smallest
from rsdtr.tables import candidates_table
from rsdtr.ui import cached, metrics
from rsdtr.ui.page import page, plain
from rsdtr.ui.widgets import chart, choose, choose_layer

with page(
    "Layers",
    "One convolution under the lens: every circular shift and every divisor that the search "
    "tried, and the ring that won.",
):
    network, plan = choose()
    decided = choose_layer(plan)
    layer = network.profile.layer(decided.name)
    if decided.kept_dense is not None:
        st.info(plain(f"This layer stays dense: {decided.kept_dense}."))
    if layer.obstacle is not None:
        st.stop()
    found = cached.candidates(network, layer.name, plan.eps)
    winner = smallest(found)
    metrics.show_layer(layer, winner)

    left, right = st.columns([3, 2], gap="large")
    with left:
        chart(
            candidates_figure(found, winner, layer.kernel.numel()),
            key="candidates",
            alt="Storage of every candidate ring by circular shift and divisor",
        )
        st.caption(
            "Each cell is one ring: its row says which mode comes first, its column how the first "
            "rank is split. ★ stores least; ✕ would store no less than the kernel itself. Rows "
            "have gaps where r0 does not divide the first rank."
        )
    with right:
        chart(
            ring_figure(layer.shape, winner.ranks, winner.storage),
            key="ring",
            alt="The ring's four cores and the ranks of the bonds between them",
        )
        st.caption(
            "Four cores, one per mode of the kernel: the area of a core follows its number of "
            "scalars, the width of a bond its rank."
        )

    chart(
        spectra_figure(spectra(layer.spectra), plan.eps),
        key="spectra",
        alt="Singular values of the four first unfoldings and the error of truncating each",
    )
    st.caption(
        "Left: how fast the singular values of each shift's first unfolding fall. Right: what is "
        "lost by keeping r of them; the first rank under the dashed line, drawn large, is kept. "
        "Each of the three truncations may spend εₚ/√3."
    )

    st.subheader("Candidates")
    table = candidates_table(found, winner, layer.kernel.numel())
    st.dataframe(
        table,
        hide_index=True,
        placeholder="–",
        column_config=metrics.CANDIDATE_COLUMNS,
        key="candidate_table",
        alt="Every candidate of this layer",
    )
    st.download_button(
        "Download this table (CSV)",
        table.to_csv(index=False),
        file_name=f"{plan.model}-{layer.name}-eps-{plan.eps:.2f}.csv",
        mime="text/csv",
        icon=":material/table:",
        on_click="ignore",
    )
