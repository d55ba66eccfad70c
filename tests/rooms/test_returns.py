"""What participants hear of a room: those who are silent share it, and nobody hears who comes and goes from that."""

from typing import Final

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from pylibsrtp import Policy, Session

from audiomixer._core import Mixer
from audiomixer.clock.frame import FRAME_SIZE, SAMPLE_RATE
from audiomixer.rooms.returns import Return, Returns
from audiomixer.webrtc.media import Media
from tests.signals import noise

_KEY: Final = bytes(range(30))


class Ear(Media):
    """The other side of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.outlet.open(_KEY, 1, 111, 0, SAMPLE_RATE)
        self.payloads: list[bytes] = []
        self.times: list[int] = []
        self._session = Session(Policy(_KEY, Policy.SSRC_ANY_INBOUND))

    def send_unsent(self, packets: list[bytes]) -> None:
        for packet in packets:
            plain = self._session.unprotect(packet)
            assert int.from_bytes(plain[2:4], "big") == len(self.payloads)
            self.times.append(int.from_bytes(plain[4:8], "big"))
            self.payloads.append(plain[12:])

    def heard(self) -> NDArray[np.float32]:
        """One channel of it, float32 of shape `(n,)`."""
        decoder = av.CodecContext.create("libopus", "r")
        decoder.sample_rate, decoder.layout = SAMPLE_RATE, "stereo"
        frames = [frame for payload in self.payloads for frame in decoder.decode(av.Packet(payload))]
        return np.concatenate([frame.to_ndarray().reshape(-1, 2)[:, 0] for frame in frames]).astype(np.float32) / 32768


class Room:
    """Participants who all listen, in virtual time."""

    def __init__(self, *identities: str) -> None:
        self.mixer = Mixer()
        self.returns = Returns(self.mixer)
        self.ears = {identity: Ear() for identity in identities}
        self.participants = {identity: self.mixer.add_participant(identity) for identity in identities}
        self.failed: list[str] = []
        self.returns.listeners = tuple(
            Return(self.participants[identity], ear, lambda identity=identity: self.failed.append(identity))  # type: ignore[misc]
            for identity, ear in self.ears.items()
        )
        self.tick = 0

    def run(self, seconds: float, **speaking: NDArray[np.float32]) -> None:
        """Mixes for a while; who is speaking does from now on, float32 of shape `(n,)`."""
        for n in range(round(50 * seconds)):
            for identity, samples in speaking.items():
                self.participants[identity].push_pcm(samples[n * FRAME_SIZE :][:FRAME_SIZE].copy())
            self.tick += 1
            self.returns.send(self.mixer.mix(self.tick * 0.02))


def tone(seconds: float, start: float, level: float) -> NDArray[np.float32]:
    """440 Hz from a time on, as if it had begun at zero."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE + start
    return (level * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


def residue(samples: NDArray[np.float32]) -> list[float]:
    """What is left of each 10 ms without 440 Hz, beside it, in dB."""
    left = []
    for window in samples[: len(samples) // 480 * 480].reshape(-1, 480):
        times = 2 * np.pi * 440 * np.arange(480) / SAMPLE_RATE
        basis = np.stack([np.sin(times), np.cos(times)], axis=1)
        fit = basis @ np.linalg.lstsq(basis, window, rcond=None)[0]
        left.append(10 * np.log10(np.mean((window - fit) ** 2) / np.mean(fit**2) + 1e-9))
    return left


@pytest.mark.parametrize("level", [0.2, 1.4])
def test_who_speaks_hears_the_others_as_before(level: float) -> None:
    """Bob is a tone, below the ceiling or above; Alice speaks from 2 s to 4 s, and is silent again."""
    room = Room("alice", "bob", "carol", "dave")
    room.run(2, bob=tone(2, 0, level))
    room.run(2, bob=tone(2, 2, level), alice=noise(-20, 2).reshape(-1))
    room.run(6, bob=tone(6, 4, level))
    ears = room.ears
    assert ears["carol"].payloads == ears["dave"].payloads, "they share what they hear"
    assert ears["alice"].payloads[50:99] == ears["carol"].payloads[50:99], "Alice as well, until she speaks"
    assert ears["alice"].payloads[100:300] != ears["carol"].payloads[100:300]
    heard = ears["alice"].heard()[SAMPLE_RATE // 2 :]
    assert max(residue(heard)) < -40, "a tone, without a click"
    loudness = np.sqrt(np.mean(heard[: len(heard) // 960 * 960].reshape(-1, 960) ** 2, axis=1))
    assert np.ptp(20 * np.log10(loudness)) < 1.5
    assert np.max(np.abs(ears["bob"].heard()[5 * SAMPLE_RATE :])) < 1e-3, "nobody hears himself"
    for ear in ears.values():
        assert set(np.diff(ear.times)) == {FRAME_SIZE}
    assert len(ears["carol"].payloads) == room.tick


def test_who_has_gone_gets_nothing_more() -> None:
    room = Room("alice", "bob", "carol")
    room.run(3, bob=tone(3, 0, 0.2))
    room.returns.listeners = room.returns.listeners[1:]
    room.run(1, bob=tone(1, 3, 0.2))
    assert len(room.ears["alice"].payloads) == 150
    assert len(room.ears["carol"].payloads) == 200


def test_who_cannot_be_encoded_for_is_told_of_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room("alice", "bob")
    monkeypatch.setattr(room.ears["alice"], "send", lambda payload, timestamp: 1 / 0)
    room.run(1, alice=noise(-20, 1).reshape(-1))
    assert set(room.failed) == {"alice"}
    assert len(room.ears["bob"].payloads) == 50
