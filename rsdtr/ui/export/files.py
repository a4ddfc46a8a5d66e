"""An export on the page: started as a job, and the buttons that hand its proved files out."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from rsdtr.compressed.manifest import MANIFEST
from rsdtr.exports.export import Artefact
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds.export import KIND, ExportedFiles, queue_export
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.recover import STAGES, Recover
from rsdtr.system.zip_archive import write_zip
from rsdtr.ui.jobs import session_jobs
from rsdtr.ui.plan import latency, model_card, networks
from rsdtr.ui.plan.accuracy import known_chain, known_metrics, splits
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.plan.networks import Network
from rsdtr.ui.plan.plan_inputs import chosen_batch
from rsdtr.ui.shared import address, session
from rsdtr.ui.shared.numbers import file_stem, size
from rsdtr.ui.shared.session import Recovery, TestSet

_MIME = {
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".py": "text/x-python",
}


def label(recovery: Recovery | None) -> str:
    """What the files of an export hold, in words."""
    return recovery.label if recovery else "compressed, not recovered"


def start(
    chosen: Chosen,
    test_set: TestSet,
    recovery: Recovery | None,
    formats: Sequence[str],
    recover: Recover = "none",
) -> Job:
    """Queue the export of the recovered model, or of the compressed one.

    recover: what the job brings it through first.
    """
    network, at = chosen.network, chosen.plan
    stages = known_chain(network, at, test_set, recovery)
    with st.spinner("Queueing the export …"):
        return queue_export(
            recovery.model if recovery else networks.compressed(network, at),
            at,
            splits(network, test_set),
            formats,
            data=test_set.data,
            images=test_set.images,
            metrics=known_metrics(network, at, test_set, recovery),
            card=model_card.card(chosen, stages, latency.known(network, at, chosen_batch())),
            holds=label(recovery) if recover == "none" else STAGES[recover],
            recovered=recovery.weights_sha256 if recovery else None,
            recover=recover,
            dense=None if recover == "none" else network.model,
            weights=network.weights,
            subject=session_jobs.filed(_about(network, at)),
        )


def newest(network: Network, at: CompressionPlan) -> Job | None:
    """The newest export of this session."""
    found = session_jobs.jobs_about(_about(network, at))
    return found[-1] if found else None


def attached(network: Network, at: CompressionPlan) -> Job | None:
    """The export that the page shows: the address's, else the newest of this session."""
    job = session_jobs.shown(session_jobs.jobs_about(_about(network, at)))
    if job is not None:
        address.put(session.JOB, job.id)
    return job


def _about(network: Network, at: CompressionPlan) -> str:
    configuration = repr((KIND, network.configuration(at)))
    return hashlib.sha256(configuration.encode()).hexdigest()[:16]


def is_current(exported: ExportedFiles, recovery: Recovery | None) -> bool:
    """Whether the files hold the model that would be exported now."""
    return exported.recovered == (recovery.weights_sha256 if recovery else None)


def manifest(folder: Path) -> str:
    """The manifest that the files carry."""
    return (folder / MANIFEST).read_text(encoding="utf-8")


def proofs(artefacts: Sequence[Artefact]) -> pd.DataFrame:
    """One row per exported file, in words that wrap: its size, and what its proof found."""
    return pd.DataFrame(
        [
            {
                "file": artefact.path.name,
                "size": _sizes(artefact),
                "proved": _proved(artefact),
            }
            for artefact in artefacts
        ]
    )


def _proved(artefact: Artefact) -> str:
    if artefact.argmax_agreement is not None:
        found = f"same class for {100 * artefact.argmax_agreement:.4g} % of {artefact.n} images"
    else:
        error = 100 * (artefact.relative_error or 0)
        found = f"answers off by {error:.2g} % on {artefact.n} images"
    also = "" if artefact.also_at is None else "; at {}×{} as well".format(*artefact.also_at)
    return (
        f"{found}; logits within {artefact.max_difference:.1e}, on average "
        f"{artefact.mean_difference:.1e}{also}"
    )


def _sizes(artefact: Artefact) -> str:
    dense = artefact.dense_bytes
    return size(artefact.bytes) + (f", dense {size(dense)}" if dense is not None else "")


def proved(artefacts: Sequence[Artefact]) -> str:
    """What the proofs found, in a sentence."""
    found = "; ".join(f"{item.path.name}: {_proved(item)}" for item in artefacts)
    return f"Every file was read back by a fresh process and ran on real images: {found}"


def buttons(folder: Path, at: CompressionPlan, key: str = "download") -> None:
    """One download button per file, and one for all of them as a zip; key: begins theirs."""
    files = sorted(folder.iterdir())
    stem = file_stem(at)
    with st.container(horizontal=True):
        for path in files:
            st.download_button(
                f"{path.name} ({size(path.stat().st_size)})",
                path.read_bytes,
                file_name=path.name,  # the manifest knows its file by this name
                mime=_MIME.get(path.suffix, "application/octet-stream"),
                key=f"{key}-{path.name}",
                icon=":material/download:",
                on_click="ignore",
            )
        st.download_button(
            "All files (zip)",
            lambda: _zipped(folder, stem),
            file_name=f"{stem}.zip",
            mime="application/zip",
            key=f"{key}-all",
            type="primary",
            icon=":material/folder_zip:",
            on_click="ignore",
        )


def _zipped(folder: Path, stem: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="rsdtr-zip-") as place:
        target = Path(place) / f"{stem}.zip"
        write_zip(folder, target)
        return target.read_bytes()
