"""Several rooms mixed by one call."""

import socket

import numpy as np
import pytest

from audiomixer import Mixer
from audiomixer._core import Inlet, Intake, Port, mix_rooms
from tests.core.network import punctual
from tests.opus import opus
from tests.signals import noise, speech


def rooms(number: int) -> list[tuple[Intake, Mixer, np.ndarray, float]]:
    """Somebody is loud in each."""
    made = [(Intake(), Mixer(), np.zeros((960, 2), np.float32), 0.02) for _ in range(number)]
    for _, mixer, _, _ in made:
        mixer.add_participant("alice").push_pcm(noise(-20, 1))
    return made


def test_each_room_is_mixed_as_of_its_own_time_into_its_own_array() -> None:
    together, alone = rooms(3), rooms(3)
    for n in range(1, 11):
        due = [(intake, mixer, out, 0.02 * n + 0.001 * k) for k, (intake, mixer, out, _) in enumerate(together)]
        mix_rooms(due, 0.02 * n)
        for (_, mixer, out, _), (_, _, mixed, time) in zip(alone, due, strict=True):
            mixer.mix_into(out, time)
            assert np.array_equal(mixed, out)
    assert all(np.abs(out).max() > 0.1 for _, _, out, _ in together)


def test_an_array_that_is_none_is_refused_and_one_that_is_too_short_keeps_nobody_else_from_being_mixed() -> None:
    (first, last) = rooms(2)
    strided = np.zeros((960, 4), np.float32)[:, ::2]
    for bad in (np.zeros((960, 2)), strided):
        with pytest.raises(TypeError):
            mix_rooms([(*first[:2], bad, 0.02), last], 0.02)
    assert not last[2].any()
    with pytest.raises(ValueError, match="out: expected 1920 samples, got 960"):
        mix_rooms([(*first[:2], np.zeros((480, 2), np.float32), 0.02), last], 0.02)
    assert last[2].any()


def test_what_is_no_audio_is_handed_on_and_whoever_cannot_take_it_disturbs_no_mix() -> None:
    (intake, *first), last = rooms(2)
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    shared = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with peer, shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (peer, shared):
            one.bind(("127.0.0.1", 0))
        got: list[list[bytes]] = []

        def take(datagrams: list[bytes]) -> None:
            got.append(datagrams)
            raise ZeroDivisionError

        intake.add(Port.beside(shared.getsockname(), peer.getsockname()), Inlet(), take)
        for datagram in (b"one", b"two"):
            peer.sendto(datagram, shared.getsockname())
        mix_rooms([(intake, *first), last], None)
        assert got == [], "it was not asked to take anything in"
        with pytest.raises(ZeroDivisionError):
            mix_rooms([(intake, first[0], first[1], 0.04), (*last[:3], 0.04)], 0.04)
    assert got == [[b"one", b"two"]]
    assert first[1].any()
    assert last[2].any()


def test_a_room_that_panics_is_told_and_the_others_are_mixed() -> None:
    made = rooms(3)
    made[1][1]._break_down()
    for _ in range(3):  # Whose turn it is to be first changes.
        assert mix_rooms(made, 0.02) == [(1, "the mixer was told to break down")]
        for _, mixer, out, _ in (made[0], made[2]):
            assert out.any()
            mixer.add_participant("bob")
            mixer.remove_participant("bob")
    broken = made[1][1]
    assert broken.volumes() == {"alice": -1}
    broken.remove_participant("alice")


def test_a_stall_of_everybody_is_concealed_well_for_some_of_another_room_each_time() -> None:
    """Ten rooms, and all packets are lost after 0.6 s: the costly concealment that one tick can bear goes round."""
    mixers = [Mixer() for _ in range(10)]
    talkers = [mixer.add_participant("alice") for mixer in mixers]
    packets = punctual(opus(speech()[:48_000], 24))
    made = [(Intake(), mixer, np.zeros((960, 2), np.float32)) for mixer in mixers]
    for tick in range(36):
        now = 0.02 * (tick + 1)
        for talker in talkers:
            if tick < 30:
                talker.push_rtp(tick, 960 * tick, packets[tick].payload, now - 0.01)
        mix_rooms([(*room, now) for room in made], now)
    assert all(talker.stats().concealed > 0.03 for talker in talkers)
    frames = [room[2] for room in made]
    assert any(not np.array_equal(frames[0], frame) for frame in frames[1:]), "some are concealed well, others simply"
