"""Recordings in a bucket."""

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Final

from audiomixer.clock.tasks import blocking, spawn
from audiomixer.outputs.base import OutputError, explain
from audiomixer.outputs.bucket import Bucket, split
from audiomixer.outputs.file import FileOutput
from audiomixer.outputs.spool import Spool

_LIMIT: Final = 16 * 1024**3
"""Bytes that may wait here, 11 days at 128 kbit/s; a disk is usually full before that."""
_PATIENCE: Final = 60.0
"""Seconds in the end for what is left to be stored."""


class BucketFile(FileOutput):
    """Writes the mix to a file that is stored in a bucket: while it grows, and when it is complete.

    While the store is away, it waits here; what is not stored a minute after the end is left where `error` says.

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
        self._storing: asyncio.Task[None] | None = None
        super().__init__(name, bitrate, rotate)
        self.target = url

    async def start(self) -> None:
        """Sees that the bucket is there.

        Raises:
            OutputError: It is not.
        """
        await self._bucket.check()
        try:
            folder = await blocking(lambda: Path(tempfile.mkdtemp(prefix="audiomixer-")))
        except OSError as error:
            raise OutputError(f"output: cannot write {tempfile.gettempdir()}: {explain(error)}") from error
        self._folder = folder
        self._spool = Spool(folder, self._bucket, _LIMIT)
        self._file = str(folder / self._file)
        self._storing = spawn(self._spool.run())
        await super().start()

    async def stop(self) -> None:
        """Finishes the file, and waits until it is stored."""
        await super().stop()
        if self._spool and self._storing:
            is_stored = await self._spool.until_empty(_PATIENCE)
            self._storing.cancel()
            await self._spool.close()
            if is_stored:
                self.files = [f"{self._bucket.url}/{self._spool.key(Path(path))}" for path in self.files]
                with contextlib.suppress(OSError):
                    await blocking(shutil.rmtree, self._folder)
            else:
                self.error = f"it is in {self._folder}, and not stored: {self._spool.problem or 'that takes too long'}"
                self._tell("failed", self.error)
