"""A LiveKit server, built by Go, and the SDKs' participants.

Building takes some minutes, once: `python -m tests.rooms.livekit_server` does it ahead of the tests' time limits.
"""

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from livekit import api, rtc
from livekit.protocol import models
from livekit.protocol import rtc as signal_rtc
from websockets.asyncio.client import connect

from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.subscriber import Subscriber
from tests.e2e.command import free_port
from tests.rooms.chorus import Voice
from tests.signals import sine

VERSION = "v1.13.5"
KEY, SECRET = "devkey", "0123456789abcdef0123456789abcdef"
_TOOLS = Path(__file__).parent.parent.parent / "target" / "tools"


def livekit_program() -> Path | None:
    """The server, which is built once; None if there is no Go to build it by."""
    program = _TOOLS / f"livekit-server-{VERSION}"
    if not program.exists():
        if shutil.which("go") is None:
            return None
        building = _TOOLS / "building"
        command = ["go", "install", f"github.com/livekit/livekit-server/cmd/server@{VERSION}"]
        subprocess.run(command, env={**os.environ, "GOBIN": str(building), "GOFLAGS": "-modcacherw"}, check=True)
        (building / "server").rename(program)
    return program


class LiveKit:
    """A server on loopback, that can be killed and started again.

    Args:
        folder: For its log.
        more: More lines of its configuration.
        turn_servers: What participants are told to use.
    """

    def __init__(self, folder: Path, more: str = "", turn_servers: str = "") -> None:
        self.port, media = free_port(), free_port()
        self._log = folder / f"livekit-{self.port}.log"
        self._configuration = f"""
port: {self.port}
bind_addresses: ["127.0.0.1"]
keys: {{{KEY}: "{SECRET}"}}
rtc: {{udp_port: {media}, tcp_port: 0, node_ip: 127.0.0.1, use_external_ip: false, enable_loopback_candidate: true,
       interfaces: {{includes: [lo]}}, ips: {{includes: [127.0.0.1/32]}}, turn_servers: [{turn_servers}]}}
{more}
"""
        program = livekit_program()
        if program is None:
            pytest.skip("LiveKit's server is built by Go, which is not installed")
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def room(self, name: str) -> str:
        """The room's URL, for a mixer."""
        return f"livekit+{self.url}/{name}?api_key={KEY}&api_secret={SECRET}"

    def start(self) -> None:
        """Once is enough."""
        if self._process:
            return
        with self._log.open("ab") as log:
            command = [str(self._program), "--config-body", self._configuration]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(self.url.replace("ws", "http"))
                return
            time.sleep(0.05)
        raise TimeoutError(self._log.read_text()[-2000:])

    def kill(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    ice = None
    """Where mixers receive."""

    @property
    def one_of_many(self) -> Callable[[str, str, float], "LightParticipant"]:
        """Makes participants that take little CPU time, in any process; fifty of the SDK would not."""
        return functools.partial(LightParticipant, self.url)

    def participant(self, room: str, identity: str, frequency: float) -> "Participant":
        return Participant(self, room, identity, frequency)

    @contextlib.asynccontextmanager
    async def api(self) -> AsyncIterator[api.LiveKitAPI]:
        async with api.LiveKitAPI(self.url.replace("ws", "http"), KEY, SECRET) as client:
            yield client

    async def end(self, room: str) -> None:
        async with self.api() as client:
            await client.room.delete_room(api.DeleteRoomRequest(room=room))


@contextlib.contextmanager
def livekit(folder: Path, more: str = "", turn_servers: str = "") -> Iterator[LiveKit]:
    server = LiveKit(folder, more, turn_servers)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def token(identity: str, room: str, *, speaks: bool = True) -> str:
    grants = api.VideoGrants(room_join=True, room=room, can_publish=speaks)
    return api.AccessToken(KEY, SECRET).with_identity(identity).with_grants(grants).to_jwt()


class Participant:
    """Somebody who speaks with LiveKit's own SDK: a tone."""

    def __init__(self, server: LiveKit, room: str, identity: str, frequency: float, amplitude: float = 0.2) -> None:
        self._url, self._token = server.url, token(identity, room)
        self.identity = identity
        self.frequency = frequency
        self._amplitude = amplitude
        self.room = rtc.Room()
        self._feeding: list[asyncio.Task[None]] = []
        self._tracks: list[rtc.LocalAudioTrack] = []

    async def join(self, options: rtc.RoomOptions | None = None) -> None:
        await self.room.connect(self._url, self._token, options or rtc.RoomOptions(auto_subscribe=False))
        await self.publish(self.frequency)

    async def publish(self, frequency: float) -> None:
        """Publishes a tone, beside what it publishes already."""
        source = rtc.AudioSource(48_000, 1, queue_size_ms=1000)
        track = rtc.LocalAudioTrack.create_audio_track(f"tone-{frequency}", source)
        self._feeding.append(asyncio.create_task(self._feed(source, frequency)))
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        await self.room.local_participant.publish_track(track, options)
        self._tracks.append(track)

    async def _feed(self, source: rtc.AudioSource, frequency: float) -> None:
        second = (sine(frequency, self._amplitude, 1) * 32767).astype(np.int16)
        while True:
            for part in np.split(second, 5):
                await source.capture_frame(rtc.AudioFrame(part.tobytes(), 48_000, 1, len(part)))

    async def mute(self) -> None:
        self._tracks[0].mute()

    async def unmute(self) -> None:
        self._tracks[0].unmute()

    async def leave(self) -> None:
        for task in self._feeding:
            task.cancel()
        await asyncio.gather(*self._feeding, return_exceptions=True)
        await self.room.disconnect()


class LightParticipant:
    """Is one of a chorus; speaks the protocol as far as needed."""

    def __init__(self, url: str, room: str, identity: str, frequency: float) -> None:
        self._url = f"{url}/rtc?protocol=16&auto_subscribe=0&sdk=go&access_token={token(identity, room)}"
        self.identity = identity
        self.frequency = frequency
        self._sid = ""

    async def join(self) -> None:
        self._socket = await connect(self._url)
        self._voice = Voice(LOOPBACK, self.frequency)
        self._subscriber = Subscriber(LOOPBACK, lambda: None)
        self._published = asyncio.Event()
        self._answered = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())
        peer = self._voice.peer
        await self._tell(
            add_track=signal_rtc.AddTrackRequest(cid=peer.track_id, type=models.TrackType.AUDIO, disable_red=True)
        )
        async with asyncio.timeout(10):
            await self._published.wait()
            await self._tell(offer=signal_rtc.SessionDescription(type="offer", sdp=await peer.offer()))
            await self._answered.wait()

    async def _listen(self) -> None:
        async for data in self._socket:
            message = signal_rtc.SignalResponse.FromString(bytes(data))  # type: ignore[arg-type]
            match message.WhichOneof("message"):
                case "offer":
                    sdp = await self._subscriber.answer(message.offer.sdp, dict)
                    answer = signal_rtc.SessionDescription(type="answer", sdp=sdp, id=message.offer.id)
                    await self._tell(answer=answer)
                case "answer":
                    await self._voice.peer.accept(message.answer.sdp)
                    self._answered.set()
                case "track_published":
                    self._sid = message.track_published.track.sid
                    self._published.set()
                case "trickle":
                    told = json.loads(message.trickle.candidateInit or "{}")
                    is_mine = message.trickle.target == signal_rtc.SignalTarget.PUBLISHER
                    await (self._voice.peer if is_mine else self._subscriber).add_candidate(
                        told.get("candidate", ""), told.get("sdpMid"), told.get("sdpMLineIndex")
                    )

    async def _tell(self, **message: object) -> None:
        await self._socket.send(signal_rtc.SignalRequest(**message).SerializeToString())  # type: ignore[arg-type]

    async def mute(self) -> None:
        await self._tell(mute=signal_rtc.MuteTrackRequest(sid=self._sid, muted=True))

    async def unmute(self) -> None:
        await self._tell(mute=signal_rtc.MuteTrackRequest(sid=self._sid, muted=False))

    async def leave(self) -> None:
        await self._tell(leave=signal_rtc.LeaveRequest())
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        await self._voice.close()
        await self._subscriber.close()
        await self._socket.close()


if __name__ == "__main__":
    livekit_program()
