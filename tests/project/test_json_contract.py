"""The words of the command line's JSON are those that docs/command-line.md names, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields

import pytest
from click.testing import CliRunner

from rsdtr.baselines.comparison import Cell, Comparison
from rsdtr.commands.cli import cli
from rsdtr.compressed.manifest import Manifest, Proof
from rsdtr.exports.export import Artefact
from rsdtr.measuring.fidelity import Fidelity
from rsdtr.measuring.stopwatch import Timing
from rsdtr.planning.plan import LayerPlan, MeasuredOn, NotCounted, Target
from tests.support.checkout import ROOT
from tests.support.onnx_graphs import small_network, written

TEXT = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8").partition("## JSON")[2]
# Told where they belong.
ELSEWHERE = {"plan", "spec", "metrics", "libraries", "proofs", "fidelity", "before_refit"}
NAME = "digits_resnet20"


def told(command: str) -> set[str]:
    """The words that the page names for a command: those of its spans with a comma or []."""
    begin = TEXT.index(f"**`{command}")
    paragraph = TEXT[begin:].partition("\n\n")[0].partition("**")[2].partition("**")[2]
    spans = [span for span in re.findall(r"`([^`]+)`", paragraph) if re.search(r",|\[\]", span)]
    return {word for span in spans for word in re.findall(r"[a-z][a-z0-9_]*", span)}


def words(content: object) -> Iterator[str]:
    """Every key, however deep, but not below what another command is told of."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            if key not in ELSEWHERE:
                yield from words(value)
    if isinstance(content, list):
        for item in content:
            yield from words(item)


def printed(*arguments: str) -> set[str]:
    done = CliRunner().invoke(cli, list(arguments))
    assert done.exit_code == 0, done.stderr
    return set(words(json.loads(done.stdout)))


LIVE = {
    "models": ["models", "--json"],
    "ratio": ["ratio", NAME, "--eps", "0.6", "--json"],
    "profile": ["profile", NAME, "--layers", "layer3.2.conv2", "--json"],
}


@pytest.mark.parametrize("command", LIVE)
def test_the_json_that_the_documentation_names_is_the_one_that_is_printed(command):
    assert printed(*LIVE[command]) == told(command)


def test_a_plan():
    found = printed("plan", NAME, "--eps", "0.6", "--json")
    more = {name for kind in (Target, MeasuredOn, NotCounted) for name in kind.model_fields}
    assert "groups" not in found  # nor kind: of the paper's networks the plan is what it was
    assert "kind" not in found
    assert found | more | set(LayerPlan.model_fields) == told("plan")


def test_a_compressed_onnx_file(tmp_path):
    path = written(small_network(), tmp_path / "net.onnx")
    out = str(tmp_path / "small.onnx")
    size = ["--input-size", "11x9"]
    found = printed("compress", str(path), "--out", out, "--refit", "8", "--json", *size)
    assert found - told("plan") == told("compress") - told("plan") | {"out"}
    assert told("compress") - found == set()
    verified = printed("verify", out, "--against", str(path), "--json", *size)
    rings = {"stem", "block", "point", "head"}
    assert verified - rings == told("verify --against") - {"shift", "ranks", "form"}


def test_an_autopilot(tmp_path):
    words = ("--max-drop", "4", "--recover", "recalibrate", "--format", "safetensors")
    found = printed("auto", NAME, *words, "--out", str(tmp_path / "small"), "--json")
    assert found <= told("auto")
    others = {"assumed", "latency", "engine", "batch", "ratio", "median_ms", "dense"}
    assert told("auto") - found == others


def test_a_curve():
    found = printed("curve", NAME, "--json")
    assert found <= told("curve")
    # Nobody has timed its layers in this cache folder.
    assert told("curve") - found == {"assumed", "engine", "batch", "ratio"}


def test_an_evaluation():
    found = printed("evaluate", NAME, "--limit", "20", "--json")
    assert found <= told("evaluate")
    assert told("evaluate") - found == {"assumed", "fidelity", "quality", "psnr", "ssim"} | {
        f.name for f in fields(Fidelity)
    } - {"n", "interval"}


def test_a_card(tmp_path):
    path = tmp_path / "card.json"
    command = ["report", NAME, "--eps", "0.6", "--accuracy", "--out", str(path)]
    assert CliRunner().invoke(cli, command).exit_code == 0
    found = set(words(json.loads(path.read_text(encoding="utf-8"))))
    assert told("report") - found == {"assumed"}
    assert found <= told("report")


def test_what_takes_long_by_its_types():
    timing = {field.name for field in fields(Timing)}
    assert told("bench") == {"machine", "threads", "rows"} | timing
    cells = set(Comparison.model_fields) | set(Cell.model_fields)
    assert told("compare") == {"machine", "asked", "cells"} | cells
    artefact = {field.name for field in fields(Artefact)}
    assert told("export") == {"model", "artefacts"} | artefact
    assert told("verify") == {"place", "proofs"} | set(Proof.model_fields)
    assert told("manifest") == set(Manifest.model_fields) | {"bytes"}


def test_these_checks_can_fail():
    assert set(words({"a": [{"b": 1}], "plan": {"c": 2}})) == {"a", "b", "plan"}
    assert "pcr" in told("plan")
    assert "pcr" not in told("models")
