"""The running mix of each room: mixes what is due, and hands frames and volumes to whoever listens."""

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from audiomixer._core import Mixer, mix_rooms
from audiomixer.clock.frame import BLOCK, FRAME, FRAME_SIZE, INTERVAL, SAMPLE_RATE
from audiomixer.clock.pacer import Pacer, clock

_FRAMES_PER_INTERVAL: Final = round(INTERVAL / FRAME)
_CATCH_UP: Final = 50
"""A room that is late mixes so many frames at once at most, and more the next time: after a minute in which the whole
machine stood still, nobody else has to wait until all rooms have caught up."""

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Gets every frame of a bus, in the pacer's threads. It must not block, and not keep the array."""

    @property
    def patient(self) -> bool:
        """Whether it may get its frames up to 80 ms late, for the time being; no listener may, if one may not."""

    def on_frames(self, samples: NDArray[np.float32]) -> None:
        """The next frames, at most `BLOCK`: float32 of shape `(n * 960, 2)`; the array is used again for others."""

    def on_volumes(self, volumes: dict[str, int]) -> None:
        """The volumes of the 500 ms that end with the last frame, as `Mixer.volumes` gives them."""


class Bus:
    """One room's `Mixer` and its listeners.

    Args:
        now: When it begins, in seconds of the pacer's clock.
        on_failure: Called with the reason, by the pacer, when the mix has failed for good.
        phase: So many frames are missing in the first block: rooms end theirs in turn, not all in the same tick.
    """

    def __init__(self, now: float, on_failure: Callable[[str], None] = lambda reason: None, *, phase: int = 0) -> None:
        self._on_failure = on_failure
        self.failure = ""
        """Why it is not mixed any more, if it is not."""
        self.mixer = Mixer(SAMPLE_RATE, 2)
        self.volumes: dict[str, int] = {}
        """Of the last 500 ms that have passed, as `Mixer.volumes` gave them."""
        self.frames = 0
        """Frames mixed so far."""
        self._block = np.zeros((BLOCK * FRAME_SIZE, 2), np.float32)
        self._slots = np.split(self._block, BLOCK)
        self._next = self._untold = phase % BLOCK
        """Where in the block the next frame goes, and where the first one is that nobody has been told of."""
        self._phase = self._next
        self.due = now + FRAME
        """When the next frame ends."""
        self._start = now
        self._listeners: list[Listener] = []
        self._telling = threading.Lock()

    @property
    def slot(self) -> NDArray[np.float32]:
        """Where the next frame is to be mixed into, of shape `(960, 2)`."""
        return self._slots[self._next]

    def add(self, listener: Listener) -> None:
        """Begins to hand frames to `listener`: those that are mixed from now on; may wait as `between_frames` does."""
        self.between_frames(lambda: self._listeners.append(listener))

    def remove(self, listener: Listener) -> None:
        """Ceases to; it has been told of all frames until then, and is not called any more."""
        self.between_frames(lambda: self._forget(listener))

    def between_frames(self, change: Callable[[], None]) -> None:
        """Makes a change when every listener has been told of all frames so far; may wait as long as they take."""
        with self._telling:
            self._hand_out()
            change()

    def _forget(self, listener: Listener) -> None:
        # It may have been forgotten by another thread just now.
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def fail(self, reason: str) -> None:
        """Ends the mix, and nobody else's."""
        _log.critical("mixing a room failed, it has ended: %s", reason)
        self.failure = reason or "panic"
        self._on_failure(self.failure)

    def tell(self) -> None:
        """A frame has been mixed; it is handed out at once, or with others when the block is full."""
        with self._telling:
            self.frames += 1
            self._next += 1
            self.due = self._start + (self.frames + 1) * FRAME
            if self._next < BLOCK and all(listener.patient for listener in self._listeners):
                return
            self._hand_out()
            if self._next == BLOCK:
                self._next = self._untold = 0
            if (self.frames + self._phase) % _FRAMES_PER_INTERVAL == 0:
                volumes = self.volumes = self.mixer.volumes()
                self._each(lambda listener: listener.on_volumes(volumes))

    def _hand_out(self) -> None:
        if self._untold < self._next:
            samples = self._block[self._untold * FRAME_SIZE : self._next * FRAME_SIZE]
            self._untold = self._next
            self._each(lambda listener: listener.on_frames(samples))

    def _each(self, tell: Callable[[Listener], None]) -> None:
        for listener in tuple(self._listeners):
            try:
                tell(listener)
            except Exception:
                _log.exception("%r failed and gets no more frames", listener)
                self._forget(listener)


def advance(buses: Sequence[Bus], now: float) -> None:
    """Mixes every frame that has ended at `now`; one that comes late is mixed as of when it was due.

    The core does so for all rooms in one go: it lets go of the GIL once, not once for each. What has come is taken in
    once, before the first frame.
    """
    for n in range(_CATCH_UP):
        due = [bus for bus in buses if bus.due <= now and not bus.failure]
        if not due:
            return
        try:
            for place, reason in mix_rooms([(bus.mixer, bus.slot, bus.due) for bus in due], read=n == 0):
                due[place].fail(reason)
        except Exception:
            _log.exception("mixing failed")
        for bus in due:
            if not bus.failure:
                bus.tell()


_phases = itertools.count()


def room_bus(on_failure: Callable[[str], None]) -> Bus:
    """The bus of another room of this process, from now on; not paced yet."""
    return Bus(clock(), on_failure, phase=next(_phases))


@cache
def process_pacer() -> Pacer[Bus]:
    """The one that paces the rooms of this process."""
    return Pacer(advance, lambda bus: bus.mixer.cost)
