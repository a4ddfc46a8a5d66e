"""Accuracy, or fidelity, over compression on the page: measured in the background, drawn as it
fills in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import streamlit as st

from rsdtr.baselines.catalogue import title_of
from rsdtr.baselines.comparison import Cell
from rsdtr.charts.accuracy import Stage
from rsdtr.charts.tradeoff_curve import AXES, MEASURES, Axis, Place, tradeoff_figure
from rsdtr.data.datasets import data_identity, is_at_hand
from rsdtr.errors import DataError, JobError, RsdtrError
from rsdtr.exports.model_card import ModelCard
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.tradeoff_curve import curve_job, queue_curve
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.recovery.curves_on_disk import curve_path, load_curve
from rsdtr.recovery.recover import Recover
from rsdtr.recovery.tradeoff_curve import (
    CurveKey,
    CurvePoint,
    Measure,
    TradeoffCurve,
    coarse_questions,
)
from rsdtr.ui.explore import clicked_point, tradeoff
from rsdtr.ui.plan.accuracy import splits
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import job_bar, numbers, session
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.figures import chart_to_click
from rsdtr.ui.shared.frame import progress
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.session import TestSet

POLL_SECONDS = 2.0
IDENTITY_SECONDS = 30.0  # after which a folder is looked at again
RECOVER: Recover = "recalibrate"
HEIGHT = 380  # pixels, so that all of it is on the first screen
AXIS_NAMES: dict[Axis, str] = {"pcr": "PCR", "fcr": "FCR", "mb": "MB", "time": "Time"}

_WITHIN: dict[Measure, str] = {"accuracy": "the dense network", "fidelity": "the dense answers"}
_HOW: dict[Measure, str] = {
    "accuracy": "no labels used in recovery; the grey band is the dense network's 95 % interval.",
    "fidelity": "without labels. Fidelity: percent of images, pixels or boxes that get the dense "
    "network's class; of other answers, 100 less their relative error in percent.",
}

_curves: Memo[TradeoffCurve | None] = Memo(64)
_begun: Memo[bool] = Memo(64)
_log = logging.getLogger("rsdtr.ui")


def key_of(chosen: Chosen, test_set: TestSet) -> CurveKey | None:
    """The curve that belongs to what is asked; None where there is nothing to measure."""
    network = chosen.network
    if network.synthetic:
        return None
    try:
        data = _identity(test_set.data, network.spec.name)
        measure = _measure(network, test_set)
    except RsdtrError:  # no such images: choosing others is said where they are chosen
        return None
    return CurveKey.of(network.profile, chosen.asked, data, test_set.images, measure)


def _measure(network: Network, test_set: TestSet) -> Measure:
    """Accuracy where the network tells classes and somebody has labelled the images."""
    if network.spec.task != "classification":
        return "fidelity"
    if test_set.data is None:
        return "accuracy"  # a network's own images are labelled
    return "accuracy" if splits(network, test_set).test.labelled else "fidelity"


def why_none(network: Network) -> str:
    """Why there is nothing to draw, in a sentence."""
    if network.synthetic:
        return "Synthetic weights: there is no accuracy to draw over compression."
    return (
        f"{network.spec.name} has no images here: name a folder of class folders under Images, and "
        "its accuracy is drawn over compression; or photos, without labels, for its fidelity."
    )


@st.cache_data(ttl=IDENTITY_SECONDS, show_spinner=False)
def _identity(data: str | None, model: str) -> str:
    """Of the images; a folder of many is not walked through at every move of the slider."""
    return data_identity(data, model_spec(model))


def known(key: CurveKey) -> TradeoffCurve | None:
    """What is measured of a curve by now."""
    try:
        stamp = curve_path(key).stat().st_mtime_ns
    except OSError:
        stamp = 0
    return _curves.of((key, stamp), lambda: load_curve(key))


def begin(chosen: Chosen, test_set: TestSet, key: CurveKey) -> None:
    """Once per curve: queue what is missing of it, where the images are on this machine."""

    def run() -> bool:
        if is_at_hand(test_set.data, chosen.network.spec) and not is_complete(chosen, key):
            start(chosen.network, test_set, key)
        return True

    _begun.of(key, run)


def start(network: Network, test_set: TestSet, key: CurveKey) -> None:
    """Queue the measurement; without a worker there is none, and the log says why."""
    try:
        queue_curve(network.spec.name, network.weights, test_set.data, key, RECOVER)
    except JobError as error:
        _log.warning("no trade-off curve of %s (%s)", network.spec.name, error)


def is_complete(chosen: Chosen, key: CurveKey) -> bool:
    """Whether every coarse ε_p of the curve is measured."""
    curve = known(key)
    questions = coarse_questions(chosen.asked)
    uniform = [asked for asked in questions if asked.target is None]
    return curve is not None and all(curve.at(asked) for asked in uniform)


def stages(curve: TradeoffCurve | None, asked: Choices) -> list[Stage]:
    """The accuracies of the present plan, if it is a point of such a curve; else none."""
    point = curve.at(asked) if curve and curve.key.measure == "accuracy" else None
    if curve is None or point is None:
        return []
    found = [Stage("dense", curve.dense), Stage("compressed", point.accuracy.compressed)]
    if point.accuracy.recalibrated is not None:
        found.append(Stage("recalibrated", point.accuracy.recalibrated))
    return found


def fidelity(curve: TradeoffCurve | None, asked: Choices) -> Accuracy | None:
    """The fidelity of the present plan, recalibrated where it can be, if it is on such a curve."""
    point = curve.at(asked) if curve and curve.key.measure == "fidelity" else None
    return None if point is None else point.accuracy.recalibrated or point.accuracy.compressed


def between(curve: TradeoffCurve | None, asked: Choices) -> tuple[CurvePoint, CurvePoint] | None:
    """The measured points beside the present plan, where it is none itself."""
    if curve is None or curve.at(asked) is not None:
        return None
    return curve.around(asked)


def show(
    chosen: Chosen, test_set: TestSet, key: CurveKey, reached: Accuracy | None,
    pinned: ModelCard | None, batch: int, others: Sequence[Cell] = (),
) -> None:  # fmt: skip
    """The figure, its axis and how far it is; drawn by itself as points come in.

    others: of a comparison of this network on these images.
    """
    job = _job(chosen.network, test_set, key)
    watched = job is not None and not job.ended
    st.fragment(_draw, run_every=POLL_SECONDS if watched else None)(
        chosen, test_set, key, reached, pinned, batch, others, watched
    )


def _draw(
    chosen: Chosen, test_set: TestSet, key: CurveKey, reached: Accuracy | None,
    pinned: ModelCard | None, batch: int, others: Sequence[Cell], watched: bool,
) -> None:  # fmt: skip
    curve = known(key)
    job = _job(chosen.network, test_set, key)
    if watched and (job is None or job.ended):
        st.rerun()
    if curve is not None:
        _figure(chosen, curve, reached, pinned, batch, others)
    if job is not None and not job.ended:
        job_bar.bar(job, key.measure.capitalize())
        kept = "Every point that was measured is kept."
        job_bar.stop_background(job, "Stop measuring", "stop_curve", kept)
    elif not is_complete(chosen, key):
        _offer(chosen.network, test_set, key, job, curve is None or not curve.points)


def _offer(
    network: Network, test_set: TestSet, key: CurveKey, job: Job | None, empty: bool
) -> None:
    """The empty or the half-drawn figure, in words, and the way to have the rest."""
    if job is not None and job.state == "failed" and job.message:
        st.warning(plain(job.message), icon=":material/warning:")
    elif empty:
        st.info(
            f"{key.measure.capitalize()} over compression is measured once, in the background, and "
            "kept: some minutes for a small network, hours for a large one.",
            icon=":material/show_chart:",
        )
    if st.button("Measure the curve", key="measure_curve", icon=":material/show_chart:"):
        start(network, test_set, key)
        st.rerun()


def _figure(
    chosen: Chosen, curve: TradeoffCurve, reached: Accuracy | None, pinned: ModelCard | None,
    batch: int, others: Sequence[Cell],
) -> None:  # fmt: skip
    st.markdown(_answer(curve))
    axis: Axis = st.segmented_control(
        f"{curve.key.measure.capitalize()} over",
        tuple(AXIS_NAMES),
        default="pcr",
        required=True,
        format_func=AXIS_NAMES.__getitem__,
        key=session.CURVE_AXIS,
        persist_state="session",
        label_visibility="collapsed",
    )
    times = _times(chosen, batch) if axis == "time" else None
    selection = chart_to_click(
        tradeoff_figure(
            curve,
            axis,
            [*_places(chosen, axis, reached, pinned, batch), *_compared(others, axis)],
            times,
            HEIGHT,
        ),
        key="curve",
        alt=f"{MEASURES[curve.key.measure]} of {curve.model} against {AXES[axis]}",
        stem=numbers.file_stem(chosen.plan),
    )
    clicked_point.offer(selection, "pcr", "ask_curve")
    st.caption(
        f"{curve.dense.n:,} test images of {plain(curve.data)}, {_HOW[curve.key.measure]} Click a "
        "point to ask for it."
    )


def _answer(curve: TradeoffCurve) -> str:
    """The question that most people come with, answered from what is measured."""
    held, of = curve.smallest(1.0), _WITHIN[curve.key.measure]
    if held is None:
        return f"No measured network is within one point of {of}."
    stage, best = held.accuracy.best
    low, high = best.interval
    return (
        f"Within one point of {of}: **PCR {held.pcr:.1f}** at {plain(held.label)}, {stage} "
        f"({best.percent:.1f} %, {low:.1f} to {high:.1f})."
    )


def _places(
    chosen: Chosen, axis: Axis, reached: Accuracy | None, pinned: ModelCard | None, batch: int
) -> Sequence[Place]:
    plan = chosen.plan
    size = tradeoff.file_mb(chosen.network, plan)
    faster = tradeoff.time_ratio(chosen.network, plan, batch)
    at = {"pcr": plan.pcr, "fcr": plan.fcr, "mb": size, "time": faster}[axis]
    places = [] if at is None else [Place("now", at, reached)]
    if pinned is not None and pinned.weights_sha256 == chosen.network.profile.weights_sha256:
        measured = pinned.latency
        then = {
            "pcr": pinned.plan.pcr,
            "fcr": pinned.plan.fcr,
            "mb": pinned.bytes.compressed / 1e6,
            "time": 1 / measured.ratio if measured and measured.batch == batch else None,
        }[axis]
        was = pinned.reached
        if then is not None and was is not None:
            places.append(Place("A", then, Accuracy(was.percent, was.interval, was.n)))
    return places


def _compared(cells: Sequence[Cell], axis: Axis) -> Sequence[Place]:
    """Other methods, where they reach; their times are of another batch than the curve's."""
    placed: list[Place] = []
    for cell in cells:
        at = {"pcr": cell.pcr, "fcr": cell.fcr, "mb": cell.bytes / 1e6 if cell.bytes else None,
              "time": None}[axis]  # fmt: skip
        if at is None or cell.accuracy is None or cell.interval is None or cell.n is None:
            continue
        reached = Accuracy(cell.accuracy, cell.interval, cell.n)
        placed.append(Place(f"{title_of(cell.method)}, Compare", at, reached))
    return placed


def _times(chosen: Chosen, batch: int) -> dict[float, float]:
    """Dense / compressed times of one ε_p for all layers, where they were measured."""
    with progress("Planning over εₚ") as show:
        found = tradeoff.ratios(chosen.network, chosen.asked, batch, show)
    return {point.eps: point.time for point in found if point.time is not None}


def _job(network: Network, test_set: TestSet, key: CurveKey) -> Job | None:
    try:
        return curve_job(network.spec.name, network.weights, test_set.data, key, RECOVER)
    except (JobError, DataError, OSError):
        return None
