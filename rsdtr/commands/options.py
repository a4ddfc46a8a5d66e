"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from rsdtr.models.factories import factory_spec, is_factory, server_models
from rsdtr.models.model_loading import with_classes
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import MOST_CLASSES, know
from rsdtr.onnx_files.onnx_file import is_onnx
from rsdtr.planning.choices import Choices
from rsdtr.planning.plan import Target, TargetKind
from rsdtr.search.candidate import OBJECTIVES, RULES, Objective, Rule
from rsdtr.system.device import chosen_device

USUAL_EPS = Choices.eps
Layers = str | tuple[str, ...] | None  # a policy, or globs; None for that of the model
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
        layers: Layers,
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
            layers=layers,
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


def _policy(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> Layers:
    return given[0] if len(given) == 1 else given or None


layers = click.option(
    "--layers",
    multiple=True,
    callback=_policy,
    metavar="paper|auto|all|GLOB",
    help="Which layers: paper (every k×k convolution but the first), auto (every convolution "
    "and linear layer whose ring stores less), all (every convolution), or globs over their "
    "names; may be repeated.  [default: paper for the paper's networks, auto for others]",
)


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
    layers,
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
    help="Run rsdtr_model.py, and model.pt2, of the folder of a network of somebody's own: both "
    "are code.",
)


device = click.option(
    "--device",
    default="auto",
    callback=lambda context, option, word: chosen_device(word),
    metavar="auto|cpu|cuda[:N]|mps",
    help="What computes; auto: the GPU there is, else the CPU.  [default: auto]",
)


def _size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """CxHEIGHTxWIDTH, HEIGHTxWIDTH, or one number for both."""
    if text is None:
        return None
    parts = re.fullmatch(r"(?:(?:(\d+)[x×])?(\d+)[x×])?(\d+)", text.lower())
    if parts is None:
        raise click.UsageError(
            f"--input-size is {text!r}: give HEIGHTxWIDTH, as in 48x320, or CxHxW, as in 3x224x224"
        )
    channels, height, width = parts.groups()
    size = tuple(int(part) for part in (channels, height or width, width) if part is not None)
    if min(size) < 1:
        raise click.UsageError(f"--input-size is {text!r}: give numbers of at least 1")
    return size


def _told(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _height_and_width(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    size = _size(context, option, text)
    if size is not None and len(size) != 2:
        raise click.UsageError(f"--input-size is {text!r}: give HEIGHTxWIDTH, as in 48x320")
    return size


_input_size = click.option(
    "--input-size",
    callback=_size,
    metavar="[Cx]HxW",
    help="What a network of package.module:function takes, as in 3x224x224, or, of an ONNX file "
    "that takes inputs of any size, what costs are counted for, as in 48x320.",
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
    takes_size = "size" in inspect.signature(command).parameters

    @functools.wraps(command)
    def with_weights(
        *args: Any,
        weights: WeightsSource,
        classes: int | None,
        input_size: tuple[int, ...] | None,
        **others: Any,
    ) -> Any:
        word = others[named]
        if is_onnx(word):
            _check_onnx(command.__name__, weights, classes, input_size)
        else:
            _know(word, input_size)
        if takes_size:
            others["size"] = input_size if is_onnx(word) else None
        if classes is not None or weights.file is not None:
            others[named] = with_classes(word, weights, classes)
        return command(*args, weights=weights, **others)

    return _weights(_classes(_input_size(with_weights)))  # type: ignore[return-value]  # click's decorators


def _know(word: str, size: tuple[int, ...] | None) -> None:
    """Import what a MODEL names, if it is package.module:function: its owner has typed it."""
    typed = is_factory(word) and not Path(word).exists() and word not in server_models()
    if not typed:
        if size is not None:
            raise click.UsageError(
                f"--input-size is for package.module:function and ONNX files: {word} says its own"
            )
        return
    if size is None:
        know(factory_spec(word, None))
    elif len(size) == 3:
        know(factory_spec(word, (size[0], size[1], size[2])))
    else:
        raise click.UsageError(f"--input-size is {_told(size)}: give CxHxW, as in 3x224x224")


_MODEL_WORDS = ("model", "model_or_dir")
_TAKE_ONNX = ("plan", "compress")


def _check_onnx(
    command: str, weights: WeightsSource, classes: int | None, size: tuple[int, ...] | None
) -> None:
    if command not in _TAKE_ONNX:
        raise click.UsageError(f"{command} takes no ONNX file: plan, compress and verify do")
    if not weights.published or classes is not None:
        raise click.UsageError("an ONNX file has its own weights: leave --weights and --classes")
    if size is not None and len(size) != 2:
        raise click.UsageError(f"--input-size is {_told(size)}: give HEIGHTxWIDTH, as in 48x320")


data = click.option(
    "--data",
    metavar="NAME_OR_DIR",
    help="digits, cifar10, photos, or a folder of class folders.  [default: the model's own]",
)


size = click.option(
    "--input-size",
    "size",
    callback=_height_and_width,
    metavar="HEIGHTxWIDTH",
    help="Of an ONNX file that takes inputs of any size: what costs are counted for.  "
    "[default: 224x224]",
)


def onnx_inputs(command: Command) -> Command:
    """What tells how an ONNX file takes its inputs; the command gets one dict, `pictures`."""

    @functools.wraps(command)
    def with_pictures(
        *args: Any, mean: Sequence[float] | None, std: Sequence[float] | None, bgr: bool,
        **others: Any,
    ) -> Any:  # fmt: skip
        return command(*args, pictures={"mean": mean, "std": std, "bgr": bgr}, **others)

    for option in reversed(_PICTURES):
        with_pictures = option(with_pictures)
    return with_pictures  # type: ignore[return-value]  # click's decorators keep the type loose


def _numbers(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"{text!r} is no list of numbers: give A,B,C") from None


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
