"""Containers of the mix and its metadata."""

from pathlib import Path

import av
import numpy as np
import pytest

from audiomixer.audio.encoding import Encoder, Encoding
from audiomixer.clock.frame import SAMPLE_RATE
from audiomixer.outputs.muxer import TS, Muxer
from audiomixer.outputs.queued import Payload

AAC = Encoding("aac", 128)


def test_a_payload_that_is_ahead_of_its_audio_waits_for_it(tmp_path: Path) -> None:
    """Payloads of 0.5, 1 and 2.5 s come before any audio; there are two seconds of that. That of 3.5 s has none."""
    file = str(tmp_path / "mix.ts")
    muxer = Muxer(file, TS, AAC)
    for time in (0.5, 1.0, 2.5, 3.5):
        muxer.write(Payload(f"at {time}", time))
    for packet in Encoder(AAC).encode(np.zeros((2 * SAMPLE_RATE, 2), np.float32)):
        muxer.write(packet)
    muxer.close()
    newest, seen = 0.0, []
    with av.open(file, "r") as container:
        begins = min(stream.start_time * stream.time_base for stream in container.streams.audio)
        for packet in container.demux():
            if packet.pts is None:
                continue
            time = float(packet.pts * packet.time_base - begins)
            if packet.stream.type == "audio":
                newest = time
            else:
                seen.append((bytes(packet)[-6:].strip(b"\0").decode()[-3:], newest))
    assert [text for text, _ in seen] == ["0.5", "1.0", "2.5"]
    for (_, audio), time in zip(seen, (0.5, 1.0, 1.98), strict=True):
        assert abs(audio - time) < 0.2


def test_payloads_in_disorder_are_brought_into_order(tmp_path: Path) -> None:
    """The audio begins at 10 s, which is the container's zero; the payload of 10.5 s comes after that of 11 s."""
    file = str(tmp_path / "mix.ts")
    muxer = Muxer(file, TS, AAC, rebase=True)
    packets = Encoder(AAC, 10 * SAMPLE_RATE).encode(np.zeros((2 * SAMPLE_RATE, 2), np.float32))
    for item in (packets[0], Payload("11", 11.0), Payload("10.5", 10.5), *packets[1:]):
        muxer.write(item)
    muxer.close()
    with av.open(file, "r") as container:
        begins = min(stream.start_time * stream.time_base for stream in container.streams.audio)
        seen = [packet for packet in container.demux() if packet.stream.type != "audio" and packet.pts is not None]
        assert [bytes(packet).rstrip(b"\0")[-2:] for packet in seen] == [b"11", b".5"]
        assert [float(packet.pts * packet.time_base - begins) for packet in seen] == pytest.approx(
            [1.02, 1.02], abs=0.03
        )
