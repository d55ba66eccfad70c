"""What every kind of output is to a mixer."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable
from urllib.parse import SplitResult, urlsplit

import numpy as np
from numpy.typing import NDArray

from audiomixer.audio.encoding import EncodedPacket, Encoding


class OutputError(Exception):
    """An output cannot be opened; the message says which and why."""


def explain(error: BaseException) -> str:
    """What went wrong, in a few words."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def host_of(target: str, schemes: Collection[str]) -> SplitResult:
    """The parts of a URL with one of these schemes and a host.

    Raises:
        ValueError: It is none; the message has nothing of it that may be secret.
    """
    try:
        parts = urlsplit(target)
        if parts.scheme in schemes and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except ValueError:
        pass
    expected = ", ".join(f"{scheme}://" for scheme in schemes)
    raise ValueError(f"output: expected a URL of {expected} with a host and a port, got {redacted(target)!r}")


def redacted(target: str) -> str:
    """A path; or of a URL what is not secret: no password, and no path, which may be a key."""
    scheme, separator, rest = target.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2].partition('?')[0]}" if separator else target


class Output(Protocol):
    """Takes the encoded mix and its metadata. Made for one bitrate, started once, begun once, stopped once.

    `write` is called in the threads that mix or in those in the background, one at a time, `write_metadata` in any
    thread at any time: they must not block. What an output cannot take in time it drops and counts.
    """

    @property
    def encoding(self) -> Encoding:
        """What `write` wants to be given."""

    @property
    def active(self) -> bool:
        """Whether anybody wants it now; while no output wants an encoding, nothing is encoded."""

    @property
    def dropped(self) -> int:
        """Packets lost because the output was slow, or not connected."""

    async def start(self) -> None:
        """Opens the output.

        Raises:
            OutputError: It cannot be opened.
        """

    def begin(self, began: datetime) -> None:
        """The stream begins, at this wall-clock time (UTC), when every output has been opened."""

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Takes packets, of which the first is at or after the stream's beginning less the encoder's delay."""

    def write_metadata(self, text: str, time: float) -> None:
        """Takes a payload, at `time` in seconds of the stream.

        Packets of its time may follow, as late as blocks wait to be encoded: usually 0.1 s, up to two.
        """

    async def stop(self) -> None:
        """Finishes and closes the output; everything that was written is in it."""


class SoloOutput(Protocol):
    """Takes each participant alone. Started once, stopped once, in any thread."""

    @property
    def dropped(self) -> int:
        """Frames that were lost because it was slow."""

    @property
    def error(self) -> str:
        """Why something of it cannot be written, just now; empty if all is well."""

    def start(self) -> None:
        """Opens it.

        Raises:
            OutputError: It cannot be opened.
        """

    def write(self, frame: int, solos: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes what everybody was in a frame, by identity: float32 of shape `(960,)`. It must not block.

        Frames are numbered from when it began to get them; some may be missing.
        """

    def stop(self) -> None:
        """Finishes; everything that was written is in it. May take a while."""


State = Literal["connected", "lost", "failed"]


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """Something has become of an output that was named by a path or a URL."""

    name: str
    """The path, or the URL without what may be secret in it."""
    state: State
    """`connected` (again), `lost` (it tries to come back), or `failed` (it gets nothing more)."""
    reason: str = ""
    """Why it was lost, or failed."""


OnEvent = Callable[[OutputEvent], None]


@runtime_checkable
class NamedOutput(Output, Protocol):
    """An output that was named by a path or a URL, and tells what becomes of it."""

    target: str
    on_event: OnEvent
    """Called in any thread."""
    error: str | None
    """Why it has failed, if it has."""
    written: int
    """Packets written so far."""

    @property
    def name(self) -> str:
        """The target without what may be secret in it."""

    @property
    def queued(self) -> int:
        """Packets that wait to be written."""

    @property
    def connected(self) -> bool:
        """Whether what is written gets somewhere."""
