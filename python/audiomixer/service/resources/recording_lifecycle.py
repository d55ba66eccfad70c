"""Recordings as resources: made until they are stopped or their MediaProcessor ends, then on their way, then there."""

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from audiomixer.outputs.base import OutputError, explain
from audiomixer.outputs.bucket import Bucket
from audiomixer.outputs.folder import Folder
from audiomixer.service.http.errors import ApiError
from audiomixer.service.jobs import AwayError, Engine, Layout, RecordingOrder, RecordingState, StoredFile
from audiomixer.service.recorder import RECORDING
from audiomixer.service.resources import lives
from audiomixer.service.resources.lifecycles import Office, check_room_for_more, make_sid
from audiomixer.service.resources.store import (
    MediaProcessor,
    Recording,
    RecordingFile,
    Room,
    StoreClosedError,
    now,
)

_LOOK: Final = 1.0
"""Seconds between two looks at how far recordings are."""
_SETTLED: Final = 4.0
"""Seconds after the end of a recording after which nothing of it that is anywhere is overlooked."""
_LONGEST_FOLDER: Final = 120
"""Bytes of a room's name in those of its files."""
_AT_ONCE: Final = 20
"""Recordings of one MediaProcessor that are being made."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be recorded."""

    format: str
    layout: Layout
    identity: str
    rotate: float | None
    status_callback: str | None
    status_callback_method: str


class RecordingLifecycle:
    """Keeps account of recordings, and has them made.

    Args:
        office: Where account is kept.
        engine: What records.
        store: Where recordings go.
    """

    def __init__(self, office: Office, engine: Engine, store: Bucket | Folder) -> None:
        self._office = office
        self._engine = engine
        self.store = store
        self._open: set[str] = set()
        """Those of which something has yet to come."""
        self._missing: dict[str, float] = {}
        """Since when nothing of one is to be seen anywhere."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Goes on with those of the last process."""
        unfinished = select(Recording.sid).where(Recording.status.in_(lives.RECORDING.open))
        self._open = set(await self._office.store.run(lambda session: list(session.scalars(unfinished))))
        self._task = asyncio.create_task(self._look_for_ever())

    async def close(self) -> None:
        """Looks no more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def create(self, processor: MediaProcessor, wanted: Wanted) -> Recording:
        """Begins to record what a MediaProcessor mixes.

        Raises:
            ApiError: It is not at work, or it cannot be recorded.
        """
        sid, made = make_sid(RECORDING), now()

        def add(session: Session) -> Recording:
            stored = session.get_one(MediaProcessor, processor.sid)
            if stored.status not in lives.MEDIA_PROCESSOR.open:
                raise ApiError(409, f"MediaProcessor: expected one that has not ended, {stored.sid} has")
            if len(_running(session, stored.sid)) >= _AT_ONCE:
                raise ApiError(429, f"expected at most {_AT_ONCE} recordings of a MediaProcessor at once")
            most = self._office.settings.max_recordings
            check_room_for_more(session, Recording, most, Recording.status == lives.RECORDING.begins)
            room = session.get(Room, stored.room_sid) if stored.room_sid else None
            recording = Recording(
                sid=sid,
                status=lives.RECORDING.begins,
                created=made,
                updated=made,
                processor_sid=stored.sid,
                room_sid=stored.room_sid,
                key=_key(room.unique_name if room else "none", made, sid),
                format=wanted.format,
                layout=wanted.layout,
                identity=wanted.identity,
                rotate=wanted.rotate,
                status_callback=wanted.status_callback or stored.status_callback,
                status_callback_method=wanted.status_callback_method
                if wanted.status_callback
                else stored.status_callback_method,
                callbacks_made=0,
            )
            session.add(recording)
            self._tell(session, recording, "started")
            return recording

        recording = await self._office.store.run(add)
        self._open.add(sid)
        self._office.callbacks.deliver(sid)
        try:
            await self._engine.record(processor.sid, order_of(recording))
        except (LookupError, OutputError, RuntimeError, OSError, AwayError) as error:
            problem = "its MediaProcessor is not at work" if isinstance(error, LookupError) else str(error)
            _log.warning("cannot be recorded: %s", problem, extra={"sid": sid})
            await self._office.store.run(lambda session: self._fail(session, sid, problem))
            self._office.callbacks.deliver(sid)
            raise ApiError(503, f"Recording: {problem}") from error
        return recording

    async def stop(self, sid: str) -> None:
        """Ends one, unless it has ended; what there is of it goes on its way."""

        def end(session: Session) -> str | None:
            recording = session.get_one(Recording, sid)
            return recording.processor_sid if lives.RECORDING.happens(recording, "stopped") else None

        processor = await self._office.store.run(end)
        if processor:
            await self._engine.finish(processor, sid)

    async def delete(self, sid: str) -> None:
        """Forgets one that has ended, and deletes it from the store.

        Raises:
            ApiError: It has not ended, or the store does not delete it.
        """

        def keys(session: Session) -> list[str]:
            if session.get_one(Recording, sid).status in lives.RECORDING.open:
                raise ApiError(409, "Recording: expected one that is completed or has failed")
            return list(session.scalars(select(RecordingFile.key).where(RecordingFile.recording_sid == sid)))

        try:
            for key in await self._office.store.run(keys):
                await self.store.delete(key)
        except (OutputError, OSError) as error:
            raise ApiError(503, f"Recording: {explain(error)}") from error

        def forget(session: Session) -> None:
            session.execute(delete(RecordingFile).where(RecordingFile.recording_sid == sid))
            session.execute(delete(Recording).where(Recording.sid == sid))

        await self._office.store.run(forget)

    def running(self, session: Session, processor: str) -> tuple[RecordingOrder, ...]:
        """What is to be recorded of a MediaProcessor, by the way it goes on."""
        return tuple(map(order_of, _running(session, processor)))

    def end_within(self, session: Session, processor: str) -> None:
        """A MediaProcessor ends: nothing of it is recorded any more."""
        for recording in _running(session, processor):
            lives.RECORDING.happens(recording, "stopped")

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await self._look()
            except StoreClosedError:
                return
            except Exception:
                _log.exception("recordings have to wait")

    async def _look(self) -> None:
        """Takes note of what is stored, and of what has come to its end."""
        states = self._engine.recordings()
        if states is None or not (states or self._open):
            return
        await self._end_strays({sid for sid, state in states.items() if state.running})
        told = {sid for sid, state in states.items() if state.stored or state.failed}
        self._missing = {sid: self._missing.get(sid, now()) for sid in self._open.difference(states)}
        gone = {sid for sid, since in self._missing.items() if now() - since > _SETTLED}
        if not (told or gone):
            return

        def work(session: Session) -> tuple[list[Recording], list[Recording]]:
            lost = [recording for sid in told if (recording := self._take(session, sid, states[sid]))]
            return lost, [recording for sid in gone if (recording := self._conclude(session, sid))]

        lost, stalled = await self._office.store.run(work)
        for sid in told | gone:
            self._missing.pop(sid, None)
            self._office.callbacks.deliver(sid)
        for recording in lost:
            await self._engine.finish(recording.processor_sid, recording.sid)
        for recording in stalled:
            await self._go_on(recording)
        keys = [file.key for state in states.values() for file in state.stored]
        if keys:
            await self._engine.acknowledge(keys)

    async def _end_strays(self, running: set[str]) -> None:
        """Ends what is recorded and should not be: whoever was told to end it did not hear, or had not begun."""
        if not running:
            return
        rows = select(Recording.sid, Recording.processor_sid).where(
            Recording.sid.in_(running), Recording.status != lives.RECORDING.begins
        )
        for sid, processor in await self._office.store.run(lambda session: session.execute(rows).all()):
            await self._engine.finish(processor, sid)

    async def _go_on(self, recording: Recording) -> None:
        """Begins again with one that should be made, and is not: the spool may have been full when it had to go on."""
        if recording.processor_sid in self._engine.progress():
            try:
                await self._engine.record(recording.processor_sid, order_of(recording))
            except (LookupError, OutputError, RuntimeError, OSError, AwayError) as error:
                _log.warning("cannot be recorded yet: %s", error, extra={"sid": recording.sid})

    def _take(self, session: Session, sid: str, state: RecordingState) -> Recording | None:
        """Notes files that are stored; gives the recording if it has failed, and has to be ended."""
        recording = session.get(Recording, sid)
        if recording is None:
            # Of another database, or deleted meanwhile. Nothing that is stored is deleted unasked.
            _log.warning("stored, and not on account", extra={"sid": sid})
            return None
        known = set(session.scalars(select(RecordingFile.key).where(RecordingFile.recording_sid == sid)))
        for file in state.stored:
            if file.key not in known:
                self._add(session, recording, file)
        if state.failed and lives.RECORDING.happens(recording, "stopped"):
            recording.error = state.problem
            return recording
        return None

    def _add(self, session: Session, recording: Recording, file: StoredFile) -> None:
        session.add(
            RecordingFile(
                recording_sid=recording.sid,
                key=file.key,
                size=file.size,
                seconds=file.seconds,
                loudness=file.loudness,
                true_peak=file.true_peak,
                outline=list(file.outline),
                stored=now(),
            )
        )
        recording.updated = now()
        if recording.status == "failed":
            # What was given up for lost is here.
            recording.status, recording.error = "completed", None
        self._tell(
            session,
            recording,
            "stored",
            MediaKey=file.key,
            MediaSize=str(file.size),
            MediaDuration=f"{file.seconds:.3f}",
        )

    def _conclude(self, session: Session, sid: str) -> Recording | None:
        """Nothing is left of one anywhere: if it has been stopped, that is its end; gives it if it has not."""
        recording = session.get(Recording, sid)
        if recording is None or recording.status not in lives.RECORDING.open:
            self._open.discard(sid)
            return None
        if recording.status == lives.RECORDING.begins:
            return recording
        count = len(session.scalars(select(RecordingFile.id).where(RecordingFile.recording_sid == sid)).all())
        if count:
            lives.RECORDING.happens(recording, "completed")
            self._tell(session, recording, "completed", MediaCount=str(count))
        else:
            self._fail(session, sid, recording.error or "nothing was recorded")
        return None

    def _fail(self, session: Session, sid: str, problem: str) -> None:
        recording = session.get_one(Recording, sid)
        recording.error = problem
        lives.RECORDING.happens(recording, "failed")
        self._tell(session, recording, "failed", ErrorMessage=problem)

    def _tell(self, session: Session, recording: Recording, event: str, **parameters: str | None) -> None:
        self._office.callbacks.tell(
            session,
            recording,
            f"recording-{event}",
            RecordingSid=recording.sid,
            MediaProcessorSid=recording.processor_sid,
            RoomSid=recording.room_sid,
            RecordingStatus=recording.status,
            **parameters,
        )


def order_of(recording: Recording) -> RecordingOrder:
    """What is to be recorded."""
    return RecordingOrder(
        recording.sid,
        recording.key,
        recording.format,
        recording.layout,  # type: ignore[arg-type] # It is one of them.
        recording.identity,
        recording.rotate,
    )


def _running(session: Session, processor: str) -> Sequence[Recording]:
    running = Recording.status == lives.RECORDING.begins
    return session.scalars(select(Recording).where(Recording.processor_sid == processor, running)).all()


def _key(room: str, when: float, sid: str) -> str:
    """What the files of a recording begin with: `ROOM/20261201T101500Z-KV…`, less what stores have no names for."""
    folder = (
        re.sub(r"[^\w .-]", "_", room).lstrip(".").encode()[:_LONGEST_FOLDER].decode(errors="ignore").rstrip() or "_"
    )
    return f"{folder}/{datetime.fromtimestamp(when, UTC):%Y%m%dT%H%M%SZ}-{sid}"
