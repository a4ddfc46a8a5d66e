"""Layers timed where they run: whole networks in turns, a clock at the door of every layer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from rsdtr.measuring.layer_times import DeviceProfile, FormTime, LayerCase, LayerTimes
from rsdtr.measuring.stopwatch import (
    Spread,
    Told,
    eager,
    interleaved,
    machine,
    spread,
    thread_count,
)
from rsdtr.ring.forms import FORMS, Form

_HOPELESS = 3.0  # times the fastest network: what runs in it is no layer's fastest form


def times_in_networks(
    networks: Mapping[str, nn.Module],
    layers: Sequence[str],
    images: Tensor,
    *,
    runs: int = 10,
    seconds: float = math.inf,
    threads: int = 2,
    progress: Told | None = None,
) -> dict[str, dict[str, Spread]]:
    """How long each of the layers takes inside each of the networks, eagerly: by layer, by network.

    networks: in eval mode, with the same layers; images (B, C, H, W): what all of them get. A run
    of every network in turn, as `stopwatch.interleaved` takes them, and as many as it makes in
    `seconds`: a network costs what it costs, however many layers it has. A layer that is called
    several times in one run takes what its calls take together.
    """
    spent: dict[str, dict[str, list[float]]] = {name: {} for name in networks}

    def noted(name: str, network: nn.Module) -> Callable[[], None]:
        run = eager(network)

        def once() -> None:
            with _clocks(network, layers) as took:
                run(images.clone())
            for layer, ms in took.items():
                spent[name].setdefault(layer, []).append(ms)

        return once

    with thread_count(threads):
        interleaved(
            {name: noted(name, network) for name, network in networks.items()},
            runs=runs, seconds=seconds, at_least=1, hopeless=_HOPELESS, progress=progress,
        )  # fmt: skip
    # The first run of each merges kernels and warms up.
    return {
        layer: {
            name: spread(found[layer][1:] or found[layer], [])
            for name, found in spent.items()
            if layer in found
        }
        for layer in layers
    }


def profile_in_network(
    networks: Mapping[Form, nn.Module],
    cases: Mapping[str, LayerCase],
    images: Tensor,
    *,
    runs: int = 10,
    seconds: float = math.inf,
    threads: int = 2,
    progress: Told | None = None,
) -> DeviceProfile:
    """A device profile of ring layers, by name, out of one network in each form.

    It is not saved: that on disk has times of layers alone, whatever network they are of. Of layers
    alike the fastest counts, as of the runs of one.
    """
    found = times_in_networks(
        {str(form): network for form, network in networks.items()}, list(cases), images,
        runs=runs, seconds=seconds, threads=threads, progress=progress,
    )  # fmt: skip
    alike: dict[LayerCase, list[dict[str, Spread]]] = {}
    for layer, case in cases.items():
        alike.setdefault(case, []).append(found[layer])
    return DeviceProfile(
        machine=machine(),
        layers=tuple(
            LayerTimes(
                case=case,
                forms=tuple(_form_time(form, [times[form] for times in several]) for form in FORMS),
            )
            for case, several in alike.items()
        ),
    )


def _form_time(form: Form, several: Sequence[Spread]) -> FormTime:
    best = min(several, key=lambda times: times.best_ms)
    return FormTime(form=form, median_ms=best.median_ms, iqr_ms=best.iqr_ms, best_ms=best.best_ms)


@contextmanager
def _clocks(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, float]]:
    """What each layer's calls take inside the block, in ms."""
    took: dict[str, float] = {}
    with ExitStack() as stack:
        for name in layers:
            layer = network.get_submodule(name)
            begun: list[float] = []

            def begin(*_: object, begun: list[float] = begun) -> None:
                begun.append(time.perf_counter())

            def end(*_: object, begun: list[float] = begun, name: str = name) -> None:
                took[name] = took.get(name, 0.0) + 1000 * (time.perf_counter() - begun.pop())

            # Before and after all hooks of the layer's own, whose time is not the layer's.
            stack.enter_context(layer.register_forward_pre_hook(begin))
            stack.enter_context(layer.register_forward_hook(end, prepend=True))
        yield took
