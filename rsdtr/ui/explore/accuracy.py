"""What a plan leaves of the network: accuracy, or fidelity where there are no labels."""

from __future__ import annotations

import streamlit as st

from rsdtr.charts.accuracy import Stage, stages_figure
from rsdtr.measuring.fidelity import SCORE, Fidelity, fidelity
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.recover import CALIBRATION_IMAGES
from rsdtr.ui.plan import networks
from rsdtr.ui.plan.accuracy import (
    asked_stages,
    known_stages,
    splits,
    tell_assumed,
)
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import numbers
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.figures import chart
from rsdtr.ui.shared.frame import progress
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.session import TestSet

_fidelities: Memo[Fidelity] = Memo(128)


def known(
    network: Network, plan: CompressionPlan, test_set: TestSet, on_curve: list[Stage]
) -> list[Stage]:
    """The accuracy of each stage, if it has been measured.

    on_curve: what the trade-off curve knows of this plan.
    """
    if network.spec.task != "classification":
        return []
    return on_curve or known_stages(network, plan, test_set)


def show(network: Network, plan: CompressionPlan, test_set: TestSet, stages: list[Stage]) -> None:
    """The section of the page, with its button; stages: what is known."""
    if network.spec.task != "classification":
        st.header("Fidelity")
        _show_fidelity(network, plan, test_set)
    else:
        st.header("Accuracy")
        _show_accuracy(network, plan, test_set, stages)


def _show_accuracy(
    network: Network, plan: CompressionPlan, test_set: TestSet, stages: list[Stage]
) -> None:
    asked = not stages and st.button(
        "Measure accuracy", key="measure", icon=":material/speed:", disabled=network.synthetic
    )
    if asked and asked_stages(network, plan, test_set):
        st.rerun()  # the cards and the curve above tell it too
    if stages:
        chart(
            stages_figure(stages),
            key="accuracy",
            alt="Test accuracy of the dense, the compressed and the recalibrated network",
            stem=numbers.file_stem(plan),
        )
        st.caption(
            f"Bars are 95 % intervals on {stages[0].accuracy.n:,} test images. "
            + (
                f"Recalibrated: BatchNorm statistics from up to {CALIBRATION_IMAGES:,} training "
                "images, no gradient. "
                if len(stages) > 2
                else "Without BatchNorm there is nothing to recalibrate. "
            )
            + "For more, go to Recover."
        )
        tell_assumed(stages)
    elif network.synthetic:
        st.info("Synthetic weights: there is no accuracy to measure.", icon=":material/block:")
    else:
        st.info(
            "Not measured yet for this plan: dense, compressed and recalibrated, without any "
            "training.",
            icon=":material/speed:",
        )


def _show_fidelity(network: Network, plan: CompressionPlan, test_set: TestSet) -> None:
    asked = st.button("Measure fidelity", key="measure", icon=":material/speed:")
    found = _fidelity(network, plan, test_set, now=asked)
    if found is None:
        st.info(
            f"A network for {network.spec.task} has no top-1 accuracy. How far the compressed one "
            "answers as the dense one does is not measured yet for this plan.",
            icon=":material/speed:",
        )
        return
    with st.container(horizontal=True):
        st.metric("Relative error of the answers", f"{found.relative_error:.3f}", border=True)
        if found.residual_error is not None:
            st.metric(
                "Error of what they change",
                f"{found.residual_error:.3f}",
                border=True,
                help="‖f(x) − f̂(x)‖/‖x − f(x)‖, the mean over pictures x: at 1 the compressed "
                "network is as far from the dense one as doing nothing.",
            )
        if found.psnr is not None:
            st.metric(
                "PSNR to the dense network",
                f"{found.psnr:.2f} dB",
                border=True,
                help="Of its answers as pictures in 0…1, the mean over pictures; at 100 dB nothing "
                "differs.",
            )
        if found.counted is not None:
            share = "–" if found.agreement is None else f"{found.agreement:.2f} %"
            st.metric(f"{found.counted.capitalize()} that agree", share, border=True)
    if found.warning is not None:
        st.warning(
            plain(f"{found.warning[0].upper()}{found.warning[1:]}."), icon=":material/warning:"
        )
    counted = {
        None: "",
        "images": "",
        "pixels": f" Of {found.of:,} pixels, those to which both give the same class agree.",
        "boxes": f" Both found {found.of:,} boxes of a score of at least {SCORE:g}; those with a "
        "partner of the same label at an IoU of at least 0.5 agree.",
    }[found.counted]
    st.caption(
        plain(
            f"Compressed, without recalibration, beside the dense network on {found.n:,} pictures "
            f"of {test_set.data or network.spec.data}, without labels.{counted}"
        )
    )


def _fidelity(
    network: Network, plan: CompressionPlan, test_set: TestSet, now: bool
) -> Fidelity | None:
    """As it is known; measured now where it is not, if it was asked for."""

    def measure() -> Fidelity:
        images = splits(network, test_set).test.subset(test_set.images)
        with progress("Measuring fidelity, pictures") as show:
            compressed = networks.compressed(network, plan)
            return fidelity(compressed, network.model, images, progress=show)

    key = (network.configuration(plan), test_set)
    return _fidelities.of(key, measure) if now else _fidelities.known(key)
