"""What comes out of the mix, with participants that push samples."""

import itertools

import numpy as np
import pytest

from audiomixer import Mixer, Participant
from tests.signals import Signal, decibels, frames, level_at, noise, rms, sine, speech, stereo

CEILING = 10 ** (-1 / 20)
LATENCY = 246
"""Samples, at 48 kHz."""


def mix(mixer: Mixer, *sources: tuple[Participant, Signal]) -> Signal:
    """Pushes each participant's signal frame by frame, and returns the whole mix."""
    mixed = []
    for n, pieces in enumerate(zip(*(frames(signal) for _, signal in sources), strict=True)):
        for (participant, _), piece in zip(sources, pieces, strict=True):
            participant.push_pcm(piece)
        mixed.append(mixer.mix(n * 0.02))
    return np.concatenate(mixed)


def largest_step(signal: Signal) -> float:
    return float(np.max(np.abs(np.diff(signal, axis=0))))


def test_one_speaker_below_the_ceiling_passes_within_one_step_of_16_bits() -> None:
    mixer = Mixer()
    speech = stereo(noise(-20, 2).clip(-0.85, 0.85))
    mixed = mix(mixer, (mixer.add_participant("alice"), speech))
    after_fade_in = slice(LATENCY + 960, None)
    assert round(mixer.latency * 48_000) == LATENCY
    difference = mixed[after_fade_in] - speech[960:-LATENCY]
    assert np.max(np.abs(difference)) <= 1 / 32768


def test_two_full_scale_speakers_never_exceed_the_ceiling() -> None:
    mixer = Mixer()
    mixed = mix(
        mixer,
        (mixer.add_participant("alice"), stereo(sine(440, 1.0, 2))),
        (mixer.add_participant("bob"), stereo(noise(-3, 2).clip(-1, 1))),
    )
    assert np.max(np.abs(mixed)) <= CEILING + 1e-6
    assert rms(mixed[48_000:]) > 0.3


def test_twenty_full_scale_speakers_stay_below_the_ceiling_even_between_the_samples() -> None:
    """Between the samples: interpolated to four times as many."""
    mixer = Mixer()
    voices = [speech(name)[: 2 * 48_000] for name in ("alice", "bob", "carol")]
    signals = [np.roll(voices[n % 3] / np.max(np.abs(voices[n % 3])), 997 * n) for n in range(20)]
    mixed = mix(mixer, *((mixer.add_participant(str(n)), stereo(signal)) for n, signal in enumerate(signals)))
    assert np.max(np.abs(mixed)) <= np.float32(CEILING)
    between = np.fft.irfft(np.fft.rfft(mixed[:, 0]), 4 * len(mixed)) * 4
    assert decibels(float(np.max(np.abs(between)))) < -0.9


def test_speakers_are_summed_not_averaged() -> None:
    mixer = Mixer()
    alice, bob = noise(-30, 1, seed=1), noise(-30, 1, seed=2)
    mixed = mix(mixer, (mixer.add_participant("alice"), stereo(alice)), (mixer.add_participant("bob"), stereo(bob)))
    expected = (alice + bob)[960:-LATENCY]
    assert np.max(np.abs(mixed[960 + LATENCY :, 0] - expected)) < 1e-6


def test_int16_and_mono_are_welcome_and_int16_comes_out_again() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    samples = (sine(440, 0.5, 1) * 32767).astype(np.int16)
    out = np.zeros((960, 2), np.int16)
    mixed = []
    for n, frame in enumerate(frames(samples)):
        alice.push_pcm(frame)
        mixer.mix_into(out, n * 0.02)
        mixed.append(out.copy())
    result = np.concatenate(mixed)[960 + LATENCY :]
    assert np.array_equal(result[:, 0], samples[960:-LATENCY])
    assert np.array_equal(result[:, 0], result[:, 1])


@pytest.mark.parametrize("gain", [0.0, 0.25, 1.0, 2.0])
def test_mix_minus_has_everybody_but_the_listener_at_any_gain(gain: float) -> None:
    mixer = Mixer()
    alice, bob, carol = (mixer.add_participant(name) for name in ("alice", "bob", "carol"))
    alice.gain = gain
    heard: dict[str, list[Signal]] = {"alice": [], "bob": []}
    tones = [stereo(sine(frequency, 0.2, 2)) for frequency in (500, 900, 1300)]
    for n, pieces in enumerate(zip(*(frames(tone) for tone in tones), strict=True)):
        for participant, piece in zip((alice, bob, carol), pieces, strict=True):
            participant.push_pcm(piece)
        mixer.mix(n * 0.02)
        heard["alice"].append(mixer.mix_minus(alice))
        heard["bob"].append(mixer.mix_minus(bob))
    without_alice = np.concatenate(heard["alice"])[960 + LATENCY :]
    expected = (tones[1] + tones[2])[960:-LATENCY]
    assert decibels(rms(without_alice - expected) / rms(expected)) < -80
    without_bob = np.concatenate(heard["bob"])[1920 + LATENCY :]
    expected = (gain * tones[0] + tones[2])[1920:-LATENCY]
    assert decibels(rms(without_bob - expected) / rms(expected)) < -80


def test_mix_minus_again_before_the_next_mix_gives_the_same() -> None:
    mixer = Mixer()
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    for n, frame in enumerate(frames(sine(440, 0.5, 0.2))):
        bob.push_pcm(frame)
        mixer.mix(n * 0.02)
        first = mixer.mix_minus(alice)
        out = np.zeros((960, 2), np.float32)
        assert mixer.mix_minus(alice, out) is out
        assert np.array_equal(out, first)
    assert rms(first) > 0.3


def test_nobody_joins_leaves_or_mutes_with_a_click() -> None:
    """Alice's 200 Hz joins at 0 s, is muted at 0.2 s, unmuted at 0.4 s, halved at 0.6 s, leaves at 0.8 s."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    tone = stereo(sine(200, 0.5, 1))
    loudest_in_tone = largest_step(tone)
    mixed = []
    for n, frame in enumerate(frames(tone)):
        match n:
            case 10:
                alice.muted = True
            case 20:
                alice.muted = None
            case 30:
                alice.gain = 0.5
            case 40:
                mixer.remove_participant("alice")
        if n < 40:
            alice.push_pcm(frame)
        mixed.append(mixer.mix(n * 0.02))
    result = np.concatenate(mixed)
    assert largest_step(result) < loudest_in_tone + 10 ** (-60 / 20)
    levels = [rms(result[start : start + 960]) for start in range(0, 48_000, 960)]
    assert levels[13] == 0
    assert levels[25] == pytest.approx(0.354, abs=0.01)
    assert levels[35] == pytest.approx(0.177, abs=0.01)
    assert levels[45] == 0


@pytest.mark.parametrize(
    ("signal", "volume"),
    [
        (sine(1000, 1.0, 0.5), 23170),
        (sine(1000, 0.1, 0.5), 2317),
        (np.full(24_000, 0.01, np.float32), 328),
        (np.tile(np.array([1, -1], np.float32), 12_000), 32767),
    ],
)
def test_volumes_of_known_signals_are_exact(signal: Signal, volume: int) -> None:
    mixer = Mixer()
    mix(mixer, (mixer.add_participant("alice"), signal))
    assert mixer.volumes()["alice"] == pytest.approx(volume, abs=1)


def test_volumes_are_of_the_time_since_the_last_call() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    mix(mixer, (alice, sine(1000, 0.5, 0.5)))
    mixer.volumes()
    mix(mixer, (alice, sine(1000, 0.05, 0.5)))
    assert mixer.volumes() == {"alice": pytest.approx(1158, abs=1)}


def test_gain_and_signalled_mute_do_not_change_what_is_measured_or_reported() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    alice.gain = 0.1
    mix(mixer, (alice, sine(1000, 0.5, 0.5)))
    assert mixer.volumes() == {"alice": pytest.approx(11585, abs=1)}
    alice.muted = True
    mix(mixer, (alice, sine(1000, 0.5, 0.5)))
    assert mixer.volumes() == {"alice": -1}


def test_samples_that_nobody_mixes_are_bounded_and_the_newest_are_kept() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    for level in (0.1, 0.2, 0.3):
        alice.push_pcm(np.full(30_000, level, np.float32))
    assert alice.stats().overflow == 3 * 30_000 - 48_000
    mixed = np.concatenate([mixer.mix(n * 0.02) for n in range(60)])
    assert set(np.round(mixed[2000:, 0], 3)) >= {np.float32(0.2), np.float32(0.3)}
    assert np.float32(0.1) not in set(np.round(mixed[2000:, 0], 3))


@pytest.mark.parametrize(("sample_rate", "channels"), list(itertools.product([8000, 16_000, 48_000], [1, 2])))
def test_other_rates_and_mono(sample_rate: int, channels: int) -> None:
    mixer = Mixer(sample_rate, channels)
    alice = mixer.add_participant("alice")
    assert mixer.frame_size == sample_rate // 50
    for n in range(50):
        alice.push_pcm(np.full((mixer.frame_size, channels), 0.25, np.float32))
        frame = mixer.mix(n * 0.02)
    assert frame.shape == (mixer.frame_size, channels)
    assert np.allclose(frame, 0.25)


def test_tracks_of_a_participant_are_one_in_volumes_and_solos() -> None:
    """A microphone and a shared screen; the one ends, then the other, and the participant is there all along."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    microphone, screen = mixer.add_track("alice"), mixer.add_track("alice")
    assert mixer.volumes() == {"alice": -1}
    assert mixer.identities == ["alice"]
    mixed = mix(mixer, (microphone, sine(440, 0.3, 1)), (screen, sine(1000, 0.4, 1)))
    assert rms(mixed[48_000 // 2 :]) == pytest.approx(0.5 / np.sqrt(2), rel=0.01), "both are heard"
    assert mixer.volumes() == {"alice": pytest.approx(0.5 / np.sqrt(2) * 32767, rel=0.03)}
    assert rms(mixer.solos()["alice"]) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)

    mixer.remove_track(screen)
    mix(mixer, (microphone, sine(440, 0.3, 1)))
    assert mixer.volumes() == {"alice": pytest.approx(0.3 / np.sqrt(2) * 32767, rel=0.03)}
    microphone.muted = True
    mixer.mix(3)
    assert mixer.volumes() == {"alice": -1}
    mixer.remove_track(microphone)
    assert mixer.volumes() == {"alice": -1}
    with pytest.raises(ValueError, match='track: no such one of "alice"'):
        mixer.remove_track(microphone)

    late = mixer.add_track("alice")
    mixer.remove_participant("alice")
    for left in (alice, late):
        with pytest.raises(ValueError, match="has left"):
            left.push_pcm(sine(440, 0.3, 0.02))
    with pytest.raises(ValueError, match='no "alice" in this mixer'):
        mixer.add_track("alice")


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 96000])
def test_samples_at_other_rates_have_the_right_pitch_and_nothing_else(rate: int) -> None:
    """A tone of 1 kHz, in pieces of 20 ms; where the rate changes, it goes on."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    time = np.arange(3 * rate) / rate
    tone = (0.25 * np.sin(2 * np.pi * 1000 * time) * 32767).astype(np.int16)
    piece = rate // 50
    mixed = []
    for n in range(150):
        alice.push_pcm(tone[n * piece : (n + 1) * piece], sample_rate=rate)
        mixed.append(mixer.mix(n * 0.02)[:, 0])
    steady = np.concatenate(mixed)[48_000 : 48_000 + 96_000 // 48 * 48]
    spectrum = np.abs(np.fft.rfft(steady * np.hanning(len(steady)))) ** 2
    peak = int(spectrum.argmax())
    assert peak / len(steady) * 48_000 == pytest.approx(1000, rel=1e-3)
    around = slice(peak - 5, peak + 6)
    rest = (spectrum.sum() - spectrum[around].sum()) / spectrum.sum()
    assert 10 * np.log10(rest) < -60, "THD+N"
    assert level_at(steady, 1000) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("rate", [0, -1, 7999, 192_001, 44_101, 2**40])
def test_rates_that_are_none(rate: int) -> None:
    alice = Mixer().add_participant("alice")
    with pytest.raises(ValueError, match="sample_rate: expected 8000 to 192000 Hz, in steps of 25"):
        alice.push_pcm(np.zeros(160, np.int16), sample_rate=rate)
