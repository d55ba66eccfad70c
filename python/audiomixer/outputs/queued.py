"""Outputs that may block: they work in a thread of their own, behind a bounded queue."""

import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.clock.tasks import blocking
from audiomixer.outputs.base import OnEvent, OutputEvent, State, explain

_FINISH_TIMEOUT: Final = 10.0
"""Seconds for what is queued to be written in the end."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Payload:
    """Metadata on its way."""

    text: str
    time: float
    """Seconds of the stream."""


Item = EncodedPacket | Payload


class QueuedOutput(ABC):
    """Hands packets and payloads to a thread.

    Args:
        target: A path or a URL.
        encoding: What it wants.
        limit: So many items may wait; then new ones are dropped.
    """

    active = True

    def __init__(self, target: str, encoding: Encoding, limit: int) -> None:
        self.target = target
        self.encoding = encoding
        self.on_event: OnEvent = lambda _: None
        self.written = 0
        self.dropped = 0
        self.error: str | None = None
        self._queue: queue.Queue[Item | None] = queue.Queue(limit)
        self._thread = threading.Thread(target=self._work, name=f"output {self.name}", daemon=True)
        self._abandoned = threading.Event()
        self._stopping = threading.Event()
        self._began: datetime | None = None

    @property
    def name(self) -> str:
        """The target without what may be secret in it."""
        return self.target

    @property
    def queued(self) -> int:
        """Items that wait to be written."""
        return self._queue.qsize()

    @property
    def connected(self) -> bool:
        """Whether what is written gets somewhere."""
        return self.error is None

    async def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def begin(self, began: datetime) -> None:
        """The stream begins."""
        self._began = began

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Queues packets."""
        for packet in packets:
            self._put(packet)

    def write_metadata(self, text: str, time: float) -> None:
        """Queues a payload."""
        self._put(Payload(text, time))

    def _put(self, item: Item) -> None:
        try:
            if self.error is None:
                self._queue.put_nowait(item)
                return
        except queue.Full:
            pass
        self.dropped += 1

    def _tell(self, state: State, reason: str = "") -> None:
        log = _log.info if state == "connected" else _log.warning
        log("output %s: %s", self.name, f"{state}: {reason}" if reason else state)
        self.on_event(OutputEvent(self.name, state, reason))

    def _work(self) -> None:
        try:
            self._run()
        except Exception as error:
            self.error = explain(error)
            self._tell("failed", self.error)

    @abstractmethod
    def _run(self) -> None:
        """Writes `_items`, in the thread; an exception is the end of the output."""

    def _items(self) -> Iterator[Item]:
        """What is queued, until the output is stopped."""
        while not self._abandoned.is_set() and (item := self._queue.get()) is not None:
            yield item

    async def stop(self) -> None:
        """Waits until everything is written, but not for ever."""
        self._stopping.set()
        await blocking(self._finish)

    def _finish(self) -> None:
        deadline = time.monotonic() + _FINISH_TIMEOUT
        while self._thread.is_alive() and not self._abandoned.is_set():
            try:
                self._queue.put(None, timeout=max(0.0, min(0.1, deadline - time.monotonic())))
                break
            except queue.Full:
                if time.monotonic() >= deadline:
                    self._abandoned.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._abandoned.set()
            self.error = self.error or "it did not take everything in time"
            self._tell("failed", self.error)
