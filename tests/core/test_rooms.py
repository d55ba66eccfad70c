"""Several rooms mixed by one call."""

import numpy as np
import pytest

from audiomixer import Mixer
from audiomixer._core import mix_rooms
from tests.core.network import punctual
from tests.opus import opus
from tests.signals import noise, speech


def rooms(number: int) -> list[tuple[Mixer, np.ndarray, float]]:
    """Somebody is loud in each."""
    made = [(Mixer(), np.zeros((960, 2), np.float32), 0.02) for _ in range(number)]
    for mixer, _, _ in made:
        mixer.add_participant("alice").push_pcm(noise(-20, 1))
    return made


def test_each_room_is_mixed_as_of_its_own_time_into_its_own_array() -> None:
    together, alone = rooms(3), rooms(3)
    for n in range(1, 11):
        due = [(mixer, out, 0.02 * n + 0.001 * k) for k, (mixer, out, _) in enumerate(together)]
        mix_rooms(due, read=True)
        for (mixer, out, _), (_, mixed, time) in zip(alone, due, strict=True):
            mixer.mix_into(out, time)
            assert np.array_equal(mixed, out)
    assert all(np.abs(out).max() > 0.1 for _, out, _ in together)


def test_an_array_that_is_none_is_refused_and_one_that_is_too_short_keeps_nobody_else_from_being_mixed() -> None:
    (first, last) = rooms(2)
    strided = np.zeros((960, 4), np.float32)[:, ::2]
    for bad in (np.zeros((960, 2)), strided):
        with pytest.raises(TypeError):
            mix_rooms([(first[0], bad, 0.02), last], read=False)
    assert not last[1].any()
    with pytest.raises(ValueError, match="out: expected 1920 samples, got 960"):
        mix_rooms([(first[0], np.zeros((480, 2), np.float32), 0.02), last], read=False)
    assert last[1].any()


def test_a_room_that_panics_is_told_and_the_others_are_mixed() -> None:
    made = rooms(3)
    made[1][0]._break_down()
    for _ in range(3):  # Whose turn it is to be first changes.
        assert mix_rooms(made, read=False) == [(1, "the mixer was told to break down")]
        for mixer, out, _ in (made[0], made[2]):
            assert out.any()
            mixer.add_participant("bob")
            mixer.remove_participant("bob")
    broken = made[1][0]
    assert broken.volumes() == {"alice": -1}
    broken.remove_participant("alice")


def test_a_stall_of_everybody_is_concealed_well_for_some_of_another_room_each_time() -> None:
    """Ten rooms, and all packets are lost after 0.6 s: the costly concealment that one tick can bear goes round."""
    mixers = [Mixer() for _ in range(10)]
    talkers = [mixer.add_participant("alice") for mixer in mixers]
    packets = punctual(opus(speech()[:48_000], 24))
    made = [(mixer, np.zeros((960, 2), np.float32)) for mixer in mixers]
    for tick in range(36):
        now = 0.02 * (tick + 1)
        for talker in talkers:
            if tick < 30:
                talker.push_rtp(tick, 960 * tick, packets[tick].payload, now - 0.01)
        mix_rooms([(*room, now) for room in made], read=False)
    assert all(talker.stats().concealed > 0.03 for talker in talkers)
    frames = [room[1] for room in made]
    assert any(not np.array_equal(frames[0], frame) for frame in frames[1:]), "some are concealed well, others simply"
