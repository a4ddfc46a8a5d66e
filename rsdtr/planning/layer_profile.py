"""One layer as planning needs it: its kernel, the sizes it runs on, what it costs, its spectra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal
from weakref import WeakKeyDictionary

from torch import Tensor

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
)
from rsdtr.search.memory_budget import Kept
from rsdtr.search.paper_rule import LARGE, KernelSpectra
from rsdtr.search.tight_rule import best_tight

Kind = Literal["conv", "linear"]
# Spectra of all models in a process, by the scalars of their kernels: each takes some 60 bytes.
_SPECTRA = Kept(1 << 23)
_spectra: WeakKeyDictionary[LayerProfile, KernelSpectra] = WeakKeyDictionary()


@dataclass(frozen=True)
class Runs:
    """How often a layer runs at one size for one input of the network: (H, W) of what goes in and
    of what comes out, and the times that it does.
    """

    input_size: Size
    output_size: Size
    times: int = 1


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """One nn.Conv2d, or nn.Linear, as the network uses it.

    name: its dotted module name; kernel: weight, (O, I/groups, KH, KW), detached; sizes: all that
    it runs on for one input of the network, the dearest size first; macs: dense MACs of all its
    runs; in_paper_policy: whether the program behind the paper compresses it; obstacle: why it
    cannot be a ring, or None; padding, dilation, padding_mode, groups: as the convolution has them.
    A linear layer is the convolution that computes the same: its weight is (O, C, H, W) behind a
    flattened map (C, H, W), and that map's (H, W) is its input_size; of any other input it is
    (O, I, 1, 1), and both sizes are the positions that it runs at.
    """

    name: str
    kernel: Tensor
    stride: tuple[int, int]
    sizes: tuple[Runs, ...]
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
    def input_size(self) -> Size:
        """(H, W) of what goes in, at the dearest of its sizes."""
        return self.sizes[0].input_size

    @property
    def output_size(self) -> Size:
        """(H, W) of what comes out, at the dearest of its sizes."""
        return self.sizes[0].output_size

    @property
    def runs(self) -> int:
        """How often it runs for one input of the network."""
        return sum(size.times for size in self.sizes)

    def over_runs(self, macs: Callable[[Size, Size], int]) -> int:
        """MACs of all its runs, of which one at (input_size, output_size) takes `macs`."""
        return sum(each.times * macs(each.input_size, each.output_size) for each in self.sizes)

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
        return self.over_runs(partial(pipeline_macs, self.shape, ranks, groups=self.groups))

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
        return self.over_runs(partial(form_macs, form, self.shape, ranks, groups=self.groups))

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
