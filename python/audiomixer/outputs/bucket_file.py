"""Recordings in a bucket."""

import asyncio
import hashlib
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from audiomixer.clock.tasks import blocking, spawn
from audiomixer.outputs.base import OutputError, explain
from audiomixer.outputs.bucket import Bucket, split
from audiomixer.outputs.file import FileOutput
from audiomixer.outputs.spool import Spool, claim

_LIMIT: Final = 64 * 1024**3
"""Bytes that may wait here; a disk is usually full before that."""
_PATIENCE: Final = 60.0
"""Seconds in the end for which the store may be away."""


class BucketFile(FileOutput):
    """Writes the mix to a file that is stored in a bucket: while it grows, and when it is complete.

    While the store is away, it waits here. What is not stored in the end, or was left by a process that died, is when
    something is recorded into that bucket again; `error` says where it is.

    Args:
        url: Of a bucket, ending in .m4a, .mp3, .ogg, .wav or .mka.
        bitrate: In kbit/s.
        rotate: As of `FileOutput`.

    Raises:
        ValueError: The URL is none of these.
    """

    def __init__(self, url: str, bitrate: int, rotate: float | None = None) -> None:
        place, name = split(url)
        self._bucket = Bucket(place)
        self._looking: asyncio.Task[None] | None = None
        self._lock: IO[str] | None = None
        super().__init__(name, bitrate, rotate)
        self.target = url

    async def start(self) -> None:
        """Sees that the bucket is there.

        Raises:
            OutputError: It is not.
        """
        await self._bucket.check()
        try:
            folder, self._lock = await blocking(self._claim)
        except OSError as error:
            raise OutputError(f"output: cannot write {tempfile.gettempdir()}: {explain(error)}") from error
        self._spool = Spool(folder / "files", self._bucket, _LIMIT)
        self._file = str(self._spool.folder / self._file)
        await self._spool.open()
        self._looking = spawn(self._spool.run())
        await super().start()

    def _claim(self) -> tuple[Path, IO[str]]:
        """A folder for this bucket; what has been left there by the name that is wanted now gets another."""
        place = hashlib.sha256(self._bucket.url.encode()).hexdigest()[:12]
        folder, lock = claim(Path(tempfile.gettempdir()) / f"audiomixer-{os.geteuid()}" / place)
        left = folder / "files" / self._file
        if left.exists():
            when = datetime.fromtimestamp(left.stat().st_mtime, UTC)
            left.rename(left.with_stem(f"{left.stem}-{when:%Y%m%dT%H%M%SZ}"))
        return folder, lock

    async def stop(self) -> None:
        """Finishes the file, and waits until it is stored."""
        await super().stop()
        if self._spool and self._looking and self._lock:
            is_stored = await self._spool.until_empty(_PATIENCE)
            problem = self._spool.problem
            self._looking.cancel()
            await self._spool.close()
            self._lock.close()
            if is_stored:
                self.files = [f"{self._bucket.url}/{self._spool.key(Path(path))}" for path in self.files]
            else:
                self.error = f"it is in {self._spool.folder}, and not stored: {problem or 'that takes too long'}"
                self._tell("failed", self.error)
