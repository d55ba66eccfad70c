"""The engine that has workers do everything: which of them gets what, and where it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from audiomixer.audio.loudness import Loudness
from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.base import Vitals
from audiomixer.rooms.place import Place
from audiomixer.rooms.strip import Setting
from audiomixer.service.cluster.draining import Draining
from audiomixer.service.cluster.forward import Forwarder
from audiomixer.service.cluster.hosted import ClusterRooms
from audiomixer.service.cluster.member import Member
from audiomixer.service.cluster.membership import Membership
from audiomixer.service.cluster.nodes import GoneError, Nodes
from audiomixer.service.cluster.reports import Greeting, Happening, Report
from audiomixer.service.jobs import (
    PLAYER_STREAMER,
    AwayError,
    Job,
    NoWorkerError,
    OnRoomEvent,
    Playing,
    Progress,
    RecordingOrder,
    RecordingState,
    WorkerState,
)

_START: Final = 60.0
"""Seconds that a job may take to start, and that one which was interrupted waits for a worker."""
_NEW: Final = 5.0
"""The same for a new one."""
_AGAIN: Final = 0.5
"""Seconds until the next look for a worker."""
_PAUSE: Final = 0.2
"""Seconds until a worker is asked again that has broken off."""
_LINGER: Final = 30.0
"""Seconds for which players may still get what there is of a stream that has ended."""


class Cluster:
    """Runs jobs on workers, and has the rooms of ours on them: a room and all its mixers on one.

    Args:
        nodes: Where workers are.
        forwarder: How requests get there.
        drain_seconds: After which rooms of ours on a drained worker are ended, for all to come back elsewhere.
    """

    outlives = True

    def __init__(self, nodes: Nodes, forwarder: Forwarder, drain_seconds: float) -> None:
        self.on_room_event: OnRoomEvent = lambda sid, event: None
        self.on_lost: Callable[[str], None] = lambda sid: None
        self.forwarder = forwarder
        self.rooms = ClusterRooms()
        self.draining = Draining(self.rooms, self._is_room, drain_seconds)
        self._membership = Membership(nodes, self)
        self._members = self._membership.members
        self._streams: dict[str, Member | None] = {}
        """Where streams are served; None while they are on their way to another worker."""
        self._elsewhere: dict[str, set[str]] = {}
        """Who is in the rooms elsewhere, by job."""

    async def open(self) -> None:
        """Meets the workers.

        Raises:
            ValueError: There is no cluster, or no worker.
        """
        await self._membership.open()

    def begin(self) -> None:
        """Watches them."""
        self._membership.begin()

    async def close(self) -> None:
        """Asks no more; the workers go on."""
        self.draining.close()
        await self.forwarder.close()
        await self._membership.close()

    async def retire(self) -> None:
        """Ends all workers, and whatever they do, for good."""
        await self._membership.retire()

    def worker_met(self, member: Member, greeting: Greeting) -> None:
        """A worker is there."""
        for room, resources in greeting.rooms.items():
            self.rooms.place(room, member)
            for resource, identity in resources.items():
                self.rooms.joined(member, room, resource, identity, known=True)
        for job in greeting.jobs.values():
            self._know(job, member)
        self._elsewhere |= {sid: set(identities) for sid, identities in greeting.elsewhere.items()}
        if member.status == "draining":
            self.draining.begin(member)

    def worker_told(self, member: Member, report: Report) -> None:
        """A worker has told what happened, and how it gets on."""
        for happening in report.happenings:
            self._tell(member, happening)
        self.rooms.told(member, report.rooms)
        for sid in member.strays(report):
            spawn(self._ask(member, "stop", sid, to_resume=True))
        for sid in member.missing(report):
            del member.jobs[sid]
            self.on_lost(sid)

    def _tell(self, member: Member, happening: Happening) -> None:
        event = happening.event
        if happening.what == "joined":
            self.rooms.joined(member, happening.where, happening.resource, happening.identity)
        elif happening.what == "left":
            self.rooms.left(happening.resource)
        elif event:
            present = self._elsewhere.setdefault(happening.where, set())
            if event.what == "participant-joined":
                present.add(event.identity)
            elif event.what == "participant-left":
                present.discard(event.identity)
            self.on_room_event(happening.where, event)

    def worker_lost(self, member: Member) -> None:
        """A worker is gone: all who were in its rooms have left, and its jobs go on elsewhere."""
        jobs = member.lost()
        self.rooms.lost(member)
        self._on_their_way(stream for stream, where in list(self._streams.items()) if where is member)
        for sid in jobs:
            self.on_lost(sid)

    def _know(self, job: Job, member: Member) -> None:
        member.jobs[job.sid] = job
        self._streams |= dict.fromkeys(_streams_of(job), member)

    def _on_their_way(self, streams: Iterable[str]) -> None:
        """These go on elsewhere, in a minute or never."""
        for stream in streams:
            self._streams[stream] = None
            asyncio.get_running_loop().call_later(_START, self._give_up, stream)

    def _give_up(self, stream: str) -> None:
        if self._streams.get(stream, self) is None:
            del self._streams[stream]

    def working(self) -> Mapping[str, Job]:
        """The jobs of all workers."""
        return {sid: job for member in self._members.values() for sid, job in member.jobs.items()}

    def whoever(self, sid: str) -> list[str]:
        """Who is in the room elsewhere of a job."""
        return sorted(self._elsewhere.get(sid, ()))

    def _member_of(self, sid: str) -> Member | None:
        return next((member for member in self._members.values() if sid in member.jobs), None)

    def check(self) -> None:
        """Sees that a worker has time left.

        Raises:
            NoWorkerError: None has.
        """
        self._least()

    def _least(self, *, urgent: bool = False) -> Member:
        """The active worker that has least to do; any other rather than none, if a stream is off the air meanwhile."""
        there = [member for member in self._members.values() if member.status != "lost"]
        active = [member for member in there if member.status == "active"]
        free = [member for member in active if not member.is_full] or (urgent and (active or there))
        if not free:
            raise NoWorkerError("workers: expected one that is active, and has time left")
        return min(free, key=lambda member: member.weight(len(self.rooms.on(member))))

    def _is_room(self) -> bool:
        try:
            self._least()
        except NoWorkerError:
            return False
        return True

    def place(self, room: str, *, urgent: bool = False) -> Member:
        """The worker that a room of ours is on, chosen now if it is on none: any rather than none, if it is urgent.

        Raises:
            NoWorkerError: No worker has time left.
        """
        member = self.rooms.where(room) or self._least(urgent=urgent)
        self.rooms.place(room, member)
        return member

    def where_stream(self, stream: str) -> Member | None:
        """The worker that serves a stream, if one does."""
        return self._streams.get(stream)

    def knows(self, stream: str) -> bool:
        """Whether a stream is served, or will be again in a moment."""
        return stream in self._streams

    async def start(self, job: Job) -> None:
        """Has a worker start a job; one that was interrupted waits for a worker for a minute.

        Raises:
            NoWorkerError: There is none that has time.
            Exception: What the worker raised.
        """
        place = Place.parse(job.room) if job.room else None
        urgent = job.interruptions > 0
        until = clock() + (_START if urgent else _NEW)
        while True:
            try:
                is_ours = place is not None and place.kind == "local"
                member = self.place(place.name, urgent=urgent) if place and is_ours else self._least(urgent=urgent)
                if place and is_ours:
                    await self.rooms.set_up(place.name, member)
                await self._start_on(member, job)
                return
            except (NoWorkerError, GoneError, AwayError) as error:
                if clock() > until:
                    raise NoWorkerError(str(error)) from error
                await asyncio.sleep(_AGAIN)

    async def _start_on(self, member: Member, job: Job) -> None:
        self._know(job, member)
        member.starting[job.sid] = clock()
        try:
            progress: Progress = await member.call("start", job, patience=_START)
            if job.sid not in member.jobs:
                raise GoneError("it was lost meanwhile")
            member.progress[job.sid] = progress
        except BaseException:
            # Should it begin after all, it is found out.
            if member.jobs.pop(job.sid, None):
                self._on_their_way(_streams_of(job))
            raise
        finally:
            member.starting.pop(job.sid, None)

    async def _ask(self, member: Member, method: str, *arguments: Any, **named: Any) -> None:
        """Has a worker do something; one that is gone need not."""
        with contextlib.suppress(GoneError, TimeoutError):
            await member.call(method, *arguments, **named)

    async def drop(self, sid: str, output: str) -> None:
        """Ends one output of a job."""
        member = self._member_of(sid)
        if member:
            await self._ask(member, "drop", sid, output)
        self._retire([output])

    async def stop(self, sid: str, *, to_resume: bool = False) -> None:
        """Ends a job."""
        member = self._member_of(sid)
        if member is None:
            return
        await self._ask(member, "stop", sid, to_resume=to_resume)
        self._elsewhere.pop(sid, None)
        member.progress.pop(sid, None)
        job = member.jobs.pop(sid, None)
        if job and to_resume:
            self._on_their_way(stream for stream in _streams_of(job) if stream in self._streams)
        elif job:
            self._retire(_streams_of(job))

    def _retire(self, outputs: Iterable[str]) -> None:
        for output in outputs:
            asyncio.get_running_loop().call_later(_LINGER, self._streams.pop, output, None)

    async def record(self, sid: str, order: RecordingOrder) -> None:
        """Begins to record a job's mix."""
        member = self._member_of(sid)
        if member is None:
            raise LookupError(sid)
        try:
            await member.call("record", sid, order)
        except (GoneError, TimeoutError) as error:
            raise AwayError(f"worker: {member.name} does not answer") from error
        if job := member.jobs.get(sid):
            member.jobs[sid] = job.recorded(order)

    async def finish(self, sid: str, recording: str) -> None:
        """Ends a recording."""
        if member := self._member_of(sid):
            member.jobs[sid] = member.jobs[sid].without(recording)
            await self._ask(member, "finish", sid, recording)

    def recordings(self) -> Mapping[str, RecordingState] | None:
        """Those that anything is left of on any worker; None until all have told."""
        there = [member for member in self._members.values() if member.status != "lost"]
        if any(member.report is None for member in there):
            return None
        states: dict[str, RecordingState] = {}
        for member in there:
            for sid, state in (member.report.recordings if member.report else {}).items():
                states[sid] = states[sid].plus(state) if sid in states else state
        for member in self._members.values():
            if member.status == "lost":
                # It may come back, with what it has.
                for sid in member.recordings.difference(states):
                    states[sid] = RecordingState(problem="its worker is lost")
        return states

    async def acknowledge(self, keys: Collection[str]) -> None:
        """It is known that these are stored."""
        there = [member for member in self._members.values() if member.report and member.report.recordings]
        await asyncio.gather(*(self._ask(member, "acknowledge", keys) for member in there))

    async def reserve(self, limits: Mapping[str, int]) -> None:
        """Lets jobs give sequence numbers below these limits."""

        async def tell(member: Member) -> None:
            theirs = {sid: limit for sid, limit in limits.items() if sid in member.jobs}
            with contextlib.suppress(GoneError, TimeoutError):
                await member.call("reserve", theirs, patience=_NEW)

        await asyncio.gather(*(tell(member) for member in self._members.values() if member.jobs))

    async def adjust(self, sid: str, settings: Mapping[str, Setting]) -> None:
        """Sets all that is set of identities in a job's room."""
        if member := self._member_of(sid):
            await member.at_desk("job", "adjust", sid, settings)

    async def vitals(self, sid: str) -> Mapping[str, Vitals]:
        """How those get on that a job mixes."""
        member = self._member_of(sid)
        return (await member.look("job", "vitals", sid)) if member else {}

    async def loudness(self, sid: str) -> Loudness | None:
        """How loud a job's mix is."""
        member = self._member_of(sid)
        return (await member.look("job", "loudness", sid) or None) if member else None

    async def remove(self, sid: str, identity: str) -> None:
        """Has a participant leave a job's room."""
        if member := self._member_of(sid):
            await member.at_desk("job", "remove", sid, identity)

    def leave_room(self, sid: str) -> None:
        """Has a job leave its room."""
        member = self._member_of(sid)
        if member:
            member.jobs[sid] = replace(member.jobs[sid], room=None)
            spawn(self._ask(member, "leave_room", sid))

    def progress(self) -> Mapping[str, Progress]:
        """How far jobs are, of the workers that tell."""
        told = [member for member in self._members.values() if not member.is_quiet]
        return {sid: progress for member in told for sid, progress in member.progress.items() if sid in member.jobs}

    def has(self, stream: str) -> bool:
        """Whether it is live."""
        member = self._streams.get(stream)
        return member is not None and any(playing.sid == stream for playing in member.playing)

    async def until_changed(self) -> None:
        """Waits for a moment: workers tell of their streams twice a second."""
        await asyncio.sleep(_PAUSE)

    def streams(self) -> list[Playing]:
        """The live ones."""
        return [playing for member in self._members.values() for playing in member.playing]

    def bitrate(self, stream: str) -> int | None:
        """That of a stream, in kbit/s, if there is one."""
        member = self._streams.get(stream)
        jobs = member.jobs.values() if member else ()
        return next((job.audio_bitrate for job in jobs if stream in job.outputs), None)

    async def insert(self, stream: str, text: str) -> None:
        """Inserts a payload into a stream."""
        member = self.where_stream(stream)
        if member is None:
            raise LookupError(stream)
        try:
            await member.call("insert", stream, text)
        except (GoneError, TimeoutError) as error:
            raise LookupError(stream) from error

    async def payloads(self, stream: str) -> AsyncIterator[str]:
        """Those of a stream, as long as it is live."""
        member = self.where_stream(stream)
        if member and member.greeting:
            url = f"{member.greeting.url}/v1/PlayerStreamers/{stream}/TimedMetadata"
            async with contextlib.aclosing(self.forwarder.events(url)) as events:
                async for text in events:
                    yield text
            # Its worker may be gone, which is known in a moment.
            await asyncio.sleep(_PAUSE)

    def workers(self) -> list[WorkerState]:
        """The workers, and what each has to do."""
        return [
            WorkerState(
                member.name,
                member.handle.slot.machine,
                member.status,
                member.greeting.addresses if member.greeting else [],
                member.greeting.media_port if member.greeting else 0,
                member.greeting.process if member.greeting else 0,
                member.share,
                member.load,
            )
            for _, member in sorted(self._members.items())
        ]

    async def drain(self, name: str, draining: bool) -> None:
        """Gives a worker nothing new; what it has goes on elsewhere, rooms of ours when everybody has left them.

        Raises:
            LookupError: There is no such worker, or it is lost.
            TimeoutError: It does not answer.
        """
        member = self._members.get(name)
        if member is None or member.status == "lost":
            raise LookupError(name)
        try:
            await member.call("drain", draining)
        except GoneError as error:
            raise LookupError(name) from error
        member.drained = draining
        member.status = "draining" if draining else "active"
        if draining:
            self.draining.begin(member)


def _streams_of(job: Job) -> list[str]:
    return [output for output in job.outputs if output.startswith(PLAYER_STREAMER)]
