"""How long whole graphs take in ONNX Runtime, beside the original one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from onnx import ModelProto

from rsdtr.measuring.stopwatch import interleaved
from rsdtr.onnx_files.compress_onnx import CompressedOnnx
from rsdtr.onnx_files.form_choice import WARY_OF_WORK, forms_by_work, forms_dense
from rsdtr.onnx_files.network_inputs import NetworkInputs
from rsdtr.onnx_files.runtime import Arrays, Session
from rsdtr.typing import Progress

BATCHES = (1, 8)
NOISE = 1.05  # a ratio of two times of the same graph, on a machine that does other work as well
_RUNS, _SECONDS = 7, 6.0


@dataclass(frozen=True)
class GraphTime:
    """The processor's best time in ms for one pass of so many inputs, on one thread."""

    batch: int
    original_ms: float
    compressed_ms: float

    @property
    def ratio(self) -> float:
        """Below 1 where the compressed graph is faster."""
        return self.compressed_ms / max(self.original_ms, 1e-9)

    @property
    def slower(self) -> bool:
        """Whether it is slower by more than a measurement moves."""
        return self.ratio > NOISE


def no_slower(
    small: CompressedOnnx,
    inputs: NetworkInputs,
    batches: Sequence[int] = BATCHES,
    progress: Progress | None = None,
) -> tuple[CompressedOnnx, tuple[GraphTime, ...]]:
    """The same rings in forms with which the whole graph is fastest, and its times.

    Beside the forms that it has, tried are those that only rings with far less to do have, and one
    convolution for each ring, which takes as long as the original. Of those that are slower than
    the original for none of the batches, taken are the fastest; where there are none, the ones that
    lose least. Those that seem slower are timed once more.
    """
    sizes = (inputs.fixed_batch,) if inputs.fixed_batch else tuple(batches)
    plan, network = small.plan, small.network
    measured = plan.measured_on
    choices = {small.forms: small}
    for decided in (
        forms_by_work(plan, network, WARY_OF_WORK),
        forms_dense(plan, network),
    ):
        other = replace(small, plan=decided.model_copy(update={"measured_on": measured}))
        choices.setdefault(other.forms, other)
    tried = list(choices.values())
    times = graph_times(
        network.model, [one.model() for one in tried], inputs, sizes, progress
    )  # fmt: skip
    fine = [k for k, found in enumerate(times) if not any(one.slower for one in found)]
    if fine:
        best = min(fine, key=lambda k: sum(one.ratio for one in times[k]))
    else:
        best = min(range(len(tried)), key=lambda k: max(one.ratio for one in times[k]))
    found = times[best]
    if any(one.slower for one in found):
        (again,) = graph_times(network.model, [tried[best].model()], inputs, sizes, progress)
        found = tuple(
            min(pair, key=lambda one: one.ratio) for pair in zip(found, again, strict=True)
        )
    return tried[best], found


def graph_times(
    original: ModelProto,
    others: Sequence[ModelProto],
    inputs: NetworkInputs,
    batches: Sequence[int],
    progress: Progress | None = None,
) -> list[tuple[GraphTime, ...]]:
    """The times of other graphs beside the original's, one run of each in turn.

    Inputs are repeated where there are fewer than a batch takes. progress: called with (batches
    timed, batches to time). RsdtrError for inputs that a graph does not run on.
    """
    sessions = [Session(model, threads=1) for model in (original, *others)]
    found: list[list[GraphTime]] = [[] for _ in others]
    for done, batch in enumerate(batches):
        if progress:
            progress(done, len(batches))
        arrays = _repeated(inputs, batch)
        works = {str(k): partial(session, arrays) for k, session in enumerate(sessions)}
        spread = interleaved(works, runs=_RUNS, seconds=_SECONDS, clock=time.process_time)
        best = [spread[str(k)].best_ms for k in range(len(sessions))]
        for times, ms in zip(found, best[1:], strict=True):
            times.append(GraphTime(batch, best[0], ms))
    return [tuple(times) for times in found]


def slower_told(times: Sequence[GraphTime], name: str) -> str | None:
    """A sentence where a compressed graph is slower than the original, called `name`."""
    slow = [one for one in times if one.slower]
    if not slow:
        return None
    told = ", ".join(
        f"{one.ratio:.2f} times as long for {one.batch} input{'s' * (one.batch > 1)}"
        for one in slow
    )
    return (
        f"it is smaller, not faster: in ONNX Runtime on this machine it takes {told} as {name}: "
        "choose forms for the batch that you run (--fast BATCH), or compress fewer layers"
    )


def _repeated(inputs: NetworkInputs, batch: int) -> Arrays:
    """The first inputs, as many as a batch takes, from the beginning again where they end."""
    taken: Mapping[str, object] = inputs.select([k % len(inputs) for k in range(batch)]).arrays
    return dict(taken)  # type: ignore[arg-type]
