"""The bus keeps time, in virtual time."""

import numpy as np
import pytest
from numpy.typing import NDArray

from audiomixer.clock.bus import Bus, advance
from audiomixer.clock.frame import FRAME_SIZE
from tests.signals import noise


class Recorder:
    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.handed: list[int] = []
        """How many frames each time."""
        self.frames: list[NDArray[np.float32]] = []
        self.volumes: list[tuple[int, dict[str, int]]] = []

    def on_frames(self, samples: NDArray[np.float32]) -> None:
        self.handed.append(len(samples) // FRAME_SIZE)
        self.frames.extend(samples.copy().reshape(-1, FRAME_SIZE, 2))

    def on_volumes(self, volumes: dict[str, int]) -> None:
        self.volumes.append((len(self.frames), volumes))


def test_late_wake_ups_mix_what_they_missed() -> None:
    """Woken at 0.1 s, then only at 1 s, then every tick until 2 s: a hundred frames, whatever happened."""
    bus, recorder = Bus(now=5.0), Recorder()
    bus.add(recorder)
    for now in [5.1, 6.0, *(6 + n * 0.02 for n in range(1, 51))]:
        advance([bus], now)
        assert len(recorder.frames) == pytest.approx((now - 5.0) / 0.02, abs=1)
    assert len(recorder.frames) == 100


def test_volumes_come_every_500_ms_after_the_frames_they_are_of() -> None:
    bus, recorder = Bus(now=0.0), Recorder()
    bus.add(recorder)
    alice = bus.mixer.add_participant("alice")
    alice.push_pcm(noise(-20, 1))
    for tick in range(60):
        advance([bus], (tick + 1) * 0.02 + 1e-6)
    assert [count for count, _ in recorder.volumes] == [25, 50]
    assert all(volumes["alice"] > 1000 for _, volumes in recorder.volumes)


def test_a_listener_that_fails_does_not_disturb_the_others() -> None:
    class Failing(Recorder):
        def on_frames(self, samples: NDArray[np.float32]) -> None:
            raise RuntimeError("no")

    bus, recorder = Bus(now=0.0), Recorder()
    bus.add(Failing())
    bus.add(recorder)
    advance([bus], 1.0)
    assert len(recorder.frames) == 50


def test_rooms_that_are_mixed_together_keep_their_own_time() -> None:
    """Rooms that began 7 ms apart, woken every 20 ms: each has the frames that have ended, and its own speaker."""
    buses = [Bus(now=0.007 * n) for n in range(3)]
    recorders = [Recorder() for _ in buses]
    for bus, recorder in zip(buses, recorders, strict=True):
        bus.add(recorder)
    speaker = buses[1].mixer.add_participant("alice")
    speaker.push_pcm(noise(-20, 1))
    for tick in range(51):
        advance(buses, tick * 0.02)
    assert [len(recorder.frames) for recorder in recorders] == [50, 49, 49]
    loud = [np.max(np.abs(recorder.frames[-1])) > 0.1 for recorder in recorders]
    assert loud == [False, True, False]


def test_the_patient_get_five_frames_at_once_until_one_of_them_is_not() -> None:
    """Two are patient; from 0.3 s on, one is not; from 0.4 s on, both are again. Nobody misses a frame."""
    bus, recorders = Bus(now=0.0, phase=2), [Recorder(patient=True), Recorder(patient=True)]
    alice = bus.mixer.add_participant("alice")
    for recorder in recorders:
        bus.add(recorder)
    for tick in range(30):
        alice.push_pcm(np.full((FRAME_SIZE, 2), tick / 100, np.float32))
        recorders[0].patient = not 15 <= tick < 20
        advance([bus], (tick + 1) * 0.02 + 1e-6)
    # What waits when somebody ceases to be patient comes with the next frame.
    assert recorders[0].handed == [3, 5, 5, 3, 1, 1, 1, 1, 3, 5]
    for recorder in recorders:
        assert recorder.handed == recorders[0].handed
        assert np.diff([frame[600, 0] for frame in recorder.frames]) == pytest.approx(0.01, abs=1e-3)


def test_who_comes_or_goes_within_a_block_gets_what_is_mixed_meanwhile() -> None:
    """One is there from the beginning, another from 0.14 s to 0.24 s, while blocks end every 0.1 s."""
    bus, recorder, guest = Bus(now=0.0), Recorder(patient=True), Recorder(patient=True)
    bus.add(recorder)
    for tick in range(25):
        advance([bus], (tick + 1) * 0.02 + 1e-6)
        if tick == 6:
            bus.add(guest)
        if tick == 11:
            bus.remove(guest)
    assert len(recorder.frames) == 25
    assert guest.handed == [3, 2]


def test_rooms_of_other_phases_tell_of_volumes_with_their_blocks() -> None:
    bus, recorder = Bus(now=0.0, phase=3), Recorder(patient=True)
    bus.add(recorder)
    advance([bus], 1.2)
    assert [count for count, _ in recorder.volumes] == [22, 47]


def test_after_removal_nothing_comes() -> None:
    bus, recorder = Bus(now=0.0), Recorder()
    bus.add(recorder)
    advance([bus], 0.1)
    bus.remove(recorder)
    advance([bus], 1.0)
    assert len(recorder.frames) == 5


def test_after_a_standstill_a_room_catches_up_a_second_at_a_time() -> None:
    bus, recorder = Bus(now=0.0), Recorder()
    bus.add(recorder)
    for round_ in range(1, 4):
        advance([bus], 60.0)
        assert len(recorder.frames) == 50 * round_


def test_a_room_whose_mix_panics_ends_with_a_reason_and_the_others_go_on() -> None:
    reasons: list[str] = []
    broken, whole = Bus(0.0, reasons.append), Bus(0.0)
    recorders = [Recorder(), Recorder()]
    for bus, recorder in zip((broken, whole), recorders, strict=True):
        bus.add(recorder)
    advance([broken, whole], 0.1)
    broken.mixer._break_down()
    advance([broken, whole], 0.2)
    advance([broken, whole], 0.3)
    assert reasons == ["the mixer was told to break down"]
    assert [len(recorder.frames) for recorder in recorders] == [5, 15]
