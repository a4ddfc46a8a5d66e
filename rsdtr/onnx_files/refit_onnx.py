"""Refitting a compressed ONNX network: its rings by least squares against the original graph.

Layer by layer in graph order, on what the compressed graph itself gives each layer; a layer learns
the original's value after BatchNorm and the addition of a shortcut, where those follow. Both graphs
are run piece by piece in ONNX Runtime, so that all layers together cost about one pass of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsdtr.errors import RsdtrError
from rsdtr.onnx_files.answers import Answers
from rsdtr.onnx_files.compress_onnx import CompressedOnnx, DenseLayer, LayerRing
from rsdtr.onnx_files.graph_layers import GraphLayer
from rsdtr.onnx_files.graph_walk import GraphWalk
from rsdtr.onnx_files.network_inputs import NetworkInputs
from rsdtr.onnx_files.refit_site import RefitSite, refit_site, window_of
from rsdtr.recovery.least_squares import fitted
from rsdtr.recovery.options import SWEEP, RefitOptions
from rsdtr.recovery.refit import Step
from rsdtr.recovery.second_moments import Inputs, Moments, Patches, Targets
from rsdtr.ring.tensor_ring import TensorRing

USUAL = RefitOptions(pixels=128, sweeps=2)
Layer = LayerRing | DenseLayer
Sums = TypeVar("Sums", Inputs, Targets)


@dataclass(frozen=True, eq=False)
class RefittedOnnx:
    """A network with refitted layers, and every step on the way; held_out: what only judged."""

    compressed: CompressedOnnx
    steps: tuple[Step, ...]
    held_out: NetworkInputs


@torch.no_grad()
def refit_onnx(
    compressed: CompressedOnnx,
    inputs: NetworkInputs,
    *,
    options: RefitOptions = USUAL,
    progress: Callable[[int, int], None] | None = None,
) -> RefittedOnnx:
    """The network whose layers do on these inputs what the original ones do; no labels.

    Rings get other cores, the layers behind the first of them that stayed dense other kernels,
    which costs nothing, and a convolution without a bias gets one. A layer's step is kept only if
    it helps on the inputs held out, and all of them together only if the graph's own answers come
    closer there. Forms, ranks and storage stay. DataError for fewer than 2 inputs; RsdtrError for
    a network without rings, or values that are not finite.
    """
    network = compressed.network
    if not compressed.rings:
        raise RsdtrError(f"{network.name} has no ring to refit: compress it first")
    learnt, judged = inputs.split(options.held_out, options.seed)
    judging, learning = list(judged.batches()), list(learnt.batches())
    batches = judging + learning
    ours = GraphWalk(network, batches, options.budget / 2)
    theirs = GraphWalk(network, batches, options.budget / 2)
    places = {layer.place for layer in network.layers if layer.name in compressed.rings}
    layers = [x for x in network.layers if x.place >= min(places) and x.fixed is None]
    found: dict[str, Layer] = {x.name: DenseLayer(x.kernel) for x in layers}
    found |= {**compressed.dense, **compressed.rings}
    for layer in layers:
        if layer.place in places:
            ours.put(layer, found[layer.name])
    steps: list[Step] = []
    for done, layer in enumerate(layers):
        if progress:
            progress(done, len(layers))
        fit = _LayerFit(layer, refit_site(layer, ours, places), ours, theirs, options, len(judging))
        changed, made = fit.run(found[layer.name])
        steps += made
        if changed is not found[layer.name]:
            found[layer.name] = changed
            ours.put(layer, changed)
    rings = {name: one for name, one in found.items() if isinstance(one, LayerRing)}
    kernels = {x.name: x.kernel for x in layers}
    dense = {
        name: one
        for name, one in found.items()
        if isinstance(one, DenseLayer) and one.kernel is not kernels.get(name)
    }
    trial = replace(compressed, rings=rings, dense=dense)
    expected = Answers.of(network.model, judged)
    measure, before = Answers.of(compressed.rebuilt(), judged).divergence_from(expected)
    _, after = Answers.of(trial.rebuilt(), judged).divergence_from(expected)
    last = Step("cores", measure, before, after)
    if progress:
        progress(len(layers), len(layers))
    return RefittedOnnx(trial if last.kept else compressed, (*steps, last), judged)


@dataclass(frozen=True, eq=False)
class _Groups:
    """The moments of each group of channels; one, but for a grouped convolution."""

    parts: Sequence[Moments]

    @property
    def finite(self) -> bool:
        return all(part.finite for part in self.parts)

    @property
    def power(self) -> float:
        return max(sum(part.targets.power for part in self.parts), 1e-300)

    def error(self, kernel: Tensor, bias: Tensor) -> float:
        """Σ‖y − 𝓦x − b‖² for a kernel (O, I/groups, KH, KW) and a bias (O,)."""
        pairs = zip(kernel.chunk(len(self.parts)), bias.chunk(len(self.parts)), strict=True)
        return sum(
            part.error(one, other) for part, (one, other) in zip(self.parts, pairs, strict=True)
        )

    def best_bias(self, kernel: Tensor) -> Tensor:
        """The bias (O,) of least error beside a kernel."""
        kernels = kernel.chunk(len(self.parts))
        return torch.cat([p.best_bias(k) for p, k in zip(self.parts, kernels, strict=True)])


class _LayerFit:
    """One layer's least squares, from both walks; the first `judging` batches only judge."""

    def __init__(
        self, layer: GraphLayer, site: RefitSite, ours: GraphWalk, theirs: GraphWalk,
        asked: RefitOptions, judging: int,
    ) -> None:  # fmt: skip
        self.layer, self.site, self.asked, self.judging = layer, site, asked, judging
        self.ours, self.theirs = ours, theirs
        self.scale = site.scale * site.gain
        self.trained = self.scale[:, None, None, None] * layer.kernel.double()

    def run(self, one: Layer) -> tuple[Layer, list[Step]]:
        """The layer, as far as the inputs held out agree, and what was tried."""
        name, site = self.layer.name, self.site
        if reason := self._obstacle():
            return one, [Step(name, "relative error", 0.0, 0.0, skipped=reason)]
        assert site.bias is not None
        # All in the space of the value that the rest of the graph sees.
        ring = _scaled(one.ring, self.scale) if isinstance(one, LayerRing) else None
        kernel = self.scale[:, None, None, None] * one.kernel.double()
        own = site.bias if one.bias is None else one.bias.double()
        bias = site.scale * own
        has_bias = self.layer.operation != "MatMul"
        steps: list[Step] = []
        inputs: list[list[Inputs]] | None = None
        for turn in range(self.asked.rounds if site.relu else 1):
            judge, learnt = self._moments((kernel, bias) if turn else None, inputs)
            inputs = [[part.inputs for part in groups.parts] for groups in (judge, learnt)]
            if not (judge.finite and learnt.finite):
                raise RsdtrError(
                    f"what goes in or out of layer {name} is not finite on these inputs: compress "
                    "the network less, or give other inputs"
                )
            new_ring, new = self._solved(ring, learnt, has_bias)
            new_bias = learnt.best_bias(new) if has_bias else bias
            step = Step(
                name,
                "rectified error" if turn else "relative error",
                judge.error(kernel, bias) / judge.power,
                judge.error(new, new_bias) / judge.power,
            )
            steps.append(step)
            if not step.kept:
                break
            ring, kernel, bias = new_ring, new, new_bias
        if not steps[0].kept:
            return one, steps
        found = bias / site.scale if has_bias else None
        if ring is not None:
            return LayerRing(_scaled(ring, 1 / self.scale), found), steps
        return DenseLayer(kernel / self.scale[:, None, None, None], found), steps

    def _solved(
        self, ring: TensorRing | None, learnt: _Groups, has_bias: bool
    ) -> tuple[TensorRing | None, Tensor]:
        """The best ring, or kernel of a dense layer, by these moments, with its kernel."""
        trained = self.trained.chunk(len(learnt.parts))
        priors = [
            (part.centred() if has_bias else part).with_prior(kernel, self.asked.ridge)
            for part, kernel in zip(learnt.parts, trained, strict=True)
        ]
        if ring is not None:
            (prior,) = priors
            found = fitted(ring, prior, SWEEP[self.asked.cores], self.asked.sweeps)
            return found, found.to_tensor()
        kernels = [
            least_kernel(prior).reshape(k.shape) for prior, k in zip(priors, trained, strict=True)
        ]
        return None, torch.cat(kernels)

    def _obstacle(self) -> str | None:
        columns = self.layer.kernel[0].numel()
        if 3 * 8 * columns**2 > self.asked.budget:
            return f"the second moments of its {columns:,} inputs take more memory than may be used"
        if self.site.bias is None:
            return "what is added to its output is no constant for each channel"
        if not bool(self.site.scale.any()):
            return "what follows multiplies its output by 0"
        return None

    def _moments(
        self, found: tuple[Tensor, Tensor] | None, known: list[list[Inputs]] | None
    ) -> tuple[_Groups, _Groups]:
        """The moments of the batches that judge, and of those to learn from; see `refit`."""
        groups = self.layer.groups
        seen: list[list[Inputs]] = [[], []]
        sought: list[list[Targets]] = [[], []]
        generator = torch.Generator().manual_seed(self.asked.seed)
        for batch in range(len(self.ours)):
            part = int(batch >= self.judging)
            columns, target, rest = self._seen(batch, generator)
            if found is not None:
                now = _applied(columns, found[0].to(target.dtype), groups)
                now = now + found[1].to(target.dtype)
                target = torch.where((target < -rest) & (now < -rest), now, target)
            pairs = list(zip(columns.chunk(groups, 1), target.chunk(groups, 1), strict=True))
            if known is None:
                _add(seen[part], [Inputs.of(x.contiguous()) for x, _ in pairs])
            _add(sought[part], [Targets.of(x, y) for x, y in pairs])
        first, second = (
            _Groups([Moments(x, y) for x, y in zip(*sums, strict=True)])
            for sums in zip(known or seen, sought, strict=True)
        )
        return first, second

    def _seen(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """What the kernel meets (N, D), what should come of it, and what is added to it (N, O)."""
        site, place = self.site, self.layer.place
        mine, other = self.ours.to(batch, place), self.theirs.to(batch, place)
        x = _tensor(mine[site.taken])
        y = _tensor(self.theirs.values(other, place, [site.value])[site.value])
        added = None
        if site.addend is not None:
            added = _tensor(self.ours.values(mine, place, [site.addend])[site.addend])
            added = added.expand_as(y)
        if self.layer.is_matrix:
            most = self.asked.pixels * len(x)
            x, y = x.flatten(0, -2), y.flatten(0, -2)
            rows = torch.randperm(len(x), generator=generator)[:most]
            columns, target = x[rows], y[rows]
            rest = site.offset.to(y.dtype).expand_as(target)
            if added is not None:
                rest = rest + added.flatten(0, -2)[rows]
        else:
            window = window_of(self.layer, (x.shape[2], x.shape[3]))
            patches = Patches.of(window, x, self.asked.pixels, generator)
            columns, target = patches.columns, patches.at(y)
            rest = site.offset.to(y.dtype).expand_as(target)
            if added is not None:
                rest = rest + patches.at(added)
        return columns, target - rest, rest


def least_kernel(prior: Moments) -> Tensor:
    """The kernel (O, D) of least error by moments whose gram a ridge has made regular."""
    return torch.linalg.lstsq(prior.inputs.gram, prior.targets.cross.T).solution.T


def _applied(columns: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """What a kernel (O, I/groups, KH, KW) makes of columns (N, D): (N, O)."""
    pairs = zip(columns.chunk(groups, 1), kernel.flatten(1).chunk(groups), strict=True)
    return torch.cat([x @ one.T for x, one in pairs], 1)


def _add(total: list[Sums], more: Sequence[Sums]) -> None:
    """Add to the sums that the list holds, if any, one by one."""
    total[:] = [a + b for a, b in zip(total, more, strict=True)] if total else list(more)


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _scaled(ring: TensorRing, scale: Tensor) -> TensorRing:
    """The ring with every output channel times its scale (O,), in float64."""
    c0, c1, c2, c3 = (core.double() for core in ring.cores)
    return TensorRing((c0 * scale[:, None], c1, c2, c3), ring.shift)
