"""Pushes the mix to servers, and comes back when they do: RTMP, Icecast, and SRT through the `ffmpeg` program."""

import contextlib
import logging
import os
import queue
import random
import socket
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import av

from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.clock.tasks import blocking
from audiomixer.outputs.base import OutputError, explain, host_of, redacted
from audiomixer.outputs.muxer import FLV, MP3, OGG, TS, Format
from audiomixer.outputs.picture import Picture
from audiomixer.outputs.queued import Item, QueuedOutput
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
_REFUSED_PAUSE: Final = 30.0
"""The same for a server that is there, but does not want us."""
_LASTED: Final = 10.0
"""Seconds after which a connection was a good one."""

_log = logging.getLogger(__name__)

Resolve = Callable[[str], str]
"""Gives an address of a host, or raises OSError."""


class _AbsentError(OSError):
    """Nobody is there to connect to."""


class PushOutput(QueuedOutput):
    """Pushes to a server.

    When the connection is lost, the output tries until it is back; what is mixed meanwhile is dropped: the audience
    wants to be live.

    Args:
        target: `rtmp(s)://HOST/APP/KEY`, `srt://HOST:PORT`, or `icecast://source:PASSWORD@HOST:PORT/MOUNT`: MP3 if the
            mount ends in .mp3, else Opus in Ogg. RTMP and SRT have a picture as well if the query has `picture`: a
            file's path, or nothing for one of ours.
        bitrate: In kbit/s.
        resolve: Looks up hosts, each time that a connection is made, if the system is not to. (TLS needs the name.)
        patient: Whether the server may be out of reach to begin with; it is tried until it is there.

    Raises:
        ValueError: The target is none of these.
    """

    def __init__(self, target: str, bitrate: int, resolve: Resolve | None = None, *, patient: bool = False) -> None:
        self._patient = patient
        url, self._picture_file = without_picture(target)
        self.title = ""
        """What a picture of ours is headed with."""
        if self._picture_file is not None and urlsplit(target).scheme == "icecast":
            raise ValueError("output: expected no picture for Icecast")
        if self._picture_file:
            Picture(self._picture_file)
        self._url = url
        self._parts = host_of(url, SCHEMES)
        self._resolve = resolve
        self._format = _format_of(self._parts.scheme, self._parts.path)
        self._relay: Relay | None = None
        self._lost = False
        """Whether the connection was lost before."""
        self._pause = _FIRST_PAUSE
        self._next_try = 0.0
        self._since = 0.0
        """When the connection was made."""
        self.reconnects = 0
        """How often the connection was lost and made again."""
        super().__init__(target, Encoding(self._format.codec, bitrate), _LIMIT)

    @property
    def name(self) -> str:
        """The URL without its path, which may hold a key, and without a password."""
        return redacted(self.target)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._relay is not None and self.error is None

    async def start(self) -> None:
        """Connects.

        Raises:
            OutputError: The server refuses, or does not answer.
        """
        try:
            self._relay = await blocking(self._connect)
            self._since = time.monotonic()
        except (OSError, av.FFmpegError) as error:
            if not self._patient:
                raise OutputError(f"output: cannot connect to {self.name}: {explain(error)}") from error
            self._lost = True
            self._tell("lost", explain(error))
        await super().start()

    def _run(self) -> None:
        try:
            for item in self._items():
                if self._relay is None and not self._come_back():
                    self.dropped += isinstance(item, EncodedPacket)
                    continue
                self._give(item)
        finally:
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
            now = time.monotonic()
            self._wait(now, _REFUSED_PAUSE if now - self._since < _LASTED else _FIRST_PAUSE)
            self._tell("lost", explain(error))
            with contextlib.suppress(OSError, av.FFmpegError):
                lost.close()

    def _come_back(self) -> bool:
        """Tries to connect, if it is time to; then what has waited meanwhile is old."""
        if time.monotonic() < self._next_try or self._stopping.is_set():
            return False
        try:
            self._relay = self._connect()
        except (OSError, av.FFmpegError) as error:
            _log.debug("output %s: %s", self.name, explain(error))
            is_there = not isinstance(error, _AbsentError)
            self._wait(time.monotonic(), _REFUSED_PAUSE if is_there else _LONGEST_PAUSE)
            return False
        self._since = time.monotonic()
        self.reconnects += 1
        self._forget_waiting()
        self._tell("connected")
        return True

    def _wait(self, now: float, longest: float) -> None:
        """Sets when to try next: later each time, up to `longest`."""
        self._pause = _FIRST_PAUSE if longest == _FIRST_PAUSE else min(longest, self._pause)
        self._next_try = now + self._pause * random.uniform(0.8, 1.0)  # noqa: S311
        self._pause *= 2

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
        url = _at(self._url, address) if address and parts.scheme != "rtmps" else self._url
        picture = None if self._picture_file is None else Picture(self._picture_file or None, self.title)
        if parts.scheme == "srt":
            return srt(url, self._format, self.encoding, _TIMEOUT, picture)
        if self._lost:
            # A process is worth while only if somebody is there.
            try:
                socket.create_connection((address or host, parts.port or _PORTS[parts.scheme]), _TIMEOUT).close()
            except OSError as error:
                raise _AbsentError(explain(error)) from error
        protocol = {"rw_timeout": str(round(_TIMEOUT * 1_000_000))}
        if parts.scheme == "rtmps":
            protocol["tls_verify"] = "1"
            if authorities := os.environ.get("SSL_CERT_FILE"):
                protocol["ca_file"] = authorities
        if parts.scheme == "icecast":
            protocol["content_type"] = "audio/mpeg" if self._format is MP3 else "application/ogg"
            # Directories of stations list it by these.
            protocol["ice_name"] = PurePosixPath(parts.path).stem
            protocol["ice_genre"] = "Talk"
        elif parts.scheme == "rtmp":
            protocol["rtmp_tcurl"] = _application(self._url)
        return relay(url, protocol, self._format, self.encoding, _TIMEOUT, picture)


def without_picture(url: str) -> tuple[str, str | None]:
    """A URL less the `picture` in its query, and that: the path of a file, nothing for ours, or None."""
    head, mark, query = url.partition("?")
    picture, kept = None, []
    for part in query.split("&") if mark else ():
        name, _, value = part.partition("=")
        if name == "picture":
            picture = unquote(value)
        else:
            kept.append(part)
    return head + (f"?{'&'.join(kept)}" if kept else ""), picture


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
