"""Files on their way to a store: they are written here, and are here until they are there.

A file's path below the spool's folder is what it is called in the store. Whatever is in the folder when a process
begins was left by one that died, and is stored like all else: recordings can be played however they end. While one is
being written, what there is of it is stored in a bucket whenever it is twice as long: should the machine be lost, half
of it or more is not.

A multipart upload that goes on while a recording does would not do that: what is not complete is no object.
"""

import asyncio
import contextlib
import errno
import fcntl
import itertools
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Final

from audiomixer.clock.tasks import blocking, spawn
from audiomixer.outputs.base import OutputError, explain
from audiomixer.outputs.bucket import Bucket
from audiomixer.outputs.folder import Folder

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
        store: Where they go.
        limit: Bytes that may wait; then nothing more is written before there is room.
        on_stored: Awaited with the path and the size of a file that is stored, before it is deleted here; if it raises
            an OSError, it is tried again.
    """

    def __init__(
        self,
        folder: Path,
        store: Bucket | Folder,
        limit: int,
        on_stored: Callable[[Path, int], Awaitable[None]] | None = None,
    ) -> None:
        self.folder = folder
        self.store = store
        self._limit = limit
        self._on_stored = on_stored
        self._sizes: dict[Path, int] = {}
        self._writing: dict[Path, int] = {}
        """Files that are being written, and how much of each is stored."""
        self._storing: dict[Path, asyncio.Task[None]] = {}
        """Those that are complete."""
        self._saving: dict[Path, asyncio.Task[None]] = {}
        self._problems: dict[Path, str] = {}
        self._folders = threading.Lock()
        """Held while one is made for a file, or deleted for want of any."""
        self._full = False
        """As of a second ago."""
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> frozenset[Path]:
        """Files that are complete, and not stored yet."""
        return frozenset(self._storing)

    @property
    def writing(self) -> frozenset[Path]:
        """Files that are not complete."""
        return frozenset(self._writing)

    @property
    def problem(self) -> str:
        """Why a file is not stored, of those that were tried; empty if all is well."""
        return next(iter(self._problems.values()), "")

    def problem_of(self, path: Path) -> str:
        """The same of one."""
        return self._problems.get(path, "")

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

    @property
    def is_full(self) -> bool:
        """Whether too much waits; what is being written counts as well, while nothing can be stored."""
        counted = self._sizes if self._problems else self._storing
        return sum(self._sizes.get(path, 0) for path in list(counted)) > self._limit

    def check_room(self) -> None:
        """Sees that there is room for more; in any thread.

        Raises:
            OSError: There is not.
        """
        if self._full:
            raise OSError(errno.ENOSPC, "the spool is full")

    def key(self, path: Path) -> str:
        """What a file of the folder is called in the store."""
        return path.relative_to(self.folder).as_posix()

    def begin(self, path: str) -> None:
        """A file is being written from now on, in a folder that there is then; called in any thread.

        Raises:
            OSError: The folder cannot be made.
        """
        with self._folders:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._writing[Path(path)] = 0

    def finish(self, path: str) -> None:
        """A file is complete; called in any thread."""
        with contextlib.suppress(RuntimeError):  # The event loop has ended: the next process finds it.
            self._loop.call_soon_threadsafe(self.take, Path(path))

    def take(self, path: Path) -> None:
        """Has a file of the folder stored that nobody writes to."""
        self._writing.pop(path, None)
        if path not in self._storing:
            self._storing[path] = spawn(self._store(path))

    async def open(self) -> None:
        """Begins with what another process has left.

        Raises:
            OSError: The folder cannot be made.
        """
        await blocking(lambda: self.folder.mkdir(parents=True, exist_ok=True))
        for path in await blocking(lambda: list(files_in(self.folder))):
            self.take(path)

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
        self._sizes = await blocking(lambda: {path: _size_of(path) for path in files_in(self.folder)})
        self._full = self.is_full
        if isinstance(self.store, Folder):
            return  # What is written here is on the same machine.
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
                    await self.store.put(self.key(path), path)
        except (OutputError, OSError) as error:
            _log.info("spool: what there is of %s is not stored: %s", path.name, explain(error))
        finally:
            del self._saving[path]

    async def _store(self, path: Path) -> None:
        try:
            if saving := self._saving.get(path):
                # Or else it would come after what is whole.
                await asyncio.wait([saving])
            size = await self._until_done(path, self._put)
            if size and self._on_stored:
                await self._until_done(path, lambda path: self._tell(path, size))
            await self._until_done(path, lambda path: blocking(self._remove, path))
        finally:
            self._problems.pop(path, None)
            self._storing.pop(path, None)
            self._changed.set()

    async def _until_done(self, path: Path, work: Callable[[Path], Awaitable[int | None]]) -> int:
        """Does something with a file, as often as it takes."""
        pause = _FIRST_PAUSE
        while True:
            try:
                done = await work(path)
                self._problems.pop(path, None)
                return done or 0
            except Exception as error:
                if not isinstance(error, OutputError | OSError):
                    _log.exception("spool: %s cannot be stored", path.name)
                problem = explain(error)
                if problem != self._problems.get(path):
                    _log.warning("spool: %s has to wait: %s", path.name, problem)
                self._problems[path] = problem
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - nothing secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _put(self, path: Path) -> int:
        """Stores a file, unless nothing has come into it; gives its size."""
        async with self._slots:
            size = await blocking(_size_of, path)
            if size:
                await self.store.put(self.key(path), path)
                stored = await self.store.size(self.key(path))
                if stored != size:
                    raise OutputError(f"{self.store.url}: {stored} bytes are there, of {size}")
            return size

    async def _tell(self, path: Path, size: int) -> None:
        if self._on_stored:
            await self._on_stored(path, size)

    async def until_empty(self, patience: float) -> bool:
        """Waits until everything is stored, but not for longer than there has been a problem; whether it is.

        Args:
            patience: Seconds for which there may be one.
        """
        since, now = self._loop.time(), self._loop.time()
        while (self._storing or self._writing) and now - since < patience:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.2)
            now = self._loop.time()
            if not self._problems:
                since = now
        return not (self._storing or self._writing)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with self._folders:
            for folder in path.parents:
                if folder == self.folder or any(folder in written.parents for written in list(self._writing)):
                    break
                with contextlib.suppress(OSError):  # Others are in it.
                    folder.rmdir()


def claim(folder: Path) -> tuple[Path, IO[str]]:
    """The first folder below this one that no process has, and what it is had by, until that is closed.

    Raises:
        OSError: None can be made, or it is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it is somebody else's")
    for number in itertools.count():
        own = folder / str(number)
        own.mkdir(mode=0o700, exist_ok=True)
        if lock := try_to_lock(own):
            return own, lock
    raise AssertionError("there are numbers enough")


def try_to_lock(folder: Path) -> IO[str] | None:
    """What a claimed folder is had by; None if another process has it."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def files_in(folder: Path) -> Iterator[Path]:
    """All files below a folder, but those with a dot before their names."""
    return (Path(where) / name for where, _, names in os.walk(folder) for name in names if name[0] != ".")


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
