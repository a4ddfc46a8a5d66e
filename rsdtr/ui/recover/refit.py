"""The least-squares refit on the page: started as a job, and its steps drawn."""

from __future__ import annotations

import streamlit as st

from rsdtr.charts.recovery import MOST, steps_figure
from rsdtr.charts.tables import steps_table
from rsdtr.jobs.kinds.refit import RefitReport, expected_seconds, queue_refit
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.recover import REFIT_IMAGES
from rsdtr.ui.jobs import session_jobs
from rsdtr.ui.plan.accuracy import splits
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.recover import recalibration
from rsdtr.ui.shared import columns, numbers, session
from rsdtr.ui.shared.figures import chart, csv_button
from rsdtr.ui.shared.session import TestSet
from rsdtr.ui.shared.widgets import choose_images


def choose_refit(network: Network) -> int:
    """How many training images a refit looks at, and how long that should take, where known."""
    images = choose_images(session.REFIT_IMAGES, REFIT_IMAGES, "A fifth of them only judges.")
    expected = expected_seconds(network.spec.name, images)
    if expected is not None:
        st.caption(f"{numbers.duration(expected).capitalize()}, judging by the last one here.")
    return images


def start(network: Network, at: CompressionPlan, test_set: TestSet, images: int) -> None:
    """Queue the refit of the current model of this configuration, and attach to it."""
    with st.spinner("Queueing the refit …"):
        job = queue_refit(
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


def show_steps(shown: RefitReport) -> None:
    """What each step of a refit gained on the images that only judge, and whether it was kept."""
    chart(
        steps_figure(shown.steps),
        key="steps",
        alt="For every layer and for the whole network, the part of its error that the refit left",
    )
    kept = sum(step.kept for step in shown.steps)
    st.caption(
        f"{kept} of {len(shown.steps)} steps were kept: filled symbols. Each is judged on images "
        f"that it was not fitted to, a fifth of {shown.images:,}: a layer by its own value against "
        "the dense network's, before a ReLU also by what the ReLU lets through; “cores”, all "
        "layers together, and “BatchNorm” by the network's answers. Where “cores” is not kept, the "
        f"network stays as it was. More than {MOST:g} is drawn at {MOST:g}."
    )
    with st.expander("The steps in numbers"):
        table = steps_table(shown.steps)
        st.dataframe(
            table,
            hide_index=True,
            column_config=columns.STEP_COLUMNS,
            key="steps-table",
            alt="Every step of the refit",
        )
        csv_button(table.to_csv(index=False), "refit-steps", "steps-csv")
