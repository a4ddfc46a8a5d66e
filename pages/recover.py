"""Recover: give the compressed network its accuracy back, without and with gradients."""

import streamlit as st

from rsdtr.charts.accuracy import stages_figure
from rsdtr.jobs.kinds.distillation import KIND as DISTILL
from rsdtr.jobs.kinds.refit import KIND as REFIT
from rsdtr.recovery.recalibrate import nothing_to_recalibrate
from rsdtr.recovery.recover import CALIBRATION_IMAGES
from rsdtr.ui.jobs import job_view, session_jobs
from rsdtr.ui.plan.accuracy import recovered_stages, tell_assumed
from rsdtr.ui.plan.chosen_plan import choose
from rsdtr.ui.recover import distillation, fidelity, recalibration, refit, training
from rsdtr.ui.recover.progress import show_progress
from rsdtr.ui.recover.training_inputs import choose_training
from rsdtr.ui.shared import numbers, session
from rsdtr.ui.shared.figures import chart
from rsdtr.ui.shared.frame import lead, pair
from rsdtr.ui.shared.widgets import choose_data, choose_images

lead(
    "Compression costs accuracy. Recalibration gets much of it back in seconds, a refit more in a "
    "minute, a distillation without labels more still, fine-tuning most of the rest. What you "
    "recover here is what Export writes."
)
chosen = choose()
network, plan = chosen.network, chosen.plan
if network.synthetic:
    st.info(
        "Synthetic weights: there is no accuracy to win back. Choose published weights to "
        "recalibrate or fine-tune.",
        icon=":material/block:",
    )
    st.stop()
has_classes = network.spec.task == "classification"
test_set = choose_data(network.spec)
job = session_jobs.attached(network, plan)
busy = job is not None and not job.ended

left, right = pair("without-gradients")
with left.container(border=True, height="stretch"):
    st.header("Recalibrate")
    nothing = nothing_to_recalibrate(network.model)
    st.caption(
        f"This network has {nothing}."
        if nothing
        else "BatchNorm statistics from unlabelled training images; no gradient."
    )
    calibration_images = choose_images(session.CALIBRATION_IMAGES, CALIBRATION_IMAGES)
    recalibrate = st.button(
        "Recalibrate",
        key="recalibrate",
        icon=":material/balance:",
        disabled=busy or nothing is not None,
    )
    beside_recalibrate = st.container()
with right.container(border=True, height="stretch"):
    st.header("Refit")
    st.caption(
        "The cores layer by layer, by least squares, to what the dense network does on "
        "unlabelled training images; no gradient. A step that does not help on images held "
        "out is undone."
    )
    refit_images = refit.choose_refit(network)
    refit_now = st.button("Refit", key="refit", icon=":material/straighten:", disabled=busy)
    beside_refit = st.container()
with st.container(border=True):
    distill_images, distill_now, beside_distill = distillation.ask(network, busy)
with st.container(border=True):
    st.header("Fine-tune")
    st.caption(
        "From the cores as they are, under a one-cycle learning rate. It runs in a process of "
        "its own: the page may be closed meanwhile."
    )
    if not has_classes:
        st.info(
            "A network without classes has no labels to learn from: refit or distil it.",
            icon=":material/block:",
        )
    options = choose_training(network.spec)
    buttons = st.container(horizontal=True)
    finetune = buttons.button(
        "Fine-tune",
        key="finetune",
        icon=":material/model_training:",
        type="primary",
        disabled=busy or not has_classes,
    )
    timing = buttons.button(
        "Estimate the time",
        key="estimate",
        icon=":material/timer:",
        disabled=busy or not has_classes,
    )
    beside_finetune = st.container()

# What a button has started is told where the eye is: beneath that button.
if recalibrate:
    with beside_recalibrate:
        recalibration.run_recalibration(network, plan, test_set, calibration_images)
if timing:
    with beside_finetune:
        training.tell_time(network, plan, test_set, options)
if refit_now:
    with beside_refit:
        refit.start(network, plan, test_set, refit_images)
    st.rerun()
if distill_now:
    with beside_distill:
        distillation.start(network, plan, test_set, distill_images)
    st.rerun()
if finetune:
    with beside_finetune:
        training.start(network, plan, test_set, options)
    st.rerun()
places = {REFIT: beside_refit, DISTILL: beside_distill}
beside = places.get(job.kind, beside_finetune) if job is not None else beside_finetune
if job is not None and busy:
    with beside:
        job_view.watch(job)
    job_view.draw_along(job, show_progress)
    st.stop()
if job is not None:
    job_view.take(network, plan, job)
    with beside:
        job_view.how_it_ended(job)

recovery = session.recoveries().get(network.configuration(plan))
if recovery is None:
    st.info(
        "Nothing recovered yet for this plan: recalibrate or refit, then distil or fine-tune.",
        icon=":material/healing:",
    )
    training.compare(network, plan)
    st.stop()

if has_classes:
    stages = recovered_stages(network, plan, test_set, recovery)
    chart(
        stages_figure(stages),
        key="stages",
        alt="Test accuracy of the dense, the compressed and the recovered network",
        stem=numbers.file_stem(plan),
    )
    st.caption(
        f"Top-1 with 95 % intervals on {stages[0].accuracy.n:,} test images that no training "
        "step has seen; the dashed line is the dense network."
    )
    tell_assumed(stages)
else:
    fidelity.show(network, plan, test_set, recovery)
if job is not None:
    show_progress(job)
training.compare(network, plan)
if st.button("Discard and start over", key="discard", icon=":material/delete:"):
    session_jobs.put_aside(network, plan)
    st.rerun()
