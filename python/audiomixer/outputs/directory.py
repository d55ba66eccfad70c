"""HLS in a directory, for whoever carries files to a CDN: what is there is whole at any time."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from audiomixer.audio.encoding import EncodedPacket
from audiomixer.clock.tasks import blocking
from audiomixer.outputs.base import OnEvent, OutputError, OutputEvent, explain
from audiomixer.outputs.hls import HlsOutput

_OURS: Final = re.compile(r"[0-9a-f]{8}-\d+\.ts")


class DirectoryOutput:
    """Writes `index.m3u8`, `audio.m3u8` and segments; those that have left the playlist are deleted a little later.

    Segments are written before the playlist that names them, and each file under another name first.

    Args:
        path: Of the directory; its parent has to exist.
        bitrate: In kbit/s.
    """

    active = True

    def __init__(self, path: str, bitrate: int) -> None:
        self.target = self.name = path
        self._folder = Path(path)
        # Caches may still have the segments of another stream by the names that they had.
        self._prefix = f"{secrets.token_hex(4)}-"
        self._hls = HlsOutput(bitrate, low_latency=False, prefix=self._prefix)
        self.encoding = self._hls.encoding
        self.on_event: OnEvent = lambda _: None
        self.error: str | None = None
        self.queued = 0
        self.written = 0
        self.dropped = 0
        self._files: set[str] = set()
        self._writing: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether what is written gets there."""
        return self.error is None

    async def start(self) -> None:
        """Makes the directory.

        Raises:
            OutputError: It cannot be written to.
        """
        try:
            await blocking(self._prepare)
        except OSError as error:
            raise OutputError(f"output: cannot write {self.target}: {explain(error)}") from error
        await self._hls.start()
        self._writing = asyncio.create_task(self._follow())

    def _prepare(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._replace("index.m3u8", self._hls.master_playlist().encode())
        playlist = self._folder / "audio.m3u8"
        # What an earlier stream of ours left, and nothing else that may be there.
        old = playlist.read_text(errors="replace") if playlist.exists() else ""
        playlist.unlink(missing_ok=True)
        for line in old.splitlines():
            if _OURS.fullmatch(line):
                (self._folder / line).unlink(missing_ok=True)

    def begin(self, began: datetime) -> None:
        """Dates in the playlist are counted from `began`."""
        self._hls.begin(began)

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Takes AAC packets."""
        self._hls.write(packets)
        self.written += len(packets)

    def write_metadata(self, text: str, time: float) -> None:
        """Takes a payload, which becomes an ID3 tag at its own time."""
        self._hls.write_metadata(text, time)

    async def stop(self) -> None:
        """Writes what is left, and the end."""
        await self._hls.stop()
        if self._writing:
            await self._writing

    async def _follow(self) -> None:
        while not self._hls.ended:
            await self._hls.until_segment()
            await self._try_to_update()
        await self._try_to_update()

    async def _try_to_update(self) -> None:
        try:
            await blocking(self._update)
        except OSError as error:
            # A full disk may have room again.
            if self.error is None:
                self.error = explain(error)
                self.on_event(OutputEvent(self.name, "lost", self.error))
        else:
            if self.error:
                self.error = None
                self.on_event(OutputEvent(self.name, "connected"))

    def _update(self) -> None:
        playlist = self._hls.media_playlist()
        if playlist is None:
            return
        kept = self._hls.complete()
        for name in kept.keys() - self._files:
            self._replace(name, kept[name])
            self._files.add(name)
        self._replace("audio.m3u8", playlist.encode())
        for name in self._files - kept.keys():
            (self._folder / name).unlink(missing_ok=True)
            self._files.discard(name)

    def _replace(self, name: str, data: bytes) -> None:
        partial = self._folder / f".{name}.part"
        try:
            partial.write_bytes(data)
            partial.replace(self._folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
