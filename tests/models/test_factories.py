"""package.module:function: what it may answer, what is told where it does not, RSDTR_MODELS."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rsdtr.errors import JobError, RsdtrError
from rsdtr.jobs.kinds.network_job import check_buildable
from rsdtr.models import load_model, model_names, model_spec, zoo
from rsdtr.models.factories import factory_spec, is_factory, server_models
from tests.support.command_line import done, refused

CODE = """
from torch import nn

def plain():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

def told():
    return plain(), {"input_shape": (3, 10, 12), "class_names": tuple("abcd"),
                     "std": (2,) * 3}

def fewer():
    return plain(), {"input_shape": (3, 10, 12), "classes": 4, "task": "classification"}

def no_network():
    return 3

def odd():
    return plain(), {"input_shape": (3, 10, 12), "colour": "red"}

def broken():
    raise ValueError("no disk\\nmore")
"""


@pytest.fixture(autouse=True)
def no_own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))
    monkeypatch.delenv("RSDTR_MODELS", raising=False)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with somebody's module, in which this process works."""
    (tmp_path / "theirs.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("theirs", None)


def written(code: Path) -> Path:
    """Weights of that network, of another seed than the one that is built."""
    import theirs

    torch.manual_seed(7)
    save_file(theirs.plain().state_dict(), code / "mine.safetensors")
    return code / "mine.safetensors"


def test_words_of_other_sources_are_no_factories() -> None:
    assert is_factory("a.b:c")
    assert not any(map(is_factory, ("timm:resnet50", "hf:owner", "a.b", "a:b:c", "a/b:c", "1a:b")))


def test_planned_compressed_and_read_back_from_the_command_line(code: Path) -> None:
    factory_spec("theirs:plain", (3, 10, 12))
    file = written(code)
    asked = ["theirs:plain", "--input-size", "3x10x12", "--weights", str(file), "--layers", "all"]
    told = json.loads(done("plan", *asked, "--eps", "0.9", "--json").stdout)
    assert (told["model"], [layer["shape"] for layer in told["layers"]]) == (
        "theirs:plain", [[8, 3, 3, 3], [8, 8, 3, 3]],
    )  # fmt: skip
    done("compress", *asked, "--eps", "0.9", "--out", "small")
    manifest = json.loads((code / "small" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["spec"]["source"] == "theirs:plain, given by its user"
    assert manifest["metrics"]["weights"] == "mine.safetensors"
    assert torch.equal(
        load_model("theirs:plain", file)[0].weight,
        load_model("theirs:plain", file)[0].weight,
    )
    zoo._OWN.clear()  # as another process
    said = refused("evaluate", "small", "--data", "photos")
    assert "--factory theirs:plain" in said  # and nothing was imported for the folder's sake
    told = done(
        "bench", "small", "--factory", "theirs:plain", "--runs", "2", "--engine", "eager",
        "--scope", "network", "--json",
    )  # fmt: skip
    assert json.loads(told.stdout)["rows"]


def test_a_folder_does_not_say_what_is_imported(code: Path) -> None:
    done("compress", "theirs:told", "--eps", "0.9", "--layers", "all", "--out", "small")
    zoo._OWN.clear()
    sys.modules.pop("theirs")
    refused("export", "small", "--format", "onnx", "--out", "files", "--data", "photos")
    assert "theirs" not in sys.modules


def test_what_the_function_tells_is_taken(code: Path) -> None:
    spec = factory_spec("theirs:told")
    assert (spec.input_shape, spec.classes, spec.task) == ((3, 10, 12), 4, "classification")
    assert (spec.class_names, spec.std) == (("a", "b", "c", "d"), (2, 2, 2))
    assert factory_spec("theirs:fewer").classes == 4
    assert copy.copy(spec) == spec.written  # as a pickle has it: without the network


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("theirs:plain",), "does not say what its network takes: give --input-size CxHxW"),
        (("theirs:no_network",), "theirs:no_network answers int: let it answer an nn.Module"),
        (("theirs:odd",), "answers a dict that own_model does not take"),
        (("theirs:broken",), r"theirs:broken raises ValueError (no disk): call it by hand"),
        (("theirs:none",), "cannot be imported"),
        (("theirs:plain", "--input-size", "3x10"), "give CxHxW, as in 3x224x224"),
        (("digits_resnet20", "--input-size", "3x9x9"), "--input-size is for package.module:func"),
        (
            ("theirs:plain", "--input-size", "4x9x9"),
            "does not run on example inputs of shape (1, 4",
        ),
    ],
)
def test_what_makes_no_model_is_one_sentence(code: Path, words: tuple[str, ...], said: str) -> None:
    assert said in refused("plan", *words)


def test_a_server_s_owner_names_models_at_the_start(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory_spec("theirs:told")  # the folder of the module is left out of sys.path again
    file = written(code)
    monkeypatch.setenv("RSDTR_MODELS", f"theirs:told={file}, theirs:plain")
    assert server_models() == {"theirs:told": file, "theirs:plain": None}
    assert {"theirs:told", "theirs:plain"} <= set(model_names())
    assert model_spec("theirs:told").class_names == ("a", "b", "c", "d")
    state = load_model("theirs:told").state_dict()
    torch.manual_seed(7)
    import theirs

    assert all(
        torch.equal(value, state[name]) for name, value in theirs.plain().state_dict().items()
    )
    check_buildable("theirs:told")  # every process of this server knows it
    with pytest.raises(JobError, match="name what builds it in RSDTR_MODELS"):
        check_buildable("theirs:other")
    monkeypatch.setenv("RSDTR_MODELS", "theirs")
    with pytest.raises(RsdtrError, match=r"RSDTR_MODELS names 'theirs': give package\.module"):
        model_names()
