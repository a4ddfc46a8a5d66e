"""README.md of an export: what the model is, how to run it, what was measured and proved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from rsdtr.compressed.manifest import FILES, REPORT, WEIGHTS, Manifest
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import ModelSpec
from rsdtr.system.templates import text_template

_TEMPLATE = text_template(Path(__file__).with_name("templates") / "README.md.j2")


def readme(manifest: Manifest, spec: ModelSpec) -> str:
    """The text of README.md; `manifest` knows the proofs of the files it names."""
    return _TEMPLATE.render(
        manifest=manifest,
        plan=manifest.plan,
        spec=spec,
        files=FILES,
        runs=_runs(manifest),
        report=REPORT,
        shape=", ".join(map(str, spec.input_shape)),
        mean=", ".join(map(str, spec.mean)),
        std=", ".join(map(str, spec.std)),
        origin=_origin(spec, manifest.metrics.get("weights")),
        accuracy=_accuracy(manifest.metrics),
    )


def _runs(manifest: Manifest) -> str:
    """The file that the README shows how to run."""
    if WEIGHTS in manifest.files:
        return WEIGHTS
    if FILES["pt2"] in manifest.files and len(manifest.proofs) == 1:
        return FILES["pt2"]
    return FILES["onnx"] if "onnx" in manifest.proofs else FILES["int8"]


def _origin(spec: ModelSpec, weights: JsonValue) -> str:
    """weights: as the metrics tell of them, see `compressed.saved.weights_told`."""
    source = WeightsSource.of(None if weights is None else str(weights))
    if source.published:
        return f"Architecture and weights: {spec.source}."
    given = "seeded ones that nobody trained" if source.synthetic else f"given as `{weights}`"
    return f"Architecture: {spec.source.partition(';')[0]}; weights: {given}."


def _accuracy(metrics: Mapping[str, JsonValue]) -> str:
    accuracy, interval = metrics.get("accuracy"), metrics.get("interval")
    if not isinstance(accuracy, int | float):
        return "Its accuracy was not measured at this export."
    within = ""
    if isinstance(interval, list) and len(interval) == 2:
        within = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})"
    return (
        f"Accuracy {accuracy:.2f} %{within} of {metrics.get('n', '?')} images of "
        f"{metrics.get('data', 'the test set')}."
    )
