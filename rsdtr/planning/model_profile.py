"""What planning needs to know of a model: its layers, their sizes, costs and spectra."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rsdtr.errors import PlanError, UnknownName, first_line
from rsdtr.models.run import Example, first_of_each, give_lazy_layers_weights
from rsdtr.models.surgery import Weighted, copied, made_by
from rsdtr.models.zoo import ModelSpec, weights_sha256
from rsdtr.planning import obstacles
from rsdtr.planning.layer_calls import Call, Observation, observed, rehearsed
from rsdtr.planning.layer_profile import LayerProfile, Runs
from rsdtr.ring.cost import Size
from rsdtr.search.candidate import (
    Candidate,
    Question,
    Winners,
)
from rsdtr.system.safetensors_format import Entry, entries_of
from rsdtr.typing import Frozen


class NotCounted(Frozen):
    """What a network's MACs, PCR and FCR leave out: a part that multiplies and is no nn.Conv2d or
    nn.Linear, or a convolution that did not run.

    name: of the module that computes it; macs: for one input; share: of all MACs of the network;
    reason: in words.
    """

    name: str
    macs: int = Field(ge=0)
    share: float = Field(ge=0, le=1)
    reason: str

    def __str__(self) -> str:
        costs = f", {100 * self.share:.3g} % of the network's MACs" if self.macs else ""
        return f"{self.name}{costs} ({self.reason})"


@dataclass(frozen=True, eq=False)
class ModelProfile:
    """Every convolution and linear layer of a model in network order, and its whole costs.

    params: scalars in all parameters; macs: MACs of convolutions and linear layers for one input;
    not_counted: what else multiplies, and convolutions that did not run; entries: every tensor of
    its file; winners: the best rings that are known already; usual_layers: the layer policy where
    none is asked for.
    """

    model: str
    layers: tuple[LayerProfile, ...]
    params: int
    macs: int
    not_counted: tuple[NotCounted, ...]
    weights_sha256: str
    entries: Mapping[str, Entry]
    winners: Winners = field(default_factory=Winners)
    usual_layers: Literal["paper", "auto"] = "paper"

    def winner(self, layer: LayerProfile, question: Question) -> Candidate:
        """The best ring of one of these layers, searched now if it is not known yet."""
        found = self.winners.known(layer.name, question)
        if found is None:
            published = self.winners.known(layer.name, replace(question, rule="paper"))
            found = layer.search(question, published).winner
            self.winners.put(layer.name, question, found)
        return found

    def layer(self, name: str) -> LayerProfile:
        """The layer of that name; UnknownName if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise UnknownName(
            f"{self.model} has no layer {name!r}: choose one of "
            f"{', '.join(layer.name for layer in self.layers)}"
        )


def profile(
    model: nn.Module, spec: ModelSpec, example_inputs: Example | None = None
) -> ModelProfile:
    """Run a copy of the model once and note what each layer does; the model is not touched.

    example_inputs: what it is run on, as torch.export takes them: a tuple of positional arguments,
    or a dict of keyword arguments, or the one tensor; of a batch the first input is taken. By
    default spec.example_inputs, and without those a blank image of spec.input_shape.
    PlanError if it has no convolution that runs, or does not take these inputs.
    """
    if empty := next((name for name, value in model.named_parameters() if value.is_meta), None):
        raise PlanError(
            f"{spec.name} has no values yet ({empty} is on the meta device): give it "
            "values on the CPU"
        )
    example = spec.example(model) if example_inputs is None else first_of_each(example_inputs)
    give_lazy_layers_weights(model, example)
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, Weighted)
    }
    convolutions = {name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
    places = {name: obstacles.of_place(model, layer) for name, layer in layers.items()}
    free = {name: layer for name, layer in layers.items() if places[name] is None}
    seen, met = _observe(model, spec, example, free) if convolutions else (Observation(), set())
    names = [name for name, calls in seen.calls.items() if calls and name in layers]
    first = next((name for name in names if name in convolutions), None)
    if first is None:
        raise PlanError(_nothing(model, spec))

    def obstacle(name: str) -> str | None:
        return (
            places[name]
            or obstacles.of_use(seen.calls[name], seen.past.get(name, 0))
            or obstacles.of_values(layers[name].weight.detach())
            or (None if name in met else obstacles.UNMET)
        )

    macs = sum(call.macs for calls in seen.calls.values() for call in calls)
    return ModelProfile(
        model=spec.name,
        layers=tuple(
            _layer(name, layers[name], seen.calls[name], name != first, obstacle(name))
            for name in names
        ),
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs,
        not_counted=_not_counted(model, seen, macs),
        weights_sha256=weights_sha256(model),
        entries=entries_of(model),
        usual_layers=spec.usual_layers,
    )


def _layer(
    name: str, layer: Weighted, calls: Sequence[Call], later: bool, obstacle: str | None
) -> LayerProfile:
    """later: whether it is no first convolution."""
    weight, call = layer.weight.detach(), calls[0]
    macs = sum(call.macs for call in calls)
    if isinstance(layer, nn.Linear):
        maps = {call.flattened for call in calls}
        seen = call.flattened if len(maps) == 1 else None
        size = seen[1:] if seen is not None and prod(seen) == layer.in_features else None
        return LayerProfile(
            name=name, kernel=weight.reshape(len(weight), -1, *(size or (1, 1))), stride=(1, 1),
            sizes=tuple(
                replace(each, input_size=size or each.output_size) for each in _sizes(calls)
            ), macs=macs,
            in_paper_policy=False, obstacle=obstacle, padding=(0, 0), dilation=(1, 1),
            padding_mode="zeros", kind="linear",
        )  # fmt: skip
    return LayerProfile(
        name=name,
        kernel=weight,
        stride=(layer.stride[0], layer.stride[1]),
        sizes=_sizes(calls),
        macs=macs,
        in_paper_policy=later and max(layer.kernel_size) > 1 and layer.groups == 1,
        obstacle=obstacle,
        padding=_pair(layer.padding),
        dilation=(layer.dilation[0], layer.dilation[1]),
        padding_mode=layer.padding_mode,
        groups=layer.groups,
    )


def _sizes(calls: Sequence[Call]) -> tuple[Runs, ...]:
    """The sizes that a layer runs at, the dearest first."""
    times: Counter[tuple[Size, Size]] = Counter()
    for call in calls:
        times[call.input_size, call.output_size] += call.regions
    dearest = sorted(times.items(), key=lambda item: -item[1] * prod(item[0][1]))
    return tuple(Runs(*sizes, times=count) for sizes, count in dearest)


def _observe(
    model: nn.Module, spec: ModelSpec, example: Example, free: Mapping[str, Weighted]
) -> tuple[Observation, set[str]]:
    """What runs, and which of the `free` layers still run once they are another layer."""

    def tried(some: Mapping[str, Weighted]) -> Observation | None:
        try:
            return rehearsed(model, some, example)
        except Exception:  # whatever the network's own code raises at the sight of another layer
            return None

    every = tried(free)
    if every is not None and all(every.calls.get(name) for name in free):
        return every, set(free)
    network = copied(model)
    try:
        plain = observed(network, example, free)
    except Exception as error:  # whatever a network raises that takes something else
        first = first_line(error)
        raise PlanError(
            f"{spec.name} does not run on {_told(example)} ({first}): give the profile, or "
            "own_model, example_inputs as torch.export takes them"
        ) from error
    met = set()
    for name in free:
        alone = every if every is not None else tried({name: free[name]})
        if plain.calls.get(name) and alone is not None and alone.calls.get(name):
            met.add(name)
    return plain, met


def _told(example: Example) -> str:
    if isinstance(example, Tensor):
        return f"one input of shape {tuple(example.shape)}"
    return f"{len(example)} {'named ' if isinstance(example, Mapping) else ''}inputs"


def _nothing(model: nn.Module, spec: ModelSpec) -> str:
    """Why there is nothing to compress, in words."""
    if tool := made_by(model):
        return (
            f"{spec.name} has no nn.Conv2d, for it came out of {tool}: give the nn.Module that it "
            "was made from"
        )
    return f"{spec.name} has no nn.Conv2d that runs: there is nothing to compress"


def _not_counted(model: nn.Module, seen: Observation, macs: int) -> tuple[NotCounted, ...]:
    """What multiplies outside of the listed layers, most first, and convolutions that never ran."""
    total = macs + sum(seen.elsewhere.values()) + sum(seen.past.values())
    found = [
        (name or type(model).__name__, count, f"computed by {kind} itself, not by a layer of it")
        for (name, kind), count in seen.elsewhere.items()
    ]
    found += [
        (name, count, "its kernel is used outside of a call of the layer")
        for name, count in seen.past.items()
    ]
    ran = {name for name, calls in seen.calls.items() if calls} | seen.past.keys()
    ran |= {name for name, _ in seen.elsewhere}
    idle = [
        (name, 0, "did not run on the example input")
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd) and name not in ran
    ]
    return tuple(
        NotCounted(name=name, macs=count, share=count / total, reason=reason)
        for name, count, reason in (*sorted(found, key=lambda item: -item[1]), *idle)
    )


def _pair(padding: str | tuple[int, ...]) -> tuple[int, int] | str:
    return padding if isinstance(padding, str) else (padding[0], padding[1])
