"""What is stored of a room and of who was in it, and told of them, within a transaction."""

from collections import Counter

from sqlalchemy import select
from sqlalchemy.orm import Session

from audiomixer.rooms.strip import Setting
from audiomixer.service.resources import lives
from audiomixer.service.resources.callbacks import Callbacks
from audiomixer.service.resources.store import Participant, Room, now


class RoomAccount:
    """Stores and tells.

    Args:
        callbacks: How it is told.
    """

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    def enter(self, session: Session, room: Room, participant: Participant) -> None:
        """A new participant has come."""
        session.add(participant)
        room.used = participant.started
        self._tell_of(session, room, participant, "participant-connected")

    def leave(self, session: Session, room: Room, participant: Participant, when: float) -> None:
        """A participant has left."""
        participant.status, participant.ended = "disconnected", max(when, participant.started)
        room.used = now()
        self._tell_of(session, room, participant, "participant-disconnected")

    def everybody_left(self, session: Session, room: Room, when: float) -> None:
        """All who were in the room have left."""
        self.left_but(session, room, when, Counter())

    def left_but(self, session: Session, room: Room, when: float, present: Counter[str]) -> list[Participant]:
        """All who were in the room have left, but so many of each identity, who are still present; gives these."""
        connected = Participant.room_sid == room.sid, Participant.status == "connected"
        kept: list[Participant] = []
        missing = present.copy()
        for participant in session.scalars(select(Participant).where(*connected).order_by(Participant.started)):
            if missing[participant.identity] > 0:
                missing[participant.identity] -= 1
                kept.append(participant)
            else:
                self.leave(session, room, participant, when)
        return kept

    def tell(self, session: Session, room: Room, event: str, **parameters: str | None) -> None:
        """Has the room's callback called."""
        self._callbacks.tell(
            session,
            room,
            event,
            RoomSid=room.sid,
            RoomName=room.unique_name,
            RoomStatus=room.status,
            RoomType=room.type,
            **parameters,
        )

    def _tell_of(self, session: Session, room: Room, participant: Participant, event: str) -> None:
        duration = str(round(participant.ended - participant.started)) if participant.ended else None
        self.tell(
            session,
            room,
            event,
            ParticipantSid=participant.sid,
            ParticipantIdentity=participant.identity,
            ParticipantStatus=participant.status,
            ParticipantDuration=duration,
        )


def is_sid(name: str) -> bool:
    """Whether a name looks like a room's SID."""
    return len(name) == 34 and name.startswith("RM") and all(digit in "0123456789abcdef" for digit in name[2:])


def find_room(session: Session, name: str) -> Room | None:
    """The room of this SID, whatever its status, or the one in progress of this name."""
    if is_sid(name):
        return session.get(Room, name)
    running = select(Room).where(Room.unique_name == name, Room.status.in_(lives.ROOM.open))
    return session.scalars(running).first()


def settings_of(room: Room) -> dict[str, Setting]:
    """What is set of identities in a room."""
    return {identity: Setting(**setting) for identity, setting in (room.settings or {}).items()}
