"""ρ on the Compare page: what a tensorized ring multiplies where RSDTR's ring does."""

from __future__ import annotations

import streamlit as st

from rsdtr.baselines.costs import layer_ratios
from rsdtr.charts.comparison import layer_ratio_figure, ratio_figure
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.shared import numbers
from rsdtr.ui.shared.figures import chart
from rsdtr.ui.shared.frame import pair
from rsdtr.ui.shared.markdown import plain


def show(chosen: Chosen) -> None:
    """ρ over channels and ranks, and of every ring of the present plan."""
    st.header("Tensorized rings: more multiplications?")
    found = layer_ratios(chosen.plan, chosen.network.profile)
    left, right = pair("ratios")
    with left:
        chart(
            ratio_figure(),
            key="rho",
            alt="ρ against the rank, for six numbers of channels",
            stem="equal-storage",
        )
    with right:
        if found:
            chart(
                layer_ratio_figure(found, chosen.plan.model),
                key="rho-layers",
                alt=f"ρ of every ring of {chosen.plan.model}",
                stem=numbers.file_stem(chosen.plan),
            )
        else:
            st.info("The present plan has no ring.", icon=":material/block:")
    above = sum(ratio.rho > 1 for ratio in found)
    st.caption(
        "A tensorized ring cuts the channels themselves into factors of at most 4 and gives every "
        "bond one rank. ρ is its FLOPs over those of RSDTR's four sublayers, both rings storing "
        "the same, or the tensorized one a little less; it is contracted in the best order. Above "
        f"the dotted line it multiplies more: in {above} of {len(found)} layers of the plan that "
        f"is asked for above ({plain(chosen.plan.label)})."
    )
