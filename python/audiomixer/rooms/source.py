"""Files and streams that are played into a room, or into one mix, as a participant of it."""

import asyncio
import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from audiomixer._core import Participant
from audiomixer.audio.decibels import checked_gain, decibels_of, gain_of
from audiomixer.audio.decoder import Decoder, DecodingError
from audiomixer.clock.bus import Bus
from audiomixer.clock.frame import BLOCK, FRAME, FRAME_SIZE, SAMPLE_RATE
from audiomixer.clock.tasks import blocking, spawn

_STALLED: Final = 10.0
"""Seconds without anything new after which it is broken."""
_RISE: Final = np.linspace(0, 1, FRAME_SIZE, dtype=np.float32)[:, None]
_OPENERS: Final = ThreadPoolExecutor(8, thread_name_prefix="opening")
"""Servers that hang take threads of these only."""
_PATIENCE: Final = 20.0
"""Seconds for something to be opened."""
_DEEPEST: Final = -60.0

Open = Callable[[float], Decoder]
"""Begins to decode at a position, in a thread that may wait."""


class SourceError(Exception):
    """It cannot be played; the message says why."""


@dataclass(frozen=True, slots=True)
class SourceOrder:
    """What is to be played, and how."""

    url: str
    """Or a path."""
    identity: str = ""
    """Whose it is, in the metadata; as the file is called, if empty."""
    gain_db: float = 0.0
    """How much louder it is, -60 to 12."""
    duck_db: float = 0.0
    """By how much it goes down while somebody speaks, -60 to 0."""
    loop: bool = False
    """Whether it begins again when it ends, without a gap."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source is getting on."""

    order: SourceOrder
    identity: str
    state: Literal["playing", "paused", "ended"]
    position: float
    """Seconds."""
    seconds: float
    """How long it is; 0 if that is not known."""
    gain_db: float
    error: str = ""
    """Why it has ended too early, if it has."""


class Source:
    """One that plays; made by `play`. What is done with it takes effect within 200 ms, without a click."""

    def __init__(self, bus: Bus, participant: Participant, order: SourceOrder, decoder: Decoder, open_at: Open) -> None:
        self.order = order
        self.identity = participant.identity
        self.on_ended: Callable[[Source], None] = lambda source: None
        """Called once, on the event loop, when it has ended, whatever the reason."""
        self.ended = asyncio.Event()
        """Set then."""
        self.error = ""
        """Why it has ended too early, if it has."""
        self._bus = bus
        self._participant = participant
        self._decoder = decoder
        self._open = open_at
        self._loop = asyncio.get_running_loop()
        self._gain = self._heard = gain_of(order.gain_db)
        """What it is multiplied with; what it was when something was given last."""
        self._paused = False
        self._silent = True
        """Whether the last that was given ended in silence, or nothing has been."""
        self._seeking = asyncio.Lock()
        self._changing = threading.Lock()
        """Held while another decoder takes its place, by whichever thread."""
        self._next: tuple[Decoder, float] | None = None
        """What is to go on instead, and where that begins."""
        self._given = 0
        """Samples."""
        self._from = 0.0
        """Where that began, in seconds."""
        self._waited = 0
        """Frames since something came."""
        self._started = False
        self._over = False

    def __repr__(self) -> str:
        told = self.state
        return f"<Source {self.identity!r}: {told.state} at {told.position:.1f} s of {told.seconds:.1f} s>"

    @property
    def state(self) -> SourceState:
        """How it is getting on."""
        goes_on, seconds = self._next, self._decoder.seconds
        position = goes_on[1] if goes_on else self._from + self._given / SAMPLE_RATE
        if self.order.loop and seconds:
            position %= seconds
        state: Literal["playing", "paused", "ended"] = "paused" if self._paused else "playing"
        state, gain_db = "ended" if self._over else state, decibels_of(self._gain)
        return SourceState(self.order, self.identity, state, position, seconds, gain_db, self.error)

    @property
    def gain(self) -> float:
        """What it is multiplied with, 0 to 4; a ValueError if it is set to anything else."""
        return self._gain

    @gain.setter
    def gain(self, gain: float) -> None:
        self._gain = checked_gain(gain)

    def pause(self) -> None:
        """Goes on later, where it is."""
        self._paused = True

    def resume(self) -> None:
        """Goes on."""
        self._paused = False

    async def seek(self, seconds: float) -> None:
        """Goes on elsewhere.

        Raises:
            SourceError: It cannot be opened there.
            ValueError: It is no time.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"position: expected 0 s or more, got {seconds!r}")
        length = self._decoder.seconds
        if not length:
            raise SourceError("it has no other place to go on from: how long it is is not known")
        if self.order.loop:
            seconds %= length
        elif seconds >= length:
            raise ValueError(f"position: expected less than {length:.3f} s, got {seconds!r}")
        async with self._seeking:
            decoder = await _opened(self._open, seconds)
            with self._changing:
                unused, self._next = self._next, (decoder, seconds)
                if self._over:
                    unused, self._next = self._next, None
            if unused:
                await blocking(unused[0].close)

    async def stop(self) -> None:
        """Ends it."""
        if self._over:
            return
        self._over = True
        await blocking(self._bus.remove, self)
        self.leave()
        with self._changing:
            decoders = [self._decoder, *([self._next[0]] if self._next else [])]
            self._next = None
        for decoder in decoders:
            await blocking(decoder.close)
        self.ended.set()
        self.on_ended(self)

    def leave(self) -> None:
        """Leaves the mix at once: somebody else has this identity. `stop` has to follow."""
        with contextlib.suppress(ValueError):
            self._bus.mixer.remove_track(self._participant)

    @property
    def patient(self) -> bool:
        """It gives a block ahead."""
        return True

    def begin(self) -> None:
        """Gives the first block; from then on the bus asks for more."""
        self._give(BLOCK)
        self._bus.add(self)

    def on_frames(self, samples: NDArray[np.float32]) -> None:
        """Gives as many frames as have been mixed; called by the bus."""
        self._give(len(samples) // FRAME_SIZE)

    def on_volumes(self, volumes: dict[str, int]) -> None:
        """Is for others."""

    def _give(self, frames: int) -> None:
        with self._changing:
            if self._next and (self._silent or self._waited):
                before, (self._decoder, self._from) = self._decoder, self._next
                self._next, self._given, self._waited = None, 0, 0
                self._soon(blocking(before.close))
        if self._paused and self._silent:
            return
        pieces = [piece for _ in range(frames) if (piece := self._decoder.take()) is not None]
        if pieces:
            self._push(np.concatenate(pieces))
        else:
            self._waited += frames
            # What was given ahead is to be heard as well.
            if (self._decoder.is_over and self._waited > BLOCK) or self._waited > _STALLED / FRAME:
                self.error = self._decoder.error or ("" if self._decoder.is_over else "it has stalled")
                self._soon(self.stop())

    def _push(self, samples: NDArray[np.float32]) -> None:
        """Gives samples, fading from silence and into it where it is to be silent."""
        self._waited = 0
        before, self._heard = self._heard, self._gain
        if before != self._heard:
            samples *= np.linspace(before, self._heard, len(samples), dtype=np.float32)[:, None]
        elif before != 1:
            samples *= before
        self._given += len(samples)
        rise = _RISE[-len(samples) :]
        if self._silent and self._started:
            samples[: len(rise)] *= rise
        self._silent = self._paused or self._next is not None
        if self._silent:
            samples[-len(rise) :] *= rise[::-1]
        self._started = True
        with contextlib.suppress(ValueError):  # It has been removed meanwhile.
            self._participant.push_pcm(samples)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Has the event loop do something."""
        try:
            self._loop.call_soon_threadsafe(lambda: spawn(work))
        except RuntimeError:  # It has ended.
            work.close()


async def play(bus: Bus, order: SourceOrder, open_at: Open | None = None) -> Source:
    """Plays something into a mix, as a participant of it; it is heard as soon as this returns.

    Args:
        bus: The mix.
        order: What is played.
        open_at: Opens it, if not as anybody may who has the URL.

    Raises:
        SourceError: It cannot be played.
        ValueError: A number is none, or the identity is, or is there already.
    """
    gain_of(order.gain_db)
    if not _DEEPEST <= order.duck_db <= 0:
        raise ValueError(f"duck_db: expected {_DEEPEST:.0f} to 0 dB, got {order.duck_db!r}")
    open_at = open_at or (lambda start: Decoder(order.url, start=start, loop=order.loop))
    participant = bus.mixer.add_participant(order.identity or _name_of(order.url, bus.mixer.identities))
    try:
        participant.duck = order.duck_db
        decoder = await _opened(open_at, 0.0)
    except BaseException:
        bus.mixer.remove_track(participant)
        raise
    source = Source(bus, participant, order, decoder, open_at)
    await blocking(source.begin)
    return source


async def _opened(open_at: Open, position: float) -> Decoder:
    """Opens something; what is there too late, or for nobody any more, is closed.

    Raises:
        SourceError: It cannot be opened.
    """
    opening = asyncio.get_running_loop().run_in_executor(_OPENERS, open_at, position)
    try:
        async with asyncio.timeout(_PATIENCE):
            return await asyncio.shield(opening)
    except (TimeoutError, asyncio.CancelledError) as error:
        opening.add_done_callback(_close_unused)
        if isinstance(error, TimeoutError):
            raise SourceError("it does not answer in time") from None
        raise
    except (DecodingError, OSError) as error:
        raise SourceError(str(error)) from error


def _close_unused(opening: "asyncio.Future[Decoder]") -> None:
    if not opening.cancelled() and not opening.exception():
        spawn(blocking(opening.result().close))


def _name_of(url: str, taken: Iterable[str]) -> str:
    """What a source is called that has no identity: as its file, with a number if that is taken."""
    path = unquote(urlsplit(url).path) if "://" in url else url
    stem = re.sub(r"[^\w .-]", "", PurePosixPath(path).stem).strip()[:64] or "source"
    taken = set(taken)
    names = itertools.chain([stem], (f"{stem} {n}" for n in itertools.count(2)))
    return next(name for name in names if name not in taken)
