"""What may stand in the field of the model, and in an address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsdtr.ui.plan.plan_inputs import MOST_SIGNS, _model
from rsdtr.ui.shared import session
from tests.support.pages import app, shown


def test_words_are_taken_and_never_a_folder_or_code(tmp_path: Path, monkeypatch) -> None:
    for word in ("resnet18", "timm:resnet10t", "timm:resnet10t@7", "hf:owner/name"):
        assert _model(word) == word
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet10t"}))
    for word in (
        str(tmp_path),
        "os:getcwd",
        "timm:no_such",
        "hf:a",
        "hf:a/" + "b" * MOST_SIGNS,
        None,
    ):
        assert _model(word) is None
    monkeypatch.setenv("RSDTR_MODELS", "os:getcwd")  # the server's owner names it
    assert _model("os:getcwd") == "os:getcwd"


@pytest.mark.parametrize("word", ["timm:resnet10t"])
def test_a_typed_model_is_shown(word: str) -> None:
    test = shown(app(model=word, weights="none"))
    assert test.selectbox(key=session.MODEL).value == word
    assert "Synthetic weights" in test.warning[0].value


def test_the_layers_follow_the_model_unless_the_address_says_which() -> None:
    test = app(weights="none")
    assert test.button_group(key=session.POLICY).value == "paper"
    test.selectbox(key=session.MODEL).set_value("squeezenet1_1").run()
    assert not test.exception
    assert test.button_group(key=session.POLICY).value == "auto"
    assert "layers" not in test.query_params
    test.selectbox(key=session.MODEL).set_value("digits_resnet20").run()
    assert test.button_group(key=session.POLICY).value == "paper"
    asked = app(model="squeezenet1_1", weights="none", layers="paper")
    assert asked.button_group(key=session.POLICY).value == "paper"
    assert asked.query_params["layers"] == "paper"
