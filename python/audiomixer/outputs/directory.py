"""HLS in a directory or a bucket, for a CDN before it, or whoever carries files to one: whole at any time."""

import asyncio
import logging
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from audiomixer.audio.encoding import EncodedPacket
from audiomixer.outputs.base import OnEvent, OutputError, OutputEvent, explain
from audiomixer.outputs.bucket import store_of
from audiomixer.outputs.hls import HlsOutput

_OURS: Final = re.compile(r"[0-9a-f]{8}-\d+\.ts")
_TRIES: Final = 30
_AGAIN: Final = 2.0
"""Seconds until the end is written again that could not be."""
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_A_MOMENT: Final = "public, max-age=1"
"""For caches, where a bucket says it."""

_log = logging.getLogger(__name__)


class DirectoryOutput:
    """Writes `index.m3u8`, `audio.m3u8` and segments; those that have left the playlist are deleted a little later.

    Segments are written before the playlist that names them.

    Args:
        target: The path of the directory, whose parent has to exist; or the URL of a bucket, with a slash at its end.
        bitrate: In kbit/s.

    Raises:
        ValueError: The URL is none.
    """

    active = True

    def __init__(self, target: str, bitrate: int) -> None:
        self.target = self.name = target
        self._shelf = store_of(target.rstrip("/"))
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
            await self._prepare()
        except (OSError, OutputError) as error:
            raise OutputError(f"output: cannot write {self.target}: {explain(error)}") from error
        await self._hls.start()
        self._writing = asyncio.create_task(self._follow())

    async def _prepare(self) -> None:
        await self._shelf.check()
        await self._put("index.m3u8", self._hls.master_playlist().encode())
        # What an earlier stream of ours left, and nothing else that may be there.
        old = await self._shelf.get("audio.m3u8") or b""
        await self._shelf.delete("audio.m3u8")
        for line in old.decode(errors="replace").splitlines():
            if _OURS.fullmatch(line):
                await self._shelf.delete(line)

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
        # Without its end, players would wait for more.
        for _ in range(_TRIES):
            await self._try_to_update()
            if self.error is None:
                break
            await asyncio.sleep(_AGAIN)

    async def _try_to_update(self) -> None:
        try:
            await self._update()
        except (OSError, OutputError) as error:
            # A full disk may have room again, and a store be back.
            if self.error is None:
                self.error = explain(error)
                self.on_event(OutputEvent(self.name, "lost", self.error))
        else:
            if self.error:
                self.error = None
                self.on_event(OutputEvent(self.name, "connected"))

    async def _update(self) -> None:
        playlist = self._hls.media_playlist()
        if playlist is None:
            return
        kept = self._hls.complete()
        for name in kept.keys() - self._files:
            await self._put(name, kept[name])
            self._files.add(name)
        await self._put("audio.m3u8", playlist.encode())
        for name in self._files - kept.keys():
            self._files.discard(name)
            try:
                await self._shelf.delete(name)
            except (OSError, OutputError) as error:
                _log.warning("output %s: %s is not deleted: %s", self.name, name, explain(error))

    async def _put(self, name: str, data: bytes) -> None:
        await self._shelf.put(name, data, cache=_A_MOMENT if name.endswith(".m3u8") else _FOR_EVER)
