"""Who is in a room elsewhere, as signalling tells, and how a mixer has it."""

import pytest

from audiomixer import Mixer
from audiomixer.clock.broadcast import Broadcast
from audiomixer.rooms.base import RoomEvent
from audiomixer.rooms.roster import Roster


class Told(Broadcast[RoomEvent]):
    def __init__(self) -> None:
        super().__init__(limit=100)
        self.events: list[str] = []

    def publish(self, item: RoomEvent) -> None:
        self.events.append(" ".join(filter(None, (item.identity, item.what, item.track))))

    def since(self) -> list[str]:
        events, self.events = self.events, []
        return events


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def mixer() -> Mixer:
    return Mixer()


@pytest.fixture
def roster(mixer: Mixer, told: Told) -> Roster:
    return Roster("room", mixer, told)


def test_from_joining_to_leaving(roster: Roster, mixer: Mixer, told: Told) -> None:
    roster.update("1", "alice", {})
    assert mixer.volumes() == {"alice": -1}
    roster.update("1", "alice", {"a": False})
    source = roster.source("a")
    assert source
    assert source.muted is False
    roster.update("1", "alice", {"a": True, "b": None})
    assert roster.source("a") is source
    assert source.muted is True
    roster.update("1", "alice", {"b": None})
    assert roster.source("a") is None
    roster.remove("1")
    roster.remove("1")
    assert mixer.identities == []
    assert told.since() == [
        "alice participant-joined",
        "alice published a",
        "alice muted a",
        "alice published b",
        "alice unpublished a",
        "alice unpublished b",
        "alice participant-left",
    ]


def test_two_of_one_identity_are_one(roster: Roster, mixer: Mixer, told: Told) -> None:
    """Until the last has left."""
    roster.update("1", "alice", {"a": None})
    roster.update("2", "alice", {"b": None})
    assert mixer.volumes() == {"alice": -1}
    roster.remove("1")
    assert mixer.identities == ["alice"]
    roster.remove("2")
    assert mixer.identities == []
    assert told.since().count("alice participant-joined") == 1


def test_a_rename(roster: Roster, mixer: Mixer) -> None:
    roster.update("1", "alice", {"a": None})
    roster.update("1", "alicia", {"a": None})
    assert mixer.identities == ["alicia"]
    source = roster.source("a")
    assert source
    assert source.identity == "alicia"


def test_joining_anew(roster: Roster, mixer: Mixer, told: Told) -> None:
    """Who is still there has never left, under whatever key; what they publish begins anew."""
    roster.update("1", "alice", {"a": None})
    roster.update("2", "bob", {"b": None})
    before = roster.source("a")
    told.since()
    roster.renew([("3", "alice")])
    assert mixer.identities == ["alice"]
    roster.update("3", "alice", {"a": None})
    assert roster.source("a") is not before
    assert told.since() == [
        "alice unpublished a",
        "bob unpublished b",
        "bob participant-left",
        "alice published a",
    ]


def test_odd_identities(roster: Roster, mixer: Mixer) -> None:
    """What is too long is cut, at a whole character; who has no name goes by the key."""
    roster.update("1", "é" * 200, {})
    roster.update("2", "", {"a": None})
    assert mixer.identities == ["é" * 128, "2"]


def test_what_is_skipped_is_told_once(roster: Roster, told: Told) -> None:
    roster.skip("1", "a", "of nobody")
    roster.update("1", "alice", {})
    for _ in range(2):
        roster.skip("1", "a", "it is encrypted")
    assert told.since() == ["alice participant-joined", "alice skipped a"]
