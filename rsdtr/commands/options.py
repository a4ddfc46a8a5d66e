"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import click

from rsdtr.models.model_loading import with_classes
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import MOST_CLASSES
from rsdtr.onnx_files.onnx_file import is_onnx
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import Target, TargetKind
from rsdtr.search.candidate import OBJECTIVES, RULES, Objective, Rule

USUAL_EPS = Choices.eps
Command = TypeVar("Command", bound=Callable[..., Any])


def choices(command: Command) -> Command:
    """The options that decide a plan; the command gets them as one `targets.Choices`."""

    @functools.wraps(command)
    def with_choices(
        *args: Any,
        eps: float | None,
        target_pcr: float | None,
        target_fcr: float | None,
        target_mb: float | None,
        rule: Rule,
        objective: Objective | Literal["latency"] | None,
        latency_batch: int | None,
        layers: tuple[str, ...],
        layer_eps: tuple[str, ...],
        keep_dense: tuple[str, ...],
        **others: Any,
    ) -> Any:
        asked: dict[TargetKind, float | None] = {
            "pcr": target_pcr, "fcr": target_fcr, "mb": target_mb,
        }  # fmt: skip
        targets = [Target(kind=k, value=value) for k, value in asked.items() if value is not None]
        if len(targets) + (eps is not None) > 1:
            raise click.UsageError("give one of --eps, --target-pcr, --target-fcr and --target-mb")
        if latency_batch is not None and objective != "latency":
            raise click.UsageError("--latency-batch is for --objective latency: give that as well")
        chosen = Choices(
            eps=USUAL_EPS if eps is None else eps,
            target=targets[0] if targets else None,
            rule=rule,
            objective=objective,
            latency_batch=latency_batch or 1,
            layers=layers[0] if len(layers) == 1 else layers or None,
            own=(*map(_own_eps, layer_eps), *((name, None) for name in keep_dense)),
        )
        return command(*args, choices=chosen, **others)

    for option in reversed(_CHOICES):
        with_choices = option(with_choices)
    return with_choices  # type: ignore[return-value]  # click's decorators keep the type loose


def _own_eps(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise click.UsageError(f"--layer-eps is {text!r}: give NAME=EPS, as in conv1=0.4") from None


def _target(kind: str, help: str) -> Callable[[Any], Any]:
    above_zero = click.FloatRange(min=0, min_open=True)
    return click.option(f"--target-{kind}", type=above_zero, metavar="NUMBER", help=help)


_CHOICES = (
    click.option(
        "--eps",
        type=float,
        help=f"ε_p, the relative error of each kernel.  [default: {USUAL_EPS}]",
    ),
    _target("pcr", "Reach this parameter compression ratio, each layer with its own ε_p."),
    _target("fcr", "Reach this FLOPs compression ratio."),
    _target("mb", "Fit a safetensors file of so many MB (1,000,000 bytes)."),
    click.option(
        "--rule",
        type=click.Choice(RULES),
        default="paper",
        show_default=True,
        help="How ranks are chosen: as published, or storing less at the same ε_p.",
    ),
    click.option(
        "--objective",
        type=click.Choice([*OBJECTIVES, "latency"]),
        help="What the choice among rings makes small; latency is measured on this machine.  "
        "[default: storage; macs for --target-fcr]",
    ),
    click.option(
        "--latency-batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="For --objective latency: images in a batch.  [default: 1]",
    ),
    click.option(
        "--layers",
        multiple=True,
        metavar="paper|auto|all|GLOB",
        help="Which layers: paper (every k×k convolution but the first), auto (every convolution "
        "and linear layer whose ring stores less), all (every convolution), or globs over their "
        "names; may be repeated.  [default: paper for the paper's networks, auto for others]",
    ),
    click.option(
        "--layer-eps",
        multiple=True,
        metavar="NAME=EPS",
        help="An ε_p for one layer; may be repeated.",
    ),
    click.option(
        "--keep-dense", multiple=True, metavar="NAME", help="Leave a layer dense; may be repeated."
    ),
)
calibrate = click.option(
    "--calibrate",
    type=click.IntRange(min=2),
    metavar="N",
    help="For a target: measure each layer's damage on N unlabelled training images.",
)
json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_weights = click.option(
    "--weights",
    metavar="FILE|none",
    callback=lambda context, option, word: WeightsSource.of(word),
    help="Own .safetensors, .pth or .ckpt file; none: seeded weights with a decaying spectrum.",
)
factory = click.option(
    "--factory",
    metavar="PACKAGE.MODULE:FUNCTION",
    help="What builds a network of one's own, for a folder of one.",
)
trust_program = click.option(
    "--trust-program",
    is_flag=True,
    help="Run rsdtr_model.py of the folder of a network of somebody's own: it is code.",
)
_classes = click.option(
    "--classes",
    type=click.IntRange(min=1, max=MOST_CLASSES),
    metavar="N",
    help="How many classes the weights tell apart.  [default: as the last layer in their file]",
)


def weights(command: Command) -> Command:
    """--weights, and --classes where the command takes a model: the model is then NAME@N."""
    named = next((w for w in _MODEL_WORDS if w in inspect.signature(command).parameters), None)
    if named is None:
        return _weights(command)

    @functools.wraps(command)
    def with_weights(*args: Any, weights: WeightsSource, classes: int | None, **others: Any) -> Any:
        if is_onnx(others[named]):
            _check_onnx(command.__name__, weights, classes)
        elif classes is not None or weights.file is not None:
            others[named] = with_classes(others[named], weights, classes)
        return command(*args, weights=weights, **others)

    return _weights(_classes(with_weights))  # type: ignore[return-value]  # click's decorators


_MODEL_WORDS = ("model", "model_or_dir")
_TAKE_ONNX = ("plan", "compress")


def _check_onnx(command: str, weights: WeightsSource, classes: int | None) -> None:
    if command not in _TAKE_ONNX:
        raise click.UsageError(f"{command} takes no ONNX file: plan, compress and verify do")
    if not weights.published or classes is not None:
        raise click.UsageError("an ONNX file has its own weights: leave --weights and --classes")


data = click.option(
    "--data",
    metavar="NAME_OR_DIR",
    help="digits, cifar10, photos, or a folder of class folders.  [default: the model's own]",
)


def onnx_inputs(command: Command) -> Command:
    """What tells how an ONNX file takes its inputs; the command gets one dict, `pictures`, beside
    `size`.
    """

    @functools.wraps(command)
    def with_pictures(
        *args: Any, mean: Sequence[float] | None, std: Sequence[float] | None, bgr: bool,
        **others: Any,
    ) -> Any:  # fmt: skip
        return command(*args, pictures={"mean": mean, "std": std, "bgr": bgr}, **others)

    for option in reversed((size, *_PICTURES)):
        with_pictures = option(with_pictures)
    return with_pictures  # type: ignore[return-value]  # click's decorators keep the type loose


def _size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """HEIGHTxWIDTH, or one number for both."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    try:
        height, width = (int(part) for part in (parts * 2 if len(parts) == 1 else parts))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise click.UsageError(f"--input-size is {text!r}: give HEIGHTxWIDTH, as in 48x320")
    return height, width


def _numbers(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"{text!r} is no list of numbers: give A,B,C") from None


size = click.option(
    "--input-size",
    "size",
    callback=_size,
    metavar="HEIGHTxWIDTH",
    help="Of an ONNX file that takes inputs of any size: what costs are counted for.  "
    "[default: 224x224]",
)
_PICTURES = (
    click.option(
        "--mean",
        callback=_numbers,
        metavar="A,B,C",
        help="Of pictures for an ONNX file, in 0..1.  [default: ImageNet's]",
    ),
    click.option("--std", callback=_numbers, metavar="A,B,C", help="The same."),
    click.option("--bgr", is_flag=True, help="The ONNX file takes blue first."),
)
