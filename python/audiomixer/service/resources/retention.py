"""What has ended is kept for a while, and then forgotten: a database that only grows is full one day."""

import asyncio
import logging
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from audiomixer.service.resources.lifecycles import Office
from audiomixer.service.resources.store import (
    MediaProcessor,
    Participant,
    PlayerStreamer,
    Recording,
    RecordingFile,
    Room,
    StoreClosedError,
    now,
)

_EVERY: Final = 3600.0
"""Seconds between two looks for what may be forgotten."""
_AT_ONCE: Final = 500
"""Resources of a kind that are deleted in one transaction: nobody else has to wait for long."""
_DAY: Final = 86_400.0

_log = logging.getLogger(__name__)


async def keep_small(office: Office) -> None:
    """Forgets, until cancelled."""
    while True:
        try:
            while await forget(office):
                await asyncio.sleep(0)
        except StoreClosedError:
            return
        except Exception:
            _log.exception("what has ended long ago has to be forgotten later")
        await asyncio.sleep(_EVERY)


async def forget(office: Office) -> bool:
    """Deletes some of what ended before the time for which it is kept; whether there may be more."""
    days = office.settings.retention_days
    if not days:
        return False
    before = now() - days * _DAY

    def work(session: Session) -> bool:
        most = 0
        for kind in (MediaProcessor, PlayerStreamer, Room, Recording):
            old = list(session.scalars(select(kind.sid).where(kind.ended < before).limit(_AT_ONCE)))
            if kind is Recording:
                session.execute(delete(RecordingFile).where(RecordingFile.recording_sid.in_(old)))
            if kind is Room:
                session.execute(delete(Participant).where(Participant.room_sid.in_(old)))
            session.execute(delete(kind).where(kind.sid.in_(old)))
            most = max(most, len(old))
        return most == _AT_ONCE

    return await office.store.run(work)
