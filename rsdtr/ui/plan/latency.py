"""Latency on a page: what this machine's device profile knows, and a button that measures more.

The page never waits: a job measures, alone on this machine, a line says how far it is, and the
page is drawn again when it has come to its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from rsdtr.charts.latency import LatencyPoint, forms_figure, latency_figure
from rsdtr.errors import RsdtrError
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.layer_times import latest_layer_times, queue_layer_times
from rsdtr.measuring.latency import LayerLatency, NetworkLatency, network_cases, network_latency
from rsdtr.measuring.layer_times import DeviceProfile, LayerCase, own_path
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import CompressionPlan
from rsdtr.search.candidate import COARSE
from rsdtr.ui.plan import networks, search_status
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.plan.fastest_rings import BATCHES, THREADS
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.plan.plan_inputs import chosen_batch
from rsdtr.ui.shared import cards, job_bar, numbers, session
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.figures import chart
from rsdtr.ui.shared.markdown import plain

CURVE = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of ε_p: what is measured for the curve
POLL_SECONDS = 1.0
BADGES = {"gains": "green", "runs dense": "orange", "kept dense": "gray", "not measured": "blue"}

_profiles: Memo[DeviceProfile] = Memo(2)
_latencies: Memo[NetworkLatency] = Memo(1024)
_points: Memo[list[LatencyPoint]] = Memo(64)
_plan_cases: Memo[tuple[LayerCase, ...]] = Memo(256)


def choose_batch() -> int:
    """Images in a batch, for which latency is shown and measured; `choose` puts it in the URL."""
    st.segmented_control(
        "Images in a batch",
        BATCHES,
        required=True,
        key=session.LATENCY_BATCH,
        help="The fastest form of a ring depends on it, and so does the fastest ring.",
    )
    return chosen_batch()


def known(of: Network, plan: CompressionPlan, batch: int) -> NetworkLatency:
    """What is measured of the plan's layers on this machine."""
    measured = _stamp()

    def look_up() -> NetworkLatency:
        table = _profiles.of(measured, DeviceProfile.own)
        return network_latency(plan, of.profile, table, batch=batch, threads=THREADS)

    reasons = tuple(layer.kept_dense for layer in plan.layers)  # are shown, and no part of a ring
    return _latencies.of((of.configuration(plan), reasons, batch, measured), look_up)


def points(of: Network, asked: Choices, batch: int) -> list[LatencyPoint]:
    """One ε_p for all layers: those of a coarse grid whose layers are all measured."""

    def look_up() -> list[LatencyPoint]:
        found = (point(plan, known(of, plan, batch)) for plan in _uniform(of, asked, COARSE))
        return [at for at in found if at is not None]

    general = replace(networks.searched(asked), eps=COARSE[0], target=None)
    searched = len(of.profile.winners)  # while they are, more of the grid gets ready
    key = of.spec.name, of.profile.weights_sha256, general, batch, _stamp(), searched
    return _points.of(key, look_up)


def point(plan: CompressionPlan, at: NetworkLatency) -> LatencyPoint | None:
    """A plan's place among them, if all its layers are measured."""
    return None if at.ratio is None else LatencyPoint(plan.label, plan.pcr, plan.fcr, at.ratio)


def measure(chosen: Chosen, batch: int, *, curve: bool) -> None:
    """The button that measures the present plan, or how far that is.

    curve: the reader may have the plans of a few ε_p measured as well.
    """
    job = latest_layer_times(search_status.jobs())
    if job is not None and not job.ended:
        st.fragment(_line, run_every=POLL_SECONDS)(job.id)
    else:
        _offer(chosen, batch, job, curve)


def show(chosen: Chosen, at: NetworkLatency, here: Sequence[LatencyPoint]) -> None:
    """What was measured: the present plan in figures, and time against compression.

    here: what this visitor's own browser measured.
    """
    if at.ratio is None:
        st.caption(_missing(at))
    else:
        cards.show_latency(chosen.plan, at)
    curves = {f"batch {batch}": points(chosen.network, chosen.asked, batch) for batch in BATCHES}
    measured = [(name, found) for name, found in curves.items() if found]
    now = point(chosen.plan, at)
    if measured or now or here:
        chart(
            latency_figure(measured, now, here),
            key="latency",
            alt="Measured time of the compressed layers over the dense ones, against the "
            "compression ratio of parameters",
            stem=numbers.file_stem(chosen.plan),
        )
        st.caption(
            "Below the dotted line at 1 the compressed layers are faster. Each point is one εₚ "
            "for all layers that was measured on this machine; lines only join the points. "
            "The dashed line is what the multiplications of the paper's four sublayers promise, "
            "1 / FCR: the distance to it is what a machine does not give. The star is the "
            f"present plan at batch {at.batch}."
            + (
                " Squares: whole networks in your browser, one image at a time, as the Export "
                "page ran them."
                if here
                else ""
            )
        )
    if at.ratio is not None:
        st.caption(_circumstances(at))


def _missing(at: NetworkLatency) -> str:
    """The empty state, in words."""
    count = len(at.layers) - len(at.left_out)
    if len(at.lacking) == count:
        return (
            f"Not measured yet for this plan at batch {at.batch}: how long each layer takes on "
            "this machine, dense and as a ring in each of its forms. Fewer multiplications are "
            "not always less time."
        )
    return (
        f"{len(at.lacking)} of {count} layers of this plan are not measured yet at batch "
        f"{at.batch}; the others are in the table of layers."
    )


def _circumstances(at: NetworkLatency) -> str:
    """What the times are sums of, and on which machine."""
    left_out = (
        f" {len(at.left_out)} of {len(at.layers)} layers are in no sum: they cannot be rings."
        if at.left_out
        else ""
    )
    return (
        f"Measured on {plain(at.machine)}. Sums of best times of single layers, a batch of "
        f"{at.batch}, {at.threads} threads, float32, channels-last.{left_out} A network takes "
        "longer than that: it normalises, activates and adds, too."
    )


def show_layer(at: LayerLatency) -> None:
    """One layer: whether it gains time, and its time in every form."""
    badge(at)
    if at.times is None:
        st.caption(
            "Not measured at this batch: the button above times this plan's layers on this machine."
        )
        return
    chart(
        forms_figure(at.times, kept_dense=at.layer.ranks is None),
        key="forms",
        alt="Measured time of this layer, dense and as a ring in each of its forms",
        stem=at.layer.name,
    )
    st.caption(
        "Bars are medians, thin lines their interquartile range; the diamond is the best time, by "
        "which the form is chosen. ★ and the bar without stripes: what runs. `O|IHW`, "
        "`I|HWO` and `IH|WO` are the same ring as two ordinary convolutions, named after the "
        "modes that share a kernel; `pipeline` is the paper's four sublayers, as plain "
        "convolutions."
    )


def badge(at: LayerLatency) -> None:
    """Whether a layer gains time, and why not, in words."""
    words = f"{at.status}: {at.reason}" if at.reason else at.status
    icon = ":material/check:" if at.status == "gains" else ":material/info:"
    st.badge(plain(words), color=BADGES[at.status], icon=icon)  # type: ignore[arg-type]  # its names


def _offer(chosen: Chosen, batch: int, last: Job | None, curve: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        more = curve and st.toggle(
            "With the curve",
            value=True,
            key=session.LATENCY_CURVE,
            persist_state="session",
            help=f"Measures one εₚ for all layers at {', '.join(map(str, CURVE))} as well, as far "
            "as their rings have been searched.",
        )
        wanted = _cases(chosen, batch, more)
        lacking = _profiles.of(_stamp(), DeviceProfile.own).missing(wanted)
        st.button(
            "Measure on this machine" if lacking else "Measure again",
            key="measure_latency",
            icon=":material/timer:",
            on_click=_start,
            args=(f"{chosen.network.spec.name}, batch {batch}", lacking or wanted, not lacking),
            help="Times every form of every layer in a process of its own; this page stays "
            "usable. What is measured is kept on this machine, layer by layer.",
        )
        st.caption(
            f"{len(lacking):,} layers to measure, one or two seconds each."
            if lacking
            else f"All {len(wanted):,} layers asked for here are measured."
        )
    if failure := st.session_state.pop(session.LATENCY_FAILURE, None):
        st.error(plain(failure), icon=":material/info:")
    elif last is not None and last.state == "failed":
        st.error(plain(last.message), icon=":material/info:")
    elif last is not None and last.done < last.total:
        st.caption(
            f"{plain(last.title)}: stopped at {last.done:,} of {last.total:,} layers; what was "
            "measured is kept."
        )
    search_status.warn()


def _line(identity: str) -> None:
    job = job_bar.watched(identity)
    if job is None:
        return
    if job.state == "queued" or job.cancel_asked is not None:
        job_bar.bar(job, "Layer times")
    else:
        left = job.seconds_left
        about = "" if left is None else f", about {math.ceil(left / 5) * 5:,} s left"
        st.progress(
            min(job.done / max(job.total, 1), 1.0),
            text=f"Measuring {plain(job.title)}: {job.done:,} of {job.total:,} layers{about}",
        )
    kept = "What was measured is kept."
    job_bar.stop_background(job, "Stop measuring", "stop_latency", kept, "secondary")


def _start(label: str, cases: Sequence[LayerCase], again: bool) -> None:
    try:
        queue_layer_times(label, cases, again=again)
    except RsdtrError as error:
        st.session_state[session.LATENCY_FAILURE] = str(error)


def _cases(chosen: Chosen, batch: int, curve: bool) -> list[LayerCase]:
    """What is to be measured: the present plan first, then the curve's."""
    plans = [chosen.plan]
    if curve:
        plans += _uniform(chosen.network, chosen.asked, CURVE)
    cases: dict[LayerCase, None] = {}
    for plan in plans:
        cases |= dict.fromkeys(_cases_of(chosen.network, plan, batch))
    return list(cases)


def _cases_of(of: Network, plan: CompressionPlan, batch: int) -> tuple[LayerCase, ...]:
    def look_up() -> tuple[LayerCase, ...]:
        return tuple(network_cases(plan, of.profile, batch=batch, threads=THREADS).values())

    return _plan_cases.of((of.configuration(plan), batch), look_up)


def _uniform(of: Network, asked: Choices, every: Sequence[float]) -> list[CompressionPlan]:
    """The plans of one ε_p for all layers, as far as their rings are known."""
    trials = (replace(asked, eps=eps, target=None) for eps in every)
    return [networks.planned(of, trial) for trial in trials if networks.is_ready(of, trial)]


def _stamp() -> tuple[str, int]:
    """What tells one state of this machine's device profile from another."""
    path = own_path()
    return str(path), path.stat().st_mtime_ns if path.exists() else 0
