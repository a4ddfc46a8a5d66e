"""Exporting inside a page's run, and the buttons that hand the proved files out."""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from rsdtr.export import export
from rsdtr.plan import CompressionPlan
from rsdtr.saved import MANIFEST
from rsdtr.ui import cached, state
from rsdtr.ui.cached import Network
from rsdtr.ui.measuring import known_metrics, splits
from rsdtr.ui.metrics import file_stem, size
from rsdtr.ui.page import progress
from rsdtr.ui.state import Exported, Recovery, TestSet


def label(recovery: Recovery | None) -> str:
    """What the files of an export hold, in words."""
    return recovery.label if recovery else "compressed, not recovered"


def run_export(
    network: Network,
    at: CompressionPlan,
    test_set: TestSet,
    recovery: Recovery | None,
    formats: Sequence[str],
) -> None:
    """Export the recovered model, or the compressed one, and remember the proved files."""
    store, configuration = state.exports(), network.configuration(at)
    model = recovery.model if recovery else cached.compressed(network, at)
    images = splits(network, test_set).test.subset(test_set.images)
    folder = Path(tempfile.mkdtemp(prefix="rsdtr-export-"))
    try:
        with progress("Exporting and proving, steps") as show:
            artefacts = export(
                model,
                at,
                images,
                formats,
                folder / at.model,
                metrics=known_metrics(network, at, test_set, recovery),
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


def manifest(exported: Exported, at: CompressionPlan) -> str:
    """The manifest that lies beside model.safetensors; the bare plan if that was not exported."""
    path = exported.folder / MANIFEST
    return path.read_text(encoding="utf-8") if path.exists() else at.model_dump_json()


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
                mime="application/json" if path.suffix == ".json" else "application/octet-stream",
                key=f"download-{path.name}",
                icon=":material/download:",
                on_click="ignore",
            )
        st.download_button(
            "All files (zip)",
            lambda: _zipped(files, stem),
            file_name=f"{stem}.zip",
            mime="application/zip",
            key="download-all",
            type="primary",
            icon=":material/folder_zip:",
            on_click="ignore",
        )


def _zipped(files: Sequence[Path], stem: str) -> bytes:
    buffer = io.BytesIO()
    # Weights do not compress: storing them is as small and much faster.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            archive.write(path, f"{stem}/{path.name}")
    return buffer.getvalue()
