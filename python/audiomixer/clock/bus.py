"""The running mix of each room: mixes what is due, and hands frames and volumes to whoever listens."""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from audiomixer._core import Intake, Mixer, mix_rooms
from audiomixer.clock.frame import FRAME, INTERVAL, SAMPLE_RATE
from audiomixer.clock.pacer import Pacer

_FRAMES_PER_INTERVAL: Final = round(INTERVAL / FRAME)
_CATCH_UP: Final = 50
"""A room that is late mixes so many frames at once at most, and more the next time: after a minute in which the whole
machine stood still, nobody else has to wait until all rooms have caught up."""

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Gets every frame of a bus, in the pacer's threads. It must not block, and not keep the array."""

    def on_frame(self, samples: NDArray[np.float32]) -> None:
        """The next 20 ms, float32 of shape `(960, 2)`; the array is used again for the next frame."""

    def on_volumes(self, volumes: dict[str, int]) -> None:
        """The volumes of the 500 ms that end with the last frame, as `Mixer.volumes` gives them."""


class Bus:
    """One room's `Mixer`, what it takes in, and its listeners.

    Args:
        now: When it begins, in seconds of the pacer's clock.
        on_failure: Called with the reason, by the pacer, when the mix has failed for good.
    """

    def __init__(self, now: float, on_failure: Callable[[str], None] = lambda reason: None) -> None:
        self._on_failure = on_failure
        self.failure = ""
        """Why it is not mixed any more, if it is not."""
        self.mixer = Mixer(SAMPLE_RATE, 2)
        self.intake = Intake()
        """Connections whose packets are taken in just before each mix."""
        self.frames = 0
        """Frames mixed so far."""
        self.samples = np.zeros((self.mixer.frame_size, 2), np.float32)
        """The last frame."""
        self.due = now + FRAME
        """When the next frame ends."""
        self._start = now
        self._listeners: list[Listener] = []
        self._telling = threading.Lock()

    def add(self, listener: Listener) -> None:
        """Begins to hand frames to `listener`."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Ceases to; waits until it has been told of the frame under way, and then it is not called any more."""
        self.between_frames(lambda: self._forget(listener))

    def between_frames(self, change: Callable[[], None]) -> None:
        """Makes a change while no listener is being called; may wait as long as they take for a frame."""
        with self._telling:
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
        """Hands out the frame that has just been mixed."""
        with self._telling:
            self.frames += 1
            self.due = self._start + (self.frames + 1) * FRAME
            volumes = None if self.frames % _FRAMES_PER_INTERVAL else self.mixer.volumes()
            for listener in tuple(self._listeners):
                try:
                    listener.on_frame(self.samples)
                    if volumes is not None:
                        listener.on_volumes(volumes)
                except Exception:
                    _log.exception("%r failed and gets no more frames", listener)
                    self._forget(listener)


def advance(buses: Sequence[Bus], now: float) -> None:
    """Mixes every frame that has ended at `now`; one that comes late is mixed as of when it was due.

    The core does so for all rooms in one go: it lets go of the GIL once, not once for each. What has come is taken in
    once, before the first frame.
    """
    poll: float | None = now
    for _ in range(_CATCH_UP):
        due = [bus for bus in buses if bus.due <= now and not bus.failure]
        if not due:
            return
        try:
            for place, reason in mix_rooms([(bus.intake, bus.mixer, bus.samples, bus.due) for bus in due], poll):
                due[place].fail(reason)
        except Exception:
            _log.exception("mixing, or taking in what came beside audio, failed")
        for bus in due:
            if not bus.failure:
                bus.tell()
        poll = None


@cache
def process_pacer() -> Pacer[Bus]:
    """The one that paces the rooms of this process."""
    return Pacer(advance, lambda bus: bus.mixer.cost)
