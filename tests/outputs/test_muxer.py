"""Containers of the mix and its metadata."""

from pathlib import Path

import av
import numpy as np

from audiomixer.encoding import SAMPLE_RATE, Encoder, Encoding
from audiomixer.outputs.muxer import TS, Muxer
from audiomixer.outputs.queued import Payload

AAC = Encoding("aac", 128)


def test_a_payload_that_is_ahead_of_its_audio_waits_for_it(tmp_path: Path) -> None:
    """Payloads of 0.5, 1 and 2.5 s come before any audio; there are two seconds of that."""
    file = str(tmp_path / "mix.ts")
    muxer = Muxer(file, TS, AAC)
    for time in (0.5, 1.0, 2.5):
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
