"""Fine-tuning on the page: started as a job, estimated, drawn, and compared with others."""

from __future__ import annotations

import streamlit as st

from rsdtr.charts.accuracy import Stage
from rsdtr.charts.recovery import runs_figure, training_figure
from rsdtr.charts.tables import runs_table
from rsdtr.jobs.kinds.finetune import queue_finetuning, training_runs
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.checkpoint import Curve
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.training_estimate import estimate
from rsdtr.ui.jobs import session_jobs
from rsdtr.ui.plan.accuracy import splits, tell_assumed
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.recover import recalibration
from rsdtr.ui.shared import columns, numbers
from rsdtr.ui.shared.figures import chart, csv_button
from rsdtr.ui.shared.session import TestSet


def start(
    network: Network, at: CompressionPlan, test_set: TestSet, options: FinetuneOptions
) -> None:
    """Queue the fine-tuning of the current model of this configuration, and attach to it."""
    with st.spinner("Queueing the training …"):
        job = queue_finetuning(
            recalibration.current(network, at),
            at,
            splits(network, test_set),
            options,
            data=test_set.data,
            dense=network.model,
            weights=network.weights,
            subject=session_jobs.subject(network, at),
        )
    session_jobs.attach(job.id)


def tell_time(
    network: Network, at: CompressionPlan, test_set: TestSet, options: FinetuneOptions
) -> None:
    """What the training would take, from a few steps made now."""
    model = recalibration.current(network, at)
    with st.spinner("Timing a few steps …"):
        expected = estimate(model, splits(network, test_set), options, network.model)
    st.info(
        f"{numbers.duration(expected.seconds)} for {options.epochs} epochs, "
        f"{numbers.duration(expected.epoch_seconds)} each, and "
        f"{expected.memory_bytes / 1e9:.2f} GB of memory.",
        icon=":material/timer:",
    )


def show_curve(shown: Curve, key: str) -> None:
    """Loss, learning rate and accuracy of a training, with the dense network's for comparison."""
    references = [Stage(found.label, found.accuracy) for found in shown.references]
    chart(
        training_figure(shown.losses, shown.learning_rates, shown.epochs, references=references),
        key=key,
        alt="Training loss and learning rate by step, validation accuracy by epoch",
        stem="fine-tuning",
    )
    st.caption(
        "A star marks an epoch that was the best so far on validation images; the last star is the "
        "model that is kept, and without a star the start is. The band is the dense network's "
        "95 % interval on the same images; test images play no part."
    )
    tell_assumed([*references, *(Stage("epoch", epoch.validation) for epoch in shown.epochs)])


def compare(network: Network, at: CompressionPlan) -> None:
    """All fine-tunings of this configuration beside each other, once there are several."""
    runs = training_runs(session_jobs.own_jobs(network, at))
    if len(runs) < 2:
        return
    with st.expander(f"Compare {len(runs)} runs"):
        table = runs_table(runs)
        st.dataframe(
            table,
            hide_index=True,
            placeholder="–",
            column_config=columns.RUN_COLUMNS,
            key="runs",
            alt="Every fine-tuning from this plan",
        )
        csv_button(table.to_csv(index=False), f"{numbers.file_stem(at)}-runs", "runs-csv")
        chart(
            runs_figure({run.job_id[:6]: run.curve.epochs for run in runs if run.curve.epochs}),
            key="runs-figure",
            alt="Validation accuracy by epoch of every run",
            stem=numbers.file_stem(at),
        )
        chosen = st.selectbox(
            "Take up another run",
            [run.job_id for run in runs],
            index=None,
            key="other_run",
            placeholder="its job",
        )
        if chosen and st.button("Show it", key="take_up", icon=":material/history:"):
            session_jobs.attach(chosen)
            st.rerun()
