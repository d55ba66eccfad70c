"""One mix, encoded to what is wanted at the moment."""

import threading

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
        self.encoders = Encoders(lambda: self.wanted, self.take, self.wanted.discard)

    def take(self, encoding: Encoding, packets: list[EncodedPacket]) -> None:
        self.got[encoding].extend(packets)

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
    assert times[gap] == pytest.approx(20 * FRAME_SIZE, abs=5 * FRAME_SIZE + 4 * 1024)
    assert times[gap + 1] == pytest.approx(70 * FRAME_SIZE, abs=5 * FRAME_SIZE + 1024)


def test_what_waits_too_long_is_left_out_and_what_follows_has_its_own_time() -> None:
    """The background is busy from 1 s to 5 s: two seconds wait for it, two are left out."""
    outputs, held, go_on = Outputs(AAC, OPUS), threading.Event(), threading.Event()
    outputs.mix(50)

    def hold() -> None:
        held.set()
        go_on.wait()

    outputs.encoders.then(hold)
    assert held.wait(5)
    outputs.mix(200)
    assert len(outputs.got[OPUS]) >= 249, "what is heard at once does not wait"
    left_out = outputs.encoders.left_out
    assert left_out == pytest.approx(100, abs=5)
    go_on.set()
    caught_up = threading.Event()
    outputs.encoders.then(caught_up.set)
    assert caught_up.wait(5)
    outputs.mix(50)
    outputs.encoders.flush()
    assert outputs.encoders.left_out == pytest.approx(left_out, abs=5)
    times = outputs.times(AAC)
    (gap,) = np.flatnonzero(np.diff(times) != 1024)
    assert times[gap + 1] - times[gap] == pytest.approx(outputs.encoders.left_out * FRAME_SIZE, abs=4 * 1024)
    assert times[-1] == pytest.approx(300 * FRAME_SIZE, abs=2048)


def test_what_has_been_mixed_is_encoded_before_what_comes_then() -> None:
    outputs, encoded = Outputs(AAC), list[int]()
    outputs.mix(33)
    outputs.encoders.then(lambda: encoded.append(outputs.times(AAC)[-1]))
    outputs.mix(33)
    outputs.encoders.flush()
    assert encoded == [pytest.approx(33 * FRAME_SIZE, abs=5 * 1024)]


def test_an_encoding_that_fails_leaves_the_others_alone() -> None:
    got, wanted = list[EncodedPacket](), {AAC, OPUS}

    def take(encoding: Encoding, packets: list[EncodedPacket]) -> None:
        if encoding == AAC:
            raise ZeroDivisionError
        got.extend(packets)

    encoders = Encoders(lambda: wanted, take, wanted.discard)
    for _ in range(100):
        encoders.encode(np.zeros((FRAME_SIZE, 2), np.float32))
    encoders.flush()
    assert wanted == {OPUS}
    assert len(got) >= 99
