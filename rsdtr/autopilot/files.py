"""What the autopilot found, as proved files, and told in the words of `evaluate --json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from rsdtr.autopilot.search import Found
from rsdtr.data.datasets import DataSplits
from rsdtr.exports.export import FORMATS, Artefact, export
from rsdtr.exports.model_card import ModelCard, model_card
from rsdtr.models.weights_source import WeightsSource
from rsdtr.planning.choices import Asked, Choices
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.typing import Progress


def formats_for(found_in_int8: bool, formats: Sequence[str] = ()) -> tuple[str, ...]:
    """The formats that are written where nobody names them; int8 is one where it was judged by."""
    named = tuple(formats) or ("safetensors", "onnx")
    missing = found_in_int8 and "int8" not in named
    return tuple(form for form in FORMATS if form in named or (missing and form == "int8"))


def write_files(
    found: Found,
    data: DataSplits,
    formats: Sequence[str],
    out: str | Path,
    *,
    card: ModelCard | None = None,
    progress: Progress | None = None,
) -> list[Artefact]:
    """Export what was found with its report; formats, out and errors: as `export` has them.

    card: what the report tells, by default what the network itself does.
    """
    from rsdtr.charts.html_report import report_html  # draws, and so loads Plotly

    return export(
        found.model, found.plan, data.test, formats, out, calibration=data.train,
        metrics=told(found, data.test.name), report=None if card is None else report_html(card),
        progress=progress,
    )  # fmt: skip


def card_of(
    found: Found, costs: ModelProfile, model: str, weights: WeightsSource,
    layers: str | tuple[str, ...] | None,
) -> ModelCard:  # fmt: skip
    """The model card of what was found in a network of the zoo."""
    choices = Choices(
        rule="tight", target=found.plan.target, objective=found.plan.objective, layers=layers
    )
    stages = [("dense", found.dense), (found.stage, found.reached)]
    return model_card(
        costs, found.plan, asked=Asked(model, choices, weights, None, None),
        accuracies=stages if found.measure == "accuracy" else (),
    )  # fmt: skip


def told(found: Found, data: str) -> dict[str, JsonValue]:
    """What was found, in the words of `evaluate --json`, beside the dense network's.

    Without labels `fidelity` takes the place of `accuracy`: percent of images that it gives the
    dense network's answer for.
    """
    reached = dict(found.reached.told)
    if found.measure == "fidelity":
        reached = {"fidelity": reached.pop("accuracy")} | reached
    answer: dict[str, JsonValue] = {"data": data, **reached}
    if found.measure == "accuracy":
        answer["dense_accuracy"] = found.dense.percent
    answer |= {
        "drop": found.drop.points, "max_drop": found.max_drop,
        "drop_interval": list(found.drop.interval),
        "recovered": found.stage,
    }  # fmt: skip
    if found.int8:
        answer["int8"] = True
    if found.speed:
        answer["latency"] = {
            "engine": found.speed.engine, "batch": found.speed.batch, "ratio": found.speed.ratio,
            "median_ms": found.speed.milliseconds, "dense": found.speed.dense,
        }  # fmt: skip
    return answer
