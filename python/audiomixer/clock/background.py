"""Work that may wait a little: done in threads of lower priority, so that the mixing, which may not, comes first."""

import contextlib
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Final

from audiomixer.clock.processors import processors

_NICE: Final = 10
"""Beside a thread of the usual priority, one of this gets a tenth of a processor that both want."""

_log = logging.getLogger(__name__)


class Line:
    """Jobs that are done one after the other, in any of the process's background threads; one that fails is logged.

    As many may wait as are added: whoever adds them looks at how many do.
    """

    def __init__(self) -> None:
        self._lines = _lines()
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._busy = False

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._jobs)

    def add(self, job: Callable[[], None]) -> None:
        """Has a job done, after those before it."""
        with self._changed:
            self._jobs.append(job)
            if not self._busy:
                self._busy = True
                self._lines.put(self)

    def finish(self) -> None:
        """Waits until everything is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)

    def work(self) -> None:
        """Does what there is to do; called in a background thread."""
        while True:
            with self._changed:
                if not self._jobs:
                    self._busy = False
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:
                _log.exception("%r failed", job)


@cache
def _lines() -> "queue.SimpleQueue[Line]":
    """Lines that have something to do."""
    lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
    for _ in range(processors()):
        # The process need not wait for what nobody has finished.
        threading.Thread(target=_work, args=[lines], name="background", daemon=True).start()
    return lines


def be_nice() -> None:
    """Has this thread come after those of the usual priority."""
    if sys.platform == "linux":  # Elsewhere it would be the process's priority.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)


def _work(lines: "queue.SimpleQueue[Line]") -> None:
    be_nice()
    while True:
        lines.get().work()
