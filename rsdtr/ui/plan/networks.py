"""Calculations that several runs of a page share. What they return is never changed by a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import streamlit as st
import torch
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.models.model_loading import load_model, with_classes
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import ModelSpec, model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.damage import measure_damage
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan, planned_bytes, policy_layers
from rsdtr.planning.target_solver import Damage
from rsdtr.search.candidate import Candidate, Question, SearchResult
from rsdtr.system.safetensors_format import safetensors_bytes
from rsdtr.typing import Progress
from rsdtr.ui.shared.cache import Memo
from rsdtr.ui.shared.session import Configuration

# Networks of so many scalars in kernels are searched while the reader waits:
CHEAP_SCALARS = 2_000_000  # at one ε_p; a ResNet-110 for CIFAR takes about a second
CHEAP_GRID_SCALARS = 500_000  # at all of them; a ResNet-20 takes a few seconds

_networks: Memo[Network] = Memo(4)
_plans: Memo[CompressionPlan] = Memo(1024)
_candidates: Memo[list[Candidate]] = Memo(256)
_searches: Memo[SearchResult] = Memo(256)
_sizes: Memo[int] = Memo(1024)
_compressed: Memo[nn.Module] = Memo(4)
_damages: Memo[Measured] = Memo(64)


@dataclass(frozen=True, eq=False)
class Network:
    """A dense model of the zoo with its profile. Shared between sessions: never change it.

    weights: what it was loaded with; the folder of an upload is for no reader's eyes.
    """

    spec: ModelSpec
    model: nn.Module
    profile: ModelProfile
    weights: WeightsSource

    def configuration(self, at: CompressionPlan) -> Configuration:
        """The key under which all results for this network and these rings are kept."""
        rings = tuple((layer.eps, layer.shift, layer.ranks, layer.form) for layer in at.layers)
        return Configuration(self.spec.name, self.profile.weights_sha256, rings)

    @property
    def synthetic(self) -> bool:
        """Whether its weights are for timing only, and its accuracy without meaning."""
        return self.weights.synthetic

    @property
    def uploaded(self) -> str | None:
        """The name of the file that its reader gave, if the weights are a reader's own."""
        return self.weights.file.name if self.weights.file else None

    @cached_property
    def scalars(self) -> int:
        """Scalars in all kernels: what a search takes grows with them."""
        return sum(layer.kernel.numel() for layer in self.profile.layers)

    @cached_property
    def dense_bytes(self) -> int:
        """Bytes of the dense network's safetensors file."""
        return safetensors_bytes(self.profile.entries)


@dataclass(frozen=True)
class Measured:
    """Damage as it was measured: on how many images of which data set or folder."""

    damage: Damage
    images: int
    data: str


def network(name: str, weights: WeightsSource, progress: Progress | None = None) -> Network:
    """A model of the zoo, dense, and its profile; WeightsError if its weights are not to be had.

    Weights for another number of classes make it the model of that number, NAME@N.
    progress: called with the (done, total) bytes of a download.
    """

    def load() -> Network:
        spec = model_spec(with_classes(name, weights))
        model = load_model(spec.name, weights, progress=progress)
        return Network(spec, model, profile(model, spec), weights)

    return _networks.of((name, weights), load)


@st.cache_resource(max_entries=4, show_spinner="Reading the data …")
def data_splits(model: str, data: str | None) -> DataSplits:
    """Labelled images at the model's input size; DataError if they are not to be had."""
    return load_data(data, model_spec(model))


def questions(of: Network, asked: Choices) -> Iterator[tuple[str, Question]]:
    """The winners that a plan is made of: layer and question."""
    own = dict(asked.own)
    chosen = policy_layers(of.profile, asked.layers) | own.keys()
    for layer in of.profile.layers:
        if layer.name not in chosen or layer.obstacle is not None:
            continue
        eps = own.get(layer.name, asked.eps)
        several = asked.target is not None and layer.name not in own
        for value in layer.grid if several else (eps,):
            if value is not None:
                yield layer.name, Question(asked.rule, asked.solved_objective, value)


def searched(asked: Choices) -> Choices:
    """The question whose rings are searched: the fastest are chosen from the answer afterwards."""
    return replace(asked, objective=asked.solved_objective, latency_batch=1)


def is_ready(of: Network, asked: Choices) -> bool:
    """Whether the plan needs no search, or only one that takes no time worth mentioning."""
    cheap = CHEAP_SCALARS if asked.target is None else CHEAP_GRID_SCALARS
    if of.scalars <= cheap or _plan_key(of, asked) in _plans:
        return True
    known = of.profile.winners.known
    return all(known(name, question) is not None for name, question in questions(of, asked))


def planned(of: Network, asked: Choices, progress: Progress | None = None) -> CompressionPlan:
    """The plan that answers what was asked, by measured damage where it was measured."""
    measured = known_damage(of, asked) if asked.target else None
    damage = measured.damage if measured else None

    def decide() -> CompressionPlan:
        with _one_thread():
            return asked.decide(of.profile, damage, progress=progress)

    return _plans.of(_plan_key(of, asked), decide)


def _plan_key(of: Network, asked: Choices) -> tuple[object, ...]:
    by_measure = asked.target is not None and known_damage(of, asked) is not None
    return of.spec.name, of.profile.weights_sha256, searched(asked), by_measure


def known_damage(of: Network, asked: Choices) -> Measured | None:
    """What was measured for these rings, by rule, objective and layers."""
    return _damages.known(_damage_key(of, asked))


def measure(
    of: Network, asked: Choices, test_data: str | None, n: int, progress: Progress
) -> Measured:
    """Measure the damage of every layer on n training images; DataError without images."""

    def run() -> Measured:
        images = data_splits(of.spec.name, test_data).train
        damage = measure_damage(
            of.model, of.profile, images, n, rule=asked.rule, objective=asked.solved_objective,
            layers=_damage_layers(of, asked), progress=progress,
        )  # fmt: skip
        return Measured(damage, min(n, len(images)), str(test_data or of.spec.data))

    return _damages.of(_damage_key(of, asked), run)


def _damage_layers(of: Network, asked: Choices) -> tuple[str, ...]:
    """The policy's layers by name: those that the reader pinned are measured too, for the sum."""
    return tuple(sorted(policy_layers(of.profile, asked.layers) | dict(asked.own).keys()))


def _damage_key(of: Network, asked: Choices) -> tuple[object, ...]:
    layers = _damage_layers(of, asked)
    return of.spec.name, of.profile.weights_sha256, asked.rule, asked.solved_objective, layers


def search(layer: LayerProfile, of: Network, question: Question) -> SearchResult:
    """The search of one layer, with what it computed and what it ruled out."""
    key = (of.profile.weights_sha256, layer.name, question)

    def run() -> SearchResult:
        with _one_thread():
            return layer.search(question)

    return _searches.of(key, run)


def candidates(of: Network, layer: str, eps: float) -> list[Candidate]:
    """All candidates of one layer at ε_p, by the published rule."""
    key = (of.profile.weights_sha256, layer, eps)
    return _candidates.of(key, lambda: of.profile.layer(layer).spectra.candidates(eps))


@contextmanager
def _one_thread() -> Iterator[None]:
    """For the many small matrices of a search: on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compressed(of: Network, at: CompressionPlan) -> nn.Module:
    """The network as the plan says, before any recovery. Shared: copy it before training it."""
    return _compressed.of(of.configuration(at), lambda: compress(of.model, at))


def compressed_bytes(of: Network, at: CompressionPlan) -> int:
    """Bytes of the compressed network's safetensors file."""
    return _sizes.of(of.configuration(at), lambda: planned_bytes(of.profile, at))
