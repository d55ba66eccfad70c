"""Running mixers. A job is all that is needed to run one, here or in a process elsewhere; an engine runs it.

What the service asks of an engine is narrow on purpose: start a job, end an output of it, end it, tell how far it is.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from audiomixer.clock.tasks import spawn
from audiomixer.mixer import AudioMixer
from audiomixer.outputs.base import Output, OutputError
from audiomixer.outputs.hls import HlsOutput
from audiomixer.outputs.push import PushOutput
from audiomixer.rooms.base import RoomEvent
from audiomixer.rooms.local import LocalRoom
from audiomixer.rooms.place import Place
from audiomixer.rooms.remote import RemoteRoom
from audiomixer.service.outbound import ForbiddenError, Outbound
from audiomixer.service.settings import Settings
from audiomixer.service.streams import Stream, Streams

PUSHED: Final = ("rtmp", "rtmps")
"""Schemes of URLs that outputs may have."""
PLAYER_STREAMER: Final = "VJ"
"""What outputs begin with that are PlayerStreamers; others are URLs."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a mixer has to do: plain values, so that it can be sent to another process."""

    sid: str
    """Of its MediaProcessor."""
    room: str | None = field(repr=False)
    """URL of its room, maybe with credentials; None to be in none."""
    identity: str
    outputs: tuple[str, ...]
    """SIDs of PlayerStreamers, and URLs."""
    audio_bitrate: int
    first_sequence: int = 0
    first_segment: int = 0
    """Number of the first HLS segment."""
    gap: tuple[int, float] | None = None
    """Number of the first one that may be missing, and seconds that are."""
    interruptions: int = 0
    sequence_limit: int | None = None
    """Sequence numbers from here on may not be used before they are reserved."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    seconds: float
    """Of stream made, in this process."""
    next_sequence: int
    working: frozenset[str]
    """The outputs that have not failed."""
    failure: str = ""
    """Why it does not get on any more, if it does not."""
    segments: int = 0
    """Number of the HLS segment that is being made."""


OnRoomEvent = Callable[[str, RoomEvent], None]
"""Is told of a job's SID what happens in its room, on the event loop."""


class Engine(Protocol):
    """Runs jobs."""

    on_room_event: OnRoomEvent

    async def start(self, job: Job) -> None:
        """Starts a job.

        Raises:
            Exception: It cannot be started; nothing is left of it then.
        """

    async def drop(self, sid: str, output: str) -> None:
        """Ends one output of a job."""

    async def stop(self, sid: str, *, to_resume: bool = False) -> None:
        """Ends a job and its outputs; players are not told of an end if it is to be resumed."""

    def reserve(self, sid: str, limit: int) -> None:
        """Lets a job give sequence numbers below `limit`, and none from there on."""

    def leave_room(self, sid: str) -> None:
        """Has a job leave its room for good; its stream goes on with silence."""

    def progress(self) -> dict[str, Progress]:
        """How far each job is."""


class LocalEngine:
    """Runs jobs in this process.

    Args:
        streams: Where their streams are served, and whose rooms they mix.
        outbound: Where they may push to.
        settings: Where rooms are elsewhere, and by what they are joined.
        prefix: Gives what the names of a stream's segments begin with.
    """

    def __init__(self, streams: Streams, outbound: Outbound, settings: Settings, prefix: Callable[[str], str]) -> None:
        self._streams = streams
        self._outbound = outbound
        self._settings = settings
        self.on_room_event: OnRoomEvent = lambda sid, event: None
        self._prefix = prefix
        self._packets: Counter[str] = Counter()
        """Of mixers that have stopped."""
        self._left_out = 0
        """Likewise."""
        self._dropped = 0
        """By outputs that have stopped."""
        self._mixers: dict[str, AudioMixer] = {}
        self._outputs: dict[str, dict[str, list[Output]]] = {}

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
            # Whether there is a room is looked for once; a server that is out of reach says nothing of that.
            patient=True,
            rooms=self._streams.rooms,
            ice=self._settings.ice("0.0.0.0") if self._settings.elsewhere else None,  # noqa: S104
            first_sequence=job.first_sequence,
        )
        mixer.sequence_limit = job.sequence_limit
        if self._settings.elsewhere:
            spawn(self._listen(job.sid, mixer.room_events()))
        await mixer.start()
        self._mixers[job.sid] = mixer
        self._outputs[job.sid] = outputs
        for stream in streams:
            stream.feed(mixer)
            self._streams.add(stream)

    def _prefix_of(self, sid: str, interruptions: int) -> str:
        """Segments of an earlier process may be numbered alike, and are in caches by their names."""
        return self._prefix(sid) + (f"{interruptions}-" if interruptions else "")

    async def _listen(self, sid: str, events: AsyncIterator[RoomEvent]) -> None:
        async for event in events:
            self.on_room_event(sid, event)

    def packets(self) -> Counter[str]:
        """What happened to packets in rooms elsewhere, of everybody so far; `concealed` is in seconds."""
        rooms = [mixer.room for mixer in self._mixers.values()]
        return sum((room.packets() for room in rooms if isinstance(room, RemoteRoom)), self._packets.copy())

    def left_out(self) -> int:
        """Frames of all mixes so far that were not encoded, for want of time."""
        return self._left_out + sum(mixer.left_out for mixer in self._mixers.values())

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
        for output in outputs:
            (self._streams.forget if to_resume else self._streams.retire)(output)
        await mixer.stop()
        parts = [part for group in outputs.values() for part in group]
        self._dropped += sum(part.dropped for part in parts if isinstance(part, PushOutput))
        # From one moment to the next, what happened is counted here instead of there.
        del self._mixers[sid]
        self._left_out += mixer.left_out
        if isinstance(mixer.room, RemoteRoom):
            self._packets += mixer.room.packets()

    def reserve(self, sid: str, limit: int) -> None:
        """Lets a job's payloads go on."""
        if sid in self._mixers:
            self._mixers[sid].sequence_limit = limit

    def leave_room(self, sid: str) -> None:
        """Has a job's mixer leave its room."""
        if sid in self._mixers:
            self._mixers[sid].leave_room()

    def progress(self) -> dict[str, Progress]:
        """How far each job is."""
        return {sid: self._progress(sid, mixer) for sid, mixer in self._mixers.items() if sid in self._outputs}

    def dropped(self) -> int:
        """Packets that servers lost which are, or were, pushed to."""
        return self._dropped + sum(push.dropped for push in self.pushes())

    def pushes(self) -> list[PushOutput]:
        """The outputs that push to servers."""
        groups = [group for outputs in self._outputs.values() for group in outputs.values()]
        return [output for group in groups for output in group if isinstance(output, PushOutput)]

    def _progress(self, sid: str, mixer: AudioMixer) -> Progress:
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
        )
