"""The Rust core: receives, mixes, limits and meters audio, 20 ms at a time. No network, no clock, no threads.

Times are seconds on any monotonic scale, the same for arrivals and mixes.
"""

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mixer", "Participant", "RtpPacket", "Stats"]

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
    def add_participant(self, identity: str) -> Participant:
        """Adds a participant, who counts as muted until audio comes.

        Raises:
            ValueError: The identity is empty, longer than 256 bytes of UTF-8, or in use.
        """
    def remove_participant(self, identity: str) -> None:
        """Removes a participant, who fades out in the next frame.

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
    def mix_minus(self, participant: Participant, out: _Samples | None = None) -> NDArray[Any]:
        """The last mix without one participant: what that participant should hear.

        It goes through a limiter of the participant's own. Calling it again before the next mix gives the same.

        Args:
            participant: Of this mixer.
            out: As for `mix_into`; a new float32 array if absent.

        Returns:
            `out`, or the new array.

        Raises:
            ValueError: The participant is not in this mixer, or `out` does not fit.
        """
    def volumes(self) -> dict[str, int]:
        """The volume of each participant since the last call.

        Returns:
            Identity to RMS × 32767, 0 … 32767 (a full-scale sine is 23170), or -1 while muted.
        """

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
    def push_pcm(self, samples: _Samples) -> None:
        """Takes in samples at the mixer's rate. One second may wait; then the oldest are dropped and counted.

        Args:
            samples: C-contiguous float32 (full scale ±1) or int16, of shape `(n,)`, `(n, 1)` or `(n, 2)`.

        Raises:
            ValueError: Wrong type or shape, values that are not finite or beyond ±64, or the participant has
                left or sends RTP.
        """
    @property
    def gain(self) -> float:
        """Gain in the mix, 0 to 4, 1 at first. A change takes effect within 20 ms, without a click."""
    @gain.setter
    def gain(self, gain: float) -> None: ...
    @property
    def muted(self) -> bool | None:
        """What signalling says: muted, not muted, or None (unknown: it is detected from the audio)."""
    @muted.setter
    def muted(self, muted: bool | None) -> None: ...
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
class RtpPacket:
    """An RTP packet, decrypted (RFC 3550, section 5.1)."""

    @staticmethod
    def parse(data: bytes, level_extension: int | None = None) -> RtpPacket | None:
        """Reads a packet; None if it is no RTP.

        Args:
            data: The packet.
            level_extension: The id that the session has given the audio level among the header extensions (RFC 6464).
        """
    @property
    def payload_type(self) -> int: ...
    @property
    def sequence_number(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def ssrc(self) -> int: ...
    @property
    def audio_level(self) -> int | None:
        """In −dBov, 127 being silence; None if the sender gave none."""
    @property
    def payload(self) -> bytes:
        """What is carried, without padding."""
