"""Networks of somebody's own: what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict, Unpack, get_args

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rsdtr.errors import RsdtrError, first_line
from rsdtr.models import torchvision_networks
from rsdtr.models.outputs import tensors
from rsdtr.models.run import (
    Example,
    called,
    evaluating,
    first_of_each,
    fresh_input,
    give_lazy_layers_weights,
    tensors_in,
)
from rsdtr.models.spec import ChannelOrder, Crop, Interpolation, ModelSpec, Task
from rsdtr.models.surgery import copied, made_by

Shape = tuple[int, int, int]


class Preparation(TypedDict, total=False):
    """How the pictures of a network are prepared, and what its outputs are called: `own_model`."""

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    class_names: Sequence[str] | None
    resize: int | None
    crop: Crop
    interpolation: Interpolation
    channel_order: ChannelOrder
    pixel_range: Literal[1, 255]


@dataclass(frozen=True, eq=False)
class OwnSpec(ModelSpec):
    """The spec of a network of somebody's own, which knows what builds it.

    factory: answers the network, which is copied and never changed; example_inputs: as `profile`
    takes them. A copy or a pickle of something that holds it does not hold the network twice.
    """

    factory: Callable[[], nn.Module] = field(default=nn.Identity, repr=False)
    example_inputs: Example | None = field(default=None, repr=False)

    def example(self, model: nn.Module) -> Example:
        if self.example_inputs is None:
            return super().example(model)
        return first_of_each(self.example_inputs)

    def build(self) -> nn.Module:
        network = self.factory()
        if tool := made_by(network):
            raise RsdtrError(
                f"{self.name} has no nn.Conv2d, for it came out of {tool}: give the nn.Module that "
                "it was made from"
            )
        network = copied(network)
        give_lazy_layers_weights(network, self.example(network))
        return network

    @property
    def unlabelled(self) -> OwnSpec:
        """The same for pictures whose folders mean no classes."""
        return replace(self, family="own other")

    def __deepcopy__(self, memo: object) -> OwnSpec:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelSpec, tuple(vars(self.written).values())


def own_spec(
    name: str,
    network: nn.Module | Callable[[], nn.Module],
    input_shape: Shape,
    classes: int,
    *,
    task: Task = "classification",
    example_inputs: Example | None = None,
    source: str = "given by its user",
    **said: Unpack[Preparation],
) -> OwnSpec:
    """The spec of a network of one's own, as `own_model` describes it; RsdtrError as there."""
    if unknown := sorted(said.keys() - Preparation.__annotations__.keys()):
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
    names = tuple(said.get("class_names") or ())
    crop, resize = said.get("crop", "center"), said.get("resize")
    interpolation = said.get("interpolation", "bilinear")
    channel_order, pixel_range = said.get("channel_order", "RGB"), said.get("pixel_range", 1)
    outputs = max(classes, 2)
    if names and (len(names) != outputs or len(set(map(str.casefold, names))) < outputs):
        raise RsdtrError(
            f"{name} has {outputs} classes and was given {len(names)} names of which "
            f"{len(set(map(str.casefold, names)))} differ: give one of its own for each class"
        )
    for word, value, kind in (
        ("task", task, Task), ("crop", crop, Crop), ("interpolation", interpolation, Interpolation),
        ("channel_order", channel_order, ChannelOrder),
        ("pixel_range", pixel_range, Literal[1, 255]),
    ):  # fmt: skip
        if value not in get_args(kind):
            known = ", ".join(map(repr, get_args(kind)))
            raise RsdtrError(f"{name} was given {word}={value!r}: give one of {known}")
    if resize is not None and (crop == "squash" or resize < min(input_shape[1:])):
        raise RsdtrError(
            f"{name} was given resize={resize} and crop={crop!r} for inputs of "
            f"{input_shape[1]}×{input_shape[2]}: give a resize that the crop fits into, and none "
            "with 'squash'"
        )
    if channel_order == "BGR" and input_shape[0] not in (3, 4):
        raise RsdtrError(f"{name} takes {input_shape[0]} channels: BGR is an order of 3 or 4")
    channels = input_shape[0]
    mean = said.get("mean") or (0.0,) * channels
    std = said.get("std") or (1.0,) * channels
    if len(mean) != channels or len(std) != channels or min(*input_shape, classes) < 1:
        raise RsdtrError(
            f"{name} was given input {input_shape}, {classes} classes, {len(mean)} means and "
            f"{len(std)} deviations: give (C, H, W), at least one class, and C of each"
        )
    return OwnSpec(
        name=name,
        family=f"own {task}",
        input_shape=input_shape,
        classes=classes,
        mean=tuple(value / pixel_range for value in mean),
        std=tuple(value / pixel_range for value in std),
        resize=resize,
        interpolation=interpolation,
        class_names=names,
        crop=crop,
        channel_order=channel_order,
        data=None if task == "classification" else torchvision_networks.DATA,
        weights_file=None,
        weights_url=None,
        sha256=None,
        bundled=False,
        source=source,
        factory=_builder(network),
        example_inputs=example_inputs,
    )


def described(
    network: nn.Module,
    example_inputs: Example,
    *,
    name: str | None = None,
    task: Task | None = None,
    factory: Callable[[], nn.Module] | None = None,
    source: str | None = None,
    **said: Unpack[Preparation],
) -> OwnSpec:
    """The spec of a network that is run once, in eval mode and as a copy, to see what it answers.

    name: by default that of its class; task: by default `classification` where it answers one
    tensor (n, C), or has class_names, and else `other`; factory: builds it, by default itself.
    RsdtrError where it does not run on these inputs.
    """
    kind = f"{type(network).__module__}.{type(network).__qualname__}"
    name = name or type(network).__name__
    if any(is_lazy(value) for value in (*network.parameters(), *network.buffers())):
        raise RsdtrError(f"{name} has layers without weights yet: run it once, and train it")
    given = list(tensors_in(example_inputs))
    if not given:
        raise RsdtrError(
            f"{name} was given {type(example_inputs).__name__} as example inputs: give a tensor, a "
            "tuple of its arguments, or a dict of its keyword arguments"
        )
    single = isinstance(example_inputs, Tensor)
    alone = first_of_each(example_inputs)
    if single:
        alone = fresh_input(network, next(tensors_in(alone)))
    copy = copied(network)
    try:
        with evaluating(copy):
            answer = called(copy, alone)
    except Exception as error:  # whatever a network raises that takes something else
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(alone))
        first = first_line(error)
        raise RsdtrError(
            f"{name} does not run on example inputs of shape {shapes} ({first}): give a tensor, a "
            "tuple of its arguments, or a dict of its keyword arguments, with a batch in front"
        ) from error
    shape = next((tensor.shape[1:] for tensor in given if tensor.ndim == 4), given[0].shape[1:])
    padded = (1, 1, 1, *shape)[-3:]
    classes, found = _outputs(answer)
    names = said.get("class_names")
    return own_spec(
        name,
        factory or network,
        (int(padded[0]), int(padded[1]), int(padded[2])),
        classes if task in (None, "classification") or names else 1,
        task=task or ("classification" if names else found),
        example_inputs=None if single and given[0].ndim == 4 else example_inputs,
        source=source or f"{kind}, given by its user",
        **said,
    )


def _outputs(answer: object) -> tuple[int, Task]:
    """How many classes an answer to one input may tell apart, and whether it seems to be one."""
    said = list(tensors(answer))
    if len(said) == 1 and said[0].ndim == 2 and len(said[0]) == 1:
        classes = said[0].shape[1]
        return classes, "classification" if classes > 1 else "other"
    return 1, "other"


def read_spec(
    told: ModelSpec, network: nn.Module | Callable[[], nn.Module], example: Example | None = None
) -> OwnSpec:
    """The spec that a saved folder tells of a network of one's own, with what builds that."""
    return OwnSpec(**vars(told.written), factory=_builder(network), example_inputs=example)


def _builder(network: nn.Module | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """What answers a network. A module is callable too: what it answers is no network."""
    return (lambda: network) if isinstance(network, nn.Module) else network
