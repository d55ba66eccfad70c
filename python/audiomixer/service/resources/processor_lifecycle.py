"""MediaProcessors as resources: a mixer each, at work until it is told to end, its time is over, or it fails."""

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from audiomixer.clock.tasks import spawn
from audiomixer.outputs.base import OutputError
from audiomixer.rooms.base import RoomError, RoomEvent
from audiomixer.rooms.place import place_url
from audiomixer.service.http.errors import ApiError
from audiomixer.service.jobs import PLAYER_STREAMER, Engine, Job, NoWorkerError, Progress, RecordingOrder
from audiomixer.service.resources import lives
from audiomixer.service.resources.checkpoints import CHECKPOINT, LAST_RESERVE, RESERVE, checkpoint, segments_after
from audiomixer.service.resources.lifecycles import Alarms, Office, check_room_for_more, make_sid
from audiomixer.service.resources.recording_lifecycle import RecordingLifecycle
from audiomixer.service.resources.room_account import settings_of
from audiomixer.service.resources.room_lifecycle import RoomLifecycle
from audiomixer.service.resources.store import (
    Heartbeat,
    MediaProcessor,
    PlayerStreamer,
    Room,
    StoreClosedError,
    now,
)
from audiomixer.service.resources.streamer_lifecycle import StreamerLifecycle

_AGAIN: Final = 5.0
"""Seconds until what could not be done, since the database is away, is tried again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessorOrder:
    """What a new MediaProcessor shall do."""

    extension: str
    extension_context: str
    room: str
    identity: str
    outputs: tuple[str, ...]
    audio_bitrate: int
    max_duration: int
    include: tuple[str, ...] | None = None
    """Identities, as those of `Job`."""
    exclude: tuple[str, ...] = ()
    denoise: bool = False
    leveler: bool = False
    loudness: float | None = None
    status_callback: str | None = None
    status_callback_method: str = "POST"


@dataclass(slots=True)
class _Run:
    """A MediaProcessor at work in this process."""

    lock: asyncio.Lock
    """Held while it is being started or ended."""
    outputs: set[str]
    streamed: float = 0.0
    """Seconds of stream made before."""
    first_segment: int = 0
    """Number of its first HLS segment in this process."""
    gap: tuple[int, float] | None = None
    """Number of the first one that may be missing, and seconds that are."""
    seconds: float = -1.0
    """Of stream made at the last checkpoint."""
    stalls: int = 0
    """Checkpoints since, at which it had not got on."""
    room: str | None = None
    participant: str = ""
    """Its SID as a participant of that room."""
    recordings: tuple[RecordingOrder, ...] = ()
    """What is recorded of it from its start in this process."""


class ProcessorLifecycle:
    """Keeps account of MediaProcessors, and has their mixers run.

    Args:
        office: Where account is kept.
        engine: What runs mixers.
        rooms: What they join.
        streamers: What they feed.
        recordings: What is recorded of them.
    """

    def __init__(
        self,
        office: Office,
        engine: Engine,
        rooms: RoomLifecycle,
        streamers: StreamerLifecycle,
        recordings: RecordingLifecycle,
    ) -> None:
        self._office = office
        self._engine = engine
        self._rooms = rooms
        self._streamers = streamers
        self._recordings = recordings
        self._alarms = Alarms()
        self._stays = Alarms()
        """When each has to leave its room."""
        self._ending: set[asyncio.Task[None]] = set()
        self._runs: dict[str, _Run] = {}
        self._checking: asyncio.Task[None] | None = None
        # Workers that do not mix are ended, and what they did goes on elsewhere.
        self._most_stalls = 1 if engine.outlives else 0
        streamers.on_ended = self._lose_output
        engine.on_room_event = self._told
        engine.on_lost = self._lost
        rooms.on_completed = self._room_completed

    @property
    def running(self) -> int:
        """How many are at work."""
        return len(self._runs)

    def in_room(self, room: str) -> list[str]:
        """Those that mix a room."""
        return [sid for sid, run in self._runs.items() if run.room == room]

    def is_mixer(self, participant: str) -> bool:
        """Whether a participant, by its SID, is one of them."""
        return any(run.participant == participant for run in self._runs.values())

    async def start(self) -> None:
        """Goes on with those of the last process, in the same PlayerStreamers."""
        running = select(MediaProcessor).where(MediaProcessor.status.in_(lives.MEDIA_PROCESSOR.open))
        processors = await self._office.store.run(lambda session: list(session.scalars(running)))
        working = dict(self._engine.working())
        found = [processor for processor in processors if processor.sid in working]
        await asyncio.gather(*(self._adopt(processor, working[processor.sid]) for processor in found))
        self._checking = asyncio.create_task(self._check_for_ever())
        await asyncio.gather(*(self._go_on(processor) for processor in processors))
        for sid in set(working).difference(self._runs):
            await self._engine.stop(sid)
        await self._end_orphans()

    async def _adopt(self, processor: MediaProcessor, job: Job) -> None:
        """Takes over one that has gone on while there was no service."""
        run = self._runs[processor.sid] = _Run(asyncio.Lock(), set(job.outputs), job.streamed)
        if job.room and processor.room_sid and processor.leaves and processor.leaves > now():
            entered = await self._rooms.enter(processor.room_sid, processor.identity)
            if entered:
                run.room, run.participant = entered[0].sid, entered[1]
                self._stays.set(processor.sid, processor.leaves - now(), lambda: self._leave_room(processor.sid, run))
                for identity in self._engine.whoever(processor.sid):
                    self._told(processor.sid, RoomEvent("participant-joined", identity))
            else:
                self._engine.leave_room(processor.sid)
        elif job.room:
            self._engine.leave_room(processor.sid)
        await self._streamers.started([sid for sid in job.outputs if sid.startswith(PLAYER_STREAMER)])
        _log.info("taken over", extra={"sid": processor.sid})
        if processor.sid not in self._engine.working():
            self._lost(processor.sid)

    async def _go_on(self, processor: MediaProcessor) -> None:
        """Goes on with one of the last process, if it is none that has gone on by itself."""
        if processor.created + processor.max_duration <= now():
            await self.end(processor.sid, "max-duration-exceeded")
        elif processor.sid in self._runs:
            self._limit(processor)
        else:
            run = self._runs[processor.sid] = _Run(asyncio.Lock(), set())
            await self._resume(processor.sid, run)

    async def move(self, sid: str) -> None:
        """Has one go on elsewhere, in the same PlayerStreamers.

        Raises:
            OperationalError: The database is away: it has not been moved.
        """
        run = self._runs.get(sid)
        if run is None:
            return
        await self._office.store.run(lambda session: session.get_one(MediaProcessor, sid))
        async with run.lock:
            if self._runs.get(sid) is run:
                await self._engine.stop(sid, to_resume=True)
        await self._recover(sid)

    def _lost(self, sid: str) -> None:
        spawn(self._recover(sid))

    async def _recover(self, sid: str) -> None:
        """Goes on with one that nobody works at any more, as soon as the database is there."""
        run = self._runs.get(sid)
        while run and self._runs.get(sid) is run:
            try:
                await self._resume(sid, run)
                return
            except OperationalError:
                _log.exception("a MediaProcessor has to be resumed later", extra={"sid": sid})
                await asyncio.sleep(_AGAIN)

    async def close(self) -> None:
        """Stops work, to be resumed by the next process."""
        self._alarms.close()
        self._stays.close()
        if self._checking:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
            try:
                await self._checkpoint(RESERVE if self._engine.outlives else LAST_RESERVE)
            except StoreClosedError:
                pass  # It is another's now.
            except Exception:
                _log.exception("the last checkpoint failed")
        if not self._engine.outlives:
            await asyncio.gather(*(self._engine.stop(sid, to_resume=True) for sid in list(self._runs)))
        await self._tasks_done()

    async def create(self, order: ProcessorOrder) -> MediaProcessor:
        """Makes a MediaProcessor, and has it begin.

        Raises:
            ApiError: An output is none, or fed by another; or there are too many.
        """
        sid, made = make_sid("ZX"), now()
        try:
            self._engine.check()
        except NoWorkerError as error:
            raise ApiError(429, str(error)) from error

        def add(session: Session) -> MediaProcessor:
            running = MediaProcessor.status.in_(lives.MEDIA_PROCESSOR.open)
            check_room_for_more(session, MediaProcessor, self._office.settings.max_media_processors, running)
            self._streamers.claim(session, order.outputs, sid)
            processor = MediaProcessor(
                sid=sid,
                status=lives.MEDIA_PROCESSOR.begins,
                created=made,
                updated=made,
                extension=order.extension,
                extension_context=order.extension_context,
                identity=order.identity,
                audio_bitrate=order.audio_bitrate,
                outputs=list(order.outputs),
                include=None if order.include is None else list(order.include),
                exclude=list(order.exclude) or None,
                denoise=order.denoise,
                leveler=order.leveler,
                loudness=order.loudness,
                max_duration=order.max_duration,
                status_callback=order.status_callback,
                status_callback_method=order.status_callback_method,
                callbacks_made=0,
                reserved=RESERVE,
                interruptions=0,
                streamed=0.0,
            )
            session.add(processor)
            self._tell(session, processor)
            return processor

        run = self._runs[sid] = _Run(asyncio.Lock(), set(order.outputs))
        async with run.lock:
            try:
                processor = await self._office.store.run(add)
            except BaseException:
                del self._runs[sid]
                raise
            self._office.callbacks.deliver(sid)
            self._limit(processor)
            try:
                problem = await self._begin(processor, run, order.room)
            except Exception as error:
                _log.exception("a MediaProcessor cannot begin", extra={"sid": sid})
                problem = "internal-service-error", repr(error)
        if problem:
            self._end_soon(sid, *problem)
            await self._tasks_done()
        return await self._office.store.run(lambda session: session.get_one(MediaProcessor, sid))

    async def _begin(self, processor: MediaProcessor, run: _Run, room: str) -> tuple[str, str] | None:
        """Joins the room and starts the mixer; gives the reason and the problem if that fails."""
        try:
            entered = await self._rooms.enter(room, processor.identity)
        except RoomError as error:
            _log.warning("no room: %s", error, extra={"sid": processor.sid})
            entered = None
        if entered:
            found, run.participant = entered
            run.room = found.sid
            processor.room_sid, processor.leaves = found.sid, now() + found.max_participant_duration

            def note(session: Session) -> None:
                stored = session.get_one(MediaProcessor, processor.sid)
                stored.room_sid, stored.leaves = processor.room_sid, processor.leaves

            await self._office.store.run(note)
        return await self._work(processor, run, entered[0] if entered else None)

    async def _resume(self, sid: str, run: _Run) -> None:
        """Goes on with one where it was, unless it is at work, or has ended."""
        async with run.lock:
            if self._runs.get(sid) is not run or sid in self._engine.working():
                return
            self._leave(sid, run)
            try:
                problem = await self._resume_within(sid, run)
            except OperationalError:
                raise
            except Exception as error:
                _log.exception("a MediaProcessor cannot be resumed", extra={"sid": sid})
                problem = "internal-service-error", repr(error)
        if problem:
            self._end_soon(sid, *problem)
            await self._tasks_done()

    async def _resume_within(self, sid: str, run: _Run) -> tuple[str, str] | None:
        """The same, while nothing else is done with it: in its room, if that is in progress and it may still be there.

        Gives the reason and the problem if it cannot go on.
        """

        def claim(session: Session) -> tuple[MediaProcessor, Room | None, list[str]] | None:
            run.recordings = self._recordings.running(session, sid)
            stored = session.get_one(MediaProcessor, sid)
            if stored.status not in lives.MEDIA_PROCESSOR.open:
                return None
            stored.interruptions += 1
            alive = session.get(Heartbeat, 1)
            silent = now() - alive.at if alive else 0.0
            run.first_segment = segments_after(stored.segments, silent)
            run.gap = stored.segments, max(silent, 0.0)
            run.streamed, run.seconds = stored.streamed, -1.0
            # Should this process end before the first checkpoint: none of its segments has a lower number.
            stored.segments = run.first_segment
            stored.reserved += RESERVE
            room = session.get(Room, stored.room_sid) if stored.room_sid else None
            streamers = [sid for sid in stored.outputs if sid.startswith(PLAYER_STREAMER)]
            gone = {s for s in streamers if session.get_one(PlayerStreamer, s).status not in lives.PLAYER_STREAMER.open}
            return stored, room, [output for output in stored.outputs if output not in gone]

        claimed = await self._office.store.run(claim)
        if claimed is None:
            self._runs.pop(sid, None)
            return None
        processor, room, outputs = claimed
        run.outputs = set(outputs)
        in_time = processor.leaves is not None and processor.leaves > now()
        entered = await self._rooms.enter(room.sid, processor.identity) if room and in_time else None
        if entered:
            run.room, run.participant = entered[0].sid, entered[1]
        problem = ("error-streaming-media", "no output is left") if not outputs else None
        problem = problem or await self._work(processor, run, entered[0] if entered else None)
        if not problem:
            _log.info("resumed", extra={"sid": sid})
            self._limit(processor)
        return problem

    async def _work(self, processor: MediaProcessor, run: _Run, room: Room | None) -> tuple[str, str] | None:
        job = Job(
            processor.sid,
            place_url(self._office.settings.rooms, room.unique_name) if room else None,
            processor.identity,
            tuple(sorted(run.outputs)),
            processor.audio_bitrate,
            processor.reserved - RESERVE if processor.interruptions else 0,
            run.first_segment,
            run.gap,
            processor.interruptions,
            processor.reserved,
            run.streamed,
            settings_of(room) if room and self._office.settings.elsewhere else {},
            None if processor.include is None else tuple(processor.include),
            tuple(processor.exclude or ()),
            processor.denoise,
            processor.leveler,
            processor.loudness,
            run.recordings,
        )
        try:
            try:
                await self._engine.start(job)
            except RoomError as error:
                # As if there were none: it starts, and is in no room.
                _log.warning("no room: %s", error, extra={"sid": processor.sid})
                await self._room_over(run, joined=False)
                room, job = None, replace(job, room=None)
                await self._engine.start(job)
        except OutputError as error:
            return "error-streaming-media", str(error)
        except Exception as error:
            _log.exception("the mixer cannot be started", extra={"sid": processor.sid})
            return "internal-service-error", repr(error)
        if room and processor.leaves:
            self._stays.set(processor.sid, processor.leaves - now(), lambda: self._leave_room(processor.sid, run))
        await self._streamers.started([sid for sid in job.outputs if sid.startswith(PLAYER_STREAMER)])
        return None

    async def _leave_room(self, sid: str, run: _Run) -> None:
        """It is in its room no more, at the latest when it ends."""
        self._engine.leave_room(sid)
        self._leave(sid, run)

    def _leave(self, sid: str, run: _Run) -> None:
        """It is on no account of a room any more."""
        self._stays.clear(sid)
        if run.room:
            room, run.room = run.room, None
            self._rooms.exit(room, run.participant)

    async def _room_over(self, run: _Run, *, joined: bool) -> None:
        """Its room elsewhere has ended, or was not there."""
        if run.room:
            room, run.room = run.room, None
            try:
                await self._rooms.over(room, run.participant, joined=joined)
            except OperationalError:
                _log.exception("a room has to be completed later", extra={"sid": room})

    def _room_completed(self, room: str) -> None:
        """Nobody is in the room any more: who is on its server leaves."""
        for sid, run in self._runs.items():
            if run.room == room:
                run.room = None
                self._engine.leave_room(sid)

    def _told(self, sid: str, event: RoomEvent) -> None:
        """Something has happened in the room that a mixer is in."""
        run = self._runs.get(sid)
        if run is None or run.room is None:
            return
        if event.what == "ended":
            spawn(self._room_over(run, joined=True))
        else:
            self._rooms.told(run.room, run.participant, event)

    async def end(self, sid: str, reason: str, problem: str | None = None) -> None:
        """Ends one, unless it has ended; players get what there is."""
        run = self._runs.get(sid) or _Run(asyncio.Lock(), set())

        def end(session: Session) -> list[str] | None:
            processor = session.get_one(MediaProcessor, sid)
            if not lives.MEDIA_PROCESSOR.happens(processor, reason):
                return None
            if progress:
                processor.streamed = run.streamed + progress.seconds
            self._tell(session, processor, EndedReason=reason, ErrorMessage=problem)
            self._recordings.end_within(session, sid)
            fed = [output for output in processor.outputs if output.startswith(PLAYER_STREAMER)]
            for output in fed:
                session.get_one(PlayerStreamer, output).streamed = processor.streamed
            return [out for out in fed if self._streamers.end_within(session, out, "stream-disconnected-by-source")]

        async with run.lock:
            progress = self._engine.progress().get(sid)
            ended = await self._office.store.run(end)
            if ended is None:
                return
            self._alarms.clear(sid)
            self._stays.clear(sid)
            self._office.callbacks.deliver(sid)
            for output in ended:
                self._streamers.ended(output)
            await self._leave_room(sid, run)
            self._runs.pop(sid, None)
            await self._engine.stop(sid)

    def _end_soon(self, sid: str, reason: str, problem: str) -> None:
        """Ends one without waiting for it, and tries again while the database is away."""

        async def end() -> None:
            while True:
                try:
                    await self.end(sid, reason, problem)
                    return
                except OperationalError:
                    _log.exception("a MediaProcessor has to be ended later", extra={"sid": sid})
                    await asyncio.sleep(_AGAIN)

        task = asyncio.create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _tasks_done(self) -> None:
        if self._ending:
            await asyncio.wait(self._ending, timeout=_AGAIN)

    async def _lose_output(self, streamer: PlayerStreamer) -> None:
        """A PlayerStreamer has ended; without any output there is nothing left to do."""
        run = self._runs.get(streamer.source or "")
        if run is None or streamer.source is None:
            return
        async with run.lock:
            run.outputs.discard(streamer.sid)
            await self._engine.drop(streamer.source, streamer.sid)
        if not run.outputs:
            await self.end(streamer.source, "error-streaming-media", "every output has ended")

    async def _end_orphans(self) -> None:
        """PlayerStreamers that were fed by what has ended meanwhile."""

        def orphans(session: Session) -> list[str]:
            started = session.scalars(select(PlayerStreamer).where(PlayerStreamer.status == "started"))
            return [streamer.sid for streamer in started if streamer.source not in self._runs]

        for sid in await self._office.store.run(orphans):
            await self._streamers.end(sid, "stream-disconnected-by-source")

    def _limit(self, processor: MediaProcessor) -> None:
        async def over() -> None:
            await self.end(processor.sid, "max-duration-exceeded")

        left = processor.created + processor.max_duration - now()
        # The time of day may have been set back since it was created.
        self._alarms.set(processor.sid, min(left, processor.max_duration), over)

    async def _check_for_ever(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT)
            try:
                for sid, progress in (await self._checkpoint(RESERVE)).items():
                    self._check(sid, progress)
            except StoreClosedError:
                return
            except Exception:
                _log.exception("a checkpoint failed")

    async def _checkpoint(self, reserve: int) -> dict[str, Progress]:
        before = {sid: run.streamed for sid, run in self._runs.items()}
        return await checkpoint(self._office, self._engine, before, reserve)

    def _check(self, sid: str, progress: Progress) -> None:
        """Ends what does not get on, and outputs that have failed."""
        run = self._runs.get(sid)
        if run is None or run.lock.locked():
            return
        if not progress.failure and progress.seconds <= run.seconds and run.stalls < self._most_stalls:
            run.stalls += 1
            return
        if progress.failure or progress.seconds <= run.seconds:
            self._end_soon(sid, "internal-service-error", progress.failure or "the mixer does not get on")
            return
        run.seconds, run.stalls = progress.seconds, 0
        for output in run.outputs - progress.working:
            _log.warning("an output has failed", extra={"sid": sid})
            spawn(self._lose_failed(sid, run, output))

    async def _lose_failed(self, sid: str, run: _Run, output: str) -> None:
        if output.startswith(PLAYER_STREAMER):
            await self._streamers.end(output, "unexpected-failure", "the stream could not be written")
            return
        async with run.lock:
            run.outputs.discard(output)
            await self._engine.drop(sid, output)
        if not run.outputs:
            await self.end(sid, "error-streaming-media", "every output has failed")

    def _tell(self, session: Session, processor: MediaProcessor, **parameters: str | None) -> None:
        self._office.callbacks.tell(
            session,
            processor,
            f"media-processor-{processor.status}",
            MediaProcessorSid=processor.sid,
            Extension=processor.extension,
            ExtensionContext=processor.extension_context,
            **parameters,
        )
