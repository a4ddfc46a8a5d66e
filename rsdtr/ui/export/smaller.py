"""One click on Explore: the present plan recovered, measured, exported, proved and handed out."""

from __future__ import annotations

import streamlit as st

from rsdtr.jobs.kinds.export import ExportedFiles, exported_files
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.recalibrate import nothing_to_recalibrate
from rsdtr.recovery.recover import Recover
from rsdtr.ui.export import budget, files
from rsdtr.ui.jobs import job_view
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import session
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.numbers import size
from rsdtr.ui.shared.session import TestSet

NAMES: dict[Recover, str] = {
    "recalibrate": "Recalibrate (seconds)",
    "refit": "Refit (minutes)",
    "none": "As compressed",
}


def offer(chosen: Chosen, test_set: TestSet) -> None:
    """The buttons, or how far their job is, or what it has made."""
    network, plan = chosen.network, chosen.plan
    job, search = files.newest(network, plan), budget.newest(network, test_set)
    if job is not None and not job.ended:
        job_view.watch(job)
        return
    if search is not None and not search.ended:
        budget.watch(search)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="smaller"):
        pressed = st.button(
            "Make it smaller and export",
            key="make_smaller",
            icon=":material/compress:",
            type="primary",
            disabled=not any(layer.ranks for layer in plan.layers),
            help="Takes this plan through recovery, measures accuracy before and after, writes "
            "safetensors and ONNX, proves both in a fresh process, and ends with the download.",
        )
        recover = _choose(network)
        budget.offer(chosen, test_set)
    if pressed:
        formats = ["safetensors"] if network.spec.task == "detection" else ["safetensors", "onnx"]
        files.start(chosen, test_set, None, formats, recover)
        st.rerun()
    if search is not None:
        budget.show(search)
    if job is None:
        return
    job_view.how_it_ended(job)
    made = exported_files(job)
    if made is not None:
        _show(made, plan)


def _choose(network: Network) -> Recover:
    """How the network gets its accuracy back first, without labels."""
    bare = nothing_to_recalibrate(network.model) is not None
    possible: list[Recover] = ["refit", "none"] if bare else ["recalibrate", "refit", "none"]
    if network.synthetic:
        possible = ["none"]
    chosen = st.selectbox(
        "Recovery",
        possible,
        format_func=NAMES.__getitem__,
        key=session.SMALLER_RECOVERY,
        label_visibility="collapsed",
        width=230,
    )
    return next((word for word in possible if word == chosen), possible[0])


def _show(made: ExportedFiles, plan: CompressionPlan) -> None:
    """What the files hold, in one sentence, the downloads, and the proof."""
    with st.container(border=True):
        st.markdown(f":material/verified: {plain(sentence(made, plan))}")
        files.buttons(made.folder, plan)
        st.caption(plain(files.proved(made.artefacts)))


def sentence(made: ExportedFiles, plan: CompressionPlan) -> str:
    """How much smaller, and what that cost."""
    cores = next((a for a in made.artefacts if a.format == "safetensors"), made.artefacts[0])
    told = f"{plan.pcr:.1f} times fewer parameters, a file of {size(cores.bytes)}"
    if not made.stages:
        return f"{told}, {made.holds}."
    dense, reached = made.stages[0][1], made.stages[-1][1]
    drop = dense.percent - reached.percent
    lost = f"{drop:.1f} points lost" if drop > 0 else "nothing lost"
    low, high = reached.interval
    return (
        f"{told}, {lost}: top-1 accuracy {dense.percent:.1f} % before, {reached.percent:.1f} % "
        f"{made.stages[-1][0]} (95 % interval {low:.1f} to {high:.1f}, {reached.n:,} test images)."
    )
