"""The demo: a room with three speakers, who join over WHIP like anybody else, and its mix."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Final

import av
import httpx
import numpy as np
from numpy.typing import NDArray

from audiomixer.audio.encoding import Encoder, Encoding
from audiomixer.clock.frame import FRAME, FRAME_SIZE, SAMPLE_RATE
from audiomixer.clock.pacer import Pacer, clock
from audiomixer.service.streams import Stream, Streams
from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.peer import Peer

ROOM: Final = "demo"
SPEAKERS: Final = ("alice", "bob", "carol")
_ROUND: Final = 18.0
"""Seconds in which each speaker has a turn; the turns overlap."""
_TURN: Final = 8.0
_FRAMES_PER_TURN: Final = round(_TURN / FRAME)
_RISE: Final = np.linspace(0, 1, FRAME_SIZE, dtype=np.float32)
_ENVELOPES: Final = {0: _RISE, _FRAMES_PER_TURN - 1: _RISE[::-1]}
"""A turn begins and ends in the middle of a word, but without a click."""
_MUTES: Final = "bob"
_MUTE_PERIOD: Final = 9.0
_MUTED: Final = 4.0
"""So many seconds of each period."""
_NOISE: Final = 10 ** (-66 / 20)
"""A quiet room's: who is not talking is not muted."""
_LOOK: Final = 2.0
"""Seconds between looks whether everybody is still there."""
_HEARD: Final = 25
"""Packets after which a speaker has certainly been heard."""
_VOICE: Final = Encoding("opus", 32, channels=1)


class Speaker:
    """Says a piece, in its turns, to a WHIP endpoint; encodes silence while muted, as browsers do.

    Args:
        url: The endpoint.
        identity: As whom to join.
        turn: In seconds, when in each round its turn begins.
        pacer: What it speaks by.
    """

    def __init__(self, url: str, identity: str, turn: float, pacer: "Pacer[Speaker]") -> None:
        self._url = url
        self._identity = identity
        self._turn = turn
        self._pacer = pacer
        self._speech = _load(identity)
        self._noise = np.random.default_rng().normal(0, _NOISE, SAMPLE_RATE).astype(np.float32)
        self._encoder = Encoder(_VOICE)
        self._frames = 0
        self._said = 0
        self._resource = ""
        self._peer = Peer(LOOPBACK, "sendonly")

    async def join(self, client: httpx.AsyncClient) -> None:
        """Joins, and begins to speak."""
        response = await client.post(
            self._url,
            params={"identity": self._identity},
            headers={"Content-Type": "application/sdp"},
            content=await self._peer.offer(),
        )
        response.raise_for_status()
        self._resource = str(response.url.join(response.headers["Location"]))
        await self._peer.accept(response.text)
        self._began = clock()
        self._pacer.add(self)

    async def leave(self, client: httpx.AsyncClient) -> None:
        """Leaves."""
        await asyncio.to_thread(self._pacer.remove, self)
        if self._resource:
            with contextlib.suppress(httpx.HTTPError):
                await client.delete(self._resource)
        await self._peer.close()

    def advance(self, now: float) -> None:
        """Sends what was said until `now`."""
        while self._began + (self._frames + 1) * FRAME <= now:
            for packet in self._encoder.encode(self._say(self._frames * FRAME)[:, None]):
                self._peer.media.send(packet.data, packet.pts)
            self._frames += 1

    def _say(self, time: float) -> NDArray[np.float32]:
        """The 20 ms at `time` seconds."""
        if self._identity == _MUTES and time % _MUTE_PERIOD >= _MUTE_PERIOD - _MUTED:
            return np.zeros(FRAME_SIZE, np.float32)
        start = self._frames * FRAME_SIZE % SAMPLE_RATE
        samples = self._noise[start : start + FRAME_SIZE]
        frame = round((time - self._turn) % _ROUND / FRAME)
        if frame < _FRAMES_PER_TURN:
            samples = samples + self._speech[self._said] * _ENVELOPES.get(frame, 1)
            self._said = (self._said + 1) % len(self._speech)
        return samples


def _speak(speakers: Sequence[Speaker], now: float) -> None:
    for speaker in speakers:
        speaker.advance(now)


def _load(identity: str) -> NDArray[np.float32]:
    """A speaker's piece, as frames."""
    with (
        (files("audiomixer.service") / "speech" / f"{identity}.opus").open("rb") as file,
        av.open(file, "r") as container,
    ):
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        decoded = [r.to_ndarray()[0] for frame in container.decode(audio=0) for r in resampler.resample(frame)]
    samples = np.concatenate(decoded)
    return samples[: len(samples) // FRAME_SIZE * FRAME_SIZE].reshape(-1, FRAME_SIZE)


@contextlib.asynccontextmanager
async def demo(streams: Streams, url: str, audio_bitrate: int) -> AsyncIterator[Stream]:
    """Fills the room `demo` of the service at `url`, and streams its mix, until the block is left."""
    pacer = Pacer(_speak)
    turns = dict(zip(SPEAKERS, np.arange(3) * _ROUND / 3, strict=True))

    def speaker(identity: str) -> Speaker:
        return Speaker(f"{url}/whip/{ROOM}", identity, turns[identity], pacer)

    # The certificate, if there is one, is for a name.
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 - it is this process itself
        speakers = {identity: speaker(identity) for identity in SPEAKERS}

        async def keep() -> None:
            """Whoever joins by a speaker's name takes its place, and leaves it again."""
            while True:
                await asyncio.sleep(_LOOK)
                room = streams.rooms.get(ROOM)
                for identity in set(SPEAKERS) - set(room.identities if room else SPEAKERS):
                    await speakers[identity].leave(client)
                    speakers[identity] = speaker(identity)
                    with contextlib.suppress(httpx.HTTPError, ValueError):
                        await speakers[identity].join(client)

        keeping: asyncio.Task[None] | None = None
        try:
            async with asyncio.TaskGroup() as joining:
                for one in speakers.values():
                    joining.create_task(one.join(client))
            await _until_heard(streams)
            stream = await streams.start(ROOM, audio_bitrate)
            keeping = asyncio.create_task(keep())
            yield stream
        finally:
            if keeping:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            await asyncio.gather(*(one.leave(client) for one in speakers.values()))


async def _until_heard(streams: Streams) -> None:
    """Waits until everybody's audio has arrived, so that the first payload knows how loud they are."""
    async with asyncio.timeout(10):
        while True:
            room = streams.rooms.get(ROOM)
            stats = room.stats() if room else {}
            if len(stats) == len(SPEAKERS) and all(s.received > _HEARD for s in stats.values()):
                return
            await asyncio.sleep(FRAME)
