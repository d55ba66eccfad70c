"""Speakers brought to one loudness, and the loudest of many."""

import numpy as np
import pytest

from audiomixer import Mixer
from tests.core.network import Sent, play, punctual
from tests.opus import opus
from tests.signals import Signal, decibels, frames, level_at, rms, sine, stereo

FREQUENCIES = {"alice": 300, "bob": 500, "carol": 700, "dave": 900}


def mix(mixer: Mixer, amplitudes: dict[str, list[float]]) -> Signal:
    """Everybody plays a tone of their own, a second at each amplitude."""
    tones = {}
    for name, levels in amplitudes.items():
        unit = sine(FREQUENCIES[name], 1, len(levels))
        tones[name] = (mixer.add_participant(name), frames(unit * np.repeat(levels, 48_000).astype(np.float32)))
    mixed = []
    for n in range(50 * len(next(iter(amplitudes.values())))):
        for participant, pieces in tones.values():
            participant.push_pcm(pieces[n])
        mixed.append(mixer.mix(n * 0.02)[:, 0])
    return np.concatenate(mixed)


def test_the_leveler_brings_speakers_together_and_leaves_the_volumes_alone() -> None:
    """Alice at −33 dBFS and Bob at −17 dBFS: 16 dB apart, and after a few seconds less than 1 dB."""
    mixer = Mixer(leveler=True)
    assert mixer.leveler
    mixed = mix(mixer, {"alice": [10 ** (-30 / 20)] * 8, "bob": [10 ** (-14 / 20)] * 8})
    end = mixed[-48_000:]
    alice, bob = (decibels(level_at(end, FREQUENCIES[name])) for name in ("alice", "bob"))
    assert alice == pytest.approx(bob, abs=1)
    assert alice == pytest.approx(-20, abs=1)
    assert mixer.volumes()["alice"] == pytest.approx(732, rel=0.02)


def test_without_the_leveler_everybody_is_as_loud_as_they_are() -> None:
    mixed = mix(Mixer(), {"alice": [0.03] * 3})
    assert level_at(mixed[-48_000:], 300) == pytest.approx(0.03, rel=0.01)


def test_mix_minus_has_nothing_of_the_listener_while_being_leveled() -> None:
    mixer = Mixer(leveler=True)
    alice = mixer.add_participant("alice")
    for n, frame in enumerate(frames(stereo(sine(440, 0.02, 3)))):
        alice.push_pcm(frame)
        mixer.mix(n * 0.02)
        assert np.max(np.abs(mixer.mix_minus(alice))) < 1e-6


def test_the_loudest_are_mixed_and_whoever_becomes_louder_takes_over_without_a_click() -> None:
    """Of four, two are mixed. In the fourth second Carol becomes the loudest, and Bob gives way."""
    mixer = Mixer(max_speakers=2)
    amplitudes = {
        "alice": [0.2] * 7,
        "bob": [0.1] * 7,
        "carol": [0.07, 0.07, 0.07, 0.3, 0.3, 0.3, 0.3],
        "dave": [0.05] * 7,
    }
    mixed = mix(mixer, amplitudes)
    before = {name: level_at(mixed[72_000:120_000], frequency) for name, frequency in FREQUENCIES.items()}
    after = {name: level_at(mixed[216_000:264_000], frequency) for name, frequency in FREQUENCIES.items()}
    assert before == pytest.approx({"alice": 0.2, "bob": 0.1, "carol": 0, "dave": 0}, abs=0.002)
    assert after == pytest.approx({"alice": 0.2, "bob": 0, "carol": 0.3, "dave": 0}, abs=0.002)
    volumes = mixer.volumes()
    assert {name: volumes[name] for name in ("alice", "bob", "dave")} == {"alice": 4634, "bob": 2317, "dave": 1158}
    steepest = sum(2 * np.pi * FREQUENCIES[name] / 48_000 * max(levels) for name, levels in amplitudes.items())
    assert np.max(np.abs(np.diff(mixed[960:]))) < steepest + 10 ** (-60 / 20)


def test_who_is_not_mixed_but_announces_levels_is_metered_by_them() -> None:
    """Bob is too quiet to be mixed, until he announces to be loud: then he is heard from that packet on."""
    mixer = Mixer(max_speakers=1)
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    loud, quiet = opus(sine(300, 0.2, 4)), opus(np.concatenate([sine(500, 0.02, 2), sine(500, 0.6, 2)]))
    volumes: list[dict[str, int]] = []

    def tick(now: float) -> None:
        n = round(now * 50) - 1
        alice.push_rtp(n, n * 960, loud[n], now - 0.01, 17)
        if round(now * 50) % 25 == 0:
            volumes.append(mixer.volumes())

    packets = [Sent(p.number, p.payload, p.arrival, 37 if p.number < 100 else 7) for p in punctual(quiet)]
    mixed = play(mixer, bob, packets, seconds=3.9, at_tick=tick)[:, 0]
    assert level_at(mixed[48_000:96_000], 500) < 0.001
    assert volumes[3]["bob"] == pytest.approx(32_767 * 10 ** (-37 / 20), rel=0.05)
    assert level_at(mixed[120_000:168_000], 500) == pytest.approx(0.6, rel=0.05)
    assert level_at(mixed[120_000:168_000], 300) < 0.001


@pytest.mark.parametrize("announced", [None, 6])
def test_who_is_muted_does_not_take_the_floor(announced: int | None) -> None:
    """Alice is much louder than Bob, and muted; only one is mixed."""
    mixer = Mixer(max_speakers=1)
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    alice.muted = True
    loud, quiet = opus(sine(300, 0.5, 4)), opus(sine(500, 0.1, 4))

    def tick(now: float) -> None:
        n = round(now * 50) - 1
        alice.push_rtp(n, n * 960, loud[n], now - 0.01, announced)

    mixed = play(mixer, bob, punctual(quiet), seconds=3.9, at_tick=tick)[:, 0]
    assert level_at(mixed[48_000:], 500) == pytest.approx(0.1, rel=0.05)
    assert level_at(mixed[48_000:], 300) < 0.001
    assert min(rms(mixed[n : n + 960]) for n in range(48_000, len(mixed), 960)) > 0.05


def test_the_leveler_comes_and_goes_without_a_click() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    tone = sine(300, 0.03, 12)
    mixed = []
    for n, frame in enumerate(frames(tone)):
        mixer.leveler = 50 <= n < 300
        alice.push_pcm(frame)
        mixed.append(mixer.mix(n * 0.02)[:, 0])
    result = np.concatenate(mixed)
    assert level_at(result[240_000:288_000], 300) > 0.09
    assert level_at(result[-48_000:], 300) == pytest.approx(0.03, rel=0.01)
    steepest = 2 * np.pi * 300 / 48_000 * 0.12
    assert np.max(np.abs(np.diff(result[960:]))) < steepest + 10 ** (-60 / 20)


def test_options_change_while_mixing() -> None:
    mixer = Mixer()
    assert (mixer.leveler, mixer.max_speakers) == (False, None)
    mixer.max_speakers, mixer.leveler = 3, True
    assert (mixer.leveler, mixer.max_speakers) == (True, 3)
    mixer.max_speakers = None
    assert mixer.max_speakers is None
    for most in (0, -1):
        with pytest.raises(ValueError, match="max_speakers: expected at least 1"):
            mixer.max_speakers = most
        with pytest.raises(ValueError, match="max_speakers"):
            Mixer(max_speakers=most)
    assert rms(mixer.mix(0.02)) == 0
