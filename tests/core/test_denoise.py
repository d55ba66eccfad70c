"""Noise that is taken off speakers."""

from collections.abc import Callable

import numpy as np
import pytest

from audiomixer import Mixer
from tests.signals import Signal, decibels, frames, noise, rms, sine, speech

DELAY = 480
LATENCY = round(Mixer().latency * 48_000)


def mixed(mixer: Mixer, *signals: Signal) -> Signal:
    """What comes out, without what it is late by itself."""
    sources = [(mixer.add_participant(f"talker {n}"), frames(signal)) for n, signal in enumerate(signals)]
    out = []
    for n in range(len(sources[0][1])):
        for source, pieces in sources:
            source.push_pcm(pieces[n])
        out.append(mixer.mix(n * 0.02)[:, 0])
    return np.concatenate(out)[LATENCY:]


def hum(seconds: float) -> Signal:
    """A fan: low rumble."""
    rumble = np.cumsum(noise(-50, seconds))
    rumble -= np.convolve(rumble, np.ones(480) / 480, "same")
    return (rumble * 0.01 / rms(rumble)).astype(np.float32)


def street(seconds: float) -> Signal:
    """Traffic: noise with less of it the higher it is."""
    spectrum = np.fft.rfft(noise(0, seconds))
    spectrum /= np.sqrt(np.arange(len(spectrum)) + 20 * seconds)
    return np.fft.irfft(spectrum).astype(np.float32)


@pytest.mark.parametrize("kind", [hum, street])
def test_noise_goes_and_speech_stays(kind: Callable[[float], Signal]) -> None:
    """Two seconds without a word, four with; the noise is 10 dB below."""
    talk = np.concatenate([np.zeros(96_000, np.float32), speech()[: 4 * 48_000]])
    talk = talk * 0.1 / rms(talk[96_000:])
    disturbance = kind(6)
    noisy = talk + disturbance * 0.1 / 10**0.5 / rms(disturbance)
    mixer = Mixer()
    mixer.denoise = True
    out = mixed(mixer, noisy.astype(np.float32))[DELAY:]
    pause, said = slice(48_000, 90_000), slice(110_000, len(out))
    assert decibels(rms(out[pause]) / rms(noisy[pause])) < -12
    gain = np.dot(out[said], talk[said]) / np.dot(talk[said], talk[said])
    assert decibels(gain) == pytest.approx(0, abs=1)
    error = rms(out[said] - gain * talk[said])
    assert decibels(error / rms(noisy[said] - talk[said])) < -1, "it is nearer to what was said than before"


def test_clean_speech_is_what_it_was_10_ms_later() -> None:
    talk = speech()[: 4 * 48_000]
    mixer = Mixer()
    mixer.denoise = True
    out = mixed(mixer, talk)[DELAY:]
    said = slice(4800, len(out))
    best = np.dot(out[said], talk[said]) / np.sqrt(np.dot(out[said], out[said]) * np.dot(talk[said], talk[said]))
    assert best > 0.98
    assert mixer.latency * 48_000 == LATENCY


def test_it_comes_and_goes_for_one_without_a_click_and_nobody_else_is_touched() -> None:
    mixer, plain = Mixer(), Mixer()
    talk, tone = speech()[: 4 * 48_000], sine(300, 0.1, 4)
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    out = []
    for n, (word, hum_) in enumerate(zip(frames(talk), frames(tone), strict=True)):
        mixer.fader("alice").denoise = 50 <= n < 150
        alice.push_pcm(word)
        bob.push_pcm(hum_)
        out.append(mixer.mix(n * 0.02)[:, 0])
    expected = mixed(plain, talk, tone)
    got = np.concatenate(out)[LATENCY:]
    assert np.allclose(got[: 48_000 - 960], expected[: 48_000 - 960], atol=1e-6)
    assert np.allclose(got[150 * 960 + 960 :], expected[150 * 960 + 960 :], atol=1e-6)
    assert np.abs(np.diff(got, 2)).max() < 1.5 * np.abs(np.diff(expected, 2)).max()


def test_volumes_and_mute_are_those_of_the_source() -> None:
    mixer, plain = Mixer(), Mixer()
    mixer.denoise = True
    hiss = noise(-30, 2)
    mixed(mixer, hiss)
    mixed(plain, hiss)
    assert mixer.volumes() == plain.volumes()
    mixer.remove_participant("talker 0")
    mixed(mixer, np.zeros(96_000, np.float32))
    assert mixer.volumes() == {"talker 0": -1}


def test_it_needs_48_khz() -> None:
    with pytest.raises(ValueError, match="denoise: expected a mixer at 48000 Hz, not 16000"):
        Mixer(16_000).denoise = True


def test_noise_that_nobody_hears_ducks_nothing_and_levels_nothing() -> None:
    mixer = Mixer()
    mixer.denoise = True
    mixer.leveler = True
    music, fan = mixer.add_participant("music"), mixer.add_participant("fan")
    music.duck = -12
    disturbance = hum(6)
    out = []
    for n, (tone, piece) in enumerate(zip(frames(sine(5000, 0.1, 6)), frames(disturbance), strict=True)):
        music.push_pcm(tone)
        fan.push_pcm(piece)
        out.append(mixer.mix(n * 0.02)[:, 0])
        if n == 50:
            mixer.fader("music").denoise = False
    solo = mixer.solos()["fan"]
    assert decibels(rms(solo) / rms(disturbance)) < -12
