"""A folder whose files are whole at any time."""

import contextlib
from pathlib import Path

from audiomixer.clock.tasks import blocking


class Folder:
    """Files by their names, as a `Bucket` has them, but that every method raises an OSError where it cannot.

    Args:
        path: Its parent has to exist.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def check(self) -> None:
        """Makes the folder, if need be."""
        await blocking(self._path.mkdir, exist_ok=True)

    async def get(self, name: str) -> bytes | None:
        """What is in a file; None if there is none."""
        file = self._path / name
        return await blocking(lambda: file.read_bytes() if file.exists() else None)

    async def put(self, name: str, data: bytes, *, cache: str | None = None) -> None:
        """Writes a file, under another name first."""
        await blocking(self._replace, name, data)

    async def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        await blocking((self._path / name).unlink, missing_ok=True)

    def _replace(self, name: str, data: bytes) -> None:
        partial = self._path / f".{name}.part"
        try:
            partial.write_bytes(data)
            partial.replace(self._path / name)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
