"""One call from a network and what may be lost to the smallest, or fastest, that loses no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rsdtr.autopilot.budget import Budget
from rsdtr.autopilot.files import card_of, formats_for, write_files
from rsdtr.autopilot.search import Doing, Found, Trial, smallest_within
from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.data.image_sets import carved
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import RsdtrError
from rsdtr.models.model_loading import load_model
from rsdtr.models.own_networks import described
from rsdtr.models.weights_source import PUBLISHED
from rsdtr.models.zoo import ModelSpec, model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.winners_on_disk import load_winners

ONE_IN = (2, 10)  # of images that nobody split: for the test, and of the rest for validation


def auto(
    net: nn.Module | str,
    data: DataSplits | ImageSource | str | Path | None = None,
    max_drop: float = 1.0,
    *,
    out: str | Path | None = None,
    formats: Sequence[str] = (),
    should_stop: Callable[[], bool] = lambda: False,
    on_trial: Callable[[Trial, int, int], None] | None = None,
    doing: Doing | None = None,
    **means: Any,
) -> Found:
    """The smallest network, or the fastest, that loses at most max_drop points of accuracy.

    net: an nn.Module, which is not changed, or the name of a model; data: its splits, for a name
    also what `load_data` takes, for a module also a Dataset, a DataLoader, or a pair of images and
    labels, half of which then test; without labels, fidelity takes the place of accuracy. means:
    those of `Budget`, as `purpose="speed"` or `epochs=5`. out: a folder, or one .zip, for the files
    that `export` writes and proves. The answer has `.model` and `.plan`, and its `str` says in one
    sentence what was found. Errors: those of `smallest_within` and `export`.
    """
    budget = Budget(max_drop=max_drop, **means)
    dense = load_model(net) if isinstance(net, str) else net
    if isinstance(data, DataSplits):
        splits = data
    elif isinstance(data, str | Path) or data is None:
        splits = load_data(data, model_spec(net) if isinstance(net, str) else _spec(net))
    else:
        splits = _carved(dense, data)
    costs = profile(dense, splits.test.spec)
    load_winners(costs)
    found = smallest_within(
        dense, costs, splits, budget, should_stop=should_stop, on_trial=on_trial, doing=doing
    )
    if out is not None:
        card = (
            card_of(found, costs, net, PUBLISHED, budget.layers) if isinstance(net, str) else None
        )
        write_files(found, splits, formats_for(budget.int8, formats), out, card=card)
    return found


def _spec(net: nn.Module) -> ModelSpec:
    """How a network takes pictures, which it carries itself."""
    carried = getattr(net, "spec", None)
    if not isinstance(carried, ModelSpec):
        raise RsdtrError(
            f"auto was given a folder of pictures, and nothing tells how {type(net).__name__} "
            "takes them: give a Dataset of (image, label), or the splits of load_data"
        )
    return carried


def _carved(net: nn.Module, data: Any) -> DataSplits:
    """Images that nobody split, as this network takes them."""
    shown = images_of(data).inputs(slice(0, 2))
    spec = described(net, shown)
    return carved(f"the images of {spec.name}", images_of(data, spec), ONE_IN)
