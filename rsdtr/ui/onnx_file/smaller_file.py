"""The smaller file on the page: made by a job, what it is worth, handed out."""

from __future__ import annotations

import shlex

import streamlit as st

from rsdtr.charts.recovery import steps_figure
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.onnx_file import KIND, GivenInputs, OnnxReport, queue_onnx, report
from rsdtr.measuring.fidelity import Fidelity
from rsdtr.planning.choices import Asked, Choices
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ui.jobs import job_view, session_jobs
from rsdtr.ui.onnx_file.network_file import NetworkFile
from rsdtr.ui.shared.figures import chart
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.numbers import size


def offer(of: NetworkFile, asked: Choices, at: CompressionPlan, inputs: GivenInputs) -> None:
    """The button that makes the file, and what it has made."""
    job = session_jobs.shown(session_jobs.jobs_about(_about(of)))
    busy = job is not None and not job.ended
    verb = "Compress and refit" if inputs.refit else "Compress"
    if st.button(
        verb,
        key="compress_onnx",
        type="primary",
        icon=":material/compress:",
        disabled=busy or not any(layer.ranks for layer in at.layers),
        help="It runs in a process of its own: the page may be closed meanwhile. The graph is "
        "checked, and run beside the original, before it is offered.",
    ):
        subject = session_jobs.filed(_about(of))
        session_jobs.attach(queue_onnx(of.path, of.network, of.size, at, inputs, subject).id)
        st.rerun()
    with st.expander("The same on the command line", icon=":material/terminal:"):
        st.code(_command(of, asked, inputs), language="bash", wrap_lines=True)
    if job is None:
        return
    if busy:
        job_view.watch(job)
        return
    job_view.how_it_ended(job)
    if (found := report(job)) is not None:
        _show(job, found, at)


def _show(job: Job, found: OnnxReport, at: CompressionPlan) -> None:
    st.header("The smaller file")
    if found.plan.label != at.label or _rings(found.plan) != _rings(at):
        st.warning(
            plain(f"This is the file for {found.plan.label}. Compress again to renew it."),
            icon=":material/history:",
        )
    cards = st.columns(2 + len(found.latency), gap="medium")
    cards[0].metric(
        "File", size(found.bytes), f"{found.original_bytes / found.bytes:.2f} times smaller",
        delta_color="off", delta_arrow="off", border=True, height="stretch",
    )  # fmt: skip
    cards[1].metric(
        "Answers unchanged" if found.fidelity.counted else "Error of the answers",
        _kept(found.fidelity),
        None if found.before is None else f"{_kept(found.before)} before the refit",
        delta_color="off", delta_arrow="off", border=True, height="stretch",
        help=f"{found.fidelity} On {found.judged} inputs that nothing was learnt from.",
    )  # fmt: skip
    for card, one in zip(cards[2:], found.latency, strict=True):
        card.metric(
            f"Time, batch {one.batch}",
            f"{one.compressed_ms:.3g} ms",
            f"{one.ratio:.2f} of {one.original_ms:.3g} ms",
            delta_color="off", delta_arrow="off", border=True, height="stretch",
            help="ONNX Runtime on this machine, one thread, the processor's best time.",
        )  # fmt: skip
    for warning in found.warnings:
        st.warning(plain(f"{warning[0].upper()}{warning[1:]}."), icon=":material/warning:")
    st.caption(
        plain(
            f"Proved before it was kept: ONNX's checker takes it, and on {found.proof.n} inputs "
            f"every ring and every answer is within {found.proof.relative_error:.0e} of the "
            "original graph with the same kernels put in."
        )
    )
    with st.container(horizontal=True):
        for path in sorted(job.result.iterdir()):
            if path.suffix != ".json":
                st.download_button(
                    f"{path.name} ({size(path.stat().st_size)})",
                    path.read_bytes,
                    file_name=path.name,
                    mime="application/octet-stream",
                    key=f"download-{path.name}",
                    type="primary",
                    icon=":material/download:",
                    on_click="ignore",
                )
    if found.steps:
        chart(
            steps_figure(found.steps),
            key="onnx-steps",
            alt="For every layer and the whole graph, the part of its error that the refit left",
        )
        kept = sum(step.kept for step in found.steps)
        st.caption(
            f"{kept} of {len(found.steps)} steps of the refit were kept, each judged on inputs "
            "that it was not fitted to. Where “cores”, all of them, is not kept, the graph "
            "stays as it was compressed."
        )


def _kept(fidelity: Fidelity) -> str:
    """The part of the answers that is unchanged, or their error where there is nothing to count."""
    if fidelity.agreement is None:
        return f"{fidelity.relative_error:.3f}"
    return f"{fidelity.agreement:.1f} %"


def _rings(plan: CompressionPlan) -> list[object]:
    return [(layer.shift, layer.ranks) for layer in plan.layers]


def _about(of: NetworkFile) -> str:
    return f"{KIND}-{of.network.sha256[:16]}"


def _command(of: NetworkFile, asked: Choices, inputs: GivenInputs) -> str:
    """The command that writes the same file; the reader's own places stand for those on here."""
    words = [Asked(of.network.name, asked).command("compress")]
    if of.size is not None:
        words.append(f"--input-size {of.size[0]}x{of.size[1]}")
    if inputs.refit:
        words.append(f"--refit {inputs.n}")
    if inputs.data is not None:
        words.append("--data PICTURES_OR_NPZ")
    for option, values in (("--mean", inputs.mean), ("--std", inputs.std)):
        words += [f"{option} {','.join(f'{x:g}' for x in values)}"] if values else []
    words += ["--bgr"] if inputs.bgr else []
    return " ".join([*words, "--out", shlex.quote(f"{of.path.stem}-small.onnx")])
