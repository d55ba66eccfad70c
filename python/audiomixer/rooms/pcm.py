"""Participants without WebRTC: telephony, text to speech, bots. Samples or Opus packets in, what they hear out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal

import av
import numpy as np
from numpy.typing import NDArray

from audiomixer._core import Participant
from audiomixer.audio.encoding import Encoder, Encoding
from audiomixer.clock.broadcast import Broadcast
from audiomixer.clock.frame import FRAME_SIZE, SAMPLE_RATE
from audiomixer.clock.pacer import clock
from audiomixer.rooms.member import Member
from audiomixer.rooms.returns import Raw

SAMPLE_RATES: Final = (8000, 16_000, 24_000, 44_100, 48_000)
Codec = Literal["pcm", "opus"]

_MARGIN: Final = 0.06
"""Seconds that samples are late at the beginning, and after a pause: so much later than they should may others come."""
_AHEAD: Final = 0.5
"""Seconds that may wait to be mixed; who sends faster than that is heard has to wait."""
_AT_ONCE: Final = 0.2
"""Seconds of samples that are taken in at once."""
_HEARD: Final = 50
"""Frames that may wait to be sent, a second of them; then the oldest are dropped."""
_ENCODING: Final = Encoding("opus", 64)


class PcmMember(Member):
    """A participant that sends and gets audio as it is, or as Opus packets.

    Args:
        codec: What it sends and gets.
        sample_rate: One of `SAMPLE_RATES`; 48000 for Opus.
        client: What it joined by.
        on_closed: Called when it has left.
    """

    def __init__(self, codec: Codec, sample_rate: int, client: str, on_closed: Callable[["PcmMember"], None]) -> None:
        super().__init__(client)
        self.codec: Codec = codec
        self.sample_rate = sample_rate
        self._on_closed = on_closed
        self._heard: Broadcast[bytes] = Broadcast(_HEARD)
        self._frames = self._heard.subscribe()
        self._until = 0.0
        """When all that has been sent will have been mixed."""
        self._packets = self._time = 0
        self._encoder: Encoder | None = None
        self._resampler = av.AudioResampler(
            format="s16", layout="mono", rate=sample_rate, frame_size=FRAME_SIZE * sample_rate // SAMPLE_RATE
        )

    async def send(self, data: bytes) -> None:
        """Takes in what it says; waits while too much of it has not been mixed yet.

        Args:
            data: Samples, 16 bits, little-endian, one channel, of any number; or an Opus packet.

        Raises:
            ValueError: It is neither.
        """
        if self.participant is None:
            return
        if self.codec == "opus":
            pieces = [data]
        elif len(data) % 2:
            raise ValueError("audio: expected samples of 16 bits")
        else:
            # All at once, a long message would push out what came before.
            size = 2 * round(_AT_ONCE * self.sample_rate)
            pieces = [data[start : start + size] for start in range(0, len(data), size)]
        for piece in pieces:
            self._until = max(self._until, clock())
            (self._send_samples if self.codec == "pcm" else self._send_packet)(piece)
            await asyncio.sleep(max(0.0, self._until - clock() - _AHEAD))

    def _send_samples(self, data: bytes) -> None:
        samples = np.frombuffer(data, "<i2").astype(np.int16, copy=False)
        if self.participant is None or not len(samples):
            return
        if self._until <= clock():
            self.participant.push_pcm(np.zeros(round(_MARGIN * self.sample_rate), np.int16), self.sample_rate)
            self._until += _MARGIN
        self.participant.push_pcm(samples, self.sample_rate)
        self._until += len(samples) / self.sample_rate

    def _send_packet(self, data: bytes) -> None:
        duration = opus_duration(data)
        if self.participant is None:
            return
        now = clock()
        self.participant.push_rtp(self._packets & 0xFFFF, self._time & 0xFFFF_FFFF, data, now)
        self._packets += 1
        self._time += duration
        self._until += duration / SAMPLE_RATE

    def heard(self) -> AsyncIterator[bytes]:
        """What it hears, 20 ms at a time, coded as what it sends, until it leaves. To be asked for once."""
        return self._frames

    def _route(self, participant: Participant | None) -> None:
        """What comes is handed on as it comes."""

    def _listen(self, participant: Participant) -> Raw:
        return Raw(participant, self._take, self.expel)

    def _take(self, samples: NDArray[np.float32]) -> None:
        """Called in the thread that mixes."""
        for piece in self._encode(samples):
            self._loop.call_soon_threadsafe(self._heard.publish, piece)

    def _encode(self, samples: NDArray[np.float32]) -> list[bytes]:
        if self.codec == "opus":
            self._encoder = self._encoder or Encoder(_ENCODING)
            return [packet.data for packet in self._encoder.encode(samples)]
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        return [
            resampled.to_ndarray().astype("<i2", copy=False).tobytes() for resampled in self._resampler.resample(frame)
        ]

    async def close(self) -> None:
        """Has it leave."""
        self._heard.close()
        self._on_closed(self)


def opus_duration(packet: bytes) -> int:
    """How long a packet of Opus is, in samples at 48 kHz (RFC 6716, section 3.1).

    Raises:
        ValueError: It is none.
    """
    if not packet:
        raise ValueError("audio: expected an Opus packet, got nothing")
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame = (480, 960)[config & 1]
    else:
        frame = (120, 240, 480, 960)[config & 3]
    if code == 3 and len(packet) < 2:
        raise ValueError("audio: expected an Opus packet, got one that is cut off")
    frames = (1, 2, 2, packet[1] & 63 if code == 3 else 0)[code]
    if not 0 < frames * frame <= 5760:
        raise ValueError("audio: expected an Opus packet of up to 120 ms")
    return frames * frame
