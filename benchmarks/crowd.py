"""Many sessions on one server at once, on all pages: errors, memory, and how long a slider takes.

    python benchmarks/crowd.py [--sessions 50] [--seconds 600] [--seed 0]

The server is the one that `make run` starts, on this machine, with a cache folder of its own; the
visitors are not browsers, of which so many need more memory than a laptop has, but the connections
that browsers open: all come within the first tenth of the time; each asks for a page, moves its
slider, reads, goes to another page, and now and then leaves for good while somebody new comes. A
slider's move is timed from the new value's sending to the end of the page's script. `server_mb` is
the server's memory after each tenth of the time. Exit code 1 for any error, or if it grows by more
than a tenth after the first two fifths.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from serving import running

from rsdtr.measuring.stopwatch import machine
from rsdtr.search.candidate import GRID

PAGES = ("", "Layers", "Recover", "Compare", "Export", "Learn")
ADDRESS = "model=digits_resnet20"
READING = (5.0, 15.0)  # seconds between two actions of a visitor
LEAVES = 0.05  # how often a visitor goes for good
PATIENCE = 120.0  # seconds that a page may take
MOST_GROWTH = 0.10
FINISHED = (ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY)


@dataclass
class Seen:
    """What all visitors have seen: runs by page, seconds of slider moves, errors in words."""

    runs: Counter[str] = field(default_factory=Counter)
    moves: list[float] = field(default_factory=list)
    visitors: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class Visitor:
    """One session: its page, and the slider that it has drawn."""

    def __init__(self, stream: ClientConnection, seen: Seen, dice: random.Random) -> None:
        self._stream, self._seen, self._dice = stream, seen, dice
        self._pages: dict[str, str] = {}  # their scripts' hashes, by name
        self._page, self._slider = "", ""

    async def visit(self, page: str) -> None:
        """Go to a page, at some ε_p, and wait until it is drawn."""
        message = BackMsg()
        state = message.rerun_script
        state.query_string = f"{ADDRESS}&eps={self._dice.choice(GRID):g}"
        state.page_script_hash = self._pages.get(page, "")
        if not self._pages:
            state.page_name = page
        self._page, self._slider = page, ""
        await self._run(message)
        self._seen.runs[page or "Explore"] += 1

    async def move(self) -> None:
        """Move the slider of ε_p, if the page has one."""
        if not self._slider:
            return
        message = BackMsg()
        state = message.rerun_script
        state.query_string = ADDRESS
        state.page_script_hash = self._pages.get(self._page, "")
        widget = state.widget_states.widgets.add(id=self._slider)
        widget.double_array_value.data.append(self._dice.choice(GRID))
        started = time.perf_counter()
        await self._run(message)
        self._seen.moves.append(time.perf_counter() - started)

    async def _run(self, message: BackMsg) -> None:
        await self._stream.send(message.SerializeToString())
        try:
            async with asyncio.timeout(PATIENCE):
                await self._drawn()
        except TimeoutError:
            self._error(f"no answer in {PATIENCE:.0f} s")
            raise

    async def _drawn(self) -> None:
        while True:
            answer = ForwardMsg()
            answer.ParseFromString(await self._next())
            self._look_at(answer)
            if answer.WhichOneof("type") == "script_finished":
                if answer.script_finished in FINISHED:
                    return
                if answer.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
                    self._error("does not compile")
                    return

    async def _next(self) -> bytes:
        received = await self._stream.recv()
        return received if isinstance(received, bytes) else received.encode()

    def _look_at(self, answer: ForwardMsg) -> None:
        kind = answer.WhichOneof("type")
        if kind in ("new_session", "navigation"):
            for page in getattr(answer, kind).app_pages:
                name = "" if page.is_default else page.url_pathname or page.page_name
                self._pages[name] = page.page_script_hash
        elif kind == "page_not_found":
            self._error("not found")
        elif kind == "delta":
            element = answer.delta.new_element
            what = element.WhichOneof("type")
            if what == "slider" and element.slider.id.endswith("-eps"):
                self._slider = element.slider.id
            elif what == "exception":
                self._error(element.exception.message)
            elif what == "alert" and element.alert.format == element.alert.ERROR:
                self._error(element.alert.body)

    def _error(self, what: str) -> None:
        self._seen.errors[f"{self._page or 'Explore'}: {what}"] += 1


async def seat(root: str, seen: Seen, until: float, dice: random.Random, late: float) -> None:
    """One place in the crowd: a visitor, and after that the next one, until the time is over.

    late: seconds within which the first one comes.
    """
    address = root.replace("http", "ws", 1) + "/_stcore/stream"
    await asyncio.sleep(dice.uniform(0, late))
    while time.monotonic() < until:
        seen.visitors += 1
        try:
            async with connect(
                address,
                subprotocols=[Subprotocol("streamlit")],
                origin=Origin(root),
                max_size=None,
                ping_timeout=None,
            ) as stream:
                visitor = Visitor(stream, seen, dice)
                while time.monotonic() < until:
                    await visitor.visit(dice.choice(PAGES))
                    for _ in range(dice.randint(0, 3)):
                        await asyncio.sleep(dice.uniform(*READING))
                        await visitor.move()
                    await asyncio.sleep(dice.uniform(*READING))
                    if dice.random() < LEAVES:
                        break
        except TimeoutError:  # told by the visitor, who gave up
            pass
        except Exception as error:
            seen.errors[repr(error)] += 1
            await asyncio.sleep(1)


async def crowd(root: str, sessions: int, seconds: float, seed: int) -> dict[str, object]:
    """All of it, and what came of it."""
    (server,) = psutil.Process().children()
    seen, until = Seen(), time.monotonic() + seconds
    seats = [
        asyncio.create_task(
            seat(root, seen, until, random.Random(f"{seed} {number}"), seconds / 10)
        )
        for number in range(sessions)
    ]
    memory = []
    for _ in range(10):
        await asyncio.sleep(seconds / 10)
        memory.append(server.memory_info().rss >> 20)
    await asyncio.gather(*seats)
    median, high = np.percentile(seen.moves, (50, 95)) if seen.moves else (0.0, 0.0)
    return {
        "machine": machine(),
        "sessions": sessions,
        "seconds": seconds,
        "visitors": seen.visitors,
        "pages_drawn": dict(seen.runs),
        "slider_moves": len(seen.moves),
        "slider_move_seconds": {"median": round(median, 2), "percentile_95": round(high, 2)},
        "server_mb": memory,
        "growth": round(memory[-1] / memory[3] - 1, 3),
        "errors": seen.errors.total(),
        "most_errors": dict(seen.errors.most_common(5)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RSDTR_CACHE"] = cache
        with running() as root:
            found = asyncio.run(crowd(root, asked.sessions, asked.seconds, asked.seed))
    print(json.dumps(found, indent=1, ensure_ascii=False))
    growth = found["growth"]
    assert isinstance(growth, float)
    sys.exit(bool(found["errors"]) or growth > MOST_GROWTH)


if __name__ == "__main__":
    main()
