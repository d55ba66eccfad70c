"""The Rust core: receives, mixes, limits and meters audio, 20 ms at a time. No clock, no threads.

`Mixer` and what belongs to it know no network; `Hub`, `Outlet` and what belongs to them read and send datagrams.

Times are seconds on any monotonic scale, the same for arrivals and mixes.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Distributor",
    "Endpoint",
    "Fader",
    "Fanout",
    "Hub",
    "Inlet",
    "Meter",
    "Mixer",
    "Outlet",
    "Participant",
    "Path",
    "Report",
    "Session",
    "Stats",
    "mix_rooms",
]

_Samples = NDArray[np.float32] | NDArray[np.int16]

@final
class Mixer:
    """Mixes participants into frames of 20 ms.

    Usable from several threads. The GIL is released while it mixes; who pushes meanwhile waits, at most, until that
    one participant's 20 ms are decoded, or concealed, which takes longest: up to a millisecond.

    Args:
        sample_rate: 8000, 12000, 16000, 24000 or 48000 Hz.
        channels: 1 or 2.
        min_delay: RTP is played out at least so many seconds late; two packets, for FEC to repair a loss.
        max_delay: and at most so many seconds, whatever the network does; up to 2.
        leveler: Brings speakers to one loudness, see the property.
        max_speakers: Mixes at most so many at once, see the property.

    Raises:
        ValueError: An argument is out of range; the message begins with its name.
    """

    def __new__(
        cls,
        sample_rate: int = 48_000,
        channels: int = 2,
        *,
        min_delay: float = 0.04,
        max_delay: float = 0.4,
        leveler: bool = False,
        max_speakers: int | None = None,
    ) -> Mixer: ...
    leveler: bool
    """Whether each speaker is brought to −20 LUFS (ITU-R BS.1770-5, gated), within ±12 dB and slowly: up by 3 dB a
    second at most, down by 6 dB. Adds no delay. Volumes stay those of the source."""
    denoise: bool
    """Whether noise is taken off everybody (RNNoise), which makes them 10 ms later; a ValueError but at 48 kHz. Volumes
    stay those of the source; the leveller, ducking and `max_speakers` go by what is heard."""
    @property
    def loudness(self) -> tuple[float, float, float, float, float] | None:
        """How loud the mix is, in LUFS (ITU-R BS.1770-5, EBU R 128), since `measure_loudness`, told twice a second.

        None before. A mono mix is measured as it is heard, on both sides.

        Of the last 400 ms, of the last 3 s, and of everything, gated; -inf is silence. Then the gain, in
        decibels, at which it is now, and by how many decibels the limiter turned it down at most, 0 or less.
        """
    def measure_loudness(self, target: float | None = None) -> None:
        """Measures the loudness of the mix from now on, and brings it to a target.

        The gain that does so, within ±24 dB, moves by 6 dB a second while the programme is new, or far too loud, and by
        0.5 else; in pauses, and at what is below -55 LUFS by itself, it stays. It is before the limiter, and adds no
        delay. `mix_minus` has it as well; volumes and solos do not.

        Args:
            target: -40 to -12 LUFS, -16 say; None to measure only.

        Raises:
            ValueError: It is none.
        """
    max_speakers: int | None
    """How many participants are mixed at once; None is all, less than 1 a ValueError.

    The loudest win, and lose to others who are louder by 6 dB. Who is not mixed fades out, is metered all the same, and
    costs no decoding if the packets tell their audio level. Adds no delay.
    """
    @property
    def sample_rate(self) -> int:
        """Samples per second and channel."""
    @property
    def channels(self) -> int:
        """Channels of the mix."""
    @property
    def frame_size(self) -> int:
        """Samples per channel in a frame: 960 at 48 kHz."""
    @property
    def latency(self) -> float:
        """Seconds by which the look-ahead limiter delays the mix."""
    @property
    def kernel(self) -> str:
        """The instruction set in use: `avx512`, `avx2` or `baseline`."""
    @property
    def identities(self) -> list[str]:
        """Who is in the mixer, in the order they were added."""
    @property
    def cost(self) -> float:
        """Seconds that a mix of it has taken of late, as one of several rooms (`mix_rooms`)."""
    def _break_down(self) -> None:
        """The next mix panics: to see what becomes of all else."""
    def add_participant(self, identity: str) -> Participant:
        """Adds a participant, who counts as muted until audio comes.

        Raises:
            ValueError: The identity is empty, longer than 256 bytes of UTF-8, or in use.
        """
    def add_track(self, identity: str) -> Participant:
        """Adds one more source of a participant, who has one volume, and one solo, for all of them.

        Raises:
            ValueError: There is no such participant.
        """
    def remove_track(self, track: Participant) -> None:
        """Removes one source of a participant, who may have others; it fades out in the next frame.

        Raises:
            ValueError: It is not in this mixer.
        """
    def remove_participant(self, identity: str) -> None:
        """Removes a participant with all tracks, who fades out in the next frame.

        Raises:
            ValueError: There is no such participant.
        """
    def mix(self, now: float) -> NDArray[np.float32]:
        """Mixes the 20 ms that end at `now`.

        Returns:
            float32 of shape `(frame_size, channels)`, peak-limited to −1 dBTP.

        Raises:
            ValueError: `now` is not a finite time.
        """
    def mix_into(self, out: _Samples, now: float) -> None:
        """The same, into `out`: writeable C-contiguous float32 or int16 of shape `(frame_size, channels)`.

        Raises:
            ValueError: `out` is none such, or `now` is not a finite time.
        """
    def mix_minus(self, participant: Participant | None = None, out: _Samples | None = None) -> NDArray[Any]:
        """What is heard in the room of the last mix: everybody, also who is not in the mix (`Fader.in_mix`), but one.

        It goes through a limiter of the participant's own, which goes on from the mix's where it has not been asked for
        the mix before. Calling it again before the next mix gives the same.

        Args:
            participant: Who hears it, of this mixer; somebody else, if None.
            out: As for `mix_into`; a new float32 array if absent.

        Returns:
            `out`, or the new array.

        Raises:
            ValueError: The participant is not in this mixer, or `out` does not fit.
        """
    def solos(self) -> dict[str, NDArray[np.float32]]:
        """What each participant is in the last mix, by identity: new float32 arrays of shape `(frame_size,)`.

        With its gain and fades, mixed down to one channel, before the limiter; zeros while it is not heard.
        """
    def volumes(self) -> dict[str, int]:
        """The volume of each participant since the last call.

        Returns:
            Identity to RMS × 32767, 0 … 32767 (a full-scale sine is 23170), after `Fader.gain` and ducking, or -1
            while muted.
        """
    def fader(self, identity: str) -> Fader:
        """What a host may set of whoever is called `identity`, now or later, as long as there is this mixer.

        Raises:
            ValueError: The identity is none, or there are settings of 4096 that are not here.
        """
    @property
    def has_aside(self) -> bool:
        """Whether the room has heard anything else than the mix, now or in the last two seconds."""
    @property
    def aside(self) -> list[str]:
        """The identities of those who are here, and not in the mix (`Fader.in_mix`)."""
    @property
    def muted(self) -> list[str]:
        """The identities of those who are muted, as far as that is their own doing."""

@final
class Fader:
    """A host's settings of one identity, in however many tracks: they stay when it leaves, and may come first.

    A change takes effect within 20 ms, without a click.
    """

    @property
    def gain(self) -> float:
        """Gain in the mix and in the volumes, 0 to 4, 1 at first; beside `Participant.gain`."""
    @gain.setter
    def gain(self, gain: float) -> None: ...
    @property
    def muted(self) -> bool:
        """Whether it is muted by the host: nobody hears it, and it is not decoded."""
    @muted.setter
    def muted(self, muted: bool) -> None: ...
    @property
    def in_mix(self) -> bool:
        """Whether it is in the mix; if not, it is in `mix_minus` of all others, and takes no speaker's place."""
    @in_mix.setter
    def in_mix(self, in_mix: bool) -> None: ...
    @property
    def denoise(self) -> bool:
        """Whether noise is taken off it, as by `Mixer.denoise`; at other rates than 48 kHz, it is not."""
    @denoise.setter
    def denoise(self, denoise: bool) -> None: ...

@final
class Participant:
    """One participant of a `Mixer`, made by `Mixer.add_participant`: fed with RTP or with samples, not both."""

    @property
    def identity(self) -> str:
        """As given to `Mixer.add_participant`."""
    def push_rtp(
        self,
        sequence_number: int,
        timestamp: int,
        payload: bytes,
        arrival: float,
        audio_level: int | None = None,
    ) -> None:
        """Takes in one RTP packet.

        Packets may be late, lost, duplicated, reordered or garbage: it is counted in `stats`, and heard as little
        as possible.

        Args:
            sequence_number: 16 bits; wraps around.
            timestamp: 32 bits, 1/48000 s; wraps around.
            payload: Opus of 2.5 to 120 ms, mono or stereo.
            arrival: When it came, in seconds.
            audio_level: RFC 6464 level in −dBov, 0 to 127, if the sender gave one.

        Raises:
            ValueError: A number is out of range, the participant has left, or it sends samples.
        """
    def push_pcm(self, samples: _Samples, sample_rate: int | None = None) -> None:
        """Takes in samples. One second may wait; then the oldest are dropped and counted.

        At another rate than the mixer's they are resampled, 10 ms at a time, by FFT (rubato): 15 ms later or so.

        Args:
            samples: C-contiguous float32 (full scale ±1) or int16, of shape `(n,)`, `(n, 1)` or `(n, 2)`.
            sample_rate: 8000 to 192000 Hz, in steps of 25; the mixer's, if None.

        Raises:
            ValueError: Wrong type or shape, no such rate, values that are not finite or beyond ±64, or the
                participant has left or sends RTP.
        """
    @property
    def gain(self) -> float:
        """Gain in the mix, 0 to 4, 1 at first. A change takes effect within 20 ms, without a click."""
    @gain.setter
    def gain(self, gain: float) -> None: ...
    @property
    def duck(self) -> float:
        """Decibels, -60 to 0, by which it goes down while somebody speaks (-45 dBFS or more) who does not do so.

        It goes down within 200 ms, stays for half a second after the last speech, and is back within a second.
        """
    @duck.setter
    def duck(self, decibels: float) -> None: ...
    @property
    def muted(self) -> bool | None:
        """What signalling says: muted, not muted, or None (unknown: it is detected from the audio)."""
    @muted.setter
    def muted(self, muted: bool | None) -> None: ...
    @property
    def audible(self) -> bool:
        """Whether it is in the last mix or in one of the last two seconds; else `Mixer.mix_minus` is the mix."""
    def stats(self) -> Stats:
        """What happened to the participant's packets so far."""

@final
class Stats:
    """What happened to a participant's packets."""

    @property
    def received(self) -> int:
        """Packets received, without duplicates and discarded ones."""
    @property
    def lost(self) -> int:
        """Packets that have not come though newer ones have."""
    @property
    def recovered(self) -> int:
        """Lost packets repaired by in-band FEC."""
    @property
    def late(self) -> int:
        """Packets that came after their place was played."""
    @property
    def duplicate(self) -> int:
        """Packets received more than once."""
    @property
    def discarded(self) -> int:
        """Packets that were no Opus, failed to decode, or belonged to no known stream."""
    @property
    def overflow(self) -> int:
        """Packets, or samples per channel of PCM, dropped because too many were waiting."""
    @property
    def concealed(self) -> float:
        """Seconds of audio made up for missing packets."""
    @property
    def accelerated(self) -> float:
        """Seconds of audio cut to lessen the delay."""
    @property
    def expanded(self) -> float:
        """Seconds of audio repeated to raise the delay."""
    @property
    def delay(self) -> float:
        """Current playout delay in seconds, above that of the undelayed network."""
    @property
    def target_delay(self) -> float:
        """The delay aimed at, in seconds."""
    @property
    def jitter(self) -> float:
        """Interarrival jitter in seconds (RFC 3550)."""

@final
class Meter:
    """Measures a recording as a whole: loudness (EBU R 128), true peak (ITU-R BS.1770), and its outline.

    Args:
        sample_rate: 8000 to 192000 Hz.
        channels: 1 or 2. One is taken for the same in both (dual mono).

    Raises:
        ValueError: A number is none of these.
    """

    def __new__(cls, sample_rate: int = 48_000, channels: int = 2) -> Meter: ...
    def add(self, samples: NDArray[np.float32]) -> None:
        """Takes samples of shape `(n, channels)`, or `(n,)` of one channel; the GIL is released.

        Raises:
            ValueError: They are of another shape or dtype, or not C-contiguous.
        """
    @property
    def loudness(self) -> float:
        """Integrated loudness in LUFS; minus infinity, if it is silent."""
    @property
    def true_peak(self) -> float:
        """In dBTP; minus infinity, if it is silent."""
    def outline(self) -> NDArray[np.float32]:
        """Peaks, 0 to 1, of stretches that are all as long: at most 1000."""

@final
class Hub:
    """A port, UDP and TCP, that many connections share; read by a thread of its own, and before rooms are mixed.

    What comes is a connection's if it is a check for it (STUN), the response to one of its own, from an address from
    which either has come, or authentic media. All else is a stranger's, and dropped.
    """

    def __new__(cls, addresses: list[str], port: int = 0, *, tcp: bool = False) -> Hub:
        """Binds it: to an address if it is the only one of its family, otherwise to every one of this machine.

        Args:
            addresses: IPv4 and IPv6.
            port: 0 for any that is free.
            tcp: Whether to take TCP connections as well (RFC 4571, RFC 6544).

        Raises:
            OSError: It is taken.
            ValueError: An address is none.
        """
    def open(
        self,
        ufrag: str,
        password: str,
        session: Session,
        on_events: Callable[[list[tuple[bool, str, str, int, bytes | str]]], object],
    ) -> Endpoint:
        """Begins a connection.

        Args:
            ufrag: The username fragment of ours, by which checks for it are known.
            password: Ours, by which they are known to be the other side's.
            session: Takes in media, and reports on it.
            on_events: Called, in the hub's thread, with all else: for each event, whether it is by TCP, the address of
                ours, address and port of theirs, and a datagram, or `moved` if media comes from there now, or `gone` if
                nobody answers there any more. At most eight in 20 ms; what there is beyond that is dropped and counted
                (`Inlet.flooded`).

        Raises:
            ValueError: There is one with this fragment.
        """
    @property
    def port(self) -> int:
        """Its number."""
    @property
    def strangers(self) -> int:
        """Datagrams that were nobody's."""
    @property
    def buffers(self) -> tuple[int, int]:
        """Bytes that the kernel keeps at most of what comes, and of what is sent: 800 or so for a packet of audio."""

@final
class Endpoint:
    """One of a hub's connections."""

    def send(self, tcp: bool, local: str, remote: tuple[str, int], datagram: bytes) -> None:
        """Sends a datagram; if it is a request of STUN, the response will be handed on.

        Raises:
            OSError: The kernel does not take it, or the TCP connection has ended.
            ValueError: An address is none.
        """
    def path(self, tcp: bool, local: str, remote: tuple[str, int]) -> Path | None:
        """The way from an address of ours to one of theirs; None if that was a TCP connection, which has ended.

        Raises:
            ValueError: An address is none.
        """
    def settle(
        self,
        tcp: bool,
        local: str,
        remote: tuple[str, int],
        username: str,
        password: str,
        controlling: bool,
        tie_breaker: int,
    ) -> None:
        """ICE has come about: whether the other side stays there is asked for here (RFC 7675), and its checks answered.

        Args:
            tcp: Which way it goes.
            local: The address of ours.
            remote: Address and port of theirs.
            username: For checks to it: its username fragment, a colon, and ours.
            password: Its password.
            controlling: Whether we decide which way is taken.
            tie_breaker: Our number.

        Raises:
            ValueError: An address is none.
        """
    def unsettle(self) -> None:
        """It has taken a way that is not the hub's: checks are somebody else's business."""
    def silence(self, remote: tuple[str, int]) -> float:
        """Seconds for which nothing has come from there, by UDP, that only the other side can have made.

        Raises:
            ValueError: The address is none.
        """
    def close(self) -> None:
        """Ends the connection: nothing is handed on any more."""

@final
class Path:
    """The way that an `Outlet` sends by."""

@final
class Session:
    """The media of one connection, and the reports on it (RTCP, RFC 3550): the hub sends them every few seconds."""

    def __new__(cls, inlet: Inlet, outlet: Outlet) -> Session: ...
    @property
    def inlet(self) -> Inlet:
        """What takes in media."""
    def open(self, key: bytes, ssrc: int, cname: str) -> None:
        """Begins to report.

        Args:
            key: Our master key and salt, as of `Outlet.open`. Once it has begun, only the name counts.
            ssrc: Of our stream.
            cname: Our name.

        Raises:
            ValueError: The key is of another length, or the number out of range.
        """
    def report(self) -> list[bytes]:
        """If it is time to report: what is to be sent, as the outlet has no path."""
    def close(self) -> list[bytes]:
        """Tells that no more will come; likewise, what is to be sent."""

@final
class Report:
    """What a receiver report says of one stream (RFC 3550, section 6.4.1)."""

    @property
    def ssrc(self) -> int: ...
    @property
    def fraction_lost(self) -> int:
        """Since the last report, in 1/256."""
    @property
    def lost(self) -> int:
        """In all; below zero where packets were doubled."""
    @property
    def highest(self) -> int:
        """The highest sequence number, with its cycles."""
    @property
    def jitter(self) -> int:
        """In units of the timestamp."""
    @property
    def last_report(self) -> int:
        """The middle 32 bits of the time of the sender's last report; 0 if there was none."""
    @property
    def delay(self) -> int:
        """How long ago that came, in 1/65536 s."""

@final
class Inlet:
    """Decrypts what one connection receives (SRTP by AES-CM or AES-GCM), and hands it to participants."""

    def __new__(cls) -> Inlet: ...
    def agree(self, key: bytes, payload_types: list[int], level_extension: int | None = None) -> None:
        """Media can be decrypted from now on.

        Args:
            key: The other side's master key and salt: 30 bytes (AES-CM), 28 or 44 (AES-GCM).
            payload_types: Those that are Opus; all others are ignored.
            level_extension: The id of the audio level among the header extensions (RFC 6464).

        Raises:
            ValueError: The key is of another length.
        """
    def route(self, ssrc: int | None, participant: Participant | None) -> None:
        """Hands the packets of `ssrc`, or with None of all that have no route, to a participant, or to nobody."""
    def take(self, datagram: bytes, arrival: float) -> bool:
        """Takes in a datagram that came another way; False if it is no media, or comes before keys are agreed on."""
    def reports(self) -> list[Report]:
        """A block for each stream, for a receiver report that is made now."""
    @property
    def authentic(self) -> int:
        """RTP packets and checks that were authentic: whether there are more proves that the other side is there."""
    @property
    def flooded(self) -> int:
        """What came, and was dropped, as there was too much of it."""
    @property
    def refused(self) -> int:
        """Packets that were not authentic, or replays."""

def mix_rooms(rooms: Sequence[tuple[Mixer, NDArray[np.float32], float]], read: bool) -> list[tuple[int, str]]:
    """Does `Mixer.mix_into` for each of several rooms, all of it without the GIL.

    What they share, the time for costly concealment, is spent by another room first each time.

    Args:
        rooms: For each its mixer, an array for the mix as `Mixer.mix_into` wants it, and when that ends, in seconds.
        read: Whether the ports of all hubs are read first: what has come by now is in the mix. Packets count as having
            come when the kernel got them.

    Returns:
        The places of rooms whose mixing panicked, with what was said of it: they must not be mixed again.

    Raises:
        TypeError: An array is no contiguous float32 of two dimensions. Nothing has been done then.
        ValueError: An array is of another length, or a time is none; the other rooms have been mixed.
    """

@final
class Outlet:
    """Encrypts and sends packets to one connection. Usable from any thread."""

    def __new__(cls) -> Outlet: ...
    def open(
        self,
        key: bytes,
        ssrc: int,
        payload_type: int,
        sequence_number: int,
        timestamp: int,
        path: Path | None = None,
    ) -> None:
        """Begins to send.

        Args:
            key: Our master key and salt: 30 bytes (AES-CM), 28 or 44 (AES-GCM).
            ssrc: Of the stream.
            payload_type: Of Opus.
            sequence_number: Of the first packet.
            timestamp: Where timestamps begin.
            path: Where to send; without one, `send` gives back what is to be sent.

        Raises:
            ValueError: The key is of another length, or a number out of range.
        """
    def redirect(self, path: Path | None) -> None:
        """Sends by another path from now on, or gives packets back."""
    def close(self) -> None:
        """Sends nothing any more."""
    def send(self, payload: bytes, timestamp: int) -> bytes | None:
        """Sends a payload, or gives the encrypted packet where there is no path; while it is not open, it is dropped.

        Args:
            payload: Opus.
            timestamp: In 1/48000 s; its lowest 32 bits count.
        """
    @property
    def packets(self) -> int:
        """Packets sent, modulo 2³²."""
    @property
    def octets(self) -> int:
        """Bytes of payload in them, modulo 2³²."""
    @property
    def timestamp(self) -> int:
        """Timestamp as of now."""
    @property
    def dropped(self) -> int:
        """Packets that the kernel did not take, or that were dropped before."""

@final
class Distributor:
    """Sends the same packets to many outlets, in threads of its own, one for each processor.

    Half a second of packets may wait for each thread; then the newest are dropped, and counted: `Outlet.dropped`.
    """

    def __new__(cls) -> Distributor: ...
    def add(self, outlet: Outlet, on_unsent: Callable[[list[bytes]], object]) -> None:
        """Begins to send to an outlet; `on_unsent` is called, in any thread, with packets for which it has no path."""
    def remove(self, outlet: Outlet) -> None:
        """Ceases to; what waits is not sent to it any more."""
    def send(self, payload: bytes, timestamp: int) -> None:
        """Has a payload sent to all, as `Outlet.send` does."""

@final
class Fanout:
    """Sends the same packets to many outlets, without the GIL."""

    def __new__(cls) -> Fanout: ...
    def add(self, outlet: Outlet, on_unsent: Callable[[list[bytes]], object]) -> None:
        """Begins to send to an outlet; `on_unsent` is called, by who sends, with packets for which it has no path."""
    def remove(self, outlet: Outlet) -> None:
        """Ceases to."""
    def send(self, payload: bytes, timestamp: int) -> None:
        """Sends a payload to all, as `Outlet.send` does."""
