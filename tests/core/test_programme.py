"""The loudness of the mix, measured and brought to a target; judged by FFmpeg's ebur128."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from audiomixer import Mixer
from tests.signals import Signal, decibels, frames, noise, rms, sine, speech


def mixed(mixer: Mixer, signal: Signal) -> Signal:
    talker = mixer.add_participant("talker")
    out = []
    for n, piece in enumerate(frames(signal)):
        talker.push_pcm(piece)
        out.append(mixer.mix(n * 0.02))
    return np.concatenate(out)


def judged(file: Path, signal: Signal) -> dict[str, float]:
    """Integrated loudness in LUFS, loudness range in LU, true peak in dBTP."""
    signal.astype(np.float32).tofile(file)
    command = ["ffmpeg", "-hide_banner", "-nostats", "-f", "f32le", "-ar", "48000", "-ac", "2", "-i", str(file)]
    said = subprocess.run([*command, "-af", "ebur128=peak=true", "-f", "null", "-"], capture_output=True, text=True)
    summary = said.stderr.rpartition("Summary:")[2]
    found = dict(re.findall(r"(I|LRA|Peak): +(-?[\d.]+|-inf)", summary))
    return {name: float(value) for name, value in found.items()}


def programme(level: float) -> Signal:
    """A minute of talk, at so many dBFS."""
    talk = np.tile(speech(), 8)[: 60 * 48_000]
    return (talk * 10 ** (level / 20) / rms(talk)).astype(np.float32)


@pytest.mark.parametrize("level", [-42, -30, -18])
def test_programmes_of_any_level_end_at_the_target_without_pumping(tmp_path: Path, level: float) -> None:
    source = programme(level)
    before = judged(tmp_path / "before.pcm", np.repeat(source[:, None], 2, axis=1))
    mixer = Mixer()
    mixer.measure_loudness(-16)
    out = mixed(mixer, source)
    after = judged(tmp_path / "after.pcm", out)
    assert after["I"] == pytest.approx(-16, abs=0.5)
    assert after["LRA"] == pytest.approx(before["LRA"], abs=1)
    assert after["Peak"] <= -1
    loudness = mixer.loudness
    assert loudness
    assert loudness[2] == pytest.approx(after["I"], abs=0.2)


def test_it_is_measured_as_others_do_and_left_alone_without_a_target(tmp_path: Path) -> None:
    mixer, other = Mixer(), Mixer()
    assert mixer.loudness is None
    mixer.measure_loudness()
    assert mixer.loudness == (-np.inf, -np.inf, -np.inf, 0, 0)
    tone = sine(1000, 10 ** (-20 / 20), 5)
    out = mixed(mixer, tone)
    assert np.array_equal(out, mixed(other, tone))
    momentary, short_term, integrated, gain, reduction = mixer.loudness or (0, 0, 0, 0, 0)
    assert momentary == pytest.approx(-20, abs=0.1), "a tone of -20 dBFS on both sides is one of -20 LUFS"
    assert short_term == pytest.approx(-20, abs=0.1)
    assert integrated == pytest.approx(judged(tmp_path / "tone.pcm", out)["I"], abs=0.1)
    assert gain == reduction == 0


def test_a_pause_is_not_turned_up_and_a_target_may_go() -> None:
    mixer = Mixer()
    mixer.measure_loudness(-16)
    talker = mixer.add_participant("talker")
    talk, hiss = frames(programme(-35)), frames(noise(-80, 10))
    n = 0

    def play(pieces: list[Signal]) -> float:
        nonlocal n
        for piece in pieces:
            talker.push_pcm(piece)
            last = mixer.mix(n * 0.02)
            n += 1
        assert np.abs(last).max() < 0.9
        return (mixer.loudness or (0, 0, 0, 0))[3]

    gain = play(talk[:1500])
    assert gain > 10
    assert play(hiss) == pytest.approx(gain, abs=0.5)
    mixer.measure_loudness()
    play(talk[:1500])
    assert play(talk[1500:3000]) == pytest.approx(0, abs=0.01)


def test_everybody_in_the_room_hears_it_at_the_same_loudness() -> None:
    mixer = Mixer()
    mixer.measure_loudness(-16)
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    talk = frames(programme(-35))
    mix, for_bob, for_alice = [], [], []
    for n, piece in enumerate(talk[:1000]):
        alice.push_pcm(piece)
        mix.append(mixer.mix(n * 0.02))
        for_bob.append(mixer.mix_minus(bob))
        for_alice.append(mixer.mix_minus(alice))
    assert decibels(rms(np.concatenate(for_bob)) / rms(np.concatenate(mix))) == pytest.approx(0, abs=0.1)
    assert rms(np.concatenate(for_alice)) < 1e-4


@pytest.mark.parametrize("target", [-41, -11, float("nan"), float("inf")])
def test_targets_that_are_none(target: float) -> None:
    with pytest.raises(ValueError, match="loudness: expected -40 to -12 LUFS"):
        Mixer().measure_loudness(target)


def played(mixer: Mixer, signal: Signal, start: int = 0) -> list[float]:
    """Short-term loudness, twice a second."""
    told = []
    talker = mixer.add_participant(f"talker from {start}")
    for n, piece in enumerate(frames(signal), start):
        talker.push_pcm(piece)
        mixer.mix(n * 0.02)
        if n % 25 == 0:
            told.append((mixer.loudness or (0, 0, 0, 0))[1])
    mixer.remove_participant(f"talker from {start}")
    return told


def test_programmes_that_follow_each_other_are_all_brought_to_it() -> None:
    """Loud, soft, and loud again, a minute each."""
    mixer = Mixer()
    mixer.measure_loudness(-16)
    for number, level in enumerate((-12, -32, -15)):
        told = played(mixer, programme(level), 3000 * number)
        assert np.mean(told[-20:]) == pytest.approx(-16, abs=2), level


def test_noise_before_the_first_word_is_left_alone() -> None:
    mixer = Mixer()
    mixer.measure_loudness(-16)
    played(mixer, noise(-65, 8))
    assert (mixer.loudness or (0, 0, 0, 9))[3] == 0
    assert max(played(mixer, programme(-25)[: 8 * 48_000], 400)) < -13


def test_one_shout_does_not_turn_everybody_down() -> None:
    mixer = Mixer()
    mixer.measure_loudness(-16)
    played(mixer, programme(-30))
    before = (mixer.loudness or (0, 0, 0, 0))[3]
    played(mixer, programme(-14)[:24_000], 3000)
    played(mixer, programme(-30)[: 20 * 48_000], 3100)
    assert (mixer.loudness or (0, 0, 0, 0))[3] == pytest.approx(before, abs=1.5)
