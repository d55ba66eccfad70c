"""What every kind of room is to a mixer."""

from dataclasses import dataclass
from typing import Literal, Protocol

from audiomixer.clock.broadcast import Broadcast
from audiomixer.clock.bus import Bus
from audiomixer.rooms.source import Source, SourceOrder


class RoomError(Exception):
    """A room cannot be joined; the message says which and why."""


class NoRoomError(RoomError):
    """There is no such room."""


class KeptOutError(RoomError):
    """A host keeps this identity out."""


class RemovalError(RoomError):
    """A participant cannot be removed; the message says why."""


class FullError(RoomError):
    """A room, or the server, has as many participants as it may."""


What = Literal[
    "joined",
    "participant-joined",
    "participant-left",
    "published",
    "unpublished",
    "muted",
    "unmuted",
    "skipped",
    "refused",
    "reconnecting",
    "ended",
]


@dataclass(frozen=True, slots=True)
class RoomEvent:
    """Something has happened in a room."""

    what: What
    """`joined`: the mixer is in the room, again maybe; `published`: audio that is mixed from now on; `muted`: as
    signalled, where rooms do; `skipped`: audio that cannot be mixed; `refused`: the mix, which may not be published;
    `ended`: the room is over for the mixer."""
    identity: str = ""
    """Whom it is about; nobody, if empty."""
    track: str = ""
    """Which of their tracks, by the room's own name for it."""
    reason: str = ""
    """Why it was skipped or refused, is reconnecting, or has ended."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a participant gets on."""

    volume: int
    """As in the metadata: of the last 500 ms, -1 while muted."""
    muted: bool
    """Whether it is, as far as that is its own doing."""
    packets_lost: int = 0
    concealed: float = 0.0
    """Seconds of audio made up for lost packets."""
    delay: float = 0.0
    """Seconds by which it is played out late."""
    codec: str = "opus"
    client: str = ""
    """What it joined by, as far as it says."""


class Room(Protocol):
    """A room that is mixed: its participants are those of `bus.mixer`, and come and go there as the room has it.

    The bus runs while mixers are attached, whether or not the room has ended.
    """

    @property
    def name(self) -> str:
        """What the room is called."""

    @property
    def bus(self) -> Bus:
        """The room's running mix."""

    @property
    def events(self) -> Broadcast[RoomEvent]:
        """What happens in it."""

    kept_out: set[str]
    """The identities that may not be in the room."""

    def keep_out(self, identity: str) -> None:
        """Lets an identity not be in the room; who is is removed, soon."""

    def vitals(self) -> dict[str, Vitals]:
        """How those get on who are in the mix, by identity."""

    async def remove(self, identity: str) -> None:
        """Has a participant leave the room, if there is one of this identity.

        Raises:
            RemovalError: The room does not let the mixer do so.
        """

    async def play(self, order: SourceOrder) -> Source:
        """Plays a file or a stream into the mix, as a participant; it is heard as soon as this returns.

        Raises:
            RoomError: The room has ended, or keeps it out.
            SourceError: It cannot be played.
            ValueError: Something of the order is wrong.
        """

    async def attach(self) -> None:
        """One more mixer is in the room, which keeps it running.

        Raises:
            RoomError: It cannot be joined, or has ended. Nothing is left running then.
        """

    async def quit(self) -> None:
        """The mixer is not in the room any more, and does not come back; the bus goes on, for its silence."""

    async def detach(self) -> None:
        """One mixer less is attached."""
