"""Muted, or only quiet? With what browsers send in either case."""

from itertools import product

import numpy as np
import pytest

from audiomixer import Mixer
from tests.core.network import Sent, play, punctual
from tests.opus import opus
from tests.signals import noise, sine

CODECS = list(product([20, 32, 64], [True, False], [False, True]))
SILENCE = np.zeros(3 * 48_000, np.float32)


def volumes_over(packets: list[Sent], seconds: float) -> list[int]:
    """What the metadata says every 500 ms."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    volumes = []

    def read(now: float) -> None:
        if round(now * 50) % 25 == 0:
            volumes.append(mixer.volumes()["alice"])

    play(mixer, alice, packets, seconds=seconds, at_tick=read)
    return volumes


@pytest.mark.parametrize(("bitrate", "vbr", "dtx"), CODECS)
def test_encoded_silence_is_a_mute(bitrate: int, vbr: bool, dtx: bool) -> None:
    """Speech for 1 s, then a disabled track: with DTX, only the packets that browsers would send."""
    voice = noise(-20, 1)
    payloads = opus(np.concatenate([voice, SILENCE]), bitrate, vbr=vbr, dtx=dtx)
    sent = [packet for packet in punctual(payloads) if len(packet.payload) > 2]
    assert (len(sent) < 120) == dtx
    volumes = volumes_over(sent, 4)
    assert all(volume > 300 for volume in volumes[:2])
    assert volumes[4:] == [-1] * 4


@pytest.mark.parametrize(("bitrate", "vbr", "dtx"), CODECS)
def test_a_very_quiet_room_is_not_a_mute(bitrate: int, vbr: bool, dtx: bool) -> None:
    sent = [p for p in punctual(opus(noise(-80, 4), bitrate, vbr=vbr, dtx=dtx)) if len(p.payload) > 2]
    assert all(0 <= volume < 10 for volume in volumes_over(sent, 4)[1:])


def test_unmuting_shows_at_once() -> None:
    payloads = opus(np.concatenate([SILENCE[:48_000], sine(440, 0.3, 1)]))
    volumes = volumes_over(punctual(payloads), 2)
    assert volumes[1] == -1
    assert volumes[2] > 5000


def test_an_announced_level_of_silence_is_a_mute_whatever_is_decoded() -> None:
    packets = [Sent(p.number, p.payload, p.arrival, 127) for p in punctual(opus(noise(-70, 2)))]
    assert volumes_over(packets, 2)[1:] == [-1] * 3


def test_who_sends_nothing_is_muted_and_who_stops_is_after_a_second() -> None:
    assert volumes_over([], 1) == [-1, -1]
    volumes = volumes_over(punctual(opus(noise(-20, 1))), 3)
    assert volumes[1] > 1000
    assert volumes[2] >= 0
    assert volumes[4:] == [-1, -1]


def test_a_second_of_bad_network_is_not_a_mute() -> None:
    """Nine of ten packets are lost from 1 s to 2 s."""
    sent = [p for p in punctual(opus(noise(-20, 3))) if not 1 <= p.arrival < 2 or p.number % 10 == 0]
    assert -1 not in volumes_over(sent, 3)


def test_signalling_wins() -> None:
    mixer = Mixer()
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    alice.muted, bob.muted = True, False
    play(mixer, alice, punctual(opus(noise(-20, 1))), seconds=1)
    assert mixer.volumes() == {"alice": -1, "bob": 0}
    alice.muted = bob.muted = None
    play(mixer, alice, punctual(opus(noise(-20, 1))), seconds=1, first_sequence=0, first_timestamp=0)
    assert mixer.volumes()["alice"] > 1000
    assert mixer.volumes()["bob"] == -1
