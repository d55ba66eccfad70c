"""The engine that runs jobs in this process."""

import asyncio
import hashlib
import hmac
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Final

from audiomixer.audio.loudness import Loudness
from audiomixer.clock.bus import process_pacer
from audiomixer.clock.tasks import spawn
from audiomixer.mixer import AudioMixer
from audiomixer.outputs.base import Output, OutputError
from audiomixer.outputs.hls import HlsOutput
from audiomixer.outputs.push import PushOutput
from audiomixer.rooms.base import RoomEvent, Vitals
from audiomixer.rooms.local import LocalRoom, LocalRooms
from audiomixer.rooms.place import Place
from audiomixer.rooms.remote import RemoteRoom
from audiomixer.rooms.roster import COUNTED
from audiomixer.rooms.strip import Setting
from audiomixer.service.jobs import (
    PLAYER_STREAMER,
    PUSHED,
    Job,
    Load,
    OnRoomEvent,
    Playing,
    Progress,
    RecordingOrder,
    RecordingState,
    WorkerState,
)
from audiomixer.service.outbound import ForbiddenError, Outbound
from audiomixer.service.recorder import Recorder
from audiomixer.service.settings import Settings
from audiomixer.service.streams import Stream, Streams

_FIRST_FRAME: Final = 0.01
"""Seconds until the next look for a mixer's first frame."""

_log = logging.getLogger(__name__)


class LocalEngine:
    """Runs jobs in this process.

    Args:
        streams: Where their streams are served, and whose rooms they mix.
        outbound: Where they may push to.
        settings: Where rooms are elsewhere, and by what they are joined.
        recorder: What records them.
    """

    outlives = False

    def __init__(self, streams: Streams, outbound: Outbound, settings: Settings, recorder: Recorder) -> None:
        self._streams = streams
        self._outbound = outbound
        self._settings = settings
        self._recorder = recorder
        self.on_room_event: OnRoomEvent = lambda sid, event: None
        self.on_lost: Callable[[str], None] = lambda sid: None
        self._packets: Counter[str] = Counter()
        """Of mixers that have stopped."""
        self._left_out = 0
        """Likewise."""
        self._dropped = 0
        """By outputs that have stopped."""
        self._mixers: dict[str, AudioMixer] = {}
        self._starting: dict[str, AudioMixer] = {}
        self._parts: dict[str, int] = {}
        """How often each has been interrupted."""
        self._outputs: dict[str, dict[str, list[Output]]] = {}

    @property
    def rooms(self) -> LocalRooms:
        """Those that are mixed here."""
        return self._streams.rooms

    async def open(self) -> None:
        """Goes on storing what is recorded; nothing else is at work before this process is.

        Raises:
            ValueError: Nothing can be recorded.
        """
        try:
            await self._recorder.open()
        except OSError as error:
            raise ValueError(f"spool: expected a folder that can be written: {error}") from error

    def begin(self) -> None:
        """It tells from the beginning."""

    async def close(self) -> None:
        """Ends the rooms: everybody has to leave."""
        self._streams.closed.set()
        await self.rooms.close()
        await self._recorder.close()

    def working(self) -> Mapping[str, Job]:
        """None."""
        return {}

    def whoever(self, sid: str) -> list[str]:
        """Nobody."""
        return []

    def check(self) -> None:
        """There is as much place as the settings say."""

    async def _push(self, url: str, job: Job) -> PushOutput:
        """An output that connects to the address that its host has at that moment, and may have.

        One that is resumed may find nobody there: whatever has become of that server, it is tried until it is back.
        """
        resumed = job.interruptions > 0
        try:
            await self._outbound.check(url, "outputs", PUSHED)
        except ForbiddenError as error:
            if not resumed:
                raise OutputError(str(error)) from error
        return PushOutput(url, job.audio_bitrate, self._outbound.resolver(), patient=resumed)

    async def start(self, job: Job) -> None:
        """Joins the room and begins to stream.

        Raises:
            OutputError: An output cannot be opened, or leads to where it may not.
            RoomError: The room cannot be joined.
        """
        streams = [
            Stream(
                sid,
                job.audio_bitrate,
                self._streams.rooms.ice,
                prefix=self._prefix_of(sid, job.interruptions),
                first=job.first_segment,
                interruptions=job.interruptions,
                gap=(*job.gap, self._prefix_of(sid, job.interruptions - 1)) if job.gap else None,
            )
            for sid in job.outputs
            if sid.startswith(PLAYER_STREAMER)
        ]
        outputs: dict[str, list[Output]] = {stream.sid: stream.outputs for stream in streams}
        outputs |= {url: [await self._push(url, job)] for url in job.outputs if url not in outputs}
        mixer = AudioMixer(
            # A room of its own, where nobody can come, if there is none to join.
            self._settings.with_credentials(Place.parse(job.room)) if job.room else LocalRoom("none"),
            outputs=[output for group in outputs.values() for output in group],
            audio_bitrate=job.audio_bitrate,
            identity=job.identity,
            create=self._settings.room_creation,
            denoise=job.denoise,
            leveler=job.leveler,
            loudness=job.loudness,
            include=job.include if job.room else None,
            exclude=job.exclude if job.room else (),
            # Whether there is a room is looked for once; a server that is out of reach says nothing of that.
            patient=True,
            rooms=self._streams.rooms,
            ice=self._settings.ice("0.0.0.0") if self._settings.elsewhere else None,  # noqa: S104
            first_sequence=job.first_sequence,
        )
        mixer.sequence_limit = job.sequence_limit
        if self._settings.elsewhere:
            spawn(self._listen(job.sid, mixer.room_events()))
        mixer.adjust(job.settings)
        self._starting[job.sid] = mixer
        try:
            await mixer.start()
        finally:
            del self._starting[job.sid]
        self._mixers[job.sid] = mixer
        self._parts[job.sid] = job.interruptions
        self._outputs[job.sid] = outputs
        for stream in streams:
            stream.feed(mixer)
            self._streams.add(stream)
        while job.sid in self._mixers and not mixer.time:
            await asyncio.sleep(_FIRST_FRAME)
        for order in job.recordings:
            try:
                await self._recorder.start(job.sid, mixer, order, job.interruptions)
            except (OutputError, OSError, RuntimeError):
                _log.exception("a recording cannot go on", extra={"sid": order.sid})

    async def record(self, sid: str, order: RecordingOrder) -> None:
        """Begins to record a job's mix."""
        if sid not in self._mixers or sid not in self._outputs:
            raise LookupError(sid)
        await self._recorder.start(sid, self._mixers[sid], order, self._parts[sid])

    async def finish(self, sid: str, recording: str) -> None:
        """Ends a recording."""
        await self._recorder.finish(recording)

    def recordings(self) -> dict[str, RecordingState]:
        """All that anything is left of here."""
        return self._recorder.recordings()

    async def acknowledge(self, keys: Collection[str]) -> None:
        """It is known that these are stored."""
        await self._recorder.acknowledge(keys)

    def _prefix_of(self, sid: str, interruptions: int) -> str:
        """What the names of a stream's HLS segments begin with: the same in every process, and not to be guessed.

        Segments of an earlier process may be numbered alike, and are in caches by their names.
        """
        secret = hmac.new(self._settings.auth_token.encode(), sid.encode(), hashlib.sha256).hexdigest()[:16]
        return f"{secret}-" + (f"{interruptions}-" if interruptions else "")

    async def _listen(self, sid: str, events: AsyncIterator[RoomEvent]) -> None:
        async for event in events:
            self.on_room_event(sid, event)

    async def drop(self, sid: str, output: str) -> None:
        """Ends one output of a job."""
        mixer = self._mixers.get(sid)
        if mixer:
            self._streams.retire(output)
            for part in self._outputs[sid].pop(output, []):
                await mixer.drop(part)
                if isinstance(part, PushOutput):
                    self._dropped += part.dropped

    async def stop(self, sid: str, *, to_resume: bool = False) -> None:
        """Leaves the room and finishes the outputs."""
        mixer = self._mixers.get(sid)
        if mixer is None or sid not in self._outputs:
            return
        outputs = self._outputs.pop(sid)
        await self._recorder.finish_all(sid)
        for output in outputs:
            (self._streams.forget if to_resume else self._streams.retire)(output)
        await mixer.stop()
        parts = [part for group in outputs.values() for part in group]
        self._dropped += sum(part.dropped for part in parts if isinstance(part, PushOutput))
        # From one moment to the next, what happened is counted here instead of there.
        del self._mixers[sid], self._parts[sid]
        self._left_out += mixer.left_out
        if isinstance(mixer.room, RemoteRoom):
            self._packets += mixer.room.packets()

    async def reserve(self, limits: Mapping[str, int]) -> None:
        """Lets jobs' payloads go on."""
        for sid, limit in limits.items():
            if sid in self._mixers:
                self._mixers[sid].sequence_limit = limit

    async def adjust(self, sid: str, settings: Mapping[str, Setting]) -> None:
        """Sets all that is set of identities in a job's room."""
        mixer = self._mixers.get(sid) or self._starting.get(sid)
        if mixer:
            mixer.adjust(settings)

    async def vitals(self, sid: str) -> Mapping[str, Vitals]:
        """How those get on that a job mixes."""
        return self._mixers[sid].room.vitals() if sid in self._mixers else {}

    async def loudness(self, sid: str) -> Loudness | None:
        """How loud a job's mix is."""
        return self._mixers[sid].loudness if sid in self._mixers else None

    async def remove(self, sid: str, identity: str) -> None:
        """Has a participant leave a job's room."""
        if sid in self._mixers:
            await self._mixers[sid].room.remove(identity)

    def leave_room(self, sid: str) -> None:
        """Has a job's mixer leave its room."""
        if sid in self._mixers:
            self._mixers[sid].leave_room()

    def progress(self) -> dict[str, Progress]:
        """How far each job is."""
        return {sid: self._progress(sid, mixer) for sid, mixer in self._mixers.items() if sid in self._outputs}

    def has(self, stream: str) -> bool:
        """Whether it is live."""
        return any(stream == live.sid for live in self._streams)

    async def until_changed(self) -> None:
        """Waits until a stream has come or gone, or everything ends."""
        await self._streams.until_changed()

    def streams(self) -> list[Playing]:
        """The live ones."""
        return self._streams.playing()

    async def insert(self, stream: str, text: str) -> None:
        """Inserts a payload."""
        found = self._streams.get(stream)
        if found is None:
            raise LookupError(stream)
        found.insert(text)

    async def payloads(self, stream: str) -> AsyncIterator[str]:
        """Those of a stream, as long as it is live."""
        found = self._streams.get(stream)
        if found:
            async for text in found.events.read():
                yield text

    def workers(self) -> list[WorkerState]:
        """This process alone."""
        ice, share = self.rooms.ice, process_pacer().share
        node = ice.addresses[0] if ice.addresses else ""
        return [WorkerState("local", node, "active", ice.addresses, ice.port or 0, os.getpid(), share, self.load())]

    def load(self) -> Load:
        """What this process has to do, and how it gets on."""
        pacer, streams = process_pacer(), list(self._streams)
        groups = [group for outputs in self._outputs.values() for group in outputs.values()]
        pushes = [output for group in groups for output in group if isinstance(output, PushOutput)]
        packets = self.rooms.packets() + self._packets
        for mixer in self._mixers.values():
            if isinstance(mixer.room, RemoteRoom):
                packets += mixer.room.packets()
        dropped = self._dropped + self._streams.dropped + sum(push.dropped for push in pushes)
        return Load(
            rooms=len(self.rooms.present()),
            jobs=len(self._outputs),
            streams=len(streams),
            listeners=sum(stream.whep.listeners for stream in streams),
            readers=self._streams.readers,
            ticks=pacer.rounds,
            late=pacer.late,
            lateness=pacer.lateness,
            busy=pacer.busy,
            packets={fate: packets[fate] for fate in COUNTED},
            strangers=self.rooms.ice.strangers,
            left_out=self._left_out + sum(mixer.left_out for mixer in self._mixers.values()),
            dropped=dropped + sum(output.dropped for stream in streams for output in stream.outputs),
            queued=sum(push.queued for push in pushes),
            pushes=len(pushes),
            connected=sum(push.connected for push in pushes),
            recordings=self._recorder.running,
            spooled=self._recorder.size,
        )

    def _progress(self, sid: str, mixer: AudioMixer) -> Progress:
        measured = mixer.room.bus.mixer.loudness
        working = {id(output) for output in mixer.working if not (isinstance(output, PushOutput) and output.error)}
        return Progress(
            mixer.time,
            mixer.next_sequence,
            frozenset(
                name for name, group in self._outputs[sid].items() if all(id(output) in working for output in group)
            ),
            mixer.room.bus.failure,
            max(
                (
                    output.newest
                    for group in self._outputs[sid].values()
                    for output in group
                    if isinstance(output, HlsOutput)
                ),
                default=0,
            ),
            Loudness(*measured) if measured else None,
        )
