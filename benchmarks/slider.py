"""How long the page takes to follow the ε_p slider, on a network whose rings are known.

    python benchmarks/slider.py [--model resnet50] [--layers all] [--moves 60] [--no-browser]

The rings of one question (rule paper, least storage) are searched at every ε_p of the slider first
and kept in the cache folder, so that only the first run takes long: ten minutes for a ResNet-50.
`server`: one run of the page's script, from the widget's new value to the last element, without
browser and network; no matrix may be decomposed on the way. `browser`: from the key press to the
repainted figure, in headless Chromium on the same machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from serving import ROOT, running

from rsdtr.jobs import cancel
from rsdtr.jobs.kinds.grid_search import search_job
from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import policy_layers
from rsdtr.planning.winners_on_disk import load_winners, save_winners
from rsdtr.search.candidate import GRID, Question

DECOMPOSITIONS = ("eigh", "eigvalsh", "svd", "svdvals", "qr")
# What the figure of the layers shows: the outlines of its bars.
SHOWN = """[...document.querySelectorAll('.st-key-before_after .bars path')]
  .map((path) => path.getAttribute('d')).join()"""
STALE_SECONDS = 5.0  # a move after which nothing changes: every layer has the same ring still


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--layers", choices=("paper", "all"), default="all")
    parser.add_argument("--moves", type=int, default=60)
    parser.add_argument("--no-browser", action="store_true")
    asked = parser.parse_args()
    weights = WeightsSource.of(None if asked.weights == "published" else asked.weights)
    torch.set_num_threads(1)
    network = profile(load_model(asked.model, weights), model_spec(asked.model))
    fill(network, asked.layers)
    query = {"model": asked.model, "weights": asked.weights, "layers": asked.layers, "eps": "0.3"}
    report: dict[str, object] = {"machine": machine(), "model": asked.model}
    report["server_ms"] = spread(server(query, asked.moves))
    if not asked.no_browser:
        report["browser_ms"] = spread(browser(query, asked.moves, network, weights))
    print(json.dumps(report, indent=1))


def fill(network: ModelProfile, layers: str) -> None:
    """Search what the store does not know of the question, and store it."""
    load_winners(network)
    chosen = policy_layers(network, layers)
    for layer in network.layers:
        if layer.name in chosen and layer.obstacle is None:
            for eps in GRID:
                network.winner(layer, Question("paper", "storage", eps))
            save_winners(network)
            print(f"{layer.name}: known", file=sys.stderr, flush=True)


def server(query: dict[str, str], moves: int) -> Iterator[float]:
    """Milliseconds of the page's script after each move; the first, cold run is not counted."""
    from streamlit.runtime.scriptrunner.script_cache import ScriptCache
    from streamlit.testing.v1 import AppTest, local_script_runner

    from rsdtr.ui.plan import search_status
    from rsdtr.ui.shared import session

    compiled = ScriptCache()  # a server compiles the page once; the test runner would, each time
    vars(local_script_runner)["ScriptCache"] = lambda: compiled
    vars(search_status)["queue_search"] = lambda *_: None  # it would take the cores
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=600)
    test.session_state[session.UNFOLDED] = True  # no browser draws a first screen here
    for key, value in query.items():
        test.query_params[key] = value
    test.run()
    with undecomposed():
        for eps in np.resize(GRID[20:80], moves):
            test.slider(key="eps").set_value(float(eps))
            start = time.perf_counter()
            test.run()
            yield (time.perf_counter() - start) * 1000
            assert not test.exception


@contextmanager
def undecomposed() -> Iterator[None]:
    """Fail where a matrix is decomposed."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a matrix was decomposed on the way from the slider to the figure")

    kept: dict[str, Callable[..., object]] = {
        name: getattr(torch.linalg, name) for name in DECOMPOSITIONS
    }
    for name in kept:
        setattr(torch.linalg, name, refuse)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(torch.linalg, name, function)


def browser(
    query: dict[str, str], moves: int, network: ModelProfile, weights: WeightsSource
) -> Iterator[float]:
    """Milliseconds from each press of an arrow key to the repainted figure of the layers."""
    from playwright.sync_api import TimeoutError, sync_playwright

    address = "&".join(f"{key}={value}" for key, value in query.items())
    with running() as root, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1440, "height": 1180})
        page.set_default_timeout(300_000)
        page.goto(f"{root}/?{address}")
        page.locator(".st-key-before_after .js-plotly-plot").wait_for()
        if job := search_job(network, weights):
            cancel(job.id)  # what it searches ahead would take the cores
        time.sleep(10)
        slider = page.get_by_role("slider").first
        slider.focus()
        page.evaluate(
            "document.addEventListener('keydown', () => { pressed = performance.now(); }, true)"
        )
        for _ in range(moves):
            page.evaluate(f"() => {{ shown = {SHOWN}; }}")
            slider.press("ArrowRight")
            with suppress(TimeoutError):
                painted = page.wait_for_function(  # looked at before every frame
                    f"() => {SHOWN} !== shown && performance.now() - pressed",
                    timeout=STALE_SECONDS * 1000,
                )
                yield float(painted.json_value())
            page.wait_for_timeout(500)
        chromium.close()


def spread(found: Iterator[float]) -> dict[str, float]:
    values = list(found)
    median, high = np.percentile(values, (50, 95))
    return {"median": round(median, 1), "percentile_95": round(high, 1), "moves": len(values)}


if __name__ == "__main__":
    main()
