"""Explore's second verb: name the points that may be lost, get the smallest network as files."""

from __future__ import annotations

import hashlib

import pandas as pd
import streamlit as st

from rsdtr.autopilot.budget import PURPOSES, Budget, Purpose
from rsdtr.errors import RsdtrError
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.autopilot import (
    KIND,
    FoundFiles,
    finish,
    found_files,
    queue_autopilot,
    tried,
)
from rsdtr.ui.export import files
from rsdtr.ui.jobs import job_view, session_jobs
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import session
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.session import TestSet

NAMES: dict[Purpose, str] = {"size": "Fewest parameters", "speed": "Least time (ONNX Runtime)"}


def offer(chosen: Chosen, test_set: TestSet) -> None:
    """What may be lost, and the button that starts the search; nothing where no answer counts."""
    network = chosen.network
    if network.synthetic or network.spec.task != "classification":
        return
    with st.popover("Smallest within …", icon=":material/target:", key="budget_open"):
        budget = _ask()
        pressed = st.button(
            "Find it and export",
            key="find_smallest",
            icon=":material/search:",
            type="primary",
            disabled=budget is None,
            help="Tries network after network, each recovered without labels first. One half of "
            "the test images chooses, the other tells what was lost. What was tried is kept.",
        )
    if pressed and budget is not None:
        try:
            queue_autopilot(
                network.spec.name, network.weights, test_set.data, budget,
                session_jobs.filed(_about(network, test_set)),
            )  # fmt: skip
        except RsdtrError as error:
            st.error(plain(str(error)), icon=":material/error:")
            return
        st.rerun()


def _ask() -> Budget | None:
    points = st.number_input(
        "Points of accuracy that may be lost", 0.1, 50.0, 1.0, 0.5, format="%.1f",
        key=session.BUDGET_POINTS,
        help="Percentage points of top-1 accuracy; without labels, of the share of images that "
        "keep the dense network's answer.",
    )  # fmt: skip
    purpose = st.segmented_control(
        "What to make small", PURPOSES, default="size", format_func=NAMES.__getitem__,
        key=session.BUDGET_PURPOSE,
    )  # fmt: skip
    epochs = st.number_input(
        "Epochs of fine-tuning, where less does not hold", 0, 100, 0, key=session.BUDGET_EPOCHS,
        help="With labels. 0: nothing is trained.",
    )  # fmt: skip
    int8 = st.checkbox("In int8", key=session.BUDGET_INT8,
                       help="Every network is judged as its int8 ONNX file.")  # fmt: skip
    try:
        return Budget(points, purpose or "size", epochs=int(epochs), int8=int8)
    except RsdtrError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return None


def newest(network: Network, test_set: TestSet) -> Job | None:
    """The newest search of this session for this network and these images."""
    found = session_jobs.jobs_about(_about(network, test_set))
    return found[-1] if found else None


def _about(network: Network, test_set: TestSet) -> str:
    about = repr((KIND, network.spec.name, network.profile.weights_sha256, test_set.data))
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def watch(job: Job) -> None:
    """How far a search is, what it has tried, and the button that is content with that."""
    job_view.watch(job, _so_far)


def _so_far(job: Job) -> None:
    networks = tried(job)
    held = [network for network in networks if network.held]
    st.button(
        "Take the best so far",
        key="finish",
        icon=":material/done:",
        on_click=finish,
        args=(job,),
        disabled=not held,
        help="Ends the search, writes the files of the smallest network that holds, proves them.",
    )
    if networks:
        st.dataframe(_table(job), hide_index=True, width="stretch")


def _table(job: Job) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "PCR": f"{network.pcr:.2f}",
                "FCR": f"{network.fcr:.2f}",
                "brought through": network.stage,
                "points lost": f"{network.points:.2f}",
                "holds": "yes" if network.held else "no",
            }
            for network in tried(job)
        ]
    )


def show(job: Job) -> None:
    """How a search ended: its sentence, the downloads, the proofs, and what was tried."""
    job_view.how_it_ended(job, "resume_search")
    made = found_files(job)
    if made is None:
        return
    with st.container(border=True):
        icon = "verified" if made.within else "warning"
        st.markdown(f":material/{icon}: {plain(_sentence(made))}")
        files.buttons(job.result, made.plan, "found")
        st.caption(plain(files.proved(made.artefacts)))
        with st.expander("What was tried, and what it lost on the images that chose"):
            st.dataframe(_table(job), hide_index=True, width="stretch")


def _sentence(made: FoundFiles) -> str:
    return made.sentence[0].upper() + made.sentence[1:] + "."
