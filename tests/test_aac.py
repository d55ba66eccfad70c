"""AAC of a mix whose sides are alike most of the time."""

import av
import numpy as np
import pytest

from audiomixer.audio.aac import AacEncoder, twice
from audiomixer.audio.encoding import EncodedPacket, Encoding
from tests.signals import Signal, sine, speech, stereo

AAC_LC_48_KHZ_STEREO = bytes([0x11, 0x90])


def encode(signal: Signal, block: int = 4800) -> list[EncodedPacket]:
    encoder = AacEncoder(Encoding("aac", 128))
    packets = []
    for start in range(0, len(signal), block):
        packets += encoder.encode(signal[start : start + block])
    return packets + encoder.encode(None)


def decoded(packets: list[EncodedPacket]) -> Signal:
    """The samples from time 0 on."""
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = AAC_LC_48_KHZ_STEREO
    frames = [frame.to_ndarray().T for packet in packets for frame in decoder.decode(packet.to_av())]  # type: ignore[attr-defined]
    return np.concatenate(frames)[-packets[0].pts :]


def test_both_sides_of_a_voice_are_that_voice() -> None:
    voice = stereo(0.5 * speech()[: 5 * 48_000])
    packets = encode(voice)
    assert not any(packet.data[0] & 1 for packet in packets), "FFmpeg would have them share their windows"
    heard = decoded(packets)[: len(voice)]
    assert np.mean((heard - voice) ** 2, axis=0).max() < 3e-3 * np.mean(voice**2)


def test_stereo_comes_and_goes_without_a_gap_or_a_click() -> None:
    second = 48_000
    signal = stereo(sine(440, 0.3, 14))
    signal[3 * second : 6 * second, 1] = sine(660, 0.3, 3)
    packets = encode(signal, block=960)
    starts = np.array([packet.pts for packet in packets])
    assert np.diff(starts) == pytest.approx(1024)
    heard = decoded(packets)
    error = np.abs(heard[: len(signal)] - signal)
    # Where the right side jumps from one tone to another is a click in the signal itself.
    steady = np.ones(len(signal), bool)
    for jump in (0, 3, 6):
        steady[max(0, jump * second - 2048) : jump * second + 2048] = False
    assert error[steady].max() < 0.01
    sides = heard[4 * second : 5 * second]
    assert np.corrcoef(sides.T)[0, 1] == pytest.approx(0, abs=0.05)


def test_a_voice_that_moves_to_one_side_and_back_is_heard_as_it_is() -> None:
    second = 48_000
    signal = stereo(0.5 * np.resize(speech(), 14 * second))
    signal[3 * second : 6 * second, 1] *= 0.25
    heard = decoded(encode(signal))[: len(signal)]
    for begin in range(13):
        part = slice(begin * second, (begin + 1) * second)
        error, power = np.mean((heard[part] - signal[part]) ** 2), np.mean(signal[part] ** 2)
        assert error < 6e-3 * power + 1e-8, f"at {begin} s"


def test_the_two_channels_of_a_doubled_frame_are_the_one_it_had() -> None:
    """A single channel element with tag 0 and a stream of 21 bits becomes a pair with that stream twice."""
    stream = "101100111000111100001"
    mono = "000" + "0000" + stream + "111"
    pair = "001" + "0000" + "0" + stream + stream + "111"
    assert twice(_bytes(mono)) == _bytes(pair)


def _bytes(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def test_only_a_single_channel_element_is_doubled() -> None:
    pair = bytes([0b001_0000_0, 0xFF])
    for frame in (pair, bytes(4), b"\x01"):
        with pytest.raises(ValueError, match="frame: expected a single channel element"):
            twice(frame)
