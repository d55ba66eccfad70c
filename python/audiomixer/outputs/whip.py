"""Publishes the mix to another server by WHIP (RFC 9725)."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlunsplit

import httpx

from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.clock.frame import FRAME
from audiomixer.outputs.base import OnEvent, OutputError, OutputEvent, State, explain, host_of, redacted
from audiomixer.webrtc.ice import LOOPBACK, Ice, addresses_of
from audiomixer.webrtc.peer import Peer

SCHEMES: Final = ("whip+http", "whip+https")
_TIMEOUT: Final = 5.0
"""Seconds for the server to answer, and for the connection to come about."""
_FIRST_PAUSE: Final = 0.25
_REFUSED_PAUSE: Final = 30.0
"""Seconds until the next try where the server is there, and refuses."""
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
        parts = host_of(target, SCHEMES)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        token = query.pop("token", None)
        self.target = target
        self._url = urlunsplit(parts._replace(scheme=parts.scheme.removeprefix("whip+"), query=urlencode(query)))
        self.name = redacted(target)
        self._headers = {"Content-Type": _SDP} | ({"Authorization": f"Bearer {token}"} if token else {})
        local = parts.hostname in {"localhost", "127.0.0.1"}
        self._ice = ice or (LOOPBACK if local else Ice(addresses_of("0.0.0.0"), media_port=None))  # noqa: S104
        self.encoding = Encoding("opus", bitrate)
        self.on_event: OnEvent = lambda _: None
        self.error: str | None = None
        self.queued = 0
        self.written = 0
        self.dropped = 0
        self.reconnects = 0
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
            OutputError: The server refuses, does not answer, or is not to be reached by media.
        """
        try:
            await self._connect()
        except Exception as error:
            raise OutputError(f"output: cannot publish to {self.name}: {_reason(error)}") from error
        self._running = asyncio.create_task(self._stay())

    def begin(self, began: datetime) -> None:
        """Listeners are told no dates."""

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Sends Opus packets."""
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
            await self._until(self._lost.is_set)
            self._tell("lost", "the connection has ended")
            await self._leave()
            pause = _FIRST_PAUSE
            while self._peer is None:
                await asyncio.sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311
                pause = min(_LONGEST_PAUSE, 2 * pause)
                try:
                    await self._connect()
                except Exception as error:
                    _log.debug("output %s: %s", self.name, _reason(error))
                    if isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error:
                        pause = _REFUSED_PAUSE
            self.reconnects += 1
            self._tell("connected")

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.sleep(FRAME)

    async def _connect(self) -> None:
        lost = asyncio.Event()
        peer = Peer(self._ice, "sendonly", on_closed=lost.set)
        try:
            async with asyncio.timeout(_TIMEOUT):
                async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
                    response = await client.post(self._url, content=await peer.offer(), headers=self._headers)
                response.raise_for_status()
                resource = response.url.join(response.headers.get("Location", ""))
                # The token is for this server only.
                is_its = (resource.scheme, resource.netloc) == (response.url.scheme, response.url.netloc)
                self._resource = str(resource) if "Location" in response.headers and is_its else None
                await peer.accept(response.text)
                await self._until(lambda: peer.connected or lost.is_set())
            if lost.is_set():
                raise ConnectionError("no media can pass")
        except BaseException:
            await peer.close()
            await self._leave()
            raise
        self._lost = lost
        self._peer = peer

    async def _leave(self) -> None:
        peer, self._peer = self._peer, None
        resource, self._resource = self._resource, None
        if peer:
            await peer.close()
            self.dropped += peer.media.outlet.dropped
        if resource:
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
                    await client.delete(resource, headers=self._headers)

    def _tell(self, state: State, reason: str = "") -> None:
        _log.warning("output %s: %s", self.name, state)
        self.on_event(OutputEvent(self.name, state, reason))


def _reason(error: Exception) -> str:
    """What went wrong, without the URL, whose path may be a key."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.reason_phrase}"
    return "no answer" if isinstance(error, TimeoutError) else explain(error)
