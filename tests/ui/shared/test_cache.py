"""What all sessions share is calculated once, however many ask for it at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from streamlit.runtime.state import SessionState, session_state_proxy
from streamlit.runtime.state.safe_session_state import SafeSessionState

from rsdtr.ui.shared import cache
from rsdtr.ui.shared.cache import Memo


class Moved(Exception):
    """The reader has moved on."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(cache, "PATIENCE", 0.01)
    quiet = SafeSessionState(SessionState(), lambda: None)
    monkeypatch.setattr(session_state_proxy, "get_session_state", lambda: quiet)


class Slow:
    """A calculation that lasts until it is let go."""

    def __init__(self) -> None:
        self.begun, self.over, self.times = threading.Event(), threading.Event(), 0

    def __call__(self) -> int:
        self.times += 1
        self.begun.set()
        assert self.over.wait(20)
        return 40 + self.times


def test_one_calculates_for_all_who_ask_at_once():
    kept, slow = Memo(4), Slow()
    with ThreadPoolExecutor(8) as readers:
        asked = [readers.submit(kept.of, "key", slow) for _ in range(8)]
        assert slow.begun.wait(20)
        assert kept.of("another", lambda: 7) == 7  # waits for nobody
        slow.over.set()
        assert [answer.result(20) for answer in asked] == [41] * 8
    assert slow.times == 1


def test_the_next_one_calculates_where_one_gives_up():
    kept, begun = Memo(4), threading.Event()

    def gives_up() -> int:
        begun.set()
        waiting.wait(0.1)
        raise Moved

    waiting = threading.Event()
    with ThreadPoolExecutor(2) as readers:
        first = readers.submit(kept.of, "key", gives_up)
        assert begun.wait(20)
        second = readers.submit(kept.of, "key", lambda: 5)
        with pytest.raises(Moved):
            first.result(20)
        assert second.result(20) == 5
    assert "key" in kept


def test_who_waits_and_moves_on_waits_no_longer(monkeypatch):
    """As Streamlit stops a script: where it looks into the session's state."""
    kept, slow = Memo(4), Slow()

    def moved_on() -> None:
        raise Moved

    with ThreadPoolExecutor(1) as readers:
        first = readers.submit(kept.of, "key", slow)
        assert slow.begun.wait(20)
        moved = SafeSessionState(SessionState(), moved_on)
        monkeypatch.setattr(session_state_proxy, "get_session_state", lambda: moved)
        with pytest.raises(Moved):
            kept.of("key", lambda: 5)
        slow.over.set()
        assert first.result(20) == 41


def test_the_least_recently_used_goes_first():
    kept = Memo(2)
    for key in ("a", "b", "a", "c"):
        kept.of(key, key.upper)
    assert ["a" in kept, "b" in kept, "c" in kept] == [True, False, True]
