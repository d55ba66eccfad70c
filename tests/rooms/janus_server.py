"""Janus, in a network of its own, and who is in its rooms: stock aiortc."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aioice.ice
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from audiomixer.rooms.janus_client import Event, JanusClient
from audiomixer.webrtc.ice import Ice
from tests.namespace import ENTER, INSIDE, OUTSIDE, namespace
from tests.rooms.chorus import Voice
from tests.rooms.client import Microphone

ADMIN_KEY = "supersecret"
PLUGIN = "janus.plugin.videoroom"
_PORT = 8188
_LIBRARIES = "/usr/lib/x86_64-linux-gnu/janus"
_OTHERS = "libjanus_http.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so"
_CONFIGURATION = {
    "janus.jcfg": f"""
        general: {{ configs_folder = "CONFIGURATION", plugins_folder = "{_LIBRARIES}/plugins"
                    transports_folder = "{_LIBRARIES}/transports", debug_level = 4 }}
        nat: {{ ice_enforce_list = "{INSIDE}" }}
        transports: {{ disable = "{_OTHERS}" }}
    """,
    "janus.transport.websockets.jcfg": f'general: {{ ws = true, ws_port = {_PORT}, ws_ip = "{INSIDE}" }}',
    "janus.plugin.videoroom.jcfg": f'general: {{ admin_key = "{ADMIN_KEY}" }}',
}


class Janus:
    """A server that can be killed and started again."""

    url = f"ws://{INSIDE}:{_PORT}"
    ice = Ice([OUTSIDE])

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name, text in _CONFIGURATION.items():
            (folder / name).write_text(text.replace("CONFIGURATION", str(folder)))
        self._process: subprocess.Popen[bytes] | None = None

    def room(self, name: str) -> str:
        """The room's URL, for a mixer."""
        return f"janus+{self.url}/{name}?admin_key={ADMIN_KEY}"

    def start(self) -> None:
        """Once is enough."""
        if self._process:
            return
        with (self._folder / "log").open("ab") as log:
            command = [*ENTER, "janus", "--configs-folder", str(self._folder)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection((INSIDE, _PORT), 1).close()
                return
            time.sleep(0.05)
        raise TimeoutError((self._folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def participant(self, room: str, identity: str, frequency: float) -> "Participant":
        return Participant(room, identity, frequency)

    @property
    def one_of_many(self) -> Callable[[str, str, float], "LightParticipant"]:
        """Makes participants that take little CPU time, in any process."""
        return LightParticipant

    async def end(self, room: str) -> None:
        await self._ask(request="destroy", room=int(room))

    async def create(self, room: str, **more: object) -> None:
        await self._ask(request="create", room=int(room), admin_key=ADMIN_KEY, publishers=100, **more)

    async def _ask(self, **request: object) -> None:
        client = JanusClient(f"{self.url}/", {}, lambda reason: None)
        await client.open()
        handle = await client.attach(PLUGIN, lambda event: None)
        await client.ask(handle, None, **request)
        await client.close()


@contextlib.contextmanager
def janus(folder: Path) -> Iterator[Janus]:
    """Needs root, for the network."""
    with namespace(), pytest.MonkeyPatch.context() as patch:
        # Where stock aiortc gathers.
        patch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: [OUTSIDE])
        server = Janus(folder)
        server.start()
        try:
            yield server
        finally:
            server.kill()


class Participant:
    """Somebody who speaks: a tone."""

    def __init__(self, room: str, identity: str, frequency: float) -> None:
        self.identity = identity
        self.frequency = frequency
        self._room = int(room)
        self._client = JanusClient(f"{Janus.url}/", {}, lambda reason: None)
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._handle = 0
        self._id = 0

    async def join(self, **entry: str) -> None:
        await self.enter(**entry)
        await self.publish(self.frequency)

    async def enter(self, **entry: str) -> None:
        """Joins, and says nothing yet."""
        await self._client.open()
        self._handle = await self._client.attach(PLUGIN, lambda event: None)
        join = {"request": "join", "ptype": "publisher", "room": self._room, "display": self.identity, **entry}
        self._id = (await self._client.ask(self._handle, None, **join)).data["id"]

    async def publish(self, frequency: float, *, e2ee: bool = False) -> None:
        """Publishes a tone, beside what it publishes already."""
        is_first = not self._pc.getTransceivers()
        self.microphone = Microphone(frequency)
        self._pc.addTransceiver(self.microphone, direction="sendonly")
        await self._pc.setLocalDescription(await self._pc.createOffer())
        offer = {"type": "offer", "sdp": self._pc.localDescription.sdp} | ({"e2ee": True} if e2ee else {})
        event = await self._client.ask(self._handle, offer, request="publish" if is_first else "configure")
        assert event.jsep is not None
        await self._pc.setRemoteDescription(RTCSessionDescription(event.jsep["sdp"], "answer"))

    async def ask(self, **request: object) -> Event:
        return await self._client.ask(self._handle, None, room=self._room, **request)

    async def others(self) -> set[int]:
        found = (await self.ask(request="listparticipants")).data["participants"]
        return {other["id"] for other in found} - {self._id}

    async def mute(self) -> None:
        """Has itself muted, as moderators do."""
        await self.ask(request="moderate", id=self._id, mid="0", mute=True)

    async def unmute(self) -> None:
        await self.ask(request="moderate", id=self._id, mid="0", mute=False)

    async def kick(self) -> None:
        await self.ask(request="kick", id=self._id)

    async def leave(self) -> None:
        await self._pc.close()
        await self._client.close()


class LightParticipant(Participant):
    """Is one of a chorus."""

    async def publish(self, frequency: float, *, e2ee: bool = False) -> None:
        self._voice = Voice(Janus.ice, frequency)
        offer = {"type": "offer", "sdp": await self._voice.peer.offer()}
        event = await self._client.ask(self._handle, offer, request="publish")
        assert event.jsep is not None
        await self._voice.peer.accept(event.jsep["sdp"])

    async def leave(self) -> None:
        await self._voice.close()
        await super().leave()
