"""Recordings: the mix in files that play however the process ends."""

import contextlib
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

import av

from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.clock.frame import SAMPLE_RATE
from audiomixer.clock.tasks import blocking
from audiomixer.outputs.base import OutputError, explain
from audiomixer.outputs.muxer import FILES, Muxer
from audiomixer.outputs.queued import QueuedOutput
from audiomixer.outputs.spool import Spool

_LIMIT: Final = 1000
"""Packets that may wait for a slow disk, 20 s of them."""
_AGAIN: Final = 2.0
"""Seconds until the next try to write where there was no room."""


class FileOutput(QueuedOutput):
    """Writes the mix to a file, which is made when there is something to write.

    When it cannot be written to any more, a full disk say, what comes meanwhile is dropped; as soon as there is room,
    recording goes on in another file, with the time of its beginning in its name.

    Args:
        path: Ending in .m4a, .mp3, .ogg, .wav or .mka.
        bitrate: In kbit/s.
        rotate: Seconds after which a new file is begun; then the names have the time of their beginning in them, UTC.
        spool: Where the file is, if it is to be stored elsewhere.

    Raises:
        ValueError: The path has another ending.
    """

    def __init__(self, path: str, bitrate: int, rotate: float | None = None, spool: Spool | None = None) -> None:
        self._format = FILES[Path(path).suffix.lower()]
        self._file = path
        self._spool = spool
        self._rotate = round(rotate * SAMPLE_RATE) if rotate else None
        self._muxer: Muxer | None = None
        self.files: list[str] = []
        """What has been written to."""
        self._until = 0
        self._resumed = False
        self._lost = False
        self._next_try = 0.0
        super().__init__(path, Encoding(self._format.codec, bitrate), _LIMIT)

    async def start(self) -> None:
        """Sees that the file can be written.

        Raises:
            OutputError: It cannot.
        """
        if self._spool is None:
            await expect_writable(self._file)
        await super().start()

    @property
    def connected(self) -> bool:
        """Whether what is written gets into a file."""
        return super().connected and not self._lost

    def _run(self) -> None:
        try:
            for item in self._items():
                if isinstance(item, EncodedPacket):
                    self._record(item)
        except BaseException:
            with contextlib.suppress(Exception):
                self._close()
            raise
        self._close()

    def _record(self, packet: EncodedPacket) -> None:
        if self._lost and time.monotonic() < self._next_try:
            self.dropped += 1
            return
        files = len(self.files)
        try:
            if self._spool:
                self._spool.check_room()
            self._muxer_at(packet).write(packet)
        except BrokenPipeError:
            raise  # It was a pipe's, and whoever read it has gone.
        except (OSError, av.FFmpegError) as error:
            self.dropped += 1
            with contextlib.suppress(OSError, av.FFmpegError):
                self._close()
            if self._lost:
                self._forget_files(files)
            self._next_try = time.monotonic() + _AGAIN
            self._resumed = True
            if not self._lost:
                self._lost = True
                self._tell("lost", explain(error))
            return
        self.written += 1
        if self._lost:
            self._lost = False
            self._tell("connected")

    def _forget_files(self, kept: int) -> None:
        """A try that failed leaves no file of nothing."""
        for path in self.files[kept:]:
            with contextlib.suppress(OSError):
                Path(path).unlink()
        del self.files[kept:]

    def _muxer_at(self, packet: EncodedPacket) -> Muxer:
        """The file that `packet` belongs into."""
        if self._muxer and self._rotate and packet.pts >= self._until:
            self._close()
        if self._muxer is None:
            self._until = max(0, packet.pts) + (self._rotate or 0)
            # It may have been added to a stream that has gone on for hours.
            rebase = self._rotate is not None or self._resumed or packet.pts > SAMPLE_RATE
            path = self._path(packet)
            self.files.append(path)
            if self._spool:
                self._spool.begin(path)
            self._muxer = Muxer(path, self._format, self.encoding, rebase=rebase)
        return self._muxer

    def _path(self, packet: EncodedPacket) -> str:
        if not (self._rotate or self._resumed) or not self._began:
            return self._file
        path = Path(self._file)
        begins = self._began + timedelta(seconds=max(0, packet.pts) / SAMPLE_RATE)
        return str(path.with_stem(f"{path.stem}-{begins:%Y%m%dT%H%M%S}Z"))

    def _close(self) -> None:
        muxer, self._muxer = self._muxer, None
        try:
            if muxer:
                muxer.close()
        finally:
            if self._spool and self.files:
                self._spool.finish(self.files[-1])


async def expect_writable(path: str) -> None:
    """Sees whether an output can be written, off the event loop: a disk may hang.

    Raises:
        OutputError: It cannot.
    """
    try:
        await blocking(check_writable, path)
    except OSError as error:
        raise OutputError(f"output: cannot write {path}: {explain(error)}") from error


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
