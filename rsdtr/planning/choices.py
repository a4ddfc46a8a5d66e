"""What was asked for, written as the command and as the Python that ask for it again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from rsdtr.models.weights_source import PUBLISHED, WeightsSource
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.planning.one_eps import one_eps
from rsdtr.planning.plan import (
    CompressionPlan,
    Target,
    plan,
)
from rsdtr.planning.target_solver import Damage, solve
from rsdtr.search.candidate import Objective, Rule
from rsdtr.typing import Progress


@dataclass(frozen=True)
class Asked:
    """A model and the choices that its plan answers.

    calibrate, data: on how many images of which data set (None: the
    model's own) damage was measured, if it was.
    """

    model: str
    choices: Choices
    weights: WeightsSource = PUBLISHED
    calibrate: int | None = None
    data: str | None = None

    def command(self, verb: str = "plan") -> str:
        """The command line whose plan is the same; verb: what is to be done with it."""
        choices = self.choices
        words = ["python", "-m", "rsdtr", verb, self.model]
        if choices.target is None:
            words += ["--eps", f"{choices.eps:g}"]
        else:
            words += [f"--target-{choices.target.kind}", repr(choices.target.value)]
        objective = choices.objective or choices.solved_objective
        words += ["--rule", choices.rule, "--objective", objective]
        if objective == "latency":
            words += ["--latency-batch", str(choices.latency_batch)]
        policies = (choices.layers,) if isinstance(choices.layers, str) else choices.layers or ()
        for policy in policies:
            words += ["--layers", policy]
        for name, eps in choices.own:
            words += ["--keep-dense", name] if eps is None else ["--layer-eps", f"{name}={eps:g}"]
        if self.weights.word is not None:
            words += ["--weights", self.weights.word]
        if self.calibrate is not None:
            words += ["--calibrate", str(self.calibrate)]
            words += [] if self.data is None else ["--data", self.data]
        return shlex.join(words)

    def python(self) -> str:
        """Python whose `decided` is the same plan."""
        choices = self.choices
        names = ["load_data"] * (self.calibrate is not None) + [
            "load_model",
            "model_spec",
            "profile",
        ]
        loaded = "spec.name" if self.weights.published else f"spec.name, {self.weights.word!r}"
        planning = ["Choices"] + ["Target"] * (choices.target is not None)
        imports, lines = [f"from rsdtr import {', '.join(names)}"], []
        if self.calibrate is not None:
            planning.append("measure_damage")
            lines += [
                f"images = load_data({self.data!r}, spec).train",
                "damage = measure_damage(",
                f"    model, costs, images, {self.calibrate}, rule=choices.rule,",
                "    objective=choices.solved_objective, layers=choices.layers,",
                ")",
            ]
        with_damage = "" if self.calibrate is None else ", damage"
        lines.append(f"decided = choices.decide(costs{with_damage})")
        if choices.objective == "latency":
            imports.append("from rsdtr.measuring import fastest_rings")
            lines.append(f"decided = fastest_rings(decided, costs, batch={choices.latency_batch})")
        imports.append(f"from rsdtr.planning import {', '.join(planning)}")
        return "\n".join(
            [
                *imports,
                "",
                f"spec = model_spec({self.model!r})",
                f"model = load_model({loaded})",
                "costs = profile(model, spec)",
                f"choices = {choices!r}",
                *lines,
                "print(decided.pcr, decided.fcr)",
                "",
            ]
        )


@dataclass(frozen=True)
class Choices:
    """What a user asks of a plan: an ε_p for all layers, or a target for the network.

    objective: `latency` is decided by fewest MACs here, and by measured times afterwards, with
    `fastest.fastest_rings` at `latency_batch` images. layers: the policy, None for the
    model's usual one; own: (layer, ε_p or None
    for dense) pairs that overrule it.
    """

    eps: float = 0.6
    target: Target | None = None
    rule: Rule = "paper"
    objective: Objective | Literal["latency"] | None = None
    latency_batch: int = 1
    layers: str | tuple[str, ...] | None = None
    own: tuple[tuple[str, float | None], ...] = ()

    @property
    def solved_objective(self) -> Objective:
        """The objective that was chosen, or else the one that goes with the target."""
        of_target: Objective = "macs" if self.target and self.target.kind == "fcr" else "storage"
        return "macs" if self.objective == "latency" else self.objective or of_target

    def decide(
        self,
        profile: ModelProfile,
        damage: Damage | None = None,
        progress: Progress | None = None,
        uniform: bool = False,
    ) -> CompressionPlan:
        """The plan; errors as `plan` and `solve`. uniform: a target is met by one ε_p for all."""
        own = dict(self.own)
        if self.target is None:
            return plan(
                profile, self.eps, rule=self.rule, objective=self.solved_objective,
                layers=self.layers, own=own, progress=progress,
            )  # fmt: skip
        if uniform:
            return one_eps(
                profile, self.target, rule=self.rule, objective=self.solved_objective,
                layers=self.layers, own=own, progress=progress,
            )  # fmt: skip
        return solve(
            profile, self.target, rule=self.rule, objective=self.solved_objective,
            layers=self.layers, own=own, damage=damage, progress=progress,
        )  # fmt: skip
