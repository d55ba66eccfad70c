"""Who may join a room of ours, and who is told of it."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Protocol

from audiomixer.auth.tokens import Keyring
from audiomixer.rooms.names import check_identity, check_name


class Doorkeeper(Protocol):
    """Decides who may join which local room, and is told who came and went; on the event loop."""

    @property
    def is_open(self) -> bool:
        """Whether anybody may, who can reach it."""

    def admit(
        self, room: str, token: str | None, identity: str | None
    ) -> contextlib.AbstractAsyncContextManager[tuple[str, str]]:
        """Somebody wants to join a room, and does within the block, if at all.

        Gives the room's name and the identity to join under.

        Raises:
            TokenError: A token is needed, and this is none or not good for the room.
            ValueError: The room's name or the identity is none.
            RoomError: The room cannot be joined.
        """

    async def check(self, room: str, token: str | None) -> str:
        """Somebody wants to know who is in a room; gives the room's name.

        Raises:
            TokenError: A token is needed, and this is none or not good for the room.
        """

    def joined(self, room: str, resource: str, identity: str) -> None:
        """Somebody has joined the room of this name."""

    def left(self, room: str, resource: str) -> None:
        """Somebody has left."""


class OpenDoor:
    """Lets in who has a token, or everybody under the identity they give.

    Args:
        keyring: What tokens are signed with; none are needed if None.
    """

    def __init__(self, keyring: Keyring | None = None) -> None:
        self._keyring = keyring

    @property
    def is_open(self) -> bool:
        """Whether no tokens are needed."""
        return self._keyring is None

    @contextlib.asynccontextmanager
    async def admit(self, room: str, token: str | None, identity: str | None) -> AsyncGenerator[tuple[str, str]]:
        """Sees that the token is good for the room."""
        check_name(room)
        if self._keyring:
            access = self._keyring.verify(token)
            access.check_room(room)
            identity = access.identity
        yield room, check_identity(identity)

    async def check(self, room: str, token: str | None) -> str:
        """Sees that the token is good for the room."""
        if self._keyring:
            self._keyring.verify(token).check_room(room)
        return room

    def joined(self, room: str, resource: str, identity: str) -> None:
        """Nobody keeps account."""

    def left(self, room: str, resource: str) -> None:
        """Nobody keeps account."""
