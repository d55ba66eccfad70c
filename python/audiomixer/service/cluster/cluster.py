"""The engine that has workers do everything: which of them gets what, and what becomes of it when one is lost."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.base import FullError
from audiomixer.rooms.local import Doorkeeper
from audiomixer.rooms.place import Place
from audiomixer.service.cluster.forward import Forwarder
from audiomixer.service.cluster.member import PATIENCE, Member
from audiomixer.service.cluster.nodes import GoneError, Nodes, Slot
from audiomixer.service.cluster.reports import VERSION, Greeting, Happening, Report
from audiomixer.service.jobs import PLAYER_STREAMER, Job, OnRoomEvent, Playing, Progress, WorkerState

_SILENT: Final = 2.0
"""Seconds beyond its patience until a worker that does not answer may be lost."""
_HUNG: Final = 5.0
"""Seconds after which one is ended that does not answer, or does not mix."""
_LOOK: Final = 1.0
"""Seconds until the next look for nodes, and for a worker that was lost."""
_PAUSE: Final = 0.2
"""Seconds until a worker is asked again that has broken off."""
_FRESH: Final = 3.0
"""Seconds for which a room's place is kept though its worker does not have the room yet."""
_OTHER: Final = 30.0
"""Seconds until the next look whether a machine has our version by now."""
_LINGER: Final = 30.0
"""Seconds for which players may still get what there is of a stream that has ended."""
_WAIT: Final = 60.0
"""Seconds that a job that was interrupted waits for a worker."""

_log = logging.getLogger(__name__)


class VersionError(Exception):
    """A worker speaks another version."""


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
        self.on_move: Callable[[str], Coroutine[Any, Any, None]]
        """Is told of the SID of a job that shall go on elsewhere."""
        self.door: Doorkeeper
        """Who is told who joins and leaves rooms of ours."""
        self.forwarder = forwarder
        self.rooms = ClusterRooms(self)
        self._nodes = nodes
        self._drain_seconds = drain_seconds
        self._members: dict[str, Member] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._places: dict[str, tuple[Member, float]] = {}
        """Where rooms of ours are, and since when."""
        self._streams: dict[str, Member | None] = {}
        """Where streams are served; None while they are on their way to another worker."""
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Joins the cluster, and meets the workers there are; the missing ones are started.

        Raises:
            ValueError: There is no cluster.
        """
        await self._nodes.connect()
        problems = await asyncio.gather(*(self._add(slot) for slot in await self._nodes.slots()))
        if not any(member.status != "lost" for member in self._members.values()):
            problem = next(filter(None, problems), None)
            raise ValueError(f"engine: no worker can be had: {problem or 'no node has a CPU, or audiomixer, for one'}")

    async def _add(self, slot: Slot) -> Exception | None:
        """Meets the worker that is there, or starts it; gives what is wrong with it."""
        member = self._members[slot.name] = Member(await self._nodes.worker(slot))
        try:
            await self._meet(member)
        except Exception as error:
            _log.warning("worker %s cannot work yet: %s", member.name, error)
            return error
        return None

    async def _meet(self, member: Member) -> None:
        """Asks a worker what it is at."""
        version, greeting = await member.call("hello", patience=_WAIT)
        if version != VERSION:
            # What it says cannot be relied on: whatever it was at goes on elsewhere.
            _log.warning("worker %s speaks version %s, not %s: replaced", member.name, version, VERSION)
            await member.call("close")
            await self._renew(member)
            version, greeting = await member.call("hello", patience=_WAIT)
            if version != VERSION:
                raise VersionError(f"its machine has another version of audiomixer: {version}, not {VERSION}")
        member.met(greeting)
        _log.info("worker %s is there, process %d, media port %d", member.name, greeting.process, greeting.media_port)
        for room in greeting.rooms:
            self._places[room] = (member, clock())
            self.rooms.members[room] = dict(greeting.rooms[room])
        for job in greeting.jobs.values():
            self._know(job, member)

    async def _renew(self, member: Member) -> None:
        """Has another worker in the place of one."""
        await member.handle.retire()
        member.handle = await self._nodes.worker(member.handle.slot)

    def _know(self, job: Job, member: Member) -> None:
        member.jobs[job.sid] = job
        self._streams |= {output: member for output in job.outputs if output.startswith(PLAYER_STREAMER)}

    def begin(self) -> None:
        """Watches the workers, and looks for new nodes."""
        for member in self._members.values():
            self._watch(member)
        self._looking = asyncio.create_task(self._look_for_ever())

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                slots = {slot.name: slot for slot in await self._nodes.slots()}
                for name in set(self._members).difference(slots):
                    await self._forget(self._members[name])
                for name in set(slots).difference(self._members):
                    await self._add(slots[name])
                    self._watch(self._members[name])
            except Exception:
                _log.exception("the cluster cannot be asked for its nodes")

    async def _forget(self, member: Member) -> None:
        """A worker's node is gone."""
        del self._members[member.name]
        watching = self._watching.pop(member.name, None)
        if watching:
            watching.cancel()
        self._lose(member, "its node is gone")

    def _watch(self, member: Member) -> None:
        self._watching[member.name] = asyncio.create_task(self._watch_for_ever(member))

    async def _watch_for_ever(self, member: Member) -> None:
        while True:
            try:
                if member.status == "lost":
                    await asyncio.sleep(_LOOK / 2)
                    await self._meet(member)
                await self._follow(member)
            except GoneError as error:
                self._lose(member, str(error).partition("\n")[0])
            except TimeoutError:
                self._lose(member, "it does not answer")
                await member.handle.kill()
            except VersionError as error:
                _log.error("worker %s cannot be used: %s", member.name, error)
                await asyncio.sleep(_OTHER)
            except Exception:
                _log.exception("worker %s cannot be followed", member.name)
                self._lose(member, "it cannot be followed")
                await asyncio.sleep(_LOOK)

    async def _follow(self, member: Member) -> None:
        """Listens to a worker until it is lost."""
        while True:
            report = await self._ask(member)
            if member.greeting is None or report.incarnation != member.greeting.incarnation:
                raise GoneError("its process has begun anew")
            member.told(report)
            for happening in report.happenings:
                self._tell(happening)
            self._check_places(member, report)
            if member.stuck > _HUNG:
                await member.handle.kill()
                raise GoneError("it does not mix any more")

    async def _ask(self, member: Member) -> Report:
        """What a worker has to tell; it has to answer within two seconds if its machine is gone, else within five."""
        asking = asyncio.ensure_future(member.call("report", member.number, PATIENCE, patience=PATIENCE + _HUNG))
        try:
            done, _ = await asyncio.wait([asking], timeout=PATIENCE + _SILENT)
            if not done and member.name not in {slot.name for slot in await self._nodes.slots()}:
                raise GoneError("its node is gone")
            report: Report = await asking
            return report
        finally:
            asking.cancel()

    def _tell(self, happening: Happening) -> None:
        room = happening.where
        if happening.what == "joined":
            self.rooms.members.setdefault(room, {})[happening.resource] = happening.identity
            self.door.joined(room, happening.resource, happening.identity)
        elif happening.what == "left":
            self.rooms.left(room, happening.resource)
            self.door.left(room, happening.resource)
        elif happening.event:
            self.on_room_event(happening.where, happening.event)

    def _check_places(self, member: Member, report: Report) -> None:
        """Forgets where rooms were that have ended."""
        for room, (where, since) in list(self._places.items()):
            if where is member and room not in report.rooms and clock() - since > _FRESH:
                del self._places[room]

    def _lose(self, member: Member, reason: str) -> None:
        """A worker is gone: all who were in its rooms have left, and its jobs go on elsewhere."""
        if member.status == "lost":
            return
        _log.error("worker %s is lost with %d jobs: %s", member.name, len(member.jobs), reason)
        member.status = "lost"
        jobs, member.jobs, member.progress, member.report = list(member.jobs), {}, {}, None
        for room in [room for room, (where, _) in self._places.items() if where is member]:
            del self._places[room]
            for resource in self.rooms.members.pop(room, {}):
                self.door.left(room, resource)
        self._on_their_way([stream for stream, where in self._streams.items() if where is member])
        for sid in jobs:
            self.on_lost(sid)

    def _on_their_way(self, streams: Iterable[str]) -> None:
        """These go on elsewhere, in a minute or never."""
        for stream in streams:
            self._streams[stream] = None
            asyncio.get_running_loop().call_later(_WAIT, self._give_up, stream)

    def _give_up(self, stream: str) -> None:
        if self._streams.get(stream, self) is None:
            del self._streams[stream]

    async def close(self) -> None:
        """Asks no more; the workers go on."""
        for task in (self._looking, *self._watching.values()):
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.forwarder.close()

    async def retire(self) -> None:
        """Ends all workers, and whatever they do, for good."""
        for member in self._members.values():
            await member.handle.retire()

    def processes(self) -> list[int]:
        """The process of each worker, on its own machine."""
        return [member.greeting.process for member in self._members.values() if member.greeting]

    def working(self) -> Mapping[str, Job]:
        """The jobs of all workers."""
        return {sid: job for member in self._members.values() for sid, job in member.jobs.items()}

    def whoever(self, sid: str) -> list[str]:
        """Who was in the room of a job when its worker was met."""
        member = self._member_of(sid)
        greeting: Greeting | None = member.greeting if member else None
        return list(greeting.elsewhere.get(sid, [])) if greeting else []

    def _member_of(self, sid: str) -> Member | None:
        return next((member for member in self._members.values() if sid in member.jobs), None)

    def check(self) -> None:
        """Sees that a worker has time left.

        Raises:
            FullError: None has.
        """
        self._least()

    def _least(self) -> Member:
        """The active worker that has least to do."""
        free = [member for member in self._members.values() if member.status == "active" and not member.is_full]
        if not free:
            raise FullError("workers: expected one that has time left")
        counts = {member.name: 0 for member in free}
        for where, _ in self._places.values():
            if where.name in counts:
                counts[where.name] += 1
        return min(free, key=lambda member: member.weight(counts[member.name]))

    def place(self, room: str) -> Member:
        """The worker that a room of ours is on, chosen now if it is on none.

        Raises:
            FullError: No worker has time left.
        """
        found = self._places.get(room)
        if found is None:
            found = self._places[room] = (self._least(), clock())
        return found[0]

    def where_room(self, room: str) -> Member | None:
        """The worker that a room of ours is on, if it is on one."""
        found = self._places.get(room)
        return found[0] if found else None

    def where_stream(self, stream: str) -> Member | None:
        """The worker that serves a stream, if one does."""
        return self._streams.get(stream)

    def knows(self, stream: str) -> bool:
        """Whether a stream is served, or will be again in a moment."""
        return stream in self._streams

    async def start(self, job: Job) -> None:
        """Has a worker start a job; one that was interrupted waits for a worker for a minute."""
        place = Place.parse(job.room) if job.room else None
        until = clock() + (_WAIT if job.interruptions else _HUNG)
        while True:
            try:
                member = self.place(place.name) if place and place.kind == "local" else self._least()
                self._know(job, member)
                try:
                    progress: Progress = await member.call("start", job, patience=_WAIT)
                except BaseException:
                    member.jobs.pop(job.sid, None)
                    raise
                if member.status == "lost":
                    raise GoneError(member.name)
                member.progress[job.sid] = progress
                return
            except (FullError, GoneError):
                if clock() > until:
                    raise
                await asyncio.sleep(_LOOK / 2)

    async def _ask_of(self, sid: str, method: str, *arguments: Any, **named: Any) -> None:
        """Has the worker of a job do something with it; one that is gone need not."""
        member = self._member_of(sid)
        if member:
            with contextlib.suppress(GoneError, TimeoutError):
                await member.call(method, sid, *arguments, **named)

    async def drop(self, sid: str, output: str) -> None:
        """Ends one output of a job."""
        await self._ask_of(sid, "drop", output)
        self._retire([output])

    async def stop(self, sid: str, *, to_resume: bool = False) -> None:
        """Ends a job."""
        member = self._member_of(sid)
        if member is None:
            return
        await self._ask_of(sid, "stop", to_resume=to_resume)
        job = member.jobs.pop(sid, None)
        member.progress.pop(sid, None)
        if job and to_resume:
            self._on_their_way(output for output in job.outputs if output in self._streams)
        elif job:
            self._retire(job.outputs)

    def _retire(self, outputs: Iterable[str]) -> None:
        for output in outputs:
            asyncio.get_running_loop().call_later(_LINGER, self._streams.pop, output, None)

    async def reserve(self, limits: Mapping[str, int]) -> None:
        """Lets jobs give sequence numbers below these limits."""

        async def tell(member: Member) -> None:
            theirs = {sid: limit for sid, limit in limits.items() if sid in member.jobs}
            with contextlib.suppress(GoneError, TimeoutError):
                await member.call("reserve", theirs)

        await asyncio.gather(*(tell(member) for member in self._members.values() if member.jobs))

    def leave_room(self, sid: str) -> None:
        """Has a job leave its room."""
        spawn(self._ask_of(sid, "leave_room"))

    def progress(self) -> Mapping[str, Progress]:
        """How far jobs are, of the workers that tell."""
        told = [member for member in self._members.values() if not member.is_quiet]
        return {sid: progress for member in told for sid, progress in member.progress.items() if sid in member.jobs}

    def has(self, stream: str) -> bool:
        """Whether it is live."""
        return any(stream == playing.sid for playing in self.streams())

    async def until_changed(self) -> None:
        """Waits for a moment: workers tell of their streams twice a second."""
        await asyncio.sleep(_PAUSE)

    def streams(self) -> list[Playing]:
        """The live ones."""
        return [playing for member in self._members.values() if member.report for playing in member.report.streams]

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
            async for text in self.forwarder.events(url):
                yield text
            # Its worker may be gone, which is known in a moment.
            await asyncio.sleep(_PAUSE)

    def workers(self) -> list[WorkerState]:
        """The workers, and what each has to do."""
        return [
            WorkerState(
                member.name,
                member.handle.slot.address,
                member.status,
                member.greeting.media_port if member.greeting else 0,
                member.share,
                member.load,
            )
            for _, member in sorted(self._members.items())
        ]

    async def drain(self, name: str, draining: bool) -> None:
        """Gives a worker nothing new; what it has goes on elsewhere, rooms of ours when everybody has left them.

        Raises:
            LookupError: There is no such worker, or it is lost.
        """
        member = self._members.get(name)
        if member is None or member.status == "lost":
            raise LookupError(name)
        await member.call("drain", draining)
        member.status = "draining" if draining else "active"
        if draining:
            spawn(self._empty(member))

    async def _empty(self, member: Member) -> None:
        """Has everything go on elsewhere that can, until nothing is left."""
        until = clock() + self._drain_seconds
        while member.status == "draining":
            for room in self._rooms_of(member):
                if not self.rooms.identities(room) or clock() > until:
                    await self._empty_room(member, room)
            for sid, job in list(member.jobs.items()):
                place = Place.parse(job.room) if job.room else None
                if place is None or place.kind != "local":
                    await self.on_move(sid)
            if not member.jobs and not self._rooms_of(member):
                _log.info("worker %s is drained", member.name)
                return
            await asyncio.sleep(_LOOK)

    def _rooms_of(self, member: Member) -> list[str]:
        return [room for room, (where, _) in self._places.items() if where is member]

    async def _empty_room(self, member: Member, room: str) -> None:
        """Has a room's mixers go on elsewhere, and participants come back there."""
        self._places.pop(room, None)
        with contextlib.suppress(GoneError, TimeoutError):
            await member.call("end_room", room)
        for sid, job in list(member.jobs.items()):
            if job.room == f"local:{room}":
                await self.on_move(sid)


class ClusterRooms:
    """The rooms of ours on all workers.

    Args:
        cluster: Whose workers they are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.members: dict[str, dict[str, str]] = {}
        """Identities, by room and resource."""

    def present(self) -> Mapping[str, Mapping[str, str]]:
        """The participants' identities, by room and resource."""
        return self.members

    def identities(self, name: str) -> list[str]:
        """The participants of a room."""
        return list(self.members.get(name, {}).values())

    def of(self, resource: str) -> tuple[str, Member | None]:
        """The room, and its worker, of who joined as `resource`."""
        room = next((room for room, present in self.members.items() if resource in present), "")
        return room, self._cluster.where_room(room)

    def left(self, room: str, resource: str) -> None:
        """Somebody is in a room no more."""
        present = self.members.get(room, {})
        present.pop(resource, None)
        if not present:
            self.members.pop(room, None)

    async def end(self, name: str) -> None:
        """Ends a room."""
        member = self._cluster.where_room(name)
        if member:
            with contextlib.suppress(GoneError, TimeoutError):
                await member.call("end_room", name)

    async def leave(self, resource: str) -> bool:
        """Has a participant leave."""
        _, member = self.of(resource)
        if member is None:
            return False
        try:
            return bool(await member.call("expel", resource))
        except (GoneError, TimeoutError):
            return False
