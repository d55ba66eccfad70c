"""Object stores: S3, Google Cloud Storage and Azure, by obstore; and what a folder has in common with them."""

import re
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import AzureStore, GCSStore, S3Store

from audiomixer.outputs.base import OutputError
from audiomixer.outputs.folder import Folder

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES: Final = ("s3", "gs", "az")
_TYPES: Final = {
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".wav": "audio/wav",
    ".mka": "audio/x-matroska",
    ".ts": "video/mp2t",
    ".m3u8": "application/vnd.apple.mpegurl",
}
_CLIENT: "Final[ClientConfig]" = {"connect_timeout": "5s", "timeout": "10m", "allow_http": True}
_RETRIES: "Final[RetryConfig]" = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
"""Within one call; who calls tries again for as long as it matters."""
_PART: Final = 8 * 1024 * 1024
"""Bytes of a part of an upload; there may be 10,000."""
_PARTS: Final = 1
"""Of one file on their way at once: many may be, by a thin line."""
_MISSING: Final = (NotFoundError, FileNotFoundError)
_FAILED: Final = (BaseError, OSError)
_TIMING: Final = re.compile(r" in [\d.]+\w*s\b")

_Store = S3Store | GCSStore | AzureStore


class Bucket:
    """Where objects go. What opens it is in the environment, as the store's own tools have it (`AWS_…` and so on).

    Args:
        url: `s3://BUCKET[/PREFIX]`, `gs://BUCKET[/PREFIX]` or `az://ACCOUNT/CONTAINER[/PREFIX]`.

    Raises:
        ValueError: It is none, or a setting in the environment is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._store = _open(url)
        except (*_FAILED, ValueError) as error:
            raise ValueError(f"expected {', '.join(f'{scheme}://…' for scheme in SCHEMES)}: {_told(error)}") from None

    async def check(self) -> None:
        """Sees that the bucket is there, and that one may look.

        Raises:
            OutputError: It is not.
        """
        try:
            # A page of it: an object that is not there could be in a bucket that is not, either.
            async for _ in obstore.list(self._store, chunk_size=1):
                break
        except _FAILED as error:
            raise OutputError(f"{self.url}: {_told(error)}") from error

    async def has(self, key: str) -> bool:
        """Whether there is an object.

        Raises:
            OutputError: The store does not say.
        """
        try:
            await obstore.head_async(self._store, key)
        except _MISSING:
            return False
        except _FAILED as error:
            raise OutputError(f"{self.url}: {_told(error)}") from error
        return True

    async def put(self, key: str, file: Path | bytes, *, cache: str | None = None) -> None:
        """Stores an object, whole or not at all.

        Args:
            key: What it is called.
            file: What is in it. A file that grows is stored as far as it is.
            cache: Its `Cache-Control`.

        Raises:
            OutputError: It cannot be stored.
        """
        kind = _TYPES.get(PurePosixPath(key).suffix)
        attributes = {"Content-Type": kind, "Cache-Control": cache}
        given = {name: value for name, value in attributes.items() if value}
        try:
            await obstore.put_async(
                self._store, key, file, attributes=given or None, chunk_size=_PART, max_concurrency=_PARTS
            )
        except _FAILED as error:
            raise OutputError(f"{self.url}: {_told(error)}") from error

    async def size(self, key: str) -> int:
        """Of an object, in bytes.

        Raises:
            OutputError: It is not there, or the store is not.
        """
        try:
            return (await obstore.head_async(self._store, key))["size"]
        except _FAILED as error:
            raise OutputError(f"{self.url}: {_told(error)}") from error

    async def get(self, key: str) -> bytes | None:
        """What is in an object; None if there is none.

        Raises:
            OutputError: The store does not say.
        """
        try:
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())
        except _MISSING:
            return None
        except _FAILED as error:
            raise OutputError(f"{self.url}: {_told(error)}") from error

    async def delete(self, key: str) -> None:
        """Deletes an object, if it is there.

        Raises:
            OutputError: The store does not.
        """
        try:
            await obstore.delete_async(self._store, key)
        except _MISSING:
            pass
        except _FAILED as error:
            raise OutputError(f"{self.url}: {_told(error)}") from error

    async def sign(self, key: str, seconds: int) -> str:
        """A URL by which whoever has it can get an object for so many seconds.

        Raises:
            OutputError: The store has none.
        """
        try:
            return await obstore.sign_async(self._store, "GET", key, timedelta(seconds=seconds))
        except _FAILED as error:
            raise OutputError(f"{self.url}: {_told(error)}") from error


def split(url: str) -> tuple[str, str]:
    """The bucket with everything up to the last slash, and what follows that.

    Raises:
        ValueError: It is no URL of a bucket.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc or "/" not in url.partition("://")[2]:
        raise ValueError(f"output: expected s3://BUCKET/…, gs://BUCKET/… or az://ACCOUNT/CONTAINER/…, got {url!r}")
    head, _, tail = url.rpartition("/")
    return head, tail


def _open(url: str) -> _Store:
    scheme, _, rest = url.partition("://")
    if scheme == "s3":
        return S3Store.from_url(url, client_options=_CLIENT, retry_config=_RETRIES, checksum_algorithm="SHA256")
    if scheme == "gs":
        return GCSStore.from_url(url, client_options=_CLIENT, retry_config=_RETRIES)
    account, _, place = rest.partition("/")
    if scheme != "az" or not account or not place:
        raise ValueError(f"got {url!r}")
    return AzureStore.from_url(f"az://{place}", account_name=account, client_options=_CLIENT, retry_config=_RETRIES)


def store_of(place: str) -> Bucket | Folder:
    """The bucket of a URL, or the folder of a path.

    Raises:
        ValueError: There is none.
    """
    return Bucket(place) if "://" in place else Folder(place)


def _told(error: BaseException) -> str:
    """What a store said, without pages of XML, and the same each time."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _TIMING.sub("", line if len(line) < 300 else line[:300] + "…")
