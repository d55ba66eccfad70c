"""What every kind of output is to a mixer."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from audiomixer.encoding import EncodedPacket, Encoding


class OutputError(Exception):
    """An output cannot be opened; the message says which and why."""


class Output(Protocol):
    """Takes the encoded mix and its metadata. Made for one bitrate, started once, begun once, stopped once.

    `write` is called in the pacer's threads, one at a time, `write_metadata` in any thread at any time: they must not
    block. What an output cannot take in time it drops and counts.
    """

    @property
    def encoding(self) -> Encoding:
        """What `write` wants to be given."""

    @property
    def active(self) -> bool:
        """Whether anybody wants it now; while no output wants an encoding, nothing is encoded."""

    @property
    def dropped(self) -> int:
        """Packets lost because the output was slow."""

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
        """Takes a payload, at `time` in seconds of the stream. Packets of its time may follow, up to 80 ms later."""

    async def stop(self) -> None:
        """Finishes and closes the output; everything that was written is in it."""
