"""Fine-tuning on the page: started as a job, estimated, drawn, and compared with others."""

from __future__ import annotations

import streamlit as st

from rsdtr.charts.accuracy import Stage
from rsdtr.charts.training import runs_figure, training_figure
from rsdtr.estimate import Estimate, estimate
from rsdtr.kinds.finetune import Curve, queue_finetuning, training_runs
from rsdtr.plan import CompressionPlan
from rsdtr.recipe import FinetuneOptions
from rsdtr.tables import runs_table
from rsdtr.ui import metrics, recovering
from rsdtr.ui.cached import Network
from rsdtr.ui.measuring import splits
from rsdtr.ui.state import TestSet
from rsdtr.ui.widgets import chart, csv_button


def start(
    network: Network, at: CompressionPlan, test_set: TestSet, options: FinetuneOptions
) -> None:
    """Queue the fine-tuning of the current model of this configuration, and attach to it."""
    with st.spinner("Queueing the training …"):
        job = queue_finetuning(
            recovering.current(network, at),
            at,
            splits(network, test_set),
            options,
            data=test_set.data,
            dense=network.model,
            weights=network.weights,
            subject=recovering.subject(network, at),
        )
    recovering.attach(job.id)


def estimated(
    network: Network, at: CompressionPlan, test_set: TestSet, options: FinetuneOptions
) -> Estimate:
    """What the training would take, from a few steps made now."""
    model = recovering.current(network, at)
    with st.spinner("Timing a few steps …"):
        return estimate(model, splits(network, test_set), options, network.model)


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
        "model that is kept, and without a star the start is. The band is the dense network's 95 % interval on the same images; "
        "test images play no part."
    )


def compare(network: Network, at: CompressionPlan) -> None:
    """All fine-tunings of this configuration beside each other, once there are several."""
    runs = training_runs(recovering.own_jobs(network, at))
    if len(runs) < 2:
        return
    with st.expander(f"Compare {len(runs)} runs"):
        table = runs_table(runs)
        st.dataframe(
            table,
            hide_index=True,
            placeholder="–",
            column_config=metrics.RUN_COLUMNS,
            key="runs",
            alt="Every fine-tuning from this plan",
        )
        csv_button(table.to_csv(index=False), f"{metrics.file_stem(at)}-runs", "runs-csv")
        chart(
            runs_figure({run.job.id[:6]: run.curve.epochs for run in runs if run.curve.epochs}),
            key="runs-figure",
            alt="Validation accuracy by epoch of every run",
            stem=metrics.file_stem(at),
        )
        chosen = st.selectbox(
            "Take up another run",
            [run.job.id for run in runs],
            index=None,
            key="other_run",
            placeholder="its job",
        )
        if chosen and st.button("Show it", key="take_up", icon=":material/history:"):
            recovering.attach(chosen)
            st.rerun()
