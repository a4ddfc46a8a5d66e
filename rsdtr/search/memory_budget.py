"""What searches keep for later searches, up to a bound that all of a process share."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

Owner = TypeVar("Owner")


class Kept:
    """The latest used of many large things, up to `limit` scalars together.

    It holds none of them: each has an owner, which is asked to drop what was not used for longest.
    Several threads may use it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._things: OrderedDict[Hashable, _Thing] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def use(
        self, owner: Owner, key: Hashable, scalars: int, drop: Callable[[Owner], object]
    ) -> None:
        """Note that `owner` uses the thing of that key now, and let the oldest ones go.

        scalars: its size; drop: how the owner lets go of it. What is used now always stays.
        """
        at = id(owner), key
        with self._lock:
            before = self._things.pop(at, None)  # of an owner that died, if its id came again
            self._total += scalars - (before.scalars if before else 0)
            self._things[at] = _Thing(weakref.ref(owner), scalars, drop)
            while self._total > self.limit and len(self._things) > 1:
                _, oldest = self._things.popitem(last=False)
                self._total -= oldest.scalars
                if (alive := oldest.owner()) is not None:
                    oldest.drop(alive)


class _Thing(NamedTuple):
    owner: weakref.ref[Any]
    scalars: int
    drop: Callable[[Any], object]
