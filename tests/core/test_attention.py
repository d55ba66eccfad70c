"""Who is known to be silent or muted is not decoded, and is heard at once when that is over."""

import numpy as np
import pytest

from audiomixer import Mixer
from tests.core.network import Sent, play, punctual
from tests.opus import opus
from tests.signals import Signal, rms, sine, speech

TONE = sine(200, 0.3, 2)
INAUDIBLE = 10 ** (-60 / 20)


def levels(mixed: Signal) -> list[float]:
    return [rms(mixed[n : n + 960]) for n in range(0, len(mixed), 960)]


def largest_step(mixed: Signal) -> float:
    return float(np.max(np.abs(np.diff(mixed[:, 0]))))


def test_whose_level_always_says_silence_is_heard_all_the_same() -> None:
    """Every packet holds a tone, and says that it is silence."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    volumes = []
    mixed = play(
        mixer,
        alice,
        [Sent(p.number, p.payload, p.arrival, 127) for p in punctual(opus(TONE))],
        seconds=2,
        at_tick=lambda now: volumes.append(mixer.volumes()["alice"]),
    )
    assert min(levels(mixed)[10:]) > 0.2
    assert min(volumes[10:]) > 6000


def test_a_liar_about_its_level_gets_no_floor() -> None:
    """Silence that is announced as full scale, beside a tone, where one may speak."""
    mixer = Mixer(max_speakers=1)
    bob, liar = mixer.add_participant("bob"), mixer.add_participant("liar")
    silence = opus(np.zeros(48_000 * 10, np.float32))
    tone = opus(sine(200, 0.1, 10))
    heard = 0
    for tick in range(500):
        now = 0.02 * (tick + 1)
        bob.push_rtp(tick, 960 * tick, tone[tick], now - 0.01, 23)
        liar.push_rtp(tick, 960 * tick, silence[tick], now - 0.01, 0)
        heard += rms(mixer.mix(now)) > 0.03
        if tick % 25 == 24:
            assert mixer.volumes()["liar"] < 100
    assert heard > 490


def test_who_earned_trust_and_lies_then_has_the_floor_for_a_moment() -> None:
    """A second of a quiet voice with its true level, then silence that is announced as full scale."""
    mixer = Mixer(max_speakers=1)
    bob, liar = mixer.add_participant("bob"), mixer.add_participant("liar")
    tone = opus(sine(200, 0.1, 10))
    quiet = opus(np.concatenate([sine(300, 0.01, 1), np.zeros(48_000 * 9, np.float32)]))
    heard = 0
    for tick in range(500):
        now = 0.02 * (tick + 1)
        bob.push_rtp(tick, 960 * tick, tone[tick], now - 0.01, 23)
        liar.push_rtp(tick, 960 * tick, quiet[tick], now - 0.01, 43 if tick < 60 else 0)
        heard += rms(mixer.mix(now)) > 0.03
    assert heard > 480


def test_the_first_syllable_after_silence_is_heard() -> None:
    """Two seconds of a disabled track, then speech: as if everything had been decoded."""
    voice = speech()[:48_000]
    begins = int(np.argmax(np.abs(voice) > 0.05))
    voice = voice[begins - 480 :]
    signal = np.concatenate([np.zeros(96_000, np.float32), voice])
    for level in (None, 127):
        mixer, never_silent = Mixer(), Mixer()
        payloads = opus(signal)
        packets = [Sent(p.number, p.payload, p.arrival, level if p.arrival < 2 else None) for p in punctual(payloads)]
        mixed = play(mixer, mixer.add_participant("alice"), packets, seconds=2.9)[:, 0]
        bob = never_silent.add_participant("bob")
        expected = play(never_silent, bob, punctual(payloads)[95:], seconds=2.9)[:, 0]
        onset = slice(98_000, 120_000)
        assert rms(mixed[onset]) == pytest.approx(rms(expected[onset]), rel=0.05)
        assert rms(mixed[onset] - expected[onset]) < 0.1 * rms(expected[onset])


def test_a_signalled_mute_ends_without_a_click_and_at_once() -> None:
    """Muted from 0.5 s to 1.5 s, while a tone is sent all along."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    mutes = {0.5: True, 1.5: False}

    def signal(now: float) -> None:
        if (at := round(now, 2)) in mutes:
            alice.muted = mutes[at]

    mixed = play(mixer, alice, punctual(opus(TONE)), seconds=2, at_tick=signal)
    heard = levels(mixed)
    assert min(heard[10:24]) > 0.2
    assert max(heard[28:74]) == 0
    assert min(heard[80:99]) > 0.2
    assert largest_step(mixed[24_000:]) < largest_step(mixed[9600:24_000]) + INAUDIBLE
    assert alice.stats().concealed == 0


@pytest.mark.parametrize("seconds", [0.3, 3])
def test_loss_during_a_mute_is_no_stall_afterwards(seconds: float) -> None:
    """While muted, nothing comes through for a while."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    alice.muted = True
    packets = [p for p in punctual(opus(sine(200, 0.3, 6))) if not 1 <= p.arrival < 1 + seconds]

    def unmute(now: float) -> None:
        if now >= 5:
            alice.muted = False

    mixed = play(mixer, alice, packets, seconds=6, at_tick=unmute)
    assert max(levels(mixed)[:248]) == 0
    assert min(levels(mixed)[256:]) > 0.2
