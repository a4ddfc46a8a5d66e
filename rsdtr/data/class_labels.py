"""What the names of class folders mean to a network: which output each of them is."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsdtr.models.model_loading import ASSETS
from rsdtr.models.zoo import ModelSpec, class_names

WNIDS = ASSETS / "imagenet_wnids.txt"
_WNID = re.compile(r"n\d{8}(?!\d)")
_NUMBERED = re.compile(r"\d+[ ._-]+(?=\D)")  # "007.frog"


@dataclass(frozen=True)
class LabelMeaning:
    """What class folders mean: the output of each, and the names of the outputs.

    assumed: what is taken for granted, in a sentence that belongs beside every accuracy; unknown:
    why the labels do not mean the network's outputs, so that there is no accuracy by them. None
    where there is nothing to say.
    """

    outputs: tuple[int, ...]
    classes: tuple[str, ...]
    assumed: str | None = None
    unknown: str | None = None


def label_meaning(names: Sequence[str], spec: ModelSpec) -> LabelMeaning:
    """The meaning of folders of these names, in their order, to a network for classification.

    Names are compared without case; of an ImageNet network its WordNet ids are names as well.
    Folders whose names are not the network's are numbered in their order, as torchvision's
    ImageFolder does, which is an assumption where they are as many as the outputs, and else says
    nothing about them.
    """
    known = class_names(spec)
    by_name = _outputs(known, _has_wnids(spec))
    found = [_output(name, by_name) for name in names]
    outputs = tuple(output for output in found if output is not None)
    if len(outputs) == len(names):
        numbered = spec.family != "digits" and _unnamed(known) and len(names) == len(known)
        return LabelMeaning(outputs, known, _order_of_numbers(names) if numbered else None)
    strangers = [name for name, output in zip(names, found, strict=True) if output is None]
    numbers = [int(name) for name in names if name.isdecimal()]
    if len(numbers) == len(names) and max(numbers) < len(known):
        return LabelMeaning(
            tuple(numbers), known,
            f"the numbers of the folders are taken for the numbers of {spec.name}'s outputs, from "
            f"0 ({known[0]})",
        )  # fmt: skip
    in_order = LabelMeaning(tuple(range(len(names))), tuple(names))
    if _unnamed(known) and not outputs and len(names) == len(known):
        return LabelMeaning(
            in_order.outputs, in_order.classes,
            f"the folders are taken for {spec.name}'s outputs in the order of their names "
            f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''}), as torchvision's "
            "ImageFolder numbers them: nothing says so",
        )  # fmt: skip
    shown = f"{', '.join(strangers[:3])}{', …' if len(strangers) > 3 else ''}"
    whose = "has no names for its classes" if _unnamed(known) else f"has names like {known[0]}"
    return LabelMeaning(
        in_order.outputs, in_order.classes,
        unknown=f"{len(strangers):,} of {len(names):,} class folders ({shown}) are no classes of "
        f"{spec.name}, which {whose}",
    )  # fmt: skip


@functools.cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of ImageNet's 1,000 classes in the order of a network's outputs."""
    lines = WNIDS.read_text(encoding="ascii").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def _has_wnids(spec: ModelSpec) -> bool:
    return spec.family == "imagenet" and spec.classes == len(wnids()) and not spec.class_names


@functools.cache
def _outputs(known: tuple[str, ...], with_wnids: bool) -> Mapping[str, int]:
    """Names as `_plain` writes them → the output; those of two outputs are left out."""
    outputs: dict[str, int] = {}
    twice = set()
    for output, name in enumerate(known):
        plain = _plain(name)
        if outputs.setdefault(plain, output) != output:
            twice.add(plain)
    for plain in twice:
        del outputs[plain]
    return outputs | ({wnid: k for k, wnid in enumerate(wnids())} if with_wnids else {})


def _output(name: str, outputs: Mapping[str, int]) -> int | None:
    plain = _plain(name)
    if (wnid := _WNID.match(plain)) and wnid[0] in outputs:
        return outputs[wnid[0]]
    for tried in (plain, _plain(name.partition(",")[0]), _NUMBERED.sub("", plain, count=1)):
        if tried in outputs:
            return outputs[tried]
    if plain.isdecimal() and str(int(plain)) in outputs:  # "07"
        return outputs[str(int(plain))]
    return None


def _plain(name: str) -> str:
    """Without case, and with one kind of space; letters with accents as one sign each."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _unnamed(known: Sequence[str]) -> bool:
    """Whether the outputs have numbers for names."""
    return all(name == str(output) for output, name in enumerate(known))


def _order_of_numbers(names: Sequence[str]) -> str | None:
    """What to say of numbers that are in one order as numbers and in another as texts."""
    in_order = sorted(names, key=int)
    as_texts = sorted(names)
    if in_order == as_texts:
        return None
    place = next(k for k, name in enumerate(in_order) if as_texts[k] != name)
    return (
        f"folder {in_order[place]} is taken for output {int(in_order[place])}, by its number; "
        f"torchvision's ImageFolder, which numbers folders in the order of their names, has "
        f"{as_texts[place]} there"
    )
