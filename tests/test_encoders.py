"""One mix, encoded to what is wanted at the moment."""

import threading
from collections import defaultdict

import numpy as np
import pytest

from audiomixer.audio.encoders import Encoders
from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.clock.frame import FRAME_SIZE

AAC, OPUS, PCM = Encoding("aac", 128), Encoding("opus", 128), Encoding("pcm", 0)


class Outputs:
    """Want something, and keep what they get."""

    def __init__(self, *wanted: Encoding) -> None:
        self.wanted = set(wanted)
        self.failed = list[Encoding]()
        self.got: dict[Encoding, list[EncodedPacket]] = defaultdict(list)
        self.encoders = Encoders(lambda: self.wanted, self.take, self.fail)

    def take(self, encoding: Encoding, packets: list[EncodedPacket]) -> None:
        self.got[encoding].extend(packets)

    def fail(self, encoding: Encoding, error: Exception) -> None:
        self.failed.append(encoding)

    def mix(self, frames: int) -> None:
        for _ in range(frames):
            self.encoders.encode(np.full((FRAME_SIZE, 2), 0.1, np.float32))

    def end(self, encoding: Encoding) -> int:
        return self.got[encoding][-1].pts + self.got[encoding][-1].duration

    def times(self, encoding: Encoding) -> list[int]:
        return [packet.pts for packet in self.got[encoding]]


def test_opus_comes_at_once_and_after_the_flush_all_of_it_is_there() -> None:
    outputs = Outputs(AAC, OPUS)
    outputs.mix(48)
    assert len(outputs.got[OPUS]) >= 47
    outputs.encoders.flush()
    for encoding in (AAC, OPUS):
        assert outputs.end(encoding) == pytest.approx(48 * FRAME_SIZE, abs=2048)
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


def busy_background(outputs: Outputs) -> threading.Event:
    """Begins to be busy, until the event is set."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(10)

    outputs.encoders.then(hold)
    assert held.wait(5)
    return go_on


def test_silence_stands_for_what_cannot_be_encoded_in_time() -> None:
    """The background is busy from 1 s to 5 s: two seconds wait for it, two are left out, and it is back at 6 s."""
    outputs = Outputs(AAC, PCM, OPUS)
    outputs.mix(50)
    go_on = busy_background(outputs)
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
    assert np.diff(outputs.times(AAC)) == pytest.approx(1024)
    assert outputs.times(AAC)[-1] == pytest.approx(300 * FRAME_SIZE, abs=2048)
    samples = np.frombuffer(b"".join(packet.data for packet in outputs.got[PCM]), np.int16).reshape(-1, FRAME_SIZE, 2)
    assert len(samples) == 300
    silent = np.flatnonzero((samples == 0).all(axis=(1, 2)))
    assert len(silent) == outputs.encoders.left_out
    assert np.all(np.diff(silent[:left_out]) == 1), "one gap"


def test_silence_stands_for_what_was_left_out_at_the_end() -> None:
    """The background is busy until the mix ends, 4 s later; what is to happen then happens after the silence."""
    outputs, encoded = Outputs(AAC, PCM), list[int]()
    go_on = busy_background(outputs)
    outputs.mix(200)
    outputs.encoders.then(lambda: encoded.append(outputs.end(PCM)))
    go_on.set()
    outputs.encoders.flush()
    assert outputs.encoders.left_out >= 95
    assert encoded == [200 * FRAME_SIZE]
    samples = np.frombuffer(b"".join(packet.data for packet in outputs.got[PCM]), np.int16).reshape(-1, FRAME_SIZE, 2)
    assert len(samples) == 200
    assert not samples[-90:].any()
    assert outputs.times(AAC)[-1] == pytest.approx(200 * FRAME_SIZE, abs=2048)


def test_what_has_been_mixed_is_encoded_before_what_comes_then() -> None:
    outputs, encoded = Outputs(AAC), list[int]()
    outputs.mix(33)
    outputs.encoders.then(lambda: encoded.append(outputs.times(AAC)[-1]))
    outputs.mix(33)
    outputs.encoders.flush()
    assert encoded == [pytest.approx(33 * FRAME_SIZE, abs=5 * 1024)]


@pytest.mark.parametrize("bad", [Encoding("aac", 128), Encoding("mp3", 128, channels=7), Encoding("opus", 9000)])
def test_an_encoding_that_fails_leaves_the_others_alone(bad: Encoding) -> None:
    """It fails where it is written, or where its encoder is made, in the background or at once."""
    good = Encoding("opus", 64)
    outputs = Outputs(bad, good)

    def take(encoding: Encoding, packets: list[EncodedPacket]) -> None:
        if encoding == bad:
            raise ZeroDivisionError
        outputs.take(encoding, packets)

    outputs.encoders = Encoders(lambda: outputs.wanted, take, outputs.fail)
    outputs.mix(100)
    outputs.encoders.flush()
    assert outputs.failed == [bad], "it is told once"
    assert len(outputs.got[good]) >= 99
