"""Publishes the mix to another server by WHIP (RFC 9725)."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from audiomixer._core import Intake
from audiomixer.encoding import EncodedPacket, Encoding
from audiomixer.outputs.base import OnEvent, OutputError, OutputEvent, State
from audiomixer.outputs.queued import explain
from audiomixer.pacer import clock
from audiomixer.webrtc.ice import LOOPBACK, Ice, addresses_of
from audiomixer.webrtc.peer import Peer

SCHEMES: Final = ("whip+http", "whip+https")
_TIMEOUT: Final = 5.0
"""Seconds for the server to answer, and for the connection to come about."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 2.0
_SDP: Final = "application/sdp"

_log = logging.getLogger(__name__)


class WhipOutput:
    """Publishes by WHIP. When the connection is lost, the output tries until it is back.

    Args:
        target: `whip+http(s)://…`, the endpoint's URL; `?token=` in it becomes the Bearer token.
        bitrate: In kbit/s.
        ice: Where to be reached; where the server is, if None.

    Raises:
        ValueError: The target is none.
    """

    def __init__(self, target: str, bitrate: int, ice: Ice | None = None) -> None:
        parts = urlsplit(target)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError(f"output: expected whip+http(s)://HOST/…, got {target!r}")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        token = query.pop("token", None)
        self.target = target
        self._url = urlunsplit(parts._replace(scheme=parts.scheme.removeprefix("whip+"), query=urlencode(query)))
        self.name = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._headers = {"Content-Type": _SDP} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._ice = ice or (LOOPBACK if parts.hostname in {"localhost", "127.0.0.1"} else Ice(addresses_of("0.0.0.0")))  # noqa: S104
        self.encoding = Encoding("opus", bitrate)
        self.on_event: OnEvent = lambda _: None
        self.error: str | None = None
        self.queued = 0
        self.written = 0
        self.dropped = 0
        self.reconnects = 0
        self._intake = Intake()
        self._peer: Peer | None = None
        self._resource: str | None = None
        self._lost = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether there is a connection."""
        return self._peer is not None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._peer is not None

    async def start(self) -> None:
        """Connects.

        Raises:
            OutputError: The server refuses, or does not answer.
        """
        try:
            await self._connect()
        except (OSError, ValueError, httpx.HTTPError) as error:
            raise OutputError(f"output: cannot publish to {self.name}: {explain(error)}") from error
        self._running = asyncio.create_task(self._stay())

    def begin(self, began: datetime) -> None:
        """Listeners are told no dates."""

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Sends Opus packets."""
        self._intake.poll(clock())
        peer = self._peer
        for packet in packets:
            if peer:
                peer.media.send(packet.data, packet.pts)
                self.written += 1

    def write_metadata(self, text: str, time: float) -> None:
        """WHIP has no place for metadata."""

    async def stop(self) -> None:
        """Leaves."""
        if self._running:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._leave()

    async def _stay(self) -> None:
        while True:
            await self._lost.wait()
            self._tell("lost", "the connection has ended")
            await self._leave()
            pause = _FIRST_PAUSE
            while self._peer is None:
                await asyncio.sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311
                pause = min(_LONGEST_PAUSE, 2 * pause)
                try:
                    await self._connect()
                except (OSError, ValueError, httpx.HTTPError) as error:
                    _log.debug("output %s: %s", self.name, explain(error))
            self.reconnects += 1
            self._tell("connected")

    async def _connect(self) -> None:
        lost = asyncio.Event()
        peer = Peer(self._ice, "sendonly", intake=self._intake, on_closed=lost.set)
        try:
            async with asyncio.timeout(_TIMEOUT), httpx.AsyncClient(timeout=_TIMEOUT) as client:
                response = await client.post(self._url, content=await peer.offer(), headers=self._headers)
                response.raise_for_status()
                await peer.accept(response.text)
        except BaseException:
            await peer.close()
            raise
        if location := response.headers.get("Location"):
            self._resource = str(response.url.join(location))
        self._lost = lost
        self._peer = peer

    async def _leave(self) -> None:
        peer, self._peer = self._peer, None
        resource, self._resource = self._resource, None
        if peer:
            self.dropped += peer.media.outlet.dropped
            await peer.close()
        if resource:
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
                    await client.delete(resource, headers=self._headers)

    def _tell(self, state: State, reason: str = "") -> None:
        _log.warning("output %s: %s", self.name, state)
        self.on_event(OutputEvent(self.name, state, reason))
