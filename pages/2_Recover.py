"""Recover: give the compressed network its accuracy back, without and with gradients."""

import streamlit as st

from rsdtr.accuracy_charts import stages_figure, training_figure
from rsdtr.ui import state, training
from rsdtr.ui.choosing import choose
from rsdtr.ui.measuring import recovered_stages
from rsdtr.ui.page import page
from rsdtr.ui.widgets import chart, choose_calibration, choose_data, choose_training

with page(
    "Recover",
    "Compression costs accuracy. Recalibration gets much of it back in seconds, fine-tuning most "
    "of the rest. What you recover here is what Export writes.",
):
    chosen = choose()
    network, plan = chosen.network, chosen.plan
    if network.synthetic:
        st.info(
            "Synthetic weights: there is no accuracy to win back. Choose published weights to "
            "recalibrate or fine-tune.",
            icon=":material/block:",
        )
        st.stop()
    test_set = choose_data(network.spec)
    configuration = network.configuration(plan)

    left, right = st.columns([2, 3], gap="large")
    with left.container(border=True, height="stretch"):
        st.subheader("Recalibrate")
        st.caption("BatchNorm statistics from unlabelled training images; no gradient.")
        calibration_images = choose_calibration()
        recalibrate = st.button("Recalibrate", key="recalibrate", icon=":material/balance:")
    with right.container(border=True, height="stretch"):
        st.subheader("Fine-tune")
        st.caption("SGD with momentum and a one-cycle learning rate, from the cores as they are.")
        options = choose_training(network.spec)
        finetune = st.button(
            "Fine-tune", key="finetune", icon=":material/model_training:", type="primary"
        )

    if recalibrate:
        training.run_recalibration(network, plan, test_set, calibration_images)
    if finetune:
        training.run_finetuning(network, plan, test_set, options)
        st.rerun()

    recovery = state.recoveries().get(configuration)
    if recovery is None:
        st.info(
            "Nothing recovered yet for this plan: recalibrate first, then fine-tune.",
            icon=":material/healing:",
        )
        st.stop()

    stages = recovered_stages(network, plan, test_set, recovery)
    chart(
        stages_figure(stages),
        key="stages",
        alt="Test accuracy of the dense, the compressed and the recovered network",
    )
    st.caption(
        f"Top-1 with 95 % intervals on {stages[0].accuracy.n:,} test images that no training step "
        "has seen; the dashed line is the dense network."
    )
    if recovery.epochs:
        chart(
            training_figure(recovery.losses, recovery.epochs, references=recovery.references),
            key="training",
            alt="Training loss by step and validation accuracy by epoch",
        )
        st.caption(
            "The star marks an epoch that was the best so far on validation images; the last star "
            "is the model that is kept. Test images play no part in that choice."
        )
    if st.button("Discard and start over", key="discard", icon=":material/delete:"):
        del state.recoveries()[configuration]
        st.rerun()
