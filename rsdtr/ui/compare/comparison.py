"""Methods beside each other on the page: chosen, started as a job, and its cells drawn."""

from __future__ import annotations

import streamlit as st

from rsdtr.baselines.catalogue import AFTER, INT8, methods_for, title_of
from rsdtr.baselines.comparison import Cell, Comparison
from rsdtr.charts.comparison import comparison_figure
from rsdtr.charts.tables import cells_table
from rsdtr.errors import JobError
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.comparison import KIND, asked_of, queue_comparison, report
from rsdtr.recovery.recalibrate import nothing_to_recalibrate
from rsdtr.ui.compare import clicked_cell
from rsdtr.ui.jobs import session_jobs
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.shared import columns, session
from rsdtr.ui.shared.figures import chart_to_click, csv_button
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.session import TestSet
from rsdtr.ui.shared.widgets import choose_images

USUAL_METHODS = ("rsdtr-tight", "tucker2", "tt", "spatial-svd", "prune-l2")
PCRS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 6.0, 8.0, 12.0)
USUAL_PCRS = (2.0, 4.0)
RECALIBRATION_IMAGES = 1000


def choose_comparison(network: Network, test_set: TestSet) -> Comparison | None:
    """What to compare; None where no method or no PCR was chosen."""
    alone = methods_for(network.spec.name)
    names = (*alone, INT8, *(f"{name}{AFTER}" for name in alone))
    methods = st.multiselect(
        "Methods",
        names,
        default=USUAL_METHODS,
        format_func=title_of,
        key=session.COMPARED_METHODS,
        persist_state="session",
    )
    left, right = st.columns(2, gap="medium", vertical_alignment="bottom")
    pcrs = left.multiselect(
        "PCR to reach",
        PCRS,
        default=USUAL_PCRS,
        format_func="{:g}".format,
        key=session.COMPARED_PCRS,
        persist_state="session",
    )
    images, nothing = None, nothing_to_recalibrate(network.model)
    with right:
        if nothing is None:
            images = choose_images(
                session.COMPARED_IMAGES,
                RECALIBRATION_IMAGES,
                "Every network's BatchNorm is recalibrated on them before it is tested.",
            )
        else:
            st.caption(plain(f"This network has {nothing}."))
    chosen = tuple(name for name in methods if name in names)
    numbers = tuple(float(pcr) for pcr in pcrs if pcr in PCRS)
    if not chosen or not numbers:
        return None
    return Comparison(
        model=network.spec.name,
        methods=chosen,
        pcrs=numbers,
        recalibrate=images,
        data=test_set.data,
        weights=network.weights,
        limit=test_set.images,
    )


def _about(network: Network) -> str:
    return f"{KIND}-{network.profile.weights_sha256[:16]}"


def start(network: Network, asked: Comparison) -> None:
    """Queue the comparison, and attach to it."""
    job = queue_comparison(
        asked, network.profile.weights_sha256, session_jobs.filed(_about(network))
    )
    session_jobs.attach(job.id)


def attached(network: Network) -> Job | None:
    """The comparison that the page shows: the address's, else the newest of this session."""
    return session_jobs.shown(session_jobs.jobs_about(_about(network)))


def cells(network: Network, test_set: TestSet) -> tuple[Cell, ...]:
    """What this session's newest comparison of the network has found on these images."""
    try:
        jobs = session_jobs.jobs_about(_about(network))
    except JobError:  # no place for jobs, where nothing was compared either
        return ()
    asked = asked_of(jobs[-1]) if jobs else None
    if asked is None:
        return ()
    same = (asked.data, asked.limit) == (test_set.data, test_set.images)
    return report(jobs[-1]) if same else ()


def show(job: Job) -> None:
    """The cells that there are: a figure to click, and a table."""
    cells, asked = report(job), asked_of(job)
    if not cells or asked is None:
        return
    selection = chart_to_click(
        comparison_figure(cells, asked.model, title_of),
        key="comparison",
        alt="Test accuracy of every method against PCR, FCR and latency",
    )
    clicked_cell.show_picked(clicked_cell.picked(selection, cells))
    st.caption(_how_to_read(cells))
    for assumed in dict.fromkeys(cell.assumed for cell in cells if cell.assumed):
        st.warning(plain(assumed), icon=":material/label:")
    table = cells_table(cells)
    st.dataframe(
        table.assign(method=[title_of(cell.method) for cell in cells]),
        hide_index=True,
        placeholder="–",
        column_config=columns.CELL_COLUMNS,
        key="cells",
        alt="Every method and PCR",
    )
    csv_button(table.to_csv(index=False), f"{asked.model}-compare", "cells-csv")
    for cell in cells:
        if cell.failed is not None:
            st.caption(plain(f"{title_of(cell.method)} at PCR {cell.asked:g}: {cell.failed}"))


def show_pair(job: Job, network: Network) -> None:
    """Two of its cells layer by layer."""
    clicked_cell.show_pair(report(job), network.profile)


def _how_to_read(cells: tuple[Cell, ...]) -> str:
    images = max((cell.n for cell in cells if cell.n is not None), default=0)
    return (
        f"Up is better; right is better for PCR and FCR, left for latency. On the broad line lie "
        f"the networks that no other one beats in both. Top-1 on {images:,} test images; the table "
        "has the 95 % intervals. Latency is processor time for 16 images on one thread, every "
        "layer in its fastest form, of int8 in ONNX Runtime. FCR of a ring counts its four "
        "sublayers."
    )
