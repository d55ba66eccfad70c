"""What all participants of a room of ours have in common, whatever they have joined by; and those of WebRTC."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from audiomixer._core import Participant
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.returns import Raw, Return
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.peer import Peer


class Member(ABC):
    """A participant and its connection, to be made on the event loop.

    Args:
        client: What it joined by, for hosts to see.
    """

    codec = "opus"
    """What it sends."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.resource = secrets.token_urlsafe(16)
        """What it joined as."""
        self._participant: Participant | None = None
        self._return: Return | Raw | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def participant(self) -> Participant | None:
        """Who it is in the mix, while it is in the room."""
        return self._participant

    @participant.setter
    def participant(self, participant: Participant | None) -> None:
        self._participant = participant
        self._return = self._listen(participant) if participant else None
        self._route(participant)

    @property
    def listener(self) -> Return | Raw | None:
        """What it hears, if it wants to hear anything."""
        return self._return

    @property
    def publishes(self) -> bool:
        """Whether it sends anything."""
        return True

    @abstractmethod
    def _route(self, participant: Participant | None) -> None:
        """Has what it sends taken in by a participant of the core, or by none."""

    @abstractmethod
    def _listen(self, participant: Participant) -> Return | Raw | None:
        """What it is to hear."""

    @abstractmethod
    async def close(self) -> None:
        """Ends its connection."""

    def expel(self) -> None:
        """Ends it as well, from the thread that mixes."""
        self._loop.call_soon_threadsafe(lambda: spawn(self.close()))


class PeerMember(Member):
    """A participant by WebRTC.

    Args:
        ice: Where it is reached.
        client: What it joined by.
        on_closed: Called when its connection has ended.
    """

    def __init__(self, ice: Ice, client: str, on_closed: Callable[[Self], None]) -> None:
        super().__init__(client)
        self.peer = Peer(ice, "sendrecv", on_closed=lambda: on_closed(self))

    @property
    def publishes(self) -> bool:
        """Whether it sends anything."""
        return self.peer.receives

    def _route(self, participant: Participant | None) -> None:
        self.peer.media.inlet.route(None, participant)

    def _listen(self, participant: Participant) -> Return | None:
        return Return(participant, self.peer.media, self.expel) if self.peer.sends else None

    async def close(self) -> None:
        """Ends the connection."""
        await self.peer.close()
