"""The names of a checkpoint's tensors, as people save them, in those of the network they are for.

Wrappers leave their own names within those of a network (`module.` of DataParallel, `_orig_mod.` of
torch.compile), and whoever holds the network in an attribute saves that attribute's name as well.
Both are only taken away where the names do not fit without.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from rsdtr.errors import WeightsError
from rsdtr.system.state_file import EXTRA, memory_place

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Attributes that a network is usually held in, the usual one first.
USUAL = ("model.", "net.", "network.", "backbone.", "encoder.", "classifier.", "student.")
_COUNTERS = {"n_averaged"}  # which torch.optim.swa_utils.AveragedModel has beside `module.`
_DEEPEST = 3  # attributes around a network
_log = logging.getLogger(__name__)
Todays = Callable[[str], str | None]


def fitting(
    state: OrderedDict[str, Any], own: Mapping[str, Any], todays: Todays = str
) -> OrderedDict[str, Any]:
    """`state` by the names of `own`, a network's state_dict, where there is a way to read it so.

    todays: what a published name has become, None for what is of no use. Names that do not fit
    stay as they are, for `weights.fill` to tell. WeightsError where two prefixes would fit.
    """
    required = {name for name in own if not may_be_missing(name)} - _second_names(own)
    plain = _renamed(state, "", lambda name: name, todays)
    if required <= plain.keys():
        return plain
    own_names = {unwrapped(name): name for name in own}
    if len(own_names) < len(own):  # the network has such names itself
        own_names = {name: name for name in own}

    def under(prefix: str) -> OrderedDict[str, Any]:
        def short(name: str) -> str | None:
            if name in _COUNTERS:
                return None
            bare = unwrapped(name)
            return bare.removeprefix(prefix) if bare.startswith(prefix) else None

        return _renamed(state, prefix, short, lambda name: _own(todays(name), own_names))

    tried = {prefix: under(prefix) for prefix in _prefixes(state, len(required))}
    found = [prefix for prefix, names in tried.items() if required <= names.keys()]
    if not found:
        best = max(tried, key=lambda prefix: len(required & tried[prefix].keys()), default="")
        known = len(required & tried[best].keys()) if tried else 0
        return tried[best] if 2 * known > len(required) else plain
    prefix = _one_of(found)
    left = len(state) - len(tried[prefix])
    if left:
        _log.info("%d tensors beside those under %r were left aside", left, prefix)
    return tried[prefix]


def may_be_missing(name: str) -> bool:
    """Whether a file may lack it: BatchNorm's step counters came with torch 0.4.1, and what a
    module says beside its tensors is in no file but torch's own.
    """
    return name.endswith(("num_batches_tracked", EXTRA))


def _second_names(own: Mapping[str, Any]) -> set[str]:
    """Names of tensors that an earlier name holds already: many writers leave them out."""
    seen: dict[object, str] = {}
    for name, value in own.items():
        place = memory_place(value)
        if place is not None:
            seen.setdefault(place, name)
    firsts = set(seen.values())
    return {n for n, value in own.items() if memory_place(value) is not None and n not in firsts}


def unwrapped(name: str) -> str:
    """A name without those of wrappers, wherever in it they are."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _prefixes(state: Mapping[str, Any], least: int) -> list[str]:
    """What so many of the names begin with, the shortest first."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = unwrapped(name).split(".")
        counts.update(
            ".".join(parts[:depth]) + "." * (depth > 0)
            for depth in range(min(len(parts), _DEEPEST + 1))
        )
    return sorted((p for p, n in counts.items() if n >= min(least, len(state))), key=len)


def _one_of(found: list[str]) -> str:
    for usual in ("", *USUAL):
        if usual in found:
            return usual
    if len(found) > 1:
        named = ", ".join(repr(prefix) for prefix in found[:3])
        raise WeightsError(
            f"it holds the network several times, under {named}: save one of them alone"
        )
    return found[0]


def _own(name: str | None, own_names: Mapping[str, str]) -> str | None:
    return None if name is None else own_names.get(unwrapped(name), name)


def _renamed(
    state: OrderedDict[str, Any],
    prefix: str,
    short: Callable[[str], str | None],
    todays: Todays,
) -> OrderedDict[str, Any]:
    renamed: OrderedDict[str, Any] = OrderedDict()
    for name, value in state.items():
        bare = short(name)
        new = None if bare is None else todays(bare)
        if new is None:
            continue
        if new in renamed:
            raise WeightsError(
                f"it holds {new[:80]} both with and without `module.` or another wrapper's name: "
                "give one kind"
            )
        renamed[new] = value
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        # torch's own convention: which version of its class wrote each module's tensors.
        renamed._metadata = OrderedDict(  # type: ignore[attr-defined]
            (path.removesuffix("."), told)
            for module, told in versions.items()
            if (path := short(f"{module}." if module else "")) is not None
        )
    return renamed
