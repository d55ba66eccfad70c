"""Who is in a room elsewhere, with which audio tracks, as signalling tells; kept in step with a mixer."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from audiomixer._core import Mixer, Participant
from audiomixer.clock.broadcast import Broadcast
from audiomixer.rooms.base import RoomEvent, Vitals, What

COUNTED: Final = ("received", "lost", "recovered", "concealed", "late")
"""What of `Stats` is added up for all participants."""
_LONGEST_IDENTITY: Final = 256

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Track:
    source: Participant
    muted: bool | None


@dataclass(slots=True)
class _Member:
    identity: str
    tracks: dict[str, _Track] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)


class Roster:
    """A room's participants. To be used on one event loop.

    Those of one identity are one in the mixer, however many the room takes them for.

    Args:
        room: The room's name, for the log.
        mixer: What they are mixed by.
        events: Where it is told who comes and goes.
        is_wanted: Who of them is mixed.
    """

    def __init__(
        self,
        room: str,
        mixer: Mixer,
        events: Broadcast[RoomEvent],
        is_wanted: Callable[[str], bool] = lambda identity: True,
    ) -> None:
        self.on_joining: Callable[[str], None] = lambda identity: None
        """Is told of whoever comes, before it is in the mix."""
        self._is_wanted = is_wanted
        self._room = room
        self._mixer = mixer
        self._events = events
        self._members: dict[str, _Member] = {}
        self._present: Counter[str] = Counter()
        """How many members there are of each identity."""
        self._sources: dict[str, Participant] = {}
        """By track."""
        self._packets: Counter[str] = Counter()
        """Of tracks that are gone."""

    def tell(self, what: What, identity: str = "", track: str = "", reason: str = "") -> None:
        """Publishes an event."""
        self._events.publish(RoomEvent(what, identity, track, reason))
        about = f"{identity} " if identity else ""
        _log.info("room %s: %s%s%s", self._room, about, what, f": {reason}" if reason else "")

    def source(self, track: str) -> Participant | None:
        """What the audio of a track goes to, if there is one."""
        return self._sources.get(track)

    def packets(self) -> Counter[str]:
        """What happened to the packets of all tracks there have been: some of `Stats`, by their names."""
        totals = self._packets.copy()
        for source in self._sources.values():
            totals.update(_counts(source))
        return totals

    def keys(self, identity: str) -> list[str]:
        """The participants of an identity."""
        return [key for key, member in self._members.items() if member.identity == identity]

    def is_wanted(self, key: str) -> bool:
        """Whether a participant is mixed."""
        member = self._members.get(key)
        return member is not None and self._is_wanted(member.identity)

    def vitals(self, volumes: Mapping[str, int]) -> dict[str, Vitals]:
        """How those get on who are mixed, by identity.

        Args:
            volumes: Theirs.
        """
        muted = set(self._mixer.muted)
        vitals: dict[str, Vitals] = {}
        for identity in filter(self._is_wanted, self._present):
            tracks = [
                track for member in self._members.values() if member.identity == identity for track in member.tracks
            ]
            stats = [self._sources[track].stats() for track in tracks]
            vitals[identity] = Vitals(
                volumes.get(identity, -1),
                identity in muted,
                sum(each.lost for each in stats),
                sum(each.concealed for each in stats),
                max((each.delay for each in stats), default=0.0),
            )
        return vitals

    def update(self, key: str, identity: str, tracks: Mapping[str, bool | None]) -> None:
        """A participant is there, newly or still.

        Args:
            key: Names the participant.
            identity: Whom the metadata tells of; what is too long for it is cut, what cannot be printed replaced.
            tracks: All audio tracks, and whether each is muted: None if that is not signalled.
        """
        identity = _printable(identity)[:_LONGEST_IDENTITY].decode(errors="ignore") or key
        member = self._members.get(key)
        if member and member.identity != identity:
            self.remove(key)
            member = None
        if member is None:
            self._present[identity] += 1
            if self._present[identity] == 1:
                self.on_joining(identity)
                if self._is_wanted(identity):
                    self._mixer.add_participant(identity)
                self.tell("participant-joined", identity)
            member = self._members[key] = _Member(identity)
        if not self._is_wanted(identity):
            return
        for track in [track for track in member.tracks if track not in tracks]:
            self._unpublish(member, track)
        for track, muted in tracks.items():
            self._publish(member, track, muted)

    def _publish(self, member: _Member, name: str, muted: bool | None) -> None:
        track = member.tracks.get(name)
        if track is None:
            track = member.tracks[name] = _Track(self._mixer.add_track(member.identity), None)
            self._sources[name] = track.source
            self.tell("published", member.identity, name)
        if track.muted is not muted:
            if muted or track.muted:
                self.tell("muted" if muted else "unmuted", member.identity, name)
            track.muted = track.source.muted = muted

    def skip(self, key: str, track: str, reason: str) -> None:
        """A participant's track cannot be mixed."""
        member = self._members.get(key)
        if member and track not in member.skipped:
            member.skipped.add(track)
            self.tell("skipped", member.identity, track, reason)

    def _unpublish(self, member: _Member, name: str) -> None:
        source = member.tracks.pop(name).source
        self._mixer.remove_track(source)
        self._packets.update(_counts(source))
        self._sources.pop(name, None)
        self.tell("unpublished", member.identity, name)

    def remove(self, key: str) -> None:
        """A participant has left, if there was one."""
        member = self._members.get(key)
        if member is None:
            return
        for track in list(member.tracks):
            self._unpublish(member, track)
        del self._members[key]
        self._present[member.identity] -= 1
        if not self._present[member.identity]:
            del self._present[member.identity]
            if self._is_wanted(member.identity):
                self._mixer.remove_participant(member.identity)
            self.tell("participant-left", member.identity)

    def renew(self, here: Iterable[tuple[str, str]]) -> None:
        """The mixer has joined anew: these are there, and what they publish is told anew.

        Args:
            here: Key and identity of each.
        """
        now = dict(here)
        # Those who are back under another key have never left.
        for key, identity in now.items():
            self.update(key, identity, {})
        for key in [key for key in self._members if key not in now]:
            self.remove(key)

    def clear(self) -> None:
        """Everybody is gone."""
        for key in list(self._members):
            self.remove(key)


def _counts(source: Participant) -> dict[str, int]:
    stats = source.stats()
    return {name: getattr(stats, name) for name in COUNTED}


def _printable(text: str) -> bytes:
    return "".join(character if character.isprintable() else "\ufffd" for character in text).encode()
