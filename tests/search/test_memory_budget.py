"""What is kept for later is bounded: the least recently used goes first, and no owner is held."""

import threading

import torch

from rsdtr.search.candidate import Candidate
from rsdtr.search.memory_budget import Kept
from rsdtr.search.paper_rule import KernelSpectra

Place = tuple[int, int, tuple[int, ...]]


def place(ring: Candidate) -> Place:
    return ring.shift, ring.r0, ring.ranks  # its error differs in the last bits


class Owner:
    """Holds things by key, as an unfolding does."""

    def __init__(self) -> None:
        self.things: set[str] = set()

    def use(self, kept: Kept, key: str, scalars: int) -> None:
        self.things.add(key)
        kept.use(self, key, scalars, lambda owner: owner.things.discard(key))


def test_the_least_recently_used_goes_first() -> None:
    kept, owner, other = Kept(10), Owner(), Owner()
    owner.use(kept, "a", 4)
    owner.use(kept, "b", 4)
    owner.use(kept, "a", 4)  # used again: b is older now
    other.use(kept, "a", 4)  # 12 in all
    assert (owner.things, other.things) == ({"a"}, {"a"})
    other.use(kept, "big", 50)  # alone above the limit: it stays as long as it is the latest
    assert (owner.things, other.things) == (set(), {"big"})
    other.use(kept, "small", 1)
    assert other.things == {"small"}


def test_a_thing_that_grows_is_counted_once() -> None:
    kept, owner = Kept(10), Owner()
    owner.use(kept, "a", 2)
    owner.use(kept, "b", 2)
    owner.use(kept, "b", 8)
    assert owner.things == {"a", "b"}  # 10 in all, not 12
    owner.use(kept, "b", 9)
    assert owner.things == {"b"}


def test_no_owner_is_kept_alive_and_a_dead_one_is_not_asked() -> None:
    kept, owner = Kept(10), Owner()
    things = owner.things
    owner.use(kept, "a", 8)
    del owner
    other = Owner()
    other.use(kept, "a", 8)
    assert things == {"a"}  # nobody called its drop
    assert other.things == {"a"}
    other.use(kept, "b", 8)
    assert other.things == {"b"}


def test_the_memory_of_a_search_is_bounded(monkeypatch) -> None:
    """What is kept for 60 ε_p of a kernel would take many times the limit."""
    torch.manual_seed(0)
    spectra = KernelSpectra(torch.randn(48, 48, 3, 3))
    monkeypatch.setattr("rsdtr.search.unfoldings._SECONDS", Kept(1 << 19))
    kept = []
    for step in range(60):
        spectra.candidates(0.2 + 0.01 * step)
        kept.append(sum(s.scalars for first in spectra.unfoldings for s in first._seconds.values()))
    assert max(kept) <= 1 << 19
    assert len(kept) == 60


def test_two_threads_may_search_one_kernel() -> None:
    torch.manual_seed(0)
    kernel = torch.randn(24, 20, 3, 3)
    asked = [0.05 * step for step in range(4, 19)]
    expected = [place(KernelSpectra(kernel).best(eps).winner) for eps in asked]
    spectra = KernelSpectra(kernel)
    found: dict[int, list[Place]] = {0: [], 1: [], 2: [], 3: []}

    def search(thread: int) -> None:
        order = asked if thread % 2 == 0 else asked[::-1]
        answers = [place(spectra.best(eps).winner) for eps in order]
        found[thread] = answers if thread % 2 == 0 else answers[::-1]

    threads = [threading.Thread(target=search, args=(n,)) for n in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers == expected for answers in found.values())
