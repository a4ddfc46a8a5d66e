"""How long a visitor waits from the address to the first figure of Explore, in a fresh browser.

    python benchmarks/first_paint.py [--rounds 3] [--query model=digits_resnet20]

Each round starts a server as `make run` does, and a browser with a profile of its own for each
visit. `cold`: the first visit, as soon as the server answers. `later`: another one, when the first
visitor's page is at its end. Seconds from the start of the navigation to the first frame in which a
figure is drawn, in headless Chromium on the same machine; `load` is what the machine had to do
besides, in processes that want to run, before the round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from playwright.sync_api import BrowserType, Page, sync_playwright
from serving import running

from rsdtr.measuring.stopwatch import machine

DRAWN = "document.querySelector('.js-plotly-plot .main-svg .trace') && performance.now() / 1000"
SETTLED = """document.querySelector('[data-testid=stApp]')
  ?.getAttribute('data-test-script-state') === 'notRunning'"""
PATIENCE = 120_000  # milliseconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--query", default="model=digits_resnet20")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {"cold": [], "later": []}
    load = []
    with sync_playwright() as playwright:
        for _ in range(asked.rounds):
            load.append(round(os.getloadavg()[0], 2))
            with running() as root:
                for visit in ("cold", "later"):
                    found[visit].append(first_figure(playwright.chromium, f"{root}/?{asked.query}"))
    report = {
        "machine": machine(),
        "load": load,
        **{visit: {"median": np.median(times), "all": times} for visit, times in found.items()},
    }
    print(json.dumps(report, indent=1))


def first_figure(chromium: BrowserType, address: str) -> float:
    """Seconds until the page at the address has a figure; it is left when all of it is drawn."""
    with tempfile.TemporaryDirectory() as profile:
        browser = chromium.launch_persistent_context(
            profile, executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu"], viewport={"width": 1440, "height": 900},
        )  # fmt: skip
        page: Page = browser.pages[0]
        page.set_default_timeout(PATIENCE)
        page.goto(address, wait_until="commit")
        seconds = float(page.wait_for_function(DRAWN).json_value())
        page.wait_for_function(SETTLED)
        browser.close()
    return round(seconds, 2)


if __name__ == "__main__":
    main()
