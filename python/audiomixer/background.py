"""Work that may wait a little: done in threads of lower priority, so that the mixing, which may not, comes first."""

import contextlib
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

_NICE: Final = 10
"""Beside a thread of the usual priority, one of this gets a tenth of a processor that both want."""

_log = logging.getLogger(__name__)


class Line:
    """Jobs that are done one after the other, in any of the process's background threads; one that fails is logged.

    Args:
        limit: It is full when so many jobs wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._threads = _threads()

    @property
    def full(self) -> bool:
        """Whether so many jobs wait that what can be left out should be."""
        return len(self._jobs) >= self._limit

    def add(self, job: Callable[[], None]) -> None:
        """Has a job done, after those before it."""
        with self._changed:
            self._jobs.append(job)
            if not self._busy:
                self._busy = True
                self._threads.submit(self._work)

    def finish(self) -> None:
        """Waits until everything is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)

    def _work(self) -> None:
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


def _give_way() -> None:
    """Lowers the priority of this thread."""
    if sys.platform == "linux":  # Elsewhere it would be the process's priority.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)


@cache
def _threads() -> ThreadPoolExecutor:
    """The one pool of this process."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(processors, thread_name_prefix="background", initializer=_give_way)
