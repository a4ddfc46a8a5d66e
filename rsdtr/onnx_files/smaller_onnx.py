"""The whole way from a planned ONNX network to a smaller file: refit, timed, compared, proved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from onnx import ModelProto

from rsdtr.measuring.fidelity import Fidelity
from rsdtr.onnx_files.answers import Answers, fidelity_of
from rsdtr.onnx_files.compress_onnx import CompressedOnnx, compress_onnx
from rsdtr.onnx_files.graph_times import BATCHES, GraphTime, no_slower, slower_told
from rsdtr.onnx_files.network_inputs import ENOUGH, NetworkInputs
from rsdtr.onnx_files.onnx_file import write_model
from rsdtr.onnx_files.onnx_network import OnnxNetwork
from rsdtr.onnx_files.refit_onnx import refit_onnx
from rsdtr.onnx_files.verify_onnx import OnnxProof, prove
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.refit import Step, refit_record
from rsdtr.typing import Progress

# What is begun, in words, and in what it is counted: within it, how far it is.
Stages = Callable[[str, str], AbstractContextManager[Progress]]


@dataclass(frozen=True, eq=False)
class SmallerOnnx:
    """A smaller network, proved, and what is known of it.

    before: its fidelity before a refit, None without one; steps: of the refit; inputs: how many it
    was refit on, those that only judged included; judged: what fidelity was measured on.
    """

    compressed: CompressedOnnx
    model: ModelProto
    fidelity: Fidelity
    before: Fidelity | None
    latency: tuple[GraphTime, ...]
    proof: OnnxProof
    judged: NetworkInputs
    steps: tuple[Step, ...] = ()
    inputs: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What whoever takes the file away should know, a sentence each."""
        random, name = self.judged.random, self.compressed.network.name
        found = []
        if self.before is not None and random:
            found.append(
                "refitting on random numbers, which no network was trained for: give --data with a "
                "folder of pictures, an .npz or an .npy file"
            )
        if self.before is not None and self.inputs < ENOUGH:
            found.append(
                f"refitting on {self.inputs} inputs: with fewer than {ENOUGH} it may harm the "
                "network where it helps each layer"
            )
        if self.before is not None and not self.steps[-1].kept:
            found.append(
                "the refit brought the graph's answers no closer to the original's on the inputs "
                "held out: nothing of it was kept"
            )
        if random:
            found.append(
                "the answers are compared on random numbers, which tell little of real inputs: "
                "give --data"
            )
        if (slower := slower_told(self.latency, name)) is not None:
            found.append(slower)
        return tuple(found)

    def record(self) -> dict[str, object]:
        """What is told of it, JSON-able: its plan and the words of `compress --json`."""
        told: dict[str, object] = self.compressed.plan.model_dump(mode="json")
        told |= {
            "fidelity": _told(self.fidelity, self.judged),
            "before_refit": None if self.before is None else _told(self.before, self.judged),
            "latency": [asdict(one) for one in self.latency],
            "proof": asdict(self.proof),
            "warnings": list(self.warnings),
        }
        if self.before is not None:
            told["refit"] = refit_record(self.judged.source, self.inputs, self.steps)
        return told

    def save(self, path: str | Path) -> int:
        """Write the file, whole or not at all; its bytes. ExportError where it cannot be."""
        return write_model(self.model, Path(path))


def smaller_onnx(
    network: OnnxNetwork,
    plan: CompressionPlan,
    inputs: NetworkInputs,
    stage: Stages,
    *,
    refit: bool = True,
    batch: int | None = None,
) -> SmallerOnnx:
    """Carry out a plan on an ONNX network, and tell what came of it.

    inputs: what fidelity is measured on, and with `refit` what the rings learn from, but for a
    fifth that only judges; batch: choose forms by their times for so many inputs, by default for
    one and for eight; stage: told what is begun. Errors as those of `compress_onnx`, `refit_onnx`
    and `prove`.
    """
    with stage("computing the rings", "layers timed") as show:
        small = compress_onnx(network, plan, batch=batch, progress=show)
    judged, before = inputs, None
    steps: tuple[Step, ...] = ()
    if refit:
        with stage(f"refitting on {inputs.source}", "layers") as show:
            refitted = refit_onnx(small, inputs, progress=show)
        judged, steps = refitted.held_out, refitted.steps
        with stage(f"comparing with {network.name}", "graphs"):
            before = _fidelity(small, judged)
        small = refitted.compressed
    with stage("timing in ONNX Runtime", "batches") as show:
        batches = BATCHES if batch is None else (batch,)
        small, latency = no_slower(small, judged, batches, show)
    with stage(f"comparing with {network.name}", "graphs"):
        alike = _fidelity(small, judged)
    small = small.with_told(
        fidelity=_told(alike, judged), refit=refit, latency=[asdict(one) for one in latency]
    )
    model = small.model()
    with stage("proving the graph", "graphs"):
        proof = prove(small, model, judged)
    return SmallerOnnx(small, model, alike, before, latency, proof, judged, steps, len(inputs))


def _fidelity(small: CompressedOnnx, judged: NetworkInputs) -> Fidelity:
    expected = Answers.of(small.network.model, judged)
    return fidelity_of(Answers.of(small.model(), judged), expected)


def _told(alike: Fidelity, judged: NetworkInputs) -> dict[str, object]:
    return asdict(alike) | {"data": judged.source}
