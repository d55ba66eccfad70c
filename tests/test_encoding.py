"""The encoders keep their bitrate and their time."""

import numpy as np
import pytest

from audiomixer.audio.encoding import EncodedPacket, Encoder, Encoding
from tests.signals import Signal, frames, speech, stereo


def encode(encoding: Encoding, signal: Signal) -> list[EncodedPacket]:
    encoder = Encoder(encoding)
    packets = []
    for frame in frames(signal):
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


@pytest.mark.parametrize("bitrate", [128, 192])
@pytest.mark.parametrize("codec", ["aac", "opus"])
def test_a_single_voice_is_encoded_at_the_bitrate(codec: str, bitrate: int) -> None:
    voice = speech()[: 20 * 48_000]
    packets = encode(Encoding(codec, bitrate), stereo(voice))  # type: ignore[arg-type]
    bits = 8 * sum(len(packet.data) for packet in packets)
    assert bits / 20 / 1000 == pytest.approx(bitrate, rel=0.02)


@pytest.mark.parametrize("codec", ["aac", "opus", "mp3", "pcm"])
def test_times_follow_each_other_without_gaps_and_all_audio_is_there(codec: str) -> None:
    packets = encode(Encoding(codec, 128), np.zeros((3 * 48_000, 2), np.float32))  # type: ignore[arg-type]
    ends = [packet.pts + packet.duration for packet in packets]
    starts = [packet.pts for packet in packets]
    assert starts[1:] == ends[:-1]
    assert -2048 <= starts[0] <= 0
    assert ends[-1] == pytest.approx(3 * 48_000, abs=2304)
