"""A folder whose files are whole at any time, by the methods that a `Bucket` has."""

import contextlib
import os
import shutil
from pathlib import Path

from audiomixer.clock.tasks import blocking


class Folder:
    """Files by their names, which may have folders in them. Every method raises an OSError where it cannot.

    Args:
        path: Its parent has to exist, but for files whose names have folders in them.
    """

    def __init__(self, path: str) -> None:
        self.url = path
        self._path = Path(path)

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._path / name

    async def check(self) -> None:
        """Makes the folder, if need be."""
        await blocking(self._path.mkdir, exist_ok=True)

    async def has(self, name: str) -> bool:
        """Whether there is a file."""
        return await blocking(self.path(name).is_file)

    async def get(self, name: str) -> bytes | None:
        """What is in a file; None if there is none."""
        file = self.path(name)
        return await blocking(lambda: file.read_bytes() if file.exists() else None)

    async def put(self, name: str, data: Path | bytes, *, cache: str | None = None) -> None:
        """Writes a file, under another name first; another file is on disk then, whatever happens, and may be deleted.

        On one file system that is the same file by another name.
        """
        await blocking(self._replace, name, data)

    async def size(self, name: str) -> int:
        """Of a file, in bytes."""
        return (await blocking(self.path(name).stat)).st_size

    async def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        await blocking(self.path(name).unlink, missing_ok=True)

    def _replace(self, name: str, data: Path | bytes) -> None:
        target = self.path(name)
        if "/" in name:
            target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        try:
            if isinstance(data, bytes):
                partial.write_bytes(data)
            else:
                partial.unlink(missing_ok=True)
                _link(data, partial)
            partial.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        if not isinstance(data, bytes):
            _sync(target.parent)


def _link(file: Path, other: Path) -> None:
    try:
        os.link(file, other)
    except OSError:
        shutil.copyfile(file, other)
    _sync(other)


def _sync(path: Path) -> None:
    """Sees that it is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
