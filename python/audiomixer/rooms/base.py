"""What every kind of room is to a mixer."""

from typing import Protocol

from audiomixer.bus import Bus


class RoomError(Exception):
    """A room cannot be joined; the message says which and why."""


class NoRoomError(RoomError):
    """There is no such room."""


class FullError(RoomError):
    """A room, or the server, has as many participants as it may."""


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

    def attach(self) -> None:
        """One more mixer is in the room, which keeps it running.

        Raises:
            RoomError: The room has ended.
        """

    async def detach(self) -> None:
        """One mixer less is in the room."""
