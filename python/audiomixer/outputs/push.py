"""Files, and servers that FFmpeg can push to: a muxer in a thread of its own, behind a bounded queue."""

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Final
from urllib.parse import urlsplit

import av

from audiomixer.encoding import SAMPLE_RATE, Codec, EncodedPacket, Encoding
from audiomixer.metadata import TimedMetadata
from audiomixer.outputs.base import OutputError

_FILES: Final[dict[str, tuple[str, Codec]]] = {
    ".m4a": ("ipod", "aac"),
    ".mp3": ("mp3", "mp3"),
    ".ogg": ("ogg", "opus"),
    ".wav": ("wav", "pcm"),
    ".mka": ("matroska", "opus"),
}
_SCHEMES: Final[dict[str, tuple[str, Codec]]] = {
    "rtmp": ("flv", "aac"),
    "rtmps": ("flv", "aac"),
}
_LIMIT: Final = 1000
"""Packets that may wait for a slow disk or server, 20 s of them; then new ones are dropped."""
_NETWORK_TIMEOUT: Final = 5.0
"""Seconds for a server to accept the connection, or a packet."""

_log = logging.getLogger(__name__)


def format_of(target: str) -> tuple[str, Codec]:
    """FFmpeg's container format for a path or URL, and the codec that goes into it.

    Raises:
        ValueError: There is none.
    """
    scheme = urlsplit(target).scheme if "://" in target else ""
    found = _SCHEMES.get(scheme) if scheme else _FILES.get(PurePath(target).suffix.lower())
    if found is None:
        files, schemes = ", ".join(f"*{suffix}" for suffix in _FILES), ", ".join(f"{s}://" for s in _SCHEMES)
        raise ValueError(f"output: expected {files}, or a URL of {schemes}; got {target!r}")
    return found


class PushOutput:
    """Writes the mix to a file, or pushes it to a server.

    Args:
        target: A path ending in .m4a, .mp3, .ogg, .wav or .mka, or a URL: rtmp(s)://.
        bitrate: In kbit/s.

    Raises:
        ValueError: The target is neither.
    """

    active = True

    def __init__(self, target: str, bitrate: int) -> None:
        self.target = target
        self._format, codec = format_of(target)
        self.encoding = Encoding(codec, bitrate)
        self._queue: queue.Queue[EncodedPacket | None] = queue.Queue(_LIMIT)
        self._thread = threading.Thread(target=self._run, name=f"push {self._format}", daemon=True)
        self.dropped = 0
        self.error: str | None = None
        """Why it stopped before its time."""

    async def start(self, began: datetime) -> None:
        """Opens the file or the connection."""
        try:
            await asyncio.to_thread(self._open)
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"output: cannot write {self._name}: {error.strerror or error}") from error
        self._thread.start()

    @property
    def _name(self) -> str:
        """The target without what may be secret in it."""
        if "://" not in self.target:
            return self.target
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.hostname}"

    def _open(self) -> None:
        timeout = None if "://" not in self.target else _NETWORK_TIMEOUT
        self._container = av.open(self.target, "w", format=self._format, timeout=timeout)
        self._stream = self._container.add_stream(self.encoding.library, rate=SAMPLE_RATE)
        self.encoding.configure(self._stream.codec_context)
        self._container.start_encoding()

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Queues packets for the muxer."""
        for packet in packets:
            try:
                self._queue.put_nowait(packet)
            except queue.Full:
                self.dropped += 1

    def write_metadata(self, metadata: TimedMetadata) -> None:
        """Files carry no metadata."""

    def _run(self) -> None:
        while (encoded := self._queue.get()) is not None:
            if self.error:
                self.dropped += 1
                continue
            packet = encoded.to_av()
            packet.stream = self._stream
            try:
                self._container.mux_one(packet)
            except (OSError, av.FFmpegError) as error:
                self.error = error.strerror or str(error)
                _log.error("output %s stopped: %s", self._name, self.error)
        try:
            self._container.close()
        except (OSError, av.FFmpegError) as error:
            self.error = self.error or error.strerror or str(error)
            _log.error("output %s was not finished: %s", self._name, self.error)

    async def stop(self) -> None:
        """Waits until everything is written, and closes the file or the connection."""
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        self._queue.put(None)
        self._thread.join()
