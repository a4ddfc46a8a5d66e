"""Exporting inside a page's run, and the buttons that hand the proved files out."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from rsdtr.archive import write_zip
from rsdtr.export import Artefact, export
from rsdtr.manifest import MANIFEST
from rsdtr.plan import CompressionPlan
from rsdtr.report import report_html
from rsdtr.ui import cached, latency, sharing, state
from rsdtr.ui.choosing import Chosen, chosen_batch
from rsdtr.ui.measuring import known_chain, known_metrics, splits
from rsdtr.ui.metrics import file_stem, size
from rsdtr.ui.page import progress
from rsdtr.ui.state import Exported, Recovery, TestSet

_MIME = {
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".py": "text/x-python",
}


def label(recovery: Recovery | None) -> str:
    """What the files of an export hold, in words."""
    return recovery.label if recovery else "compressed, not recovered"


def run_export(
    chosen: Chosen, test_set: TestSet, recovery: Recovery | None, formats: Sequence[str]
) -> None:
    """Export the recovered model, or the compressed one, and remember the proved files."""
    network, at = chosen.network, chosen.plan
    store, configuration = state.exports(), network.configuration(at)
    model = recovery.model if recovery else cached.compressed(network, at)
    known = splits(network, test_set)
    images = known.test.subset(test_set.images)
    stages = known_chain(network, at, test_set, recovery)
    report = report_html(sharing.card(chosen, stages, latency.known(network, at, chosen_batch())))
    folder = Path(tempfile.mkdtemp(prefix="rsdtr-export-"))
    try:
        with progress("Exporting and proving, steps") as show:
            artefacts = export(
                model,
                at,
                images,
                formats,
                folder / at.model,
                calibration=known.train,
                metrics=known_metrics(network, at, test_set, recovery),
                report=report,
                progress=show,
            )
    except BaseException:  # a click interrupts the run with one that is no Exception
        shutil.rmtree(folder, ignore_errors=True)
        raise
    identity = recovery.weights_sha256 if recovery else None
    exported = Exported(label(recovery), identity, folder / at.model, tuple(artefacts))
    # The files live as long as the session remembers them.
    weakref.finalize(exported, shutil.rmtree, folder, ignore_errors=True)
    state.keep(store, configuration, exported)


def is_current(exported: Exported, recovery: Recovery | None) -> bool:
    """Whether the files hold the model that would be exported now."""
    return exported.weights_sha256 == (recovery.weights_sha256 if recovery else None)


def manifest(exported: Exported) -> str:
    """The manifest that the files carry."""
    return (exported.folder / MANIFEST).read_text(encoding="utf-8")


def proofs(artefacts: Sequence[Artefact]) -> pd.DataFrame:
    """One row per exported file, in words that wrap: its size, and what its proof found."""
    return pd.DataFrame(
        [
            {
                "file": artefact.path.name,
                "size": _sizes(artefact),
                "proved": f"same class for {100 * artefact.argmax_agreement:.4g} % of "
                f"{artefact.n} images; logits within {artefact.max_difference:.1e}, on average "
                f"{artefact.mean_difference:.1e}",
            }
            for artefact in artefacts
        ]
    )


def _sizes(artefact: Artefact) -> str:
    dense = artefact.dense_bytes
    return size(artefact.bytes) + (f", dense {size(dense)}" if dense is not None else "")


def buttons(exported: Exported, at: CompressionPlan) -> None:
    """One download button per file, and one for all of them as a zip."""
    files = sorted(exported.folder.iterdir())
    stem = file_stem(at)
    with st.container(horizontal=True):
        for path in files:
            st.download_button(
                f"{path.name} ({size(path.stat().st_size)})",
                path.read_bytes,
                file_name=path.name,  # the manifest knows its file by this name
                mime=_MIME.get(path.suffix, "application/octet-stream"),
                key=f"download-{path.name}",
                icon=":material/download:",
                on_click="ignore",
            )
        st.download_button(
            "All files (zip)",
            lambda: _zipped(exported.folder, stem),
            file_name=f"{stem}.zip",
            mime="application/zip",
            key="download-all",
            type="primary",
            icon=":material/folder_zip:",
            on_click="ignore",
        )


def _zipped(folder: Path, stem: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="rsdtr-zip-") as place:
        target = Path(place) / f"{stem}.zip"
        write_zip(folder, target)
        return target.read_bytes()
