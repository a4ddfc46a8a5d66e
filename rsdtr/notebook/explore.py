"""One call that opens a network in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from torch import nn

from rsdtr.data.datasets import data_identity, is_at_hand, load_data
from rsdtr.data.image_sets import DataSplits
from rsdtr.errors import RsdtrError
from rsdtr.models.model_loading import load_model
from rsdtr.models.own_networks import Preparation, described
from rsdtr.models.run import Example
from rsdtr.models.weights_source import WeightsLike, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.notebook.explorer import GIVEN, Explorer, Shown, known_rule, on_the_slider
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.search.candidate import Rule


def explore(
    network: str | nn.Module,
    example_inputs: Example | None = None,
    *,
    eps: float = Choices.eps,
    rule: Rule = "paper",
    layers: str | Sequence[str] | None = None,
    weights: WeightsLike = None,
    data: str | Path | DataSplits | None = None,
    **said: Unpack[Preparation],
) -> Explorer:
    """Move ε_p of a network and see what becomes of it; in a notebook the last thing of a cell.

    network: a model's name, with weights as `load_model` takes them, or any nn.Module, with
    example_inputs and what else is said of it as `shrink` takes them. layers: a policy as in
    `plan`, by default that which is usual for the model. data: images whose
    labels accuracy is measured by, a name or folder as `load_data` takes it, or its DataSplits; by
    default those of the model, where they are on this machine. RsdtrError for what does not fit.
    """
    if isinstance(network, str):
        if example_inputs is not None or said:
            raise RsdtrError(
                f"{network} is the name of a model, which is known: leave example_inputs and how "
                "its pictures are prepared out, or give an nn.Module"
            )
        spec, source = model_spec(network), WeightsSource.of(weights)
        dense, policy = load_model(network, source), layers
        has_own = not source.synthetic and spec.data is not None and is_at_hand(None, spec)
        data = spec.data if data is None and has_own else data
    else:
        if example_inputs is None or weights is not None:
            raise RsdtrError(
                f"{type(network).__name__} was given "
                f"{'no example_inputs' if example_inputs is None else 'weights'}: give one input "
                "that it runs on, with a batch in front, and no weights, which it has"
            )
        spec, policy = described(network, example_inputs, **said), layers
        dense = network
    if spec.task != "classification" and data is None:
        splits, identity = None, GIVEN
    elif isinstance(data, DataSplits) or data is None:
        splits, identity = data, GIVEN
    else:
        splits, identity = load_data(data, spec), data_identity(data, spec)
    if splits is not None:
        splits.test.check_labelled("accuracy")
    costs = profile(dense, spec)
    load_winners(costs)
    choices = Choices(
        eps=on_the_slider(eps), rule=known_rule(rule),
        layers=policy if policy is None or isinstance(policy, str) else tuple(policy),
    )  # fmt: skip
    return Explorer(dense, spec, costs, choices, splits, identity, draw=_panel)


def _panel(of: Explorer) -> Shown:
    from rsdtr.notebook.panel import Panel  # its widgets are of the extra `notebook`

    return Panel(of)
