"""How a mixer stays in a room elsewhere, whatever becomes of its sessions: these do as the test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from audiomixer.clock.bus import Bus
from audiomixer.rooms.base import RoomError
from audiomixer.rooms.remote import LostError, RemoteRoom
from audiomixer.rooms.roster import Roster


class Session:
    def __init__(self, roster: Roster, refusal: Exception | None) -> None:
        self._roster = roster
        self._refusal = refusal
        self.again = False
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.closed = False

    async def join(self, *, again: bool) -> None:
        self.again = again
        if self._refusal:
            raise self._refusal

    def begin(self) -> None:
        self._roster.renew([("1", "alice")])

    async def last(self) -> str:
        return await asyncio.shield(self.over)

    async def close(self) -> None:
        await asyncio.sleep(0.1)
        self.closed = True


class Stay:
    """A room, its sessions so far, and what is told; `plan` has how the next attempts to join go, None being well."""

    def __init__(self, *plan: Exception | None, patient: bool = False) -> None:
        self.plan = list(plan)
        self.sessions: list[Session] = []
        self.told: list[str] = []
        self.room = RemoteRoom("lounge", self._make, patient=patient)

    def _make(self, roster: Roster, bus: Bus) -> Session:
        self.sessions.append(Session(roster, self.plan.pop(0) if self.plan else None))
        return self.sessions[-1]

    async def listen(self) -> None:
        async for event in self.room.events.subscribe():
            self.told.append(f"{event.identity} {event.what}".strip())


@contextlib.asynccontextmanager
async def staying(*plan: Exception | None, patient: bool = False) -> AsyncIterator[Stay]:
    stay = Stay(*plan, patient=patient)
    listening = asyncio.create_task(stay.listen())
    await asyncio.sleep(0)
    await stay.room.attach()
    await asyncio.sleep(0)
    yield stay
    await stay.room.detach()
    await listening
    assert all(session.closed for session in stay.sessions), "nothing is left"


def there(stay: Stay) -> list[str]:
    return stay.room.bus.mixer.identities


async def test_lost_and_joined_again() -> None:
    async with staying(None, LostError("not yet"), RuntimeError("nonsense")) as stay:
        assert stay.told == ["joined", "alice participant-joined"]
        stay.sessions[0].over.set_exception(LostError("gone"))
        await asyncio.sleep(0.2)
        assert there(stay) == []
        await asyncio.sleep(2.3)
        assert [session.again for session in stay.sessions] == [False, True, True, True]
        assert there(stay) == ["alice"]
    assert stay.told[2:] == [
        "reconnecting",
        "alice participant-left",
        "joined",
        "alice participant-joined",
        "alice participant-left",
        "ended",
    ]


async def test_sessions_that_do_not_last_are_not_made_in_a_hurry() -> None:
    async with staying() as stay:
        for _ in range(150):
            if not stay.sessions[-1].over.done():
                stay.sessions[-1].over.set_exception(LostError("again"))
            await asyncio.sleep(0.01)
        assert len(stay.sessions) <= 4


async def test_a_session_that_lasted_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody leaves in between."""
    monkeypatch.setattr("audiomixer.rooms.remote._LASTED", 0.1)
    async with staying() as stay:
        await asyncio.sleep(0.2)
        stay.sessions[0].over.set_exception(LostError("gone"))
        await asyncio.sleep(0.05)
        assert len(stay.sessions) == 2
        await asyncio.sleep(0.2)
        assert stay.told == ["joined", "alice participant-joined", "reconnecting", "joined"]


async def test_the_room_ends() -> None:
    async with staying() as stay:
        stay.sessions[0].over.set_result("it has been closed")
        await asyncio.sleep(0.2)
        assert stay.told[-2:] == ["alice participant-left", "ended"]
        assert len(stay.sessions) == 1
    assert stay.told.count("ended") == 1


async def test_it_may_not_be_joined_again() -> None:
    async with staying(None, RoomError("room: no")) as stay:
        stay.sessions[0].over.set_exception(LostError("gone"))
        await asyncio.sleep(0.7)
        assert stay.told[-1] == "ended"
        assert len(stay.sessions) == 2


@pytest.mark.parametrize("refusal", [LostError("no"), RuntimeError("nonsense"), RoomError("room: no")])
async def test_it_cannot_be_joined(refusal: Exception) -> None:
    stay = Stay(refusal)
    with pytest.raises(RoomError, match="^room: "):
        await stay.room.attach()
    assert stay.sessions[0].closed


async def test_patience() -> None:
    """It has never been joined, so that it is looked for, or made, as at the first attempt."""
    async with staying(LostError("not yet"), patient=True) as stay:
        assert stay.told == ["reconnecting"]
        await asyncio.sleep(0.7)
        assert [session.again for session in stay.sessions] == [False, False]
        assert there(stay) == ["alice"]


async def test_left_while_it_ends() -> None:
    """The session is closed to its end all the same."""
    async with staying() as stay:
        stay.sessions[0].over.set_result("it has been closed")
        await asyncio.sleep(0.02)
        await asyncio.gather(stay.room.quit(), stay.room.quit())
        await asyncio.sleep(0.15)
        assert stay.sessions[0].closed
        assert stay.told.count("ended") <= 1
