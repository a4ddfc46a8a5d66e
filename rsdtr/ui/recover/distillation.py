"""The distillation without labels on the page: started as a job, and its loss and verdict drawn."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from rsdtr.charts.recovery import distillation_figure
from rsdtr.jobs.kinds.distillation import DistillReport, expected_seconds, queue_distillation
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.recover import DISTILL_IMAGES
from rsdtr.ui.jobs import session_jobs
from rsdtr.ui.plan.accuracy import splits
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.recover import recalibration
from rsdtr.ui.shared import numbers, session
from rsdtr.ui.shared.figures import chart
from rsdtr.ui.shared.session import TestSet
from rsdtr.ui.shared.widgets import choose_images


def ask(network: Network, busy: bool) -> tuple[int, bool, DeltaGenerator]:
    """How many training images it is to learn from, whether its button was pressed, and the place
    beneath that button; busy: whether a job runs.
    """
    st.header("Distil without labels")
    st.caption(
        "All cores together, by gradients, to what the dense network and its blocks answer on "
        "unlabelled training images, shifted and mirrored. Kept only if that brings the network "
        "nearer to the dense one on images held out. Best after a refit."
    )
    images = choose_images(session.DISTILL_IMAGES, DISTILL_IMAGES, "A tenth of them only judges.")
    expected = expected_seconds(network.spec.name, images)
    if expected is not None:
        st.caption(f"{numbers.duration(expected).capitalize()}, judging by the last one here.")
    pressed = st.button("Distil", key="distil", icon=":material/science:", disabled=busy)
    return images, pressed, st.container()


def start(network: Network, at: CompressionPlan, test_set: TestSet, images: int) -> None:
    """Queue the distillation of the current model of this configuration, and attach to it."""
    with st.spinner("Queueing the distillation …"):
        job = queue_distillation(
            recalibration.current(network, at),
            at,
            splits(network, test_set),
            images,
            data=test_set.data,
            dense=network.model,
            weights=network.weights,
            subject=session_jobs.subject(network, at),
        )
    session_jobs.attach(job.id)


def show_report(shown: DistillReport) -> None:
    """The loss of every step and, at the end, what the images that only judge say."""
    chart(
        distillation_figure(shown.losses),
        key="distillation",
        alt="Loss of the distillation by step",
        stem="distillation",
    )
    judged = shown.judged
    if judged is None:
        return
    verdict = "It is kept." if judged.kept else "It is not kept: the network is as it was before."
    st.caption(
        f"The {judged.measure} from the dense network on images that it did not learn from went "
        f"from {judged.before:.4g} to {judged.after:.4g}. {verdict}"
    )
