"""Work that is killed without warning, and what it must leave: the old files or the new ones.

    python -m tests.soak.kills N [SEED]     N kills at random instants, as `make soak` does

Each action runs in a child that is a fork of this process: nothing is imported there, so that a
kill falls into the work. It ends by SIGKILL after a random time, or before a given change to the
file system. Then the files are looked at, and the action is done once more, to its end.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from rsdtr.compressed.compress import compress
from rsdtr.compressed.manifest import Proof
from rsdtr.compressed.saved import load, save
from rsdtr.data.datasets import DataSplits, load_data
from rsdtr.exports import proof_process
from rsdtr.exports.export import export
from rsdtr.exports.verify import unchanged, verify
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec, weights_sha256
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.planning.winners_on_disk import load_winners, save_winners
from rsdtr.recovery.checkpoint import read_checkpoint
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.search.candidate import Question
from rsdtr.system.zip_archive import unzipped

NAME = "digits_resnet20"
OLD, NEW = {"version": "old"}, {"version": "new"}
RECIPE = FinetuneOptions(epochs=2, batch_size=16, seed=3)
MODULES_THAT_PROVE = ("rsdtr.exports.export", "rsdtr.exports.verify")
# os.replace is reported as a rename too; an exchange of two folders shows by the deletion after it.
CHANGES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


@dataclass(frozen=True)
class Action:
    """What is killed: made ready in an empty folder, done there, and checked.

    check says whether the folder holds what `do` makes; AssertionError or RsdtrError for anything
    that is neither that nor what `ready` made.
    """

    ready: Callable[[Path], None]
    do: Callable[[Path], None]
    check: Callable[[Path], bool]


@cache
def ring() -> tuple[nn.Module, CompressionPlan]:
    dense = load_model(NAME)
    decided = plan(profile(dense, model_spec(NAME)), 0.8, layers=["layer3.2.*"])
    return compress(dense, decided), decided


@cache
def images() -> DataSplits:
    splits = load_data("digits", model_spec(NAME))
    return DataSplits(*(part.subset(32) for part in (splits.train, splits.validation, splits.test)))


def is_new(metrics: object) -> bool:
    assert metrics in (OLD, NEW), metrics
    return metrics == NEW


def compressed() -> Action:
    return Action(
        lambda folder: void(save(*ring(), folder / "saved", metrics=OLD)),
        lambda folder: void(save(*ring(), folder / "saved", metrics=NEW)),
        lambda folder: is_new(load(folder / "saved").metrics) and bool(unchanged(folder / "saved")),
    )


def proved_here(form: str, path: Path, cases: Path, bound: float) -> Proof:
    """The proof without a process of its own, which would take all of the time."""
    with torch.inference_mode():
        found = proof_process.compared(proof_process.network(form, path), load_file(cases))
    assert found["max_difference"] < bound
    return Proof.model_validate(found)


def exported(name: str) -> Action:
    def done(folder: Path, metrics: dict[str, str]) -> None:
        export(*ring(), images().test, ["safetensors"], folder / name, metrics=metrics)

    def check(folder: Path) -> bool:
        place = folder / name
        verify(place)
        with nullcontext(place) if place.is_dir() else unzipped(place) as found:
            return is_new(unchanged(found).metrics)

    return Action(lambda folder: done(folder, OLD), lambda folder: done(folder, NEW), check)


@cache
def searched() -> tuple[ModelProfile, ModelProfile]:
    """The same profile, with one ring known and with two; of weights that none comes with."""
    found = [profile(load_model(NAME, "none"), model_spec(NAME)) for _ in range(2)]
    layer = found[0].layers[-1]
    for number, one in enumerate(found):
        for eps in (0.5, 0.6)[: number + 1]:
            one.winner(layer, Question("paper", "storage", eps))
    return found[0], found[1]


def profiled() -> Action:
    def write(which: int) -> Callable[[Path], None]:
        def action(folder: Path) -> None:
            os.environ["RSDTR_CACHE"] = str(folder)
            assert save_winners(searched()[which])

        return action

    def check(folder: Path) -> bool:
        os.environ["RSDTR_CACHE"] = str(folder)
        blank = profile(load_model(NAME, "none"), model_spec(NAME))
        known = load_winners(blank)
        assert known in (1, 2), known  # none: the file was damaged
        return known == 2

    return Action(write(0), write(1), check)


def trained(folder: Path) -> None:
    """Train from the last checkpoint on, if there is one, and keep the result."""
    model, decided = compress(load_model(NAME), ring()[1]), ring()[1]
    for _ in finetune(model, images(), RECIPE, checkpoint=folder / "state.safetensors"):
        pass
    save(model, decided, folder / "saved", metrics=NEW)


@cache
def trained_without_a_break() -> str:
    with tempfile.TemporaryDirectory() as folder:
        completed(Action(void, trained, bool), Path(folder))
        return weights_sha256(load(Path(folder) / "saved").model)


def finetuned() -> Action:
    """Needs a process that has computed no gradient: torch has none in a fork of another."""
    ring(), images()
    expected = trained_without_a_break()

    def check(folder: Path) -> bool:
        state = folder / "state.safetensors"
        if state.exists():
            assert read_checkpoint(state) is not None  # whole
        if not (folder / "saved").exists():
            return False
        assert weights_sha256(load(folder / "saved").model) == expected
        return True

    return Action(void, trained, check)


ACTIONS = {
    "compress": compressed,
    "export": lambda: exported("out"),
    "export to a zip": lambda: exported("out.zip"),
    "profile write": profiled,
    "fine-tune": finetuned,
}


def void(_: object) -> None:
    """Nothing: for what is called for its effect."""


def killed(
    action: Action, folder: Path, seconds: float | None = None, change: int | None = None
) -> bool:
    """Whether the child was killed before it came to its end.

    seconds: after which; change: before which of its changes to the file system, from 0.
    """
    child = os.fork()
    if child == 0:
        _run(action, folder, change)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, "the action crashed by itself"
        return True
    assert os.WEXITSTATUS(status) == 0, "the action failed by itself"
    return False


def completed(action: Action, folder: Path) -> None:
    """The action to its end, in a child as well."""
    assert not killed(action, folder)


def _run(action: Action, folder: Path, change: int | None) -> None:
    left = change

    def audit(event: str, _: object) -> None:
        nonlocal left
        if left is None or event not in CHANGES:
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        # A fork's pool of threads is replaced by the first thread that looks at it. A second one
        # beside it, as gradients begin, would find none and crash.
        torch.set_num_threads(1)
        sys.addaudithook(audit)
        action.do(folder)
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def tried(name: str, folder: Path, **when: float) -> str:
    """Kill an action once, and look: `old`, `new`, or `done` if it came to its end before."""
    action = ACTIONS[name]()
    action.ready(folder)
    was_killed = killed(action, folder, **when)
    found = action.check(folder)
    assert was_killed or found, "it ended, and its files are not there"
    completed(action, folder)
    assert action.check(folder), "done again, and its files are not there"
    return ("new" if found else "old") if was_killed else "done"


def main(count: int, seed: int = 0) -> None:
    torch.set_num_threads(1)
    for module in MODULES_THAT_PROVE:
        importlib.import_module(module).proved = proved_here
    generator = random.Random(seed)
    wrong = 0
    for name, make in ACTIONS.items():
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as place:
            action = make()
            action.ready(Path(place))
            began = time.perf_counter()
            completed(action, Path(place))
            longest = time.perf_counter() - began
        found = {"old": 0, "new": 0, "done": 0}
        for _ in range(count // len(ACTIONS)):
            place = tempfile.mkdtemp(prefix="kills-")
            try:
                found[tried(name, Path(place), seconds=generator.uniform(0, longest))] += 1
            except Exception as error:
                wrong += 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
            shutil.rmtree(place)
        print(f"{name}: {found} in {time.perf_counter() - started:.0f} s", flush=True)
    print(f"{wrong:5,} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
