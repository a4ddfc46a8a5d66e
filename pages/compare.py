"""Compare: RSDTR beside the methods that the paper argues with, on the same network."""

import streamlit as st

from rsdtr.ui.compare import comparison, flops_ratio
from rsdtr.ui.jobs import job_view
from rsdtr.ui.plan.chosen_plan import choose
from rsdtr.ui.shared.frame import lead
from rsdtr.ui.shared.widgets import choose_data, refuse_without_classes

lead(
    "The same network made smaller by several methods to the same size, recalibrated and tested "
    "alike. εₚ and target do not matter for that: each method gets the εₚ that reaches the PCR."
)
chosen = choose()
network = chosen.network
if network.synthetic:
    st.info(
        "Synthetic weights: there is no accuracy to compare. Choose published weights.",
        icon=":material/block:",
    )
    st.stop()
refuse_without_classes(network.spec)
test_set = choose_data(network.spec)
asked = comparison.choose_comparison(network, test_set)
job = comparison.attached(network)
busy = job is not None and not job.ended
if st.button(
    "Compare",
    key="compare",
    icon=":material/compare_arrows:",
    type="primary",
    disabled=busy or asked is None,
    help="It runs in a process of its own. Cells that are known are not computed again.",
):
    assert asked is not None  # the button is disabled then
    comparison.start(network, asked)
    st.rerun()
if asked is None:
    st.info("Choose at least one method and one PCR.", icon=":material/checklist:")
if job is not None and busy:
    job_view.watch(job, comparison.show)
elif job is not None:
    job_view.how_it_ended(job)
    comparison.show(job)
    comparison.show_pair(job, network)
flops_ratio.show(chosen)
