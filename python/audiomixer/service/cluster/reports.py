"""What a worker tells of itself, as plain values."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from audiomixer.rooms.base import RoomEvent
from audiomixer.service.jobs import Job, Load, Playing, Progress, RecordingState

VERSION: Final = 3
"""Of what control and workers say to each other: to be raised whenever it changes."""
_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Happening:
    """Somebody joined or left a room of ours, or something happened in a job's room elsewhere."""

    what: Literal["joined", "left", "told"]
    where: str
    """The room's name; the job's SID."""
    resource: str = ""
    identity: str = ""
    event: RoomEvent | None = None


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker is, and what it is at."""

    incarnation: str
    """Another one each time its process begins."""
    url: str
    """Where requests are forwarded to."""
    addresses: list[str]
    """Where media is offered."""
    media_port: int
    process: int
    draining: bool
    number: int
    """Of its last happening."""
    jobs: Mapping[str, Job] = field(default_factory=dict)
    elsewhere: Mapping[str, list[str]] = field(default_factory=dict)
    """Who is in the rooms elsewhere, by job."""
    rooms: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Identities by room of ours, and by resource."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a worker gets on."""

    incarnation: str
    number: int
    """Of the last happening in it."""
    happenings: list[Happening]
    progress: Mapping[str, Progress]
    rooms: list[str]
    """Those of ours that there are."""
    streams: list[Playing]
    load: Load
    share: float
    """Of the time that it has for mixing, how much it needs."""
    recordings: Mapping[str, RecordingState]
    """Those that anything is left of there."""


class Journal:
    """What has happened, in order; the oldest is forgotten when it is too much. To be used on one event loop."""

    def __init__(self) -> None:
        self._items: deque[Happening] = deque(maxlen=_MOST)
        self._more = asyncio.Event()
        self.number = 0
        """So much has happened."""

    def add(self, item: Happening) -> None:
        """One more."""
        self._items.append(item)
        self.number += 1
        self._more.set()

    async def after(self, number: int, patience: float) -> list[Happening]:
        """What has happened after the one of this number, at once if something has, or else in so many seconds."""
        if self.number <= number:
            self._more.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._more.wait()
            except TimeoutError:
                return []
        return list(self._items)[-(self.number - number) :]
