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

_NICE: Final = 10
"""Beside a thread of the usual priority, one of this gets a tenth of a processor that both want."""

_log = logging.getLogger(__name__)


class Line:
    """Jobs that are done one after the other, in any of the process's background threads. One that fails is the last.

    Args:
        limit: So many jobs may wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._error: Exception | None = None

    def add(self, job: Callable[[], None]) -> None:
        """Has a job done. When too many wait already, this waits as well: nothing is left out.

        Raises:
            RuntimeError: An earlier job failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._jobs) < self._limit)
            if self._error:
                raise RuntimeError("an earlier job failed") from self._error
            self._jobs.append(job)
            if not self._busy:
                self._busy = True
                _lines().put(self)

    def finish(self) -> None:
        """Waits until everything is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)

    def work(self) -> None:
        """Does what there is to do; called in a background thread."""
        while True:
            with self._changed:
                if not self._jobs or self._error:
                    self._jobs.clear()
                    self._busy = False
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
                if len(self._jobs) == self._limit - 1:
                    self._changed.notify_all()
            try:
                job()
            except Exception as error:
                _log.exception("%r failed", job)
                self._error = error


@cache
def _lines() -> "queue.SimpleQueue[Line]":
    """Lines that have something to do."""
    lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for _ in range(processors):
        threading.Thread(target=_work, args=[lines], name="background", daemon=True).start()
    return lines


def _work(lines: "queue.SimpleQueue[Line]") -> None:
    if sys.platform == "linux":  # Elsewhere it would be the process's priority.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
    while True:
        lines.get().work()
