"""How far mixers are, noted every few seconds: the next process goes on from there."""

import math
from collections.abc import Mapping
from typing import Final

from sqlalchemy.orm import Session

from audiomixer.outputs.hls import SEGMENT, SHORT_SEGMENTS
from audiomixer.service.jobs import PLAYER_STREAMER, Engine, Progress
from audiomixer.service.resources import lives
from audiomixer.service.resources.lifecycles import Office
from audiomixer.service.resources.store import Heartbeat, MediaProcessor, PlayerStreamer, now

CHECKPOINT: Final = 5.0
"""Seconds between two checkpoints."""
RESERVE: Final = 1200
"""Sequence numbers that are reserved beyond the checkpoint's, ten minutes of them: should the process die, the next
goes on after those, so that none comes twice; and payloads go on while the database is away."""
LAST_RESERVE: Final = 10
"""The same, when the process ends in order."""


def segments_after(segments: int, silent: float) -> int:
    """The number of the first HLS segment of a stream that goes on in another process.

    It is a few more than the last one's can have been, and not many more: players look for new segments by their
    numbers, and hls.js 1.7 gets lost where dozens are missing.

    Args:
        segments: The number of the one that was being made at the last checkpoint.
        silent: Seconds since that.
    """
    since = min(max(silent, CHECKPOINT), 3 * CHECKPOINT)
    return segments + SHORT_SEGMENTS + math.ceil(since / SEGMENT)


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
            if processor.status not in lives.MEDIA_PROCESSOR.open:
                continue
            processor.reserved = progress.next_sequence + reserve
            processor.streamed = streamed[sid]
            processor.segments = max(processor.segments, progress.segments)
            for output in progress.working:
                if output.startswith(PLAYER_STREAMER):
                    session.get_one(PlayerStreamer, output).streamed = processor.streamed

    await office.store.run(note)
    await engine.reserve({sid: progress.next_sequence + reserve for sid, progress in all_progress.items()})
    return all_progress
