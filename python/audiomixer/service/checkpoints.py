"""How far mixers are, noted every few seconds: the next process goes on from there."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy.orm import Session

from audiomixer.service.jobs import PLAYER_STREAMER, Engine, Progress
from audiomixer.service.lifecycles import Office
from audiomixer.service.store import Heartbeat, MediaProcessor, PlayerStreamer, now

CHECKPOINT: Final = 5.0
"""Seconds between two checkpoints."""
RESERVE: Final = 40
"""Sequence numbers that are reserved beyond the checkpoint's, 20 s of them: should the process die, the next goes on
after those, so that none comes twice."""
LAST_RESERVE: Final = 10
"""The same, when the process ends in order."""


async def checkpoint(office: Office, engine: Engine, before: Mapping[str, float], reserve: int) -> dict[str, Progress]:
    """Notes how far all mixers are.

    Args:
        office: Where account is kept.
        engine: What runs the mixers.
        before: The MediaProcessors at work, and the seconds of stream that each made in earlier processes.
        reserve: Sequence numbers to reserve.
    """
    all_progress = {sid: progress for sid, progress in engine.progress().items() if sid in before}
    streamed = {sid: before[sid] + progress.seconds for sid, progress in all_progress.items()}

    def note(session: Session) -> None:
        session.merge(Heartbeat(id=1, at=now()))
        for sid, progress in all_progress.items():
            processor = session.get_one(MediaProcessor, sid)
            if processor.status != "started":
                continue
            processor.reserved = progress.next_sequence + reserve
            processor.streamed = streamed[sid]
            for output in progress.working:
                if output.startswith(PLAYER_STREAMER):
                    session.get_one(PlayerStreamer, output).streamed = processor.streamed

    await office.store.run(note)
    for sid, progress in all_progress.items():
        engine.reserve(sid, progress.next_sequence + reserve)
    return all_progress
