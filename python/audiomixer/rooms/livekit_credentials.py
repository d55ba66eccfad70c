"""What rooms of LiveKit are joined by, and made: tokens, and keys to mint them."""

import contextlib
import secrets
import warnings
from collections.abc import AsyncGenerator
from typing import Final

import aiohttp
import jwt
from livekit import api

from audiomixer.rooms.base import NoRoomError, RemovalError, RoomError
from audiomixer.rooms.place import Place
from audiomixer.rooms.remote import LostError

_NOT_FOUND: Final = 404
_BROKEN: Final = 500
"""HTTP statuses from here on are the server's own trouble."""


class LiveKitCredentials:
    """What a mixer may join a room by: a token, or an API key to mint one.

    Args:
        place: The room, with its parameters.
        identity: Who the mixer is. One that nobody sees is given a suffix: mixers in one room must not be the same.
        visible: Whether it shows, as it has to if it publishes.

    Raises:
        ValueError: Neither is given.
    """

    def __init__(self, place: Place, identity: str, *, visible: bool) -> None:
        given = place.parameters
        self.token = given.get("token", "")
        self._key, self._secret = given.get("api_key", ""), given.get("api_secret", "")
        if not self.token and not (self._key and self._secret):
            raise ValueError("room: expected a token, or an api_key and its api_secret, for a room of LiveKit")
        self._place = place
        self._visible = visible
        self._identity = identity if visible else f"{identity}-{secrets.token_hex(4)}"

    def mint(self) -> str:
        """A token to join the room by."""
        if not self._key:
            return self.token
        grants = api.VideoGrants(
            room_join=True,
            room=self._place.name,
            can_subscribe=True,
            can_publish=self._visible,
            can_publish_data=self._visible,
            hidden=not self._visible,
            agent=True,
        )
        token = api.AccessToken(self._key, self._secret).with_identity(self._identity).with_kind("agent")
        with warnings.catch_warnings():
            # LiveKit's own key for trying it is shorter than RFC 7518 wants.
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            return token.with_grants(grants).to_jwt()

    async def ensure(self, *, create: bool) -> None:
        """Sees that there is the room, if that can be seen: by an API key.

        Args:
            create: Whether it is made if there is none.

        Raises:
            NoRoomError: There is none.
            RoomError: The key is not good for that.
            LostError: The server does not answer.
        """
        if not self._key:
            return
        async with self._api() as livekit:
            if create:
                await livekit.room.create_room(api.CreateRoomRequest(name=self._place.name))
                return
            found = await livekit.room.list_rooms(api.ListRoomsRequest(names=[self._place.name]))
        if not found.rooms:
            raise NoRoomError(f"room: there is no {self._place.name!r}")

    async def remove(self, identity: str) -> None:
        """Has the server remove who has an identity in the room.

        Raises:
            RemovalError: There is no API key, or it is not good for that.
            LostError: The server does not answer.
        """
        if not self._key:
            raise RemovalError("Status: expected an api_key and its api_secret of LiveKit, by which to remove anybody")
        try:
            async with self._api() as livekit:
                who = api.RoomParticipantIdentity(room=self._place.name, identity=identity)
                try:
                    await livekit.room.remove_participant(who)
                except api.TwirpError as error:
                    if error.status != _NOT_FOUND:  # Another mixer may have been as quick.
                        raise
        except RoomError as error:
            raise RemovalError(f"Status: {error}") from error

    @contextlib.asynccontextmanager
    async def _api(self) -> AsyncGenerator[api.LiveKitAPI]:
        url = "http" + self._place.server.removeprefix("ws")
        try:
            async with api.LiveKitAPI(url, self._key, self._secret) as livekit:
                yield livekit
        except api.TwirpError as error:
            if error.status >= _BROKEN:
                raise LostError(f"LiveKit answered {error.status}: {error.message}") from error
            raise RoomError(f"room: LiveKit refused: {error.message}") from error
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise LostError(str(error) or type(error).__name__) from error
