"""What a host sets of identities: gain, mute, in the mix or aside; before they come and after they have left."""

import numpy as np
import pytest

from audiomixer import Mixer
from tests.signals import Signal, decibels, frames, level_at, sine, stereo

LATENCY = round(Mixer().latency * 48_000)


class Stage:
    """Alice at 500 Hz, bob at 900 Hz; what is mixed, what alice, bob and a silent listener hear."""

    def __init__(self) -> None:
        self.mixer = Mixer()
        self.alice, self.bob = self.mixer.add_participant("alice"), self.mixer.add_participant("bob")
        tones = [frames(stereo(sine(frequency, 0.2, 10))) for frequency in (500, 900)]
        self._tones = zip(*tones, strict=True)
        self._n = 0
        self.mix: list[Signal] = []
        self.heard: dict[str, list[Signal]] = {"alice": [], "bob": [], "": []}
        self.solos: dict[str, list[Signal]] = {"alice": [], "bob": []}

    def play(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self._n += 1
            for participant, tone in zip((self.alice, self.bob), next(self._tones), strict=True):
                participant.push_pcm(tone)
            self.mix.append(self.mixer.mix(self._n * 0.02))
            self.heard["alice"].append(self.mixer.mix_minus(self.alice))
            self.heard["bob"].append(self.mixer.mix_minus(self.bob))
            self.heard[""].append(self.mixer.mix_minus())
            for identity, solo in self.mixer.solos().items():
                self.solos[identity].append(solo)


def last(pieces: list[Signal], frequency: float) -> float:
    """The level in the last half second."""
    samples = np.concatenate(pieces[-25:])
    return level_at(samples.mean(axis=1) if samples.ndim == 2 else samples, frequency)


def steepest(pieces: list[Signal]) -> float:
    """The largest change of the slope: a click is one."""
    samples = np.concatenate(pieces)
    samples = samples[:, 0] if samples.ndim == 2 else samples
    return float(np.abs(np.diff(samples, 2)).max())


def test_six_decibels_down_in_mix_track_and_volume_within_100_ms_and_without_a_click() -> None:
    stage = Stage()
    stage.play(1)
    before, level = last(stage.mix, 900), stage.mixer.volumes()["bob"]
    usual = steepest(stage.mix[5:])
    stage.mixer.fader("bob").gain = 10 ** (-6 / 20)
    stage.play(0.1)
    stage.mixer.volumes()
    stage.play(0.5)
    assert decibels(last(stage.mix, 900) / before) == pytest.approx(-6, abs=0.1)
    assert decibels(last(stage.solos["bob"], 900) / before) == pytest.approx(-6, abs=0.1)
    assert decibels(stage.mixer.volumes()["bob"] / level) == pytest.approx(-6, abs=0.1)
    assert decibels(last(stage.mix, 500) / 0.2) == pytest.approx(0, abs=0.05)
    assert steepest(stage.mix[5:]) < 1.05 * usual


def test_muted_by_the_host_nobody_hears_it() -> None:
    stage = Stage()
    stage.play(1)
    bob = stage.mixer.fader("bob")
    bob.muted = True
    stage.play(1)
    assert stage.mixer.volumes()["bob"] == -1
    assert stage.mixer.muted == [], "it is not by itself"
    assert last(stage.mix, 900) < 1e-4
    assert last(stage.heard["alice"], 900) < 1e-4
    bob.muted = False
    stage.play(1)
    assert last(stage.mix, 900) == pytest.approx(0.2, rel=0.01)


def test_aside_the_room_hears_it_and_the_stream_does_not() -> None:
    """Bob is put aside at 1 s, and is back at 2 s; alice and listeners hear him all along, himself never."""
    stage = Stage()
    stage.play(1)
    usual = {name: steepest(pieces[5:]) for name, pieces in stage.heard.items()}
    straight, solo = steepest(stage.mix[5:]), steepest(stage.solos["bob"][5:])
    assert not stage.mixer.has_aside
    stage.mixer.fader("bob").in_mix = False
    stage.play(1)
    assert stage.mixer.has_aside
    assert stage.mixer.aside == ["bob"]
    assert last(stage.mix, 900) < 1e-4
    assert last(stage.solos["bob"], 900) < 1e-4
    for name, level in (("alice", 0.2), ("", 0.2), ("bob", 0.0)):
        assert last(stage.heard[name], 900) == pytest.approx(level, abs=2e-3)
    assert last(stage.heard["bob"], 500) == pytest.approx(0.2, rel=0.01)
    assert stage.mixer.volumes()["bob"] > 1000, "the room sees that he speaks"
    stage.mixer.fader("bob").in_mix = True
    stage.play(1)
    assert last(stage.mix, 900) == pytest.approx(0.2, rel=0.01)
    assert stage.mixer.aside == []
    for name, before in usual.items():
        assert steepest(stage.heard[name][5:]) < 1.05 * before, name
        bobs = np.concatenate(stage.heard[name][5:])[:, 0]
        own = [level_at(piece, 900) for piece in np.split(bobs[: len(bobs) // 4800 * 4800], len(bobs) // 4800)]
        expected = 0.0 if name == "bob" else 0.2
        assert own == pytest.approx([expected] * len(own), abs=4e-3), name
    assert steepest(stage.mix[5:]) < 1.05 * straight
    assert steepest(stage.solos["bob"][5:]) < 1.5 * solo
    stage.play(2.1)
    assert not stage.mixer.has_aside


def test_who_is_aside_takes_nobodys_place() -> None:
    stage = Stage()
    stage.mixer.max_speakers = 1
    stage.mixer.fader("bob").in_mix = False
    stage.bob.gain = 2
    stage.play(2)
    assert last(stage.mix, 500) == pytest.approx(0.2, rel=0.01)
    assert last(stage.heard["alice"], 900) == pytest.approx(0.4, rel=0.01)


def test_settings_come_first_and_stay() -> None:
    """What is set holds for all tracks of an identity, and when it is back."""
    mixer = Mixer()
    mixer.fader("bob").gain = 0.5
    tone = frames(sine(500, 0.2, 4))

    def bob(participants: int, start: int) -> float:
        sources = [mixer.add_participant("bob"), *(mixer.add_track("bob") for _ in range(participants - 1))]
        mixed = []
        for n in range(start, start + 50):
            for source in sources:
                source.push_pcm(tone[n])
            mixed.append(mixer.mix(n * 0.02))
        mixer.remove_participant("bob")
        mixer.mix((start + 50) * 0.02)
        return last(mixed, 500)

    assert bob(1, 0) == pytest.approx(0.1, rel=0.01)
    assert bob(2, 51) == pytest.approx(0.2, rel=0.01)
    mixer.fader("bob").muted = True
    assert bob(2, 102) < 1e-4


@pytest.mark.parametrize("gain", [-0.1, 4.1, float("nan"), float("inf")])
def test_gains_that_are_none(gain: float) -> None:
    fader = Mixer().fader("bob")
    with pytest.raises(ValueError, match="gain: expected 0 to 4"):
        fader.gain = gain
    assert fader.gain == 1


def test_identities_that_are_none() -> None:
    for identity in ("", "x" * 257):
        with pytest.raises(ValueError, match="identity: expected 1 to 256 bytes"):
            Mixer().fader(identity)


def test_the_first_who_is_put_aside_makes_no_click_for_those_who_only_listen() -> None:
    """Nobody has asked for a mix of their own before."""
    mixer = Mixer()
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    tones = [frames(stereo(sine(frequency, 0.2, 2))) for frequency in (500, 900)]
    heard = []
    for n, pieces in enumerate(zip(*tones, strict=True)):
        mixer.fader("bob").in_mix = n < 50
        for participant, piece in zip((alice, bob), pieces, strict=True):
            participant.push_pcm(piece)
        mix = mixer.mix(n * 0.02)
        heard.append(mixer.mix_minus() if mixer.has_aside else mix)
    usual = steepest(heard[5:50])
    assert steepest(heard[5:]) < 1.1 * usual
    assert last(heard, 900) == pytest.approx(0.2, rel=0.01)


def test_who_is_muted_or_aside_does_not_duck_the_music() -> None:
    mixer = Mixer()
    music, alice = mixer.add_participant("music"), mixer.add_participant("alice")
    music.duck = -12
    tones = [frames(sine(frequency, 0.2, 10)) for frequency in (500, 900)]
    levels = []
    for n, pieces in enumerate(zip(*tones, strict=True)):
        mixer.fader("alice").muted = n < 100
        mixer.fader("alice").in_mix = n >= 200
        for participant, piece in zip((music, alice), pieces, strict=True):
            participant.push_pcm(piece)
        levels.append(mixer.mix(n * 0.02))
        if n in {99, 199, 299}:
            assert decibels(last(levels, 500) / 0.2) == pytest.approx(-12 if n == 299 else 0, abs=0.1), n
