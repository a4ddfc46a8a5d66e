"""README.md of an export: what the model is, how to run it, what was measured and proved."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from rsdtr.compressed.manifest import FILES, REPORT, WEIGHTS, Manifest
from rsdtr.models.zoo import ModelSpec
from rsdtr.planning.plan import CompressionPlan

_TEXT = """\
# {model}, compressed with tensor rings

{label}: every compressed convolution is a ring of four cores (RSDTR,
[arXiv 2405.10802](https://arxiv.org/abs/2405.10802)).

## Run it

{run}
## What it is

{facts}

## Files

A fresh process ran each file on images of {data}, one by one and in fives, and compared its logits
with those of the model that was exported.

| file | largest difference | mean difference | {same} |
|---|---|---|---|
{proofs}

{report}`manifest.json` holds the plan, these numbers and the SHA-256 of every file;
`python -m rsdtr verify` repeats the proof.
"""
_REPORT = (
    "`report.html` shows what became of each layer; a browser opens it, without a network.\n\n"
)
_RUN_CORES = """\
    import torch, rsdtr_model  # rsdtr_model.py needs torch alone
    network = rsdtr_model.load("model.safetensors")
    pixels = torch.zeros(1, {shape}, dtype=torch.uint8)  # your images, 0..255
    logits = network(rsdtr_model.normalise(pixels))
    print(logits.argmax(1))
"""
_RUN_BOXES = """\
    import torch
    from rsdtr import load  # of the program that wrote these files
    network = load(".").model
    pixels = torch.zeros(1, {shape}, dtype=torch.uint8)  # your images, 0..255
    (found,) = network(list(pixels.float() / 255))
    print(found["boxes"], found["labels"], found["scores"])
"""
_RUN_ONNX = """\
    import numpy, onnxruntime
    session = onnxruntime.InferenceSession("{file}")
    images = numpy.zeros((1, {shape}), numpy.float32)  # (pixels / 255 - {mean}) / {std}
    (logits,) = session.run(["logits"], {{"images": images}})
    print(logits.argmax(1))
"""
_RUN_PT2 = """\
    import torch
    network = torch.export.load("model.pt2").module()
    images = torch.zeros(1, {shape})  # (pixels / 255 - {mean}) / {std}
    logits = network(images)
    print(logits.argmax(1))
"""


def readme(manifest: Manifest, spec: ModelSpec) -> str:
    """The text of README.md; `manifest` knows the proofs of the files it names."""
    plan = manifest.plan
    proofs = "\n".join(
        f"| {FILES[form]} | {proof.max_difference:.2g} | {proof.mean_difference:.2g} "
        f"| {proof.told} |"
        for form, proof in sorted(manifest.proofs.items())
    )
    return _TEXT.format(
        model=plan.model,
        label=plan.label,
        run=_run(manifest, spec),
        facts="\n".join(_facts(plan, spec, manifest.metrics)),
        data=manifest.data,
        proofs=proofs,
        report=_REPORT if REPORT in manifest.files else "",
        same="same strongest output" if spec.task == "detection" else "same class",
    )


def _run(manifest: Manifest, spec: ModelSpec) -> str:
    shape = ", ".join(map(str, spec.input_shape))
    mean, std = (", ".join(map(str, values)) for values in (spec.mean, spec.std))
    if spec.task == "detection":
        return _RUN_BOXES.format(shape=shape)
    if WEIGHTS in manifest.files:
        return _RUN_CORES.format(shape=shape)
    if FILES["pt2"] in manifest.files and len(manifest.proofs) == 1:
        return _RUN_PT2.format(shape=shape, mean=f"[{mean}]", std=f"[{std}]")
    file = FILES["onnx"] if "onnx" in manifest.proofs else FILES["int8"]
    return _RUN_ONNX.format(file=file, shape=shape, mean=f"[{mean}]", std=f"[{std}]")


def _origin(spec: ModelSpec, weights: JsonValue) -> str:
    """weights: as the metrics tell of them, see `kinds.network.weights_told`."""
    if weights is None:
        return f"- Architecture and weights: {spec.source}."
    given = "seeded ones that nobody trained" if weights == "none" else f"given as `{weights}`"
    return f"- Architecture: {spec.source.partition(';')[0]}; weights: {given}."


def _order(spec: ModelSpec) -> str:
    return f" in the order {spec.channel_order}" if spec.channel_order != "RGB" else ""


def _facts(plan: CompressionPlan, spec: ModelSpec, metrics: Mapping[str, JsonValue]) -> list[str]:
    shape = "×".join(map(str, spec.input_shape))
    mean, std = (", ".join(map(str, values)) for values in (spec.mean, spec.std))
    params, macs = plan.params, plan.macs
    facts = [
        _origin(spec, metrics.get("weights")),
        f"- Input {shape}{_order(spec)}, normalised with mean {mean} and standard deviation {std}.",
        f"- {spec.classes} classes.",
        f"- Parameters {params.original:,} → {params.compressed:,} (PCR {plan.pcr:.3f}).",
        f"- MACs {macs.original:,} → {macs.compressed:,} (FCR {plan.fcr:.3f}).",
    ]
    accuracy, interval = metrics.get("accuracy"), metrics.get("interval")
    if isinstance(accuracy, int | float):
        within = ""
        if isinstance(interval, list) and len(interval) == 2:
            within = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})"
        facts.append(
            f"- Accuracy {accuracy:.2f} %{within} of {metrics.get('n', '?')} images of "
            f"{metrics.get('data', 'the test set')}."
        )
    else:
        facts.append("- Its accuracy was not measured at this export.")
    return facts
