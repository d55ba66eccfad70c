"""A mixer in a room elsewhere, what comes out of it, and those who speak there."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable

import numpy as np

from audiomixer import AudioMixer
from audiomixer.clock.frame import SAMPLE_RATE
from tests.rooms.janus_server import Janus
from tests.rooms.janus_server import Participant as JanusParticipant
from tests.rooms.livekit_server import LiveKit
from tests.rooms.livekit_server import Participant as LiveKitParticipant
from tests.signals import Signal, level_at

Server = LiveKit | Janus
Participant = LiveKitParticipant | JanusParticipant
TONES = {"alice": 440.0, "bob": 1000.0, "carol": 1700.0}
AMPLITUDE = 0.2
VOLUME = AMPLITUDE / np.sqrt(2) * 32767

_rooms = itertools.count(1001)


def new_room() -> str:
    """A name that both kinds of rooms may have."""
    return str(next(_rooms))


class Ear:
    """What comes out of a mixer."""

    def __init__(self, live: AudioMixer) -> None:
        self.live = live
        self.volumes: dict[str, int] = {}
        self.last: Signal = np.zeros((0, 2), np.float32)
        """The last second."""
        self.frames = 0
        self.payloads = 0
        self.events: list[str] = []
        self._reading = [asyncio.create_task(reading) for reading in (self._payloads(), self._frames(), self._events())]

    async def _payloads(self) -> None:
        async for payload in self.live.timed_metadata():
            self.volumes = {identity: volume.v for identity, volume in payload.p.items()}
            self.payloads += 1

    async def _frames(self) -> None:
        async for frame in self.live.frames():
            self.last = np.concatenate([self.last, frame.samples])[-SAMPLE_RATE:]
            self.frames += 1

    async def _events(self) -> None:
        async for event in self.live.room_events():
            self.events.append(f"{event.identity} {event.what}".strip())

    def level(self, frequency: float, seconds: float = 0.5) -> float:
        """Of a tone in what came last."""
        heard = self.last[-round(seconds * SAMPLE_RATE) :, 0]
        return level_at(heard, frequency) if len(heard) else 0.0

    async def until(self, holds: Callable[[], bool], seconds: float, what: str = "") -> float:
        """How long it took."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, (what, self.volumes, self.events[-10:])
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def close(self) -> None:
        for reading in self._reading:
            reading.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def mixing(server: Server, room: str, **more: object) -> AsyncIterator[Ear]:
    mixer = AudioMixer(server.room(room), ice=server.ice, **more)  # type: ignore[arg-type]
    ear = Ear(mixer)
    try:
        async with mixer:
            yield ear
    finally:
        await ear.close()


@contextlib.asynccontextmanager
async def speaking(server: Server, room: str, *identities: str) -> AsyncIterator[list[Participant]]:
    people = [server.participant(room, identity, TONES[identity]) for identity in identities]
    for person in people:
        await person.join()
    try:
        yield people
    finally:
        for person in people:
            await person.leave()
