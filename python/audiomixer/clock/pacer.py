"""The only clock: wakes whatever has to happen in time, off the event loop."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, Generic, TypeVar

from audiomixer.clock.frame import FRAME
from audiomixer.clock.processors import processors

_SWITCH: Final = 0.001
"""Seconds after which a thread that runs Python lets another have the GIL; five times as many by default."""

_SHARED_OUT: Final = 250
"""Rounds after which what is paced is shared out anew, as its costs are now."""

_A_SECOND: Final = 50
"""Rounds for which it is measured how busy they are."""

_log = logging.getLogger(__name__)


Paced = TypeVar("Paced")


def clock() -> float:
    """Now, in seconds that never jump: the time of packet arrivals and mixes."""
    return time.monotonic()


def shares(costs: Mapping[Paced, float], most: int) -> list[list[Paced]]:
    """Divides what has these costs into at most so many shares that cost about the same, none of them empty.

    The dearest first, each to whoever has least (Graham's longest processing time first: at most a third more than the
    best division).
    """
    divided: list[list[Paced]] = [[] for _ in range(min(most, len(costs)))]
    sums = [0.0] * len(divided)
    for paced in sorted(costs, key=lambda paced: costs[paced], reverse=True):
        least = min(range(len(sums)), key=lambda n: (sums[n], len(divided[n])))
        divided[least].append(paced)
        sums[least] += costs[paced]
    return [share for share in divided if share]


class Pacer(Generic[Paced]):
    """Has everything it paces advance every 20 ms, spread over a thread per processor.

    Whoever is late does what it missed, so that stream time equals wall-clock time. So that it is not late whenever the
    event loop is busy for a while, the interpreter's threads take turns more often, from the first pacer on.

    Args:
        advance: Does all that is due until now, in seconds of `clock`, for some of what is paced; called with the same
            ones in any one thread at a time.
        cost: What one of them costs a round, on any scale: each thread gets an equal share of that.
    """

    def __init__(
        self, advance: Callable[[Sequence[Paced], float], None], cost: Callable[[Paced], float] = lambda _: 1.0
    ) -> None:
        self._advance_all = advance
        self._cost = cost
        sys.setswitchinterval(min(_SWITCH, sys.getswitchinterval()))
        self._paced: set[Paced] = set()
        self._shares: list[list[Paced]] = []
        """The same, for each thread its share."""
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._busy = False
        self._waiting = 0
        """Who waits until a round has ended."""
        self._thread: threading.Thread | None = None
        self._workers = processors()
        self.rounds = 0
        """Rounds of all that is paced."""
        self.late = 0
        """Rounds that ended after the next should have begun."""
        self.lateness = 0.0
        """Seconds by which they did, all together."""
        self.busy = 0.0
        """Seconds that rounds took, all together."""
        self._share = 0.0
        self._busy_before = 0.0

    @property
    def share(self) -> float:
        """Of the time there is, how much rounds took in the last second or so."""
        return self._share if self._thread else 0.0

    def add(self, paced: Paced) -> None:
        """Begins to pace."""
        with self._lock:
            self._paced.add(paced)
            self._share_out()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pacer", daemon=True)
                self._thread.start()

    def remove(self, paced: Paced) -> None:
        """Ceases to pace; afterwards it is not advancing, nor will again."""
        with self._work:
            self._paced.discard(paced)
            self._share_out()
            under_way = self.rounds
            self._waiting += 1
            # When it is late, the next round begins before a waiter can see that the last one has ended.
            self._work.wait_for(lambda: not self._busy or self.rounds > under_way)
            self._waiting -= 1

    def _share_out(self) -> None:
        self._shares = shares({paced: self._cost(paced) for paced in self._paced}, self._workers)

    def _run(self) -> None:
        tick = clock()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="mix") as pool:
            while True:
                tick += FRAME
                time.sleep(max(0.0, tick - clock()))
                with self._lock:
                    if not self._shares:
                        self._thread = None
                        return
                    first, *others = self._shares
                    self._busy = True
                began = clock()
                # The first share is done here: with a single room, no other thread is woken.
                advancing = [pool.submit(self._advance, share) for share in others]
                self._advance(first)
                if advancing:
                    wait(advancing)
                ended = clock()
                self.busy += ended - began
                lateness = ended - (tick + FRAME)
                if lateness > 0:
                    self.late += 1
                    self.lateness += lateness
                with self._lock:
                    self._busy = False
                    self.rounds += 1
                    if self.rounds % _SHARED_OUT == 0:
                        self._share_out()
                    if self.rounds % _A_SECOND == 0:
                        self._share = (self.busy - self._busy_before) / (_A_SECOND * FRAME)
                        self._busy_before = self.busy
                    if self._waiting:
                        self._work.notify_all()
                tick = max(tick, clock() - FRAME)

    def _advance(self, share: Sequence[Paced]) -> None:
        try:
            self._advance_all(share, clock())
        except BaseException:  # A panic in the core is no `Exception`; whatever it is, the rooms go on.
            _log.exception("pacing failed")
