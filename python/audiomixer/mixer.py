"""`AudioMixer`: joins a room, encodes its mix once per encoding, feeds outputs, and tells who is how loud."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from audiomixer.audio.encoders import Encoders
from audiomixer.audio.encoding import BITRATES, EncodedPacket, Encoding
from audiomixer.audio.loudness import LOUDEST_TARGET, QUIETEST_TARGET, Loudness, measure
from audiomixer.audio.metadata import TimedMetadata
from audiomixer.audio.taps import SAMPLE_RATES, MixFrame, ParticipantFrame, Taps, participant_frames
from audiomixer.clock.broadcast import Broadcast
from audiomixer.clock.frame import FRAME, FRAME_SIZE, SAMPLE_RATE
from audiomixer.clock.tasks import blocking, spawn
from audiomixer.outputs.base import NamedOutput, Output, OutputEvent, SoloOutput, explain, redacted
from audiomixer.outputs.opening import open_output
from audiomixer.outputs.push import PushOutput
from audiomixer.outputs.tracks import TrackRecorder
from audiomixer.rooms.base import Room, RoomEvent
from audiomixer.rooms.local import LocalRooms
from audiomixer.rooms.opening import room_maker
from audiomixer.rooms.place import Place
from audiomixer.rooms.publication import Publication
from audiomixer.rooms.source import Source, SourceOrder
from audiomixer.rooms.strip import Setting, Strip, set_all
from audiomixer.webrtc.ice import Ice

IDENTITY: Final = "audio-mixer-v2"
_PAYLOADS: Final = 120
"""A minute of payloads may wait for a reader."""

_EVENTS: Final = 100
"""So many events may wait for a reader."""

_FADING: Final = 0.1
"""Seconds until a mixer that leaves its room has faded out for certain."""

_ROOM_EVENTS: Final = 1000

_SILENCE: Final = np.zeros((1, 1), np.float32)
"""What makes every frame silent."""

_log = logging.getLogger(__name__)


class AudioMixer:
    """Mixes one room, from entering the `async with` block until leaving it.

    The stream keeps wall-clock time whatever happens in the room: nobody there, everybody muted, the room gone.

    Args:
        room: A room, or the URL of one: `local:NAME`, `livekit+ws(s)://HOST/ROOM?token=…` (or `api_key` and
            `api_secret`), `janus+ws(s)://HOST/ROOM` (`pin`, `token`, `admin_key`, `api_secret`).
        outputs: Outputs, or paths and URLs of such: `*.m4a|.mp3|.ogg|.wav|.mka`, `*.jsonl|.vtt` for the metadata, a
            directory ending in `/` for HLS, `rtmp(s)://`, `srt://`, `icecast://`, `whip+http(s)://`.
        audio_bitrate: 128 or 192, in kbit/s.
        identity: The mixer's own identity, in rooms that show their mixers; Janus does, and LiveKit if it publishes.
        leveler: Brings speakers to one loudness: `Mixer.leveler` of the room, for all who mix it.
        max_speakers: Mixes at most so many at once: `Mixer.max_speakers`, likewise. None leaves it as it is.
        denoise: Takes noise off speakers: `Mixer.denoise`, likewise.
        loudness: The target, in LUFS, to which the mix is brought: `Mixer.measure_loudness`, likewise. None leaves it.
        tracks: A directory for recordings of each participant alone, all on the stream's own timeline.
        rotate: Seconds after which recordings of the mix begin a new file.
        publish: Publishes the mix in its room of LiveKit, as a track, and the payloads as data packets.
        create: Makes the room if it is elsewhere, and not there.
        include: The only identities that are mixed, of a room elsewhere; all, if None.
        exclude: Identities that are not.
        patient: Whether a server elsewhere may be out of reach to begin with; it is tried until it is there.
        rooms: Where `local:` rooms are; a server's, so that participants can join them.
        ice: Where media is received from rooms elsewhere: at every address of this machine, if None.
        first_sequence: Sequence number of the first payload, for a stream that goes on where another process stopped.

    Raises:
        ValueError: The bitrate, the number of speakers, an output or the room is none; the message begins with its
            name.
    """

    def __init__(
        self,
        room: str | Place | Room,
        *,
        outputs: Iterable[str | os.PathLike[str] | Output] = (),
        audio_bitrate: int = 128,
        identity: str = IDENTITY,
        leveler: bool = False,
        max_speakers: int | None = None,
        denoise: bool = False,
        loudness: float | None = None,
        tracks: str | None = None,
        rotate: float | None = None,
        publish: bool = False,
        create: bool = True,
        include: Collection[str] | None = None,
        exclude: Collection[str] = (),
        patient: bool = False,
        rooms: LocalRooms | None = None,
        ice: Ice | None = None,
        first_sequence: int = 0,
    ) -> None:
        if audio_bitrate not in BITRATES:
            raise ValueError(f"audio_bitrate: expected one of {BITRATES}, got {audio_bitrate!r}")
        if max_speakers is not None and max_speakers < 1:
            raise ValueError(f"max_speakers: expected at least 1, or None for no limit, got {max_speakers!r}")
        if loudness is not None and not QUIETEST_TARGET <= loudness <= LOUDEST_TARGET:
            limits = f"{QUIETEST_TARGET:.0f} to {LOUDEST_TARGET:.0f} LUFS"
            raise ValueError(f"loudness: expected {limits}, or None to leave it, got {loudness!r}")
        if isinstance(outputs, str):
            raise ValueError(f"outputs: expected a list of them, got {redacted(outputs)!r}")
        self._leveler = leveler
        self._max_speakers = max_speakers
        self._denoise = denoise
        self._target = loudness
        self.audio_bitrate = audio_bitrate
        self.identity = identity
        self.outputs: list[Output] = [
            open_output(_target(output), audio_bitrate, rotate=rotate)
            if isinstance(output, str | os.PathLike)
            else output
            for output in outputs
        ]
        if rotate is not None and rotate < 1:
            raise ValueError(f"rotate: expected at least 1 s, or None for one file, got {rotate!r}")
        seen = set()
        for output in self.outputs:
            if isinstance(output, NamedOutput):
                if _place(output) in seen:
                    raise ValueError(f"outputs: {redacted(output.target)!r} is given more than once")
                seen.add(_place(output))
        publication = Publication(audio_bitrate) if publish else None
        if publication:
            self.outputs.append(publication)
        self._room = None if isinstance(room, str | Place) else room
        if isinstance(room, str | Place):
            self._make_room = room_maker(
                Place.parse(room) if isinstance(room, str) else room,
                identity,
                rooms=rooms,
                ice=ice,
                create=create,
                patient=patient,
                publication=publication,
                is_wanted=_choice(include, exclude),
            )
        elif include is not None or exclude:
            raise ValueError("include, exclude: expected the URL of a room elsewhere")
        elif publish:
            raise ValueError("publish: expected the URL of a room of LiveKit")
        self._encoders = Encoders(self._wanted, self._write, self._fail)
        self._payloads: Broadcast[TimedMetadata] = Broadcast(_PAYLOADS)
        self._events: Broadcast[OutputEvent] = Broadcast(_EVENTS)
        self._room_events: Broadcast[RoomEvent] = Broadcast(_ROOM_EVENTS)
        self._taps = Taps()
        self._tracks = TrackRecorder(tracks) if tracks else None
        self._solo_outputs: dict[SoloOutput, int] = {}
        """And the stream's frame from which on each has them."""
        self._started: list[Output] = []
        self._working = list(self.outputs)
        self._forgetting = threading.Lock()
        self._has_started = False
        self._running = False
        self._settings: Mapping[str, Setting] = {}
        self._frames = 0
        self._sequence = first_sequence
        self.sequence_limit: int | None = None
        """No payload gets this sequence number or a later one; those that would are left out."""
        self._fade: NDArray[np.float32] | None = None
        """What the mix is multiplied with, once the mixer has left the room."""

    def __repr__(self) -> str:
        where = self._room.name if self._room else "not started"
        return (
            f"<AudioMixer of {where!r}, {self.time:.1f} s, outputs: {', '.join(map(_name_of, self.outputs)) or 'none'}>"
        )

    @property
    def room(self) -> Room:
        """The room that is mixed, once started."""
        if self._room is None:
            raise RuntimeError("the mixer has not started")
        return self._room

    def participant(self, identity: str) -> Strip:
        """What a host may set of a participant, whether or not it is there: `gain`, `mute()`, `in_mix`, `remove()`.

        Raises:
            RuntimeError: The mixer has not started.
            ValueError: The identity is none.
        """
        return Strip(self.room, identity)

    def adjust(self, settings: Mapping[str, Setting]) -> None:
        """Sets all that is set of participants, instead of what was before; before the start as well."""
        before, self._settings = self._settings, settings
        if self._room:
            set_all(self._room, settings, before)

    async def play(
        self,
        url: str | os.PathLike[str],
        *,
        identity: str = "",
        gain_db: float = 0.0,
        duck_db: float = 0.0,
        loop: bool = False,
    ) -> Source:
        """Plays a file or a stream into the mix, as a participant; it is heard as soon as this returns.

        In a room of ours everybody there hears it as well.

        Args:
            url: A path, or a URL of any protocol that FFmpeg has.
            identity: Whose it is, in the metadata; as the file is called, if empty.
            gain_db: How much louder it is, -60 to 12.
            duck_db: By how much it goes down while somebody speaks, -60 to 0.
            loop: Whether it begins again when it ends, without a gap.

        Raises:
            RoomError: The room has ended.
            SourceError: It cannot be played.
            ValueError: A number is none, or the identity is, or is there already.
            RuntimeError: The mixer has not started.
        """
        return await self.room.play(SourceOrder(_target(url), identity, gain_db, duck_db, loop))

    @property
    def time(self) -> float:
        """Seconds of the stream so far."""
        return self._frames * FRAME_SIZE / SAMPLE_RATE

    @property
    def loudness(self) -> Loudness:
        """How loud the mix is; measured from when this is asked for first, or from the start if there is a target.

        Raises:
            RuntimeError: The mixer has not started.
        """
        return measure(self.room.bus.mixer)

    @property
    def left_out(self) -> int:
        """Frames that are silent in outputs, as the processor was too slow to encode them."""
        return self._encoders.left_out

    @property
    def next_sequence(self) -> int:
        """Sequence number of the next payload."""
        return self._sequence

    @property
    def working(self) -> list[Output]:
        """The outputs that have not failed."""
        return list(self._working)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Opens the outputs and joins the room.

        Raises:
            OutputError: An output cannot be opened. Nothing is left running then.
            RoomError: The room cannot be joined. Nothing is left running then.
            RuntimeError: It has been started before.
        """
        if self._has_started:
            raise RuntimeError("a mixer is started once: make another one")
        self._has_started = True
        self._loop = asyncio.get_running_loop()
        if self._room is None:
            self._room = self._make_room()
        set_all(self._room, self._settings, {})
        self._forwarding = spawn(self._forward(self._room.events.subscribe()))
        try:
            await self._room.attach()
        except BaseException:
            self._close_broadcasts()
            raise
        try:
            if self._tracks:
                await blocking(self._tracks.start)
                self._solo_outputs = {self._tracks: 0}
            for output in self.outputs:
                self._introduce(output)
                await output.start()
                self._started.append(output)
        except BaseException:
            await self._leave()
            raise
        if self._leveler:
            self._room.bus.mixer.leveler = True
        if self._denoise:
            self._room.bus.mixer.denoise = True
        if self._target is not None:
            self._room.bus.mixer.measure_loudness(self._target)
        if self._max_speakers is not None:
            self._room.bus.mixer.max_speakers = self._max_speakers
        self._began = datetime.now(UTC)
        for output in self.outputs:
            output.begin(self._began)
        await blocking(self._room.bus.add, self)
        self._running = True

    async def stop(self) -> None:
        """Leaves the room and finishes the outputs: everything mixed so far is in them. Once is enough."""
        if not self._running:
            return
        self._running = False
        try:
            await blocking(self.room.bus.remove, self)
            await blocking(self._encoders.flush)
        finally:
            await self._leave()

    def _introduce(self, output: Output) -> None:
        """Tells an output what it is to know of the mixer."""
        if isinstance(output, NamedOutput):
            output.on_event = self._tell
        if isinstance(output, PushOutput):
            output.title = self.room.name

    def _tell(self, event: OutputEvent) -> None:
        """Called by outputs, in any thread."""
        with contextlib.suppress(RuntimeError):  # The event loop has ended.
            self._loop.call_soon_threadsafe(self._events.publish, event)

    def leave_room(self) -> None:
        """Leaves the room for good; the stream goes on, with silence and nobody in the metadata."""
        if self._fade is None:
            self._fade = np.linspace(1, 0, FRAME_SIZE, dtype=np.float32)[:, None]
            spawn(self._quit())

    async def _quit(self) -> None:
        """Leaves the room, once the next frames have faded out."""
        await asyncio.sleep(_FADING)
        await self.room.quit()

    async def add(self, output: str | os.PathLike[str] | Output) -> Output:
        """Adds an output while it runs, which gets the mix from now on.

        Args:
            output: One, or the path or URL of one.

        Raises:
            ValueError: It is none, or what it names is written already.
            OutputError: It cannot be opened.
            RuntimeError: The mixer is not running.
        """
        if not self._running:
            raise RuntimeError("the mixer is not running")
        named = isinstance(output, str | os.PathLike)
        added = open_output(_target(output), self.audio_bitrate) if named else cast("Output", output)
        if isinstance(added, NamedOutput):
            others = [output for output in self.outputs if isinstance(output, NamedOutput)]
            if _place(added) in map(_place, others):
                raise ValueError(f"output: {redacted(added.target)!r} is there already")
        self.outputs.append(added)
        self._introduce(added)
        try:
            await added.start()
        except BaseException:
            self.outputs.remove(added)
            raise
        if not self._running:
            await added.stop()
            raise RuntimeError("the mixer is not running any more")
        self._started.append(added)
        added.begin(self._began)

        def begin() -> None:
            with self._forgetting:
                self._working = [*self._working, added]

        await blocking(self.room.bus.between_frames, begin)
        return added

    async def drop(self, output: Output) -> None:
        """Ends one of the outputs; the others go on.

        In it is what has been mixed so far, less what its encoder looks ahead (60 ms at most).
        """
        forgotten = asyncio.Event()

        def forget() -> None:
            self._forget(output)
            self._loop.call_soon_threadsafe(forgotten.set)

        await blocking(self.room.bus.between_frames, lambda: self._encoders.then(forget))
        await forgotten.wait()
        if output in self.outputs:
            self.outputs.remove(output)
        if output in self._started:
            self._started.remove(output)
            await output.stop()

    async def add_solos(self, output: SoloOutput) -> None:
        """Has an output take each participant alone, from now on.

        Raises:
            OutputError: It cannot be opened.
            RuntimeError: The mixer is not running.
        """
        if not self._running:
            raise RuntimeError("the mixer is not running")
        await blocking(output.start)

        def begin() -> None:
            self._solo_outputs = {**self._solo_outputs, output: self._frames}

        await blocking(self.room.bus.between_frames, begin)

    async def drop_solos(self, output: SoloOutput) -> None:
        """Ends one of these; the others go on."""

        def forget() -> None:
            self._solo_outputs = {other: first for other, first in self._solo_outputs.items() if other is not output}

        if output in self._solo_outputs:
            await blocking(self.room.bus.between_frames, forget)
            await blocking(output.stop)

    def _forget(self, output: Output) -> None:
        with self._forgetting:
            self._working = [other for other in self._working if other is not output]

    async def _leave(self) -> None:
        try:
            await self._stop_outputs()
            for solos in list(self._solo_outputs):
                await blocking(solos.stop)
        finally:
            self._close_broadcasts()
            await self.room.detach()

    def _close_broadcasts(self) -> None:
        self._forwarding.cancel()
        for broadcast in (self._payloads, self._events, self._room_events, self._taps):
            broadcast.close()

    async def _stop_outputs(self) -> None:
        started, self._started = self._started, []
        problems = await asyncio.gather(*(output.stop() for output in started), return_exceptions=True)
        for output, problem in zip(started, problems, strict=True):
            if problem:
                _log.error("%r did not stop in order: %r", output, problem)

    def timed_metadata(self) -> AsyncIterator[TimedMetadata]:
        """The payloads from now on, every 500 ms. A reader that falls a minute behind loses the oldest."""
        return self._payloads.subscribe()

    def output_events(self) -> AsyncIterator[OutputEvent]:
        """What becomes of outputs that were named by paths and URLs, from now on: lost, connected again, failed."""
        return self._events.subscribe()

    def room_events(self) -> AsyncIterator[RoomEvent]:
        """What happens in the room, from now on: who comes and goes, whether it is lost or has ended."""
        return self._room_events.subscribe()

    async def _forward(self, events: AsyncIterator[RoomEvent]) -> None:
        async for event in events:
            self._room_events.publish(event)

    def frames(self) -> AsyncIterator[MixFrame]:
        """The mix from now on, 20 ms at a time. A reader that falls five seconds behind loses the oldest."""
        return self._taps.mix.subscribe()

    def participant_frames(self, sample_rate: int = 48_000) -> AsyncIterator[ParticipantFrame]:
        """Each participant alone, from now on: for each 20 ms one frame of everybody.

        Who is not heard, being muted or silent, has frames of zeros. A reader that falls five seconds behind loses the
        oldest.

        Args:
            sample_rate: 48000, or 16000 as speech recognition wants it.

        Raises:
            ValueError: It is another.
        """
        if sample_rate not in SAMPLE_RATES:
            raise ValueError(f"sample_rate: expected one of {SAMPLE_RATES}, got {sample_rate!r}")
        return participant_frames(self._taps.solos.subscribe(), sample_rate)

    @property
    def patient(self) -> bool:
        """Whether nobody needs each frame at once."""
        taken = self._solo_outputs or self._taps.mix.wanted or self._taps.solos.wanted
        return not taken and self._encoders.patient

    def on_frames(self, samples: NDArray[np.float32]) -> None:
        """Encodes frames once for each encoding that an output wants; called by the bus."""
        if self._fade is not None:
            samples, mixed = np.zeros_like(samples), samples
            samples[: len(self._fade)] = mixed[: len(self._fade)] * self._fade
            self._fade = _SILENCE
        self._encoders.encode(samples)
        self._tap(samples)
        self._frames += len(samples) // FRAME_SIZE

    def _tap(self, samples: NDArray[np.float32]) -> None:
        """Hands frames to whoever wants the audio itself; of participants alone, the last."""
        if self._taps.mix.wanted:
            for n, start in enumerate(range(0, len(samples), FRAME_SIZE)):
                frame = MixFrame(self.time + n * FRAME, samples[start : start + FRAME_SIZE].copy())
                frame.samples.flags.writeable = False
                self._loop.call_soon_threadsafe(self._taps.mix.publish, frame)
        if (self._solo_outputs or self._taps.solos.wanted) and self._fade is None:
            last = len(samples) // FRAME_SIZE - 1
            solos = self.room.bus.mixer.solos()
            for solo in solos.values():
                # All who read share it.
                solo.flags.writeable = False
            for output, first in self._solo_outputs.items():
                output.write(self._frames + last - first, solos)
            if self._taps.solos.wanted:
                self._loop.call_soon_threadsafe(self._taps.solos.publish, (self.time + last * FRAME, solos))

    def _wanted(self) -> list[Encoding]:
        return [output.encoding for output in self._working if output.active]

    def on_volumes(self, volumes: Mapping[str, int]) -> None:
        """Makes a payload; called by the bus."""
        if self.sequence_limit is not None and self._sequence >= self.sequence_limit:
            return
        payload = TimedMetadata.of(self._sequence, self._heard(volumes), self.time)
        self._sequence += 1
        text = payload.to_json()
        for output in self._working:
            self._hand(output, lambda output: output.write_metadata(text, payload.time))
        self._loop.call_soon_threadsafe(self._payloads.publish, payload)

    def _heard(self, volumes: Mapping[str, int]) -> Mapping[str, int]:
        """The volumes as the stream has them."""
        if self._fade is not None:
            return {}
        aside = self.room.bus.mixer.aside
        return {identity: -1 if identity in aside else volume for identity, volume in volumes.items()}

    def _write(self, encoding: Encoding, packets: list[EncodedPacket]) -> None:
        for output in self._working:
            if output.encoding == encoding and packets:
                self._hand(output, lambda output: output.write(packets))

    def _fail(self, encoding: Encoding, error: Exception) -> None:
        for output in self._working:
            if output.encoding == encoding:
                self._forget(output)
                if isinstance(output, NamedOutput):
                    output.error = explain(error)
                    self._tell(OutputEvent(output.name, "failed", output.error))

    def _hand(self, output: Output, give: Callable[[Output], None]) -> None:
        """Gives something to an output; one that fails gets nothing more, and the others all the same."""
        try:
            give(output)
        except Exception:
            _log.exception("%r failed and gets nothing more", output)
            self._forget(output)


def _choice(include: Collection[str] | None, exclude: Collection[str]) -> Callable[[str], bool] | None:
    """Which identities are mixed; None if all are."""
    for name, identities in (("include", include), ("exclude", exclude)):
        if isinstance(identities, str):
            raise ValueError(f"{name}: expected a list of identities, got {identities!r}")
    if include is None and not exclude:
        return None
    return lambda identity: (include is None or identity in include) and identity not in exclude


def _target(output: object) -> str:
    """A path or URL as text; a path's slash at its end, which means HLS, would be lost by `Path`."""
    return os.fspath(cast("str | os.PathLike[str]", output))


def _place(output: NamedOutput) -> str:
    """What no two outputs may write."""
    return output.target if "://" in output.target else os.path.realpath(output.target)


def _name_of(output: Output) -> str:
    return output.name if isinstance(output, NamedOutput) else type(output).__name__
