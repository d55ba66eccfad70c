"""Running mixers. A job is all that is needed to run one, here or in a process elsewhere; an engine runs it.

What the service asks of an engine is narrow on purpose: start a job, end an output of it, end it, tell how far it is.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

from audiomixer.audio.loudness import Loudness
from audiomixer.rooms.base import RoomEvent, Vitals
from audiomixer.rooms.source import SourceOrder, SourceState
from audiomixer.rooms.strip import Setting

PUSHED: Final = ("rtmp", "rtmps")
"""Schemes of URLs that outputs may have."""
Layout = Literal["mix", "tracks", "dual"]
"""Of a recording: the mix, a file for each participant, or one of them on the left and the others on the right."""
PLAYER_STREAMER: Final = "VJ"
"""What outputs begin with that are PlayerStreamers; others are URLs."""

OnRoomEvent = Callable[[str, RoomEvent], None]
"""Is told of a job's SID what happens in its room, on the event loop."""


@dataclass(frozen=True, slots=True)
class RecordingOrder:
    """What is to be recorded of a job's mix."""

    sid: str
    key: str
    """What it is called in the store, without an ending. Its SID is in it."""
    format: str
    """An ending, without the dot."""
    layout: Layout
    identity: str = ""
    """Who is on the left, if it is `dual`."""
    rotate: float | None = None
    """Seconds after which a new file is begun."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a recording that is in the store."""

    key: str
    size: int
    """In bytes."""
    seconds: float
    loudness: float | None
    """In LUFS, integrated; None if it is silent."""
    true_peak: float | None
    """In dBTP; None likewise."""
    outline: tuple[int, ...]
    """Peaks, 0 to 100, of stretches that are all as long."""


@dataclass(frozen=True, slots=True)
class RecordingState:
    """How far a recording is, of which anything is here: it is being recorded, waits, or is not acknowledged yet."""

    seconds: float = 0.0
    """Recorded so far, by this process."""
    size: int = 0
    """Bytes that are not stored yet."""
    stored: tuple[StoredFile, ...] = ()
    """Not acknowledged yet."""
    problem: str = ""
    """Why it does not get on, just now."""
    failed: bool = False
    """Whether it never will."""
    running: bool = False
    """Whether it is being recorded here."""

    def plus(self, other: "RecordingState") -> "RecordingState":
        """With what there is of it on another worker."""
        return RecordingState(
            max(self.seconds, other.seconds),
            self.size + other.size,
            (*self.stored, *other.stored),
            self.problem or other.problem,
            self.failed or other.failed,
            self.running or other.running,
        )


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
    streamed: float = 0.0
    """Seconds of stream that earlier processes made."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """What hosts have set of identities in its room, if that is elsewhere."""
    include: tuple[str, ...] | None = None
    """The only identities that are mixed of that; None if all are."""
    exclude: tuple[str, ...] = ()
    denoise: bool = False
    """Whether noise is taken off speakers."""
    leveler: bool = False
    """Whether speakers are brought to one loudness."""
    loudness: float | None = None
    """The target to which the mix is brought, in LUFS."""
    recordings: tuple[RecordingOrder, ...] = ()

    def recorded(self, order: RecordingOrder) -> "Job":
        """The same, with one more of its recordings."""
        return replace(self, recordings=(*self.without(order.sid).recordings, order))

    def without(self, recording: str) -> "Job":
        """The same, less one of its recordings."""
        return replace(self, recordings=tuple(order for order in self.recordings if order.sid != recording))


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
    loudness: Loudness | None = None
    """How loud it is, if that is measured."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a process has to do, and how it gets on; what is counted is counted from its beginning."""

    rooms: int = 0
    """Of ours."""
    jobs: int = 0
    streams: int = 0
    listeners: int = 0
    readers: int = 0
    """Of server-sent events."""
    ticks: int = 0
    late: int = 0
    lateness: float = 0.0
    """Seconds."""
    busy: float = 0.0
    """Seconds of mixing."""
    packets: Mapping[str, float] = field(default_factory=dict)
    """What happened to participants' packets; `concealed` is in seconds."""
    strangers: int = 0
    left_out: int = 0
    """Frames that were not encoded, for want of time."""
    dropped: int = 0
    """Packets that slow listeners and servers lost."""
    queued: int = 0
    """Packets that wait for servers."""
    pushes: int = 0
    connected: int = 0
    """Pushes that are."""
    recordings: int = 0
    """At work."""
    spooled: int = 0
    """Bytes of recordings that are not stored yet."""


@dataclass(frozen=True, slots=True)
class Playing:
    """A stream that is live."""

    sid: str
    room: str
    bitrate: int
    """In kbit/s."""
    seconds: int
    listeners: int


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A process that mixes."""

    name: str
    node: str
    """The address of its machine."""
    status: Literal["active", "draining", "lost"]
    addresses: list[str]
    """Where media is offered."""
    media_port: int
    process: int
    """Its ID, on its machine."""
    share: float
    """Of the time that it has for mixing, how much it needs, of late."""
    load: Load | None
    """None until it has told."""


class NoWorkerError(Exception):
    """No process has time for more."""


class AwayError(Exception):
    """A worker does not answer just now."""


class Desk(Protocol):
    """What is set and seen of participants, where they are mixed.

    A place is a room of ours, by its name, or a job whose room is elsewhere, by its SID.
    """

    async def adjust(self, place: str, settings: Mapping[str, Setting], /) -> None:
        """Sets all that is set of identities, instead of what was before.

        Raises:
            AwayError: The place is out of reach; what is there later will know.
        """

    async def vitals(self, place: str, /) -> Mapping[str, Vitals]:
        """How participants get on, by identity; of nobody, if the place is out of reach."""

    async def loudness(self, place: str, /) -> Loudness | None:
        """How loud its mix is, measured from when this is asked first; None, if the place is out of reach."""

    async def remove(self, place: str, identity: str, /) -> None:
        """Has a participant leave the room.

        Raises:
            AwayError: The place is out of reach.
            RemovalError: It cannot.
        """


class Hosted(Desk, Protocol):
    """Rooms of ours, by their names, wherever they are."""

    def present(self) -> Mapping[str, Mapping[str, str]]:
        """The rooms, and the participants' identities in each, by the resources that they joined as."""

    def identities(self, name: str) -> list[str]:
        """The participants of a room."""

    async def play(self, name: str, order: SourceOrder, resource: str) -> SourceState:
        """Plays something in a room, as a participant that joins as `resource`.

        Raises:
            RoomError: Nobody is in the room.
            SourceError: It cannot be played.
            ValueError: Something of the order is wrong.
        """

    async def sources(self, name: str) -> Mapping[str, SourceState]:
        """What is being played in a room, and was last, by the resource that it joined as."""

    async def steer(
        self,
        name: str,
        resource: str,
        *,
        paused: bool | None = None,
        gain_db: float | None = None,
        position: float | None = None,
    ) -> None:
        """Does something with what is being played.

        Raises:
            SourceError: It cannot be opened at that position.
        """

    async def end(self, name: str) -> None:
        """Ends a room, if there is one."""

    async def leave(self, resource: str) -> bool:
        """Has a participant leave that joined as `resource`; False if there is none."""


class Engine(Desk, Protocol):
    """Runs jobs, and has the rooms of ours."""

    outlives: bool
    """Whether its jobs and rooms go on when the service has stopped."""
    on_room_event: OnRoomEvent
    on_lost: Callable[[str], None]
    """Is told of the SID of a job that nobody works at any more, though it has not been ended."""

    @property
    def rooms(self) -> Hosted:
        """The rooms of ours."""

    async def open(self) -> None:
        """Finds what is at work already."""

    def begin(self) -> None:
        """Begins to tell what happens."""

    async def close(self) -> None:
        """Nothing more is asked of it."""

    def working(self) -> Mapping[str, Job]:
        """Jobs that were found at work."""

    def whoever(self, sid: str) -> list[str]:
        """Who is in the room elsewhere of a job that was found at work."""

    def check(self) -> None:
        """Sees that there is a place for another job.

        Raises:
            NoWorkerError: There is none.
        """

    async def start(self, job: Job) -> None:
        """Starts a job; its first frame has been mixed then.

        Raises:
            Exception: It cannot be started; nothing is left of it then.
        """

    async def drop(self, sid: str, output: str) -> None:
        """Ends one output of a job."""

    async def stop(self, sid: str, *, to_resume: bool = False) -> None:
        """Ends a job and its outputs; players are not told of an end if it is to be resumed."""

    async def record(self, sid: str, order: RecordingOrder) -> None:
        """Begins to record a job's mix.

        Raises:
            LookupError: The job is not at work.
            OutputError: It cannot be recorded.
            AwayError: Its worker does not answer.
        """

    async def finish(self, sid: str, recording: str) -> None:
        """Ends a recording of a job."""

    def recordings(self) -> Mapping[str, RecordingState] | None:
        """All recordings that anything is left of here, by their SIDs; None while that is not known."""

    async def acknowledge(self, keys: Collection[str]) -> None:
        """It is known that these are stored."""

    async def reserve(self, limits: Mapping[str, int]) -> None:
        """Lets jobs give sequence numbers below these limits, and none from there on."""

    def leave_room(self, sid: str) -> None:
        """Has a job leave its room for good; its stream goes on with silence."""

    def progress(self) -> Mapping[str, Progress]:
        """How far each job is, of those that are known just now."""

    def has(self, stream: str) -> bool:
        """Whether a stream is live."""

    async def until_changed(self) -> None:
        """Waits until a stream may have come or gone."""

    def streams(self) -> list[Playing]:
        """The streams that are live."""

    async def insert(self, stream: str, text: str) -> None:
        """Inserts a payload of the application's own into a stream, now.

        Raises:
            ValueError: It is empty or longer than 1 KiB.
            LookupError: There is no such stream.
        """

    def payloads(self, stream: str) -> AsyncIterator[str]:
        """Every payload of a stream from now on, as long as it is live."""

    def workers(self) -> list[WorkerState]:
        """The processes that mix."""
