"""What planning needs to know of a model: its layers, their sizes, costs and spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Literal
from weakref import WeakKeyDictionary

from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rsdtr.errors import PlanError, UnknownName, first_line
from rsdtr.models.run import Example, first_of_each, give_lazy_layers_weights
from rsdtr.models.surgery import Weighted, copied, made_by
from rsdtr.models.zoo import ModelSpec, weights_sha256
from rsdtr.planning import obstacles
from rsdtr.planning.layer_calls import Call, Observation, observed, rehearsed
from rsdtr.ring.cost import Size, form_macs, pipeline_macs
from rsdtr.ring.forms import FORMS, Form
from rsdtr.ring.tensor_ring import ring_storage
from rsdtr.search.bounds import Cost
from rsdtr.search.candidate import (
    COARSE,
    GRID,
    Candidate,
    Objective,
    Question,
    Ranks,
    SearchResult,
    Winners,
)
from rsdtr.search.memory_budget import Kept
from rsdtr.search.paper_rule import LARGE, KernelSpectra
from rsdtr.search.tight_rule import best_tight
from rsdtr.system.safetensors_format import Entry, entries_of
from rsdtr.typing import Frozen

Kind = Literal["conv", "linear"]
# Spectra of all models in a process, by the scalars of their kernels: each takes some 60 bytes.
_SPECTRA = Kept(1 << 23)
_spectra: WeakKeyDictionary[LayerProfile, KernelSpectra] = WeakKeyDictionary()


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
class LayerProfile:
    """One nn.Conv2d, or nn.Linear, as the network uses it.

    name: its dotted module name; kernel: weight, (O, I/groups, KH, KW), detached; input_size,
    output_size: (H, W) for the model's input; macs: dense MACs for one input; in_paper_policy:
    whether the program behind the paper compresses it; obstacle: why it cannot be a ring, or None;
    padding, dilation, padding_mode, groups: as the convolution has them. A linear layer is the
    convolution that computes the same: its weight is (O, C, H, W) behind a flattened map (C, H, W),
    and that map's (H, W) is its input_size; of any other input it is (O, I, 1, 1), and both sizes
    are the positions that it runs at.
    """

    name: str
    kernel: Tensor
    stride: tuple[int, int]
    input_size: Size
    output_size: Size
    macs: int
    in_paper_policy: bool
    obstacle: str | None
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    padding_mode: str
    kind: Kind = "conv"
    groups: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        o, i, kh, kw = self.kernel.shape
        return o, i, kh, kw

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: (I, H, W), of a linear layer (I,) or (positions…, I)."""
        _, i, kh, kw = self.shape
        if self.kind == "conv":
            return (i * self.groups, *self.input_size)
        alone = self.output_size == (1, 1)
        return (i * kh * kw,) if alone else (*self.output_size, i)

    @property
    def spectra(self) -> KernelSpectra:
        """The ε-independent part of the search; kept while it is among the latest asked for."""
        found = _spectra.get(self)
        if found is None:
            found = _spectra[self] = KernelSpectra(self.kernel)
        _SPECTRA.use(self, "spectra", self.kernel.numel(), lambda layer: _spectra.pop(layer, None))
        return found

    def cost(self, objective: Objective) -> Cost:
        """What an objective makes small, as a function of ranks R_0…R_3."""
        if objective == "storage":
            return partial(ring_storage, self.shape)
        return self.pipeline_macs

    def pipeline_macs(self, ranks: Ranks) -> int:
        """MACs of the paper's four sublayers for one input."""
        return pipeline_macs(self.shape, ranks, self.input_size, self.output_size, self.groups)

    def planned_form(self, ranks: Ranks) -> Form:
        """The form that a ring is planned in, before anything was measured: the paper's sublayers;
        of a grouped convolution, whose groups all run through the shared kernels, what takes the
        fewest MACs, which may be `dense`.
        """
        if self.groups == 1:
            return "pipeline"
        return min(FORMS, key=lambda form: self.form_macs(form, ranks))

    def form_macs(self, form: Form, ranks: Ranks) -> int:
        """MACs for one input as a ring of these ranks in a form."""
        sizes = self.input_size, self.output_size
        return form_macs(form, self.shape, ranks, *sizes, self.groups)

    def planned_macs(self, ranks: Ranks) -> int:
        """MACs for one input as a ring of these ranks, in its `planned_form`."""
        form = self.planned_form(ranks)  # a solved target asks this of thousands of rings
        return self.pipeline_macs(ranks) if form == "pipeline" else self.form_macs(form, ranks)

    @property
    def grid(self) -> tuple[float, ...]:
        """The ε_p at which a target looks at its rings: fewer where each search takes long."""
        return COARSE if self.kernel.numel() >= LARGE else GRID

    def search(self, question: Question, published: Candidate | None = None) -> SearchResult:
        """Search the best ring now. RingError for ε_p out of range or a kernel without a ring.

        published: the winner of rule=paper for the same objective and ε_p, where it is known:
        rule=tight starts from it.
        """
        cost = self.cost(question.objective)
        if question.rule == "tight":
            return best_tight(self.spectra, question.eps, cost, published)
        return self.spectra.best(question.eps, cost)


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
        size = call.flattened[1:] if call.flattened is not None else (1, 1)
        fits = call.flattened is not None and prod(call.flattened) == layer.in_features
        size = size if fits else (1, 1)
        return LayerProfile(
            name=name, kernel=weight.reshape(len(weight), -1, *size), stride=(1, 1),
            input_size=size if fits else call.output_size, output_size=call.output_size, macs=macs,
            in_paper_policy=False, obstacle=obstacle, padding=(0, 0), dilation=(1, 1),
            padding_mode="zeros", kind="linear",
        )  # fmt: skip
    return LayerProfile(
        name=name,
        kernel=weight,
        stride=(layer.stride[0], layer.stride[1]),
        input_size=call.input_size,
        output_size=call.output_size,
        macs=macs,
        in_paper_policy=later and max(layer.kernel_size) > 1 and layer.groups == 1,
        obstacle=obstacle,
        padding=_pair(layer.padding),
        dilation=(layer.dilation[0], layer.dilation[1]),
        padding_mode=layer.padding_mode,
        groups=layer.groups,
    )


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
