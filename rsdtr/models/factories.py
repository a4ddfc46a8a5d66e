"""package.module:function, which builds a network of somebody's own.

Code is only imported where its owner names it: by a word that was typed, in Python, or in
RSDTR_MODELS when a server was started. No file and no address ever names code that is run.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rsdtr.errors import RsdtrError, first_line
from rsdtr.models import hub, timm_networks
from rsdtr.models.own_networks import OwnSpec, Shape, described, own_spec
from rsdtr.models.weights import fill, read_for

FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_factory(word: str) -> bool:
    """Whether a word has the form package.module:function, and is none of another source."""
    return FACTORY.fullmatch(word) is not None and not word.startswith(
        (timm_networks.PREFIX, hub.PREFIX)
    )


def imported_factory(name: str) -> Callable[[], Any]:
    """What `package.module:function` names, also in the current folder; RsdtrError if nothing."""
    module_name, _, function = name.partition(":")
    if not module_name or not function:
        raise RsdtrError(f"{name!r} names no factory: give package.module:function")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise RsdtrError(
            f"{name} cannot be imported ({error}): give package.module:function, and start in the "
            "folder that the package lies in"
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise RsdtrError(f"{name} is {type(found).__name__}: name a function that builds a network")
    build: Callable[[], Any] = found
    return build


def network_factory(word: str) -> Callable[[], nn.Module]:
    """What calls `package.module:function` for a network; errors as `factory_spec`."""
    build = imported_factory(word)
    return lambda: _answered(word, build)[0]


def factory_spec(
    word: str, input_shape: Shape | None = None, weights: Path | None = None
) -> OwnSpec:
    """The spec of what `package.module:function` builds; its code is imported and run.

    The function answers the network, or a pair of it and a dict of what `own_model` takes by name
    (`input_shape`, `task`, `class_names`, `mean`, `std`, …). input_shape: (C, H, W), where the
    function does not tell; weights: a file that every network it builds is filled with.
    RsdtrError where it cannot be imported, raises, or answers something else.
    """
    build = imported_factory(word)
    network, facts = _answered(word, build)
    told = facts.pop("input_shape", None)
    shape = input_shape or told
    example = facts.pop("example_inputs", None)
    if example is None:
        if shape is None:
            raise RsdtrError(
                f"{word} does not say what its network takes: give --input-size CxHxW, or let it "
                'answer the network and {"input_shape": (C, H, W)}'
            )
        example = torch.zeros(1, *shape)

    def filled() -> nn.Module:
        again, _ = _answered(word, build)
        if weights is not None:
            fill(again, read_for(again, weights), str(weights))
        return again

    classes = facts.pop("classes", None)
    try:
        spec = described(
            network, example, name=word, factory=filled, source=f"{word}, given by its user",
            **facts,
        )  # fmt: skip
        if classes is not None:
            spec = own_spec(
                word, filled, spec.input_shape, classes, task=spec.task,
                example_inputs=spec.example_inputs, source=spec.source,
                **{key: value for key, value in facts.items() if key != "task"},
            )  # fmt: skip
    except TypeError as error:
        raise RsdtrError(
            f"{word} answers a dict that own_model does not take ({error}): name input_shape, "
            "classes, task, class_names, mean, std and the like"
        ) from error
    return spec


def _answered(word: str, build: Callable[[], Any]) -> tuple[nn.Module, dict[str, Any]]:
    try:
        answer = build()
    except Exception as error:  # whatever somebody's code raises
        said = first_line(error)
        raise RsdtrError(
            f"{word} raises {type(error).__name__} ({said}): call it by hand"
        ) from error
    network, facts = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, {})
    if not isinstance(network, nn.Module) or not isinstance(facts, Mapping):
        raise RsdtrError(
            f"{word} answers {type(answer).__name__}: let it answer an nn.Module, or a pair of one "
            "and a dict of what own_model takes by name"
        )
    return network, dict(facts)


def server_models() -> dict[str, Path | None]:
    """What RSDTR_MODELS names, package.module:function → its file of weights, or None.

    RsdtrError for a text that is no list of package.module:function[=FILE].
    """
    found: dict[str, Path | None] = {}
    for entry in filter(None, map(str.strip, os.environ.get("RSDTR_MODELS", "").split(","))):
        word, _, file = entry.partition("=")
        if not is_factory(word):
            raise RsdtrError(
                f"RSDTR_MODELS names {entry!r}: give package.module:function, or "
                "package.module:function=FILE, with commas between them"
            )
        found[word] = Path(file).expanduser() if file else None
    return found


@functools.cache
def server_spec(word: str, weights: Path | None) -> OwnSpec:
    """The spec of one of them."""
    return factory_spec(word, weights=weights)
