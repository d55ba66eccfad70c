"""Files on their way to a bucket: they are written here, and are here until they are there.

A file's path below the spool's folder is the object's key. Whatever is in the folder when a process begins was left by
one that died, and is stored like all else: recordings can be played however they end. While one is being written, what
there is of it is stored whenever it is twice as long: should the machine be lost, half of it or more is not.

A multipart upload that goes on while a recording does would not do that: what is not complete is no object.
"""

import asyncio
import contextlib
import errno
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from audiomixer.clock.tasks import blocking, spawn
from audiomixer.outputs.base import OutputError, explain
from audiomixer.outputs.bucket import Bucket

_LOOK: Final = 1.0
"""Seconds between two looks at what there is."""
_AT_ONCE: Final = 4
"""Files on their way."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds until a file is tried again, each time twice as many."""
_SNAPSHOT: Final = 512 * 1024
"""Bytes from which on there is something to save of a file: half a minute at 128 kbit/s."""

_log = logging.getLogger(__name__)


class Spool:
    """Keeps files until they are stored, and tries for as long as it takes. `run` has to be running.

    Args:
        folder: Where files are written; nobody else's. It is made if need be.
        bucket: Where they go.
        limit: Bytes that may be in the folder; then nothing more is written before there is room.
        on_stored: Awaited with the path and the size of a file that is stored, before it is deleted here; if it raises
            an OSError, it is tried again.
    """

    def __init__(
        self, folder: Path, bucket: Bucket, limit: int, on_stored: Callable[[Path, int], Awaitable[None]] | None = None
    ) -> None:
        self.folder = folder
        self.bucket = bucket
        self._limit = limit
        self._on_stored = on_stored
        self._sizes: dict[Path, int] = {}
        self._writing: dict[Path, int] = {}
        """Files that are being written, and how much of each is stored."""
        self._waiting: set[Path] = set()
        self._saving: dict[Path, asyncio.Task[None]] = {}
        self._storing: dict[Path, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.problem = ""
        """Why a file was not stored, the last time that one was not; empty if all is well."""

    @property
    def waiting(self) -> frozenset[Path]:
        """Files that are complete, and not stored yet."""
        return frozenset(self._waiting)

    @property
    def writing(self) -> frozenset[Path]:
        """Files that are not complete."""
        return frozenset(self._writing)

    @property
    def size(self) -> int:
        """Bytes in the folder, as of a second ago."""
        return sum(self._sizes.values())

    def sizes(self, group: Callable[[str], str]) -> Counter[str]:
        """The same, by what `group` makes of keys."""
        sizes: Counter[str] = Counter()
        for path, size in self._sizes.items():
            sizes[group(self.key(path))] += size
        return sizes

    def check_room(self) -> None:
        """Sees that there is room for more; in any thread.

        Raises:
            OSError: There is not.
        """
        if self.size > self._limit:
            raise OSError(errno.ENOSPC, "the spool is full")

    def key(self, path: Path) -> str:
        """What a file of the folder is called in the bucket."""
        return path.relative_to(self.folder).as_posix()

    def begin(self, path: str) -> None:
        """A file is being written from now on; called in any thread."""
        self._writing[Path(path)] = 0

    def finish(self, path: str) -> None:
        """A file is complete; called in any thread."""
        with contextlib.suppress(RuntimeError):  # The event loop has ended: the next process finds it.
            self._loop.call_soon_threadsafe(self._finish, Path(path))

    def _finish(self, path: Path) -> None:
        self._writing.pop(path, None)
        if path not in self._waiting:
            self._waiting.add(path)
            self._storing[path] = spawn(self._store(path))

    async def open(self) -> None:
        """Begins with what another process has left.

        Raises:
            OSError: The folder cannot be made.
        """
        await blocking(lambda: self.folder.mkdir(parents=True, exist_ok=True))
        for path in await blocking(self._files):
            self._finish(path)

    async def run(self) -> None:
        """Looks after the folder, until cancelled."""
        while True:
            try:
                await self._look()
            except OSError as error:
                _log.warning("spool: %s", explain(error))
            await asyncio.sleep(_LOOK)

    async def close(self) -> None:
        """Stores nothing more; what is left is for the next process."""
        tasks = [*self._storing.values(), *self._saving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        self._sizes = await blocking(lambda: {path: _size_of(path) for path in self._files()})
        for path, stored in list(self._writing.items()):
            size = self._sizes.get(path, 0)
            if size >= max(_SNAPSHOT, 2 * stored) and path in self._writing:
                # Whether that succeeds or not, the next is due when there is twice as much.
                self._writing[path] = size
                if path not in self._saving:
                    self._saving[path] = spawn(self._save(path))

    async def _save(self, path: Path) -> None:
        """Stores what there is of a file."""
        try:
            async with self._slots:
                if path in self._writing:
                    await self.bucket.put(self.key(path), path)
        except OutputError as error:
            _log.info("spool: what there is of %s is not stored: %s", path.name, error)
        finally:
            del self._saving[path]

    async def _store(self, path: Path) -> None:
        pause = _FIRST_PAUSE
        if saving := self._saving.get(path):
            # Or else it would come after what is whole.
            await asyncio.wait([saving])
        while not await self._try(path):
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - nothing secret
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._waiting.discard(path)
        del self._storing[path]
        self._changed.set()

    async def _try(self, path: Path) -> bool:
        """Stores a file, unless nothing has come into it."""
        async with self._slots:
            try:
                size = await blocking(_size_of, path)
                if size:
                    await self.bucket.put(self.key(path), path)
                    stored = await self.bucket.size(self.key(path))
                    if stored != size:
                        raise OutputError(f"{self.bucket.url}: {stored} bytes are there, of {size}")
                    if self._on_stored:
                        await self._on_stored(path, size)
                await blocking(self._remove, path)
            except (OutputError, OSError) as error:
                problem = str(error) if isinstance(error, OutputError) else explain(error)
                if problem != self.problem:
                    _log.warning("spool: %s has to wait: %s", path.name, problem)
                self.problem = problem
                return False
        self.problem = ""
        return True

    async def until_empty(self, seconds: float) -> bool:
        """Waits until everything is stored, but not for ever; whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._waiting or self._writing:
                    self._changed.clear()
                    await self._changed.wait()
        return not (self._waiting or self._writing)

    def _files(self) -> list[Path]:
        return [Path(folder) / name for folder, _, names in os.walk(self.folder) for name in names if name[0] != "."]

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self.folder:
                break
            with contextlib.suppress(OSError):  # Others are in it.
                folder.rmdir()


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
