"""What planning needs to know of a model: its convolutions, their sizes, costs and spectra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rsdtr.errors import PlanError, UnknownName
from rsdtr.models.zoo import ModelSpec, weights_sha256
from rsdtr.ring.cost import Size, conv_macs, pipeline_macs
from rsdtr.ring.tensor_ring import ring_storage, too_coarse
from rsdtr.search.bounds import Cost
from rsdtr.search.candidate import Candidate, Objective, Question, SearchResult, Winners
from rsdtr.search.memory_budget import Kept
from rsdtr.search.paper_rule import LARGEST, SMALLEST, KernelSpectra
from rsdtr.search.tight_rule import best_tight
from rsdtr.system.safetensors_format import Entry, entries_of

# Spectra of all models in a process, by the scalars of their kernels: each takes some 60 bytes.
_SPECTRA = Kept(1 << 23)
_spectra: WeakKeyDictionary[LayerProfile, KernelSpectra] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """One nn.Conv2d as the network uses it.

    name: its dotted module name; kernel: weight, (O, I/groups, KH, KW), detached; input_size,
    output_size: (H, W) for the model's input; macs: dense MACs for one input; in_paper_policy:
    whether the program behind the paper compresses it; obstacle: why it cannot be a ring, or None;
    padding, dilation, padding_mode: as the convolution has them.
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

    @property
    def shape(self) -> tuple[int, int, int, int]:
        o, i, kh, kw = self.kernel.shape
        return o, i, kh, kw

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
        sizes = {"input_size": self.input_size, "output_size": self.output_size}
        return partial(pipeline_macs, self.shape, **sizes)

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
    """Every convolution of a model in network order, and the whole network's costs.

    params: scalars in all parameters; macs: MACs of convolutions and linear layers for one input;
    not_counted: kinds of modules that ran and whose arithmetic is not in `macs`; entries: every
    tensor of its file; winners: the best rings that are known already.
    """

    model: str
    layers: tuple[LayerProfile, ...]
    params: int
    macs: int
    not_counted: tuple[str, ...]
    weights_sha256: str
    entries: Mapping[str, Entry]
    winners: Winners = field(default_factory=Winners)

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
            f"{self.model} has no convolution {name!r}: choose one of "
            f"{', '.join(layer.name for layer in self.layers)}"
        )


@torch.no_grad()
def profile(model: nn.Module, spec: ModelSpec) -> ModelProfile:
    """Run the model once on a blank input of shape spec.input_shape and note what each layer does.

    The model comes back as it was, bit for bit. PlanError if it has no convolution that runs.
    """
    names = {module: name for name, module in model.named_modules()}
    calls: dict[nn.Module, list[tuple[Size, Size, int]]] = {}
    not_counted: set[str] = set()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            sizes = _size(inputs[0]), _size(output)
            macs = conv_macs(module.weight.shape, sizes[1])
            # Of one image, a detection network's second stage sees many regions.
            regions = len(output) if output.ndim == 4 else 1
            calls.setdefault(module, []).extend([(*sizes, macs)] * regions)
        elif isinstance(module, nn.Linear):
            macs = module.in_features * output.numel()
            calls.setdefault(module, []).append(((1, 1), (1, 1), macs))
        elif not isinstance(module, nn.Identity | nn.Dropout | nn.Flatten):
            not_counted.add(type(module).__name__)

    leaves = [module for module in model.modules() if not any(module.children())]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    modes = {module: module.training for module in model.modules()}
    reference = next(model.parameters())
    blank = torch.zeros(1, *spec.input_shape, device=reference.device, dtype=reference.dtype)
    try:
        model.eval()(blank)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    convolutions = [module for module in calls if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise PlanError(f"{spec.name} has no nn.Conv2d that runs: there is nothing to compress")
    return ModelProfile(
        model=spec.name,
        layers=tuple(
            LayerProfile(
                name=names[conv],
                kernel=conv.weight.detach(),
                stride=(conv.stride[0], conv.stride[1]),
                input_size=calls[conv][0][0],
                output_size=calls[conv][0][1],
                macs=sum(macs for _, _, macs in calls[conv]),
                in_paper_policy=position > 0 and max(conv.kernel_size) > 1,
                obstacle=_obstacle(conv, runs=len(calls[conv])),
                padding=_pair(conv.padding),
                dilation=(conv.dilation[0], conv.dilation[1]),
                padding_mode=conv.padding_mode,
            )
            for position, conv in enumerate(convolutions)
        ),
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=sum(macs for runs in calls.values() for _, _, macs in runs),
        not_counted=tuple(sorted(not_counted)),
        weights_sha256=weights_sha256(model),
        entries=entries_of(model),
    )


def _pair(padding: str | tuple[int, ...]) -> tuple[int, int] | str:
    return padding if isinstance(padding, str) else (padding[0], padding[1])


def _size(images: Tensor) -> Size:
    return images.shape[-2], images.shape[-1]


def _obstacle(conv: nn.Conv2d, runs: int) -> str | None:
    """Why this convolution cannot be a ring, in words, or None."""
    if type(conv) is not nn.Conv2d:
        return f"{type(conv).__name__} is not a plain nn.Conv2d"
    if conv.groups != 1:
        return f"grouped convolution (groups={conv.groups}): a ring mixes all channels"
    if runs > 1:
        return f"runs {runs} times for one input: its cost as a ring is not known"
    if reason := too_coarse(conv.weight):
        return reason
    if not bool(torch.isfinite(conv.weight).all()):
        return "the kernel contains NaN or Inf"
    if not bool(conv.weight.any()):
        return "the kernel is zero everywhere"
    if not SMALLEST <= (largest := float(conv.weight.detach().abs().max())) <= LARGEST:
        return f"the kernel's largest entry is {largest:.2g}: single precision is too coarse for it"
    return None
