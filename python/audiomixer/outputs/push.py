"""Files, and servers that FFmpeg can push to: a muxer in a thread of its own, behind a bounded queue."""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import av
from av.container import OutputContainer

from audiomixer.encoding import SAMPLE_RATE, Codec, EncodedPacket, Encoding
from audiomixer.outputs.base import OutputError

_NETWORK_TIMEOUT: Final = 5.0
"""Seconds for a server to accept the connection, or data."""


@dataclass(frozen=True, slots=True)
class Format:
    """How to write to a kind of target."""

    container: str
    """FFmpeg's name."""
    codec: Codec
    options: Mapping[str, str]


_AT_ONCE: Final = {"flush_packets": "1"}
"""What is muxed is on its way to the disk: a recording is as long as the process lived, however it died."""
_TIMEOUT: Final = {"rw_timeout": str(round(_NETWORK_TIMEOUT * 1_000_000))}
_FILES: Final = {
    # Fragments, clusters and pages of half a second or less: what was written can be played without what was not.
    ".m4a": Format("mp4", "aac", _AT_ONCE | {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"}),
    ".mp3": Format("mp3", "mp3", _AT_ONCE | {"write_xing": "0"}),
    ".ogg": Format("ogg", "opus", _AT_ONCE | {"page_duration": "200000"}),
    ".wav": Format("wav", "pcm", _AT_ONCE),
    ".mka": Format("matroska", "opus", _AT_ONCE | {"cluster_time_limit": "500"}),
}
_SCHEMES: Final = {
    "rtmp": Format("flv", "aac", _TIMEOUT),
    "rtmps": Format("flv", "aac", _TIMEOUT),
}
_LIMIT: Final = 1000
"""Packets that may wait for a slow disk or server, 20 s of them; then new ones are dropped."""
_FINISH_TIMEOUT: Final = 10.0
"""Seconds for what is queued to be written in the end."""

_log = logging.getLogger(__name__)


def format_of(target: str) -> Format:
    """How to write to a path or URL.

    Raises:
        ValueError: There is none.
    """
    scheme = urlsplit(target).scheme if "://" in target else ""
    found = _SCHEMES.get(scheme) if scheme else _FILES.get(Path(target).suffix.lower())
    if found is None:
        files, schemes = ", ".join(f"*{suffix}" for suffix in _FILES), ", ".join(f"{s}://" for s in _SCHEMES)
        raise ValueError(f"output: expected {files}, or a URL of {schemes}; got {target!r}")
    return found


class PushOutput:
    """Writes the mix to a file, or pushes it to a server.

    Args:
        target: A path ending in .m4a, .mp3, .ogg, .wav or .mka, or a URL: rtmp(s)://.
        bitrate: In kbit/s.
        address: Where the host of an `rtmp:` URL is, if that shall not be looked up again. (TLS needs the name.)

    Raises:
        ValueError: The target is neither.
    """

    active = True

    def __init__(self, target: str, bitrate: int, address: str | None = None) -> None:
        self.target = target
        self._address = address
        self._is_url = "://" in target
        self._format = format_of(target)
        self.encoding = Encoding(self._format.codec, bitrate)
        self._queue: queue.Queue[EncodedPacket | None] = queue.Queue(_LIMIT)
        self._thread = threading.Thread(target=self._run, name=f"push {self._format.container}", daemon=True)
        self._container: OutputContainer | None = None
        self._abandoned = False
        self.written = 0
        """Packets written so far."""
        self.dropped = 0
        self.error: str | None = None
        """Why it stopped before its time."""

    async def start(self) -> None:
        """Opens the connection, or sees that the file can be written: it is made when there is something to write."""
        try:
            await asyncio.to_thread(self._open if self._is_url else lambda: check_writable(self.target))
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"output: cannot write {self.name}: {error.strerror or error}") from error
        self._thread.start()

    def begin(self, began: datetime) -> None:
        """Files and pushes have no use for the date."""

    @property
    def queued(self) -> int:
        """Packets that wait to be written."""
        return self._queue.qsize()

    @property
    def name(self) -> str:
        """The target without what may be secret in it."""
        if not self._is_url:
            return self.target
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.hostname}"

    def _open(self) -> OutputContainer:
        url, options = self.target, dict(self._format.options)
        if self._address and url.startswith("rtmp:"):
            url, options["rtmp_tcurl"] = _at(url, self._address)
        self._container = av.open(url, "w", format=self._format.container, options=options)
        self._stream = self._container.add_stream(self.encoding.library, rate=SAMPLE_RATE)
        self.encoding.configure(self._stream.codec_context)
        self._container.start_encoding()
        return self._container

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Queues packets for the muxer."""
        for packet in packets:
            try:
                if self.error is None:
                    self._queue.put_nowait(packet)
                    continue
            except queue.Full:
                pass
            self.dropped += 1

    def write_metadata(self, text: str, time: float) -> None:
        """Files carry no metadata."""

    def _run(self) -> None:
        try:
            self._write_all()
        except Exception as error:
            self.error = getattr(error, "strerror", None) or str(error)
            _log.error("output %s stopped: %s", self.name, self.error)
            with contextlib.suppress(Exception):
                if self._container:
                    self._container.close()

    def _write_all(self) -> None:
        while not self._abandoned and (encoded := self._queue.get()) is not None:
            container = self._container or self._open()
            packet = encoded.to_av()
            packet.stream = self._stream
            container.mux_one(packet)
            self.written += 1
        if self._container:
            self._container.close()

    async def stop(self) -> None:
        """Waits until everything is written, but not for ever, and closes the file or the connection."""
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        deadline = time.monotonic() + _FINISH_TIMEOUT
        while self._thread.is_alive() and not self._abandoned:
            try:
                self._queue.put(None, timeout=max(0.0, min(0.1, deadline - time.monotonic())))
                break
            except queue.Full:
                self._abandoned = time.monotonic() >= deadline
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._abandoned = True
            self.error = self.error or "it did not take everything in time"
            _log.error("output %s was not finished: %s", self.name, self.error)


def _at(url: str, address: str) -> tuple[str, str]:
    """An RTMP URL with an address for its host, and what the server is to be told it is (tcUrl)."""
    parts = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    port = f":{parts.port}" if parts.port else ""
    application = parts.path.lstrip("/").partition("/")[0]
    return urlunsplit(parts._replace(netloc=host + port)), f"{parts.scheme}://{parts.hostname}{port}/{application}"


def check_writable(path: str) -> None:
    """Sees whether a file can be written, and changes nothing.

    Raises:
        OSError: It cannot.
    """
    file = Path(path).resolve()
    existed = file.exists()
    with file.open("ab"):
        pass
    if not existed:
        file.unlink()
