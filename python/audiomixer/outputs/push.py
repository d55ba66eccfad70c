"""Pushes the mix to servers, and comes back when they do: RTMP, Icecast, and SRT through the `ffmpeg` program."""

import asyncio
import contextlib
import logging
import queue
import random
import socket
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import av

from audiomixer.encoding import EncodedPacket, Encoding
from audiomixer.outputs.base import OutputError
from audiomixer.outputs.muxer import FLV, MP3, OGG, TS, Format
from audiomixer.outputs.queued import Item, QueuedOutput, explain
from audiomixer.outputs.relay import Relay, relay, srt

SCHEMES: Final = ("rtmp", "rtmps", "srt", "icecast")
_PORTS: Final = {"rtmp": 1935, "rtmps": 443, "icecast": 8000}
_LIMIT: Final = 250
"""Packets that may wait for a slow server, 5 s of them."""
_TIMEOUT: Final = 4.0
"""Seconds for a server to accept the connection, or data."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 2.0
"""Seconds until the next try: a server that is back is found within this."""

_log = logging.getLogger(__name__)

Resolve = Callable[[str], str]
"""Gives an address of a host, or raises OSError."""


class PushOutput(QueuedOutput):
    """Pushes to a server.

    When the connection is lost, the output tries until it is back; what is mixed meanwhile is dropped: the audience
    wants to be live.

    Args:
        target: `rtmp(s)://HOST/APP/KEY`, `srt://HOST:PORT`, or `icecast://source:PASSWORD@HOST:PORT/MOUNT`: MP3 if the
            mount ends in .mp3, else Opus in Ogg.
        bitrate: In kbit/s.
        resolve: Looks up hosts, each time that a connection is made, if the system is not to. (TLS needs the name.)

    Raises:
        ValueError: The target is none of these.
    """

    def __init__(self, target: str, bitrate: int, resolve: Resolve | None = None) -> None:
        self._parts = urlsplit(target)
        if self._parts.scheme not in SCHEMES or not self._parts.hostname:
            expected = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f"output: expected a URL of {expected} with a host, got {target!r}")
        self._resolve = resolve
        self._format = _format_of(self._parts.scheme, self._parts.path)
        self._relay: Relay | None = None
        self._lost = False
        """Whether the connection was lost before."""
        self._pause = _FIRST_PAUSE
        self._next_try = 0.0
        self.reconnects = 0
        """How often the connection was lost and made again."""
        super().__init__(target, Encoding(self._format.codec, bitrate), _LIMIT)

    @property
    def name(self) -> str:
        """The URL without its path, which may hold a key, and without a password."""
        port = f":{self._parts.port}" if self._parts.port else ""
        return f"{self._parts.scheme}://{self._parts.hostname}{port}"

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._relay is not None

    async def start(self) -> None:
        """Connects.

        Raises:
            OutputError: The server refuses, or does not answer.
        """
        try:
            self._relay = await asyncio.to_thread(self._connect)
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"output: cannot connect to {self.name}: {explain(error)}") from error
        await super().start()

    def _run(self) -> None:
        for item in self._items():
            if self._relay is None and not self._come_back():
                self.dropped += isinstance(item, EncodedPacket)
                continue
            self._give(item)
        if self._relay:
            self._relay.close()

    def _give(self, item: Item) -> None:
        if self._relay is None:
            return
        try:
            self._relay.write(item)
            self.written += isinstance(item, EncodedPacket)
        except (OSError, av.FFmpegError) as error:
            self.dropped += isinstance(item, EncodedPacket)
            lost, self._relay = self._relay, None
            self._lost = True
            self._tell("lost", explain(error))
            with contextlib.suppress(OSError, av.FFmpegError):
                lost.close()

    def _come_back(self) -> bool:
        """Tries to connect, if it is time to; then what has waited meanwhile is old."""
        if time.monotonic() < self._next_try:
            return False
        try:
            self._relay = self._connect()
        except (OSError, av.FFmpegError) as error:
            _log.debug("output %s: %s", self.name, explain(error))
            self._next_try = time.monotonic() + self._pause * random.uniform(0.8, 1.0)  # noqa: S311
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
            return False
        self._pause = _FIRST_PAUSE
        self.reconnects += 1
        self._forget_waiting()
        self._tell("connected")
        return True

    def _forget_waiting(self) -> None:
        ended = False
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                ended |= item is None
                self.dropped += isinstance(item, EncodedPacket)
        if ended:
            self._queue.put(None)

    def _connect(self) -> Relay:
        parts = self._parts
        host = parts.hostname or ""
        address = self._resolve(host) if self._resolve else None
        url = _at(self.target, address) if address and parts.scheme != "rtmps" else self.target
        if parts.scheme == "srt":
            return srt(url, self._format, self.encoding, _TIMEOUT)
        if self._lost:
            # A process is worth while only if somebody is there.
            socket.create_connection((address or host, parts.port or _PORTS[parts.scheme]), _TIMEOUT).close()
        protocol = {"rw_timeout": str(round(_TIMEOUT * 1_000_000))}
        if parts.scheme == "icecast":
            protocol["content_type"] = "audio/mpeg" if self._format is MP3 else "application/ogg"
        elif parts.scheme == "rtmp":
            protocol["rtmp_tcurl"] = _application(self.target)
        return relay(url, protocol, self._format, self.encoding, _TIMEOUT)


def _format_of(scheme: str, path: str) -> Format:
    if scheme == "icecast":
        return MP3 if PurePosixPath(path).suffix.lower() == ".mp3" else OGG
    return TS if scheme == "srt" else FLV


def _at(url: str, address: str) -> str:
    """The URL with an address for its host."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{address}]" if ":" in address else address
    return urlunsplit(parts._replace(netloc=f"{user}{at}{host}" + (f":{parts.port}" if parts.port else "")))


def _application(url: str) -> str:
    """What an RTMP server is to be told it is (tcUrl)."""
    parts = urlsplit(url)
    application = parts.path.lstrip("/").partition("/")[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{application}"
