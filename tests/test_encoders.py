"""One mix, encoded to what is wanted at the moment."""

import numpy as np
import pytest

from audiomixer.encoders import Encoders
from audiomixer.encoding import FRAME_SIZE, EncodedPacket, Encoding

AAC, OPUS = Encoding("aac", 128), Encoding("opus", 128)


class Outputs:
    """Want something, and keep what they get."""

    def __init__(self, *wanted: Encoding) -> None:
        self.wanted = set(wanted)
        self.got: dict[Encoding, list[EncodedPacket]] = {AAC: [], OPUS: []}
        self.encoders = Encoders(lambda: self.wanted, lambda encoding, packets: self.got[encoding].extend(packets))

    def mix(self, frames: int) -> None:
        for _ in range(frames):
            self.encoders.encode(np.zeros((FRAME_SIZE, 2), np.float32))

    def times(self, encoding: Encoding) -> list[int]:
        return [packet.pts for packet in self.got[encoding]]


def test_opus_comes_at_once_and_after_the_flush_all_of_it_is_there() -> None:
    outputs = Outputs(AAC, OPUS)
    outputs.mix(48)
    assert len(outputs.got[OPUS]) >= 47
    outputs.encoders.flush()
    for encoding in (AAC, OPUS):
        last = outputs.got[encoding][-1]
        assert last.pts + last.duration == pytest.approx(48 * FRAME_SIZE, abs=2048)
    assert np.diff(outputs.times(AAC)) == pytest.approx(1024)


def test_what_was_not_wanted_for_a_while_begins_anew_at_its_time() -> None:
    outputs = Outputs(AAC)
    outputs.mix(20)
    outputs.wanted = {OPUS}
    outputs.mix(50)
    outputs.wanted = {AAC}
    outputs.mix(20)
    outputs.encoders.flush()
    assert outputs.times(OPUS)[0] == pytest.approx(20 * FRAME_SIZE, abs=480)
    times = outputs.times(AAC)
    (gap,) = np.flatnonzero(np.diff(times) != 1024)
    assert times[gap] == pytest.approx(20 * FRAME_SIZE, abs=5 * FRAME_SIZE + 1024)
    assert times[gap + 1] == pytest.approx(70 * FRAME_SIZE, abs=5 * FRAME_SIZE + 1024)


def test_what_fails_ends_the_encoding_and_not_in_silence() -> None:
    def fail(encoding: Encoding, packets: list[EncodedPacket]) -> None:
        raise ZeroDivisionError

    encoders = Encoders(lambda: {AAC}, fail)

    def mix_on() -> None:
        for _ in range(10_000):
            encoders.encode(np.zeros((FRAME_SIZE, 2), np.float32))

    with pytest.raises(RuntimeError, match="an earlier job failed"):
        mix_on()
