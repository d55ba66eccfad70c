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


def test_who_announces_silence_is_taken_at_their_word() -> None:
    """From 0.5 s to 1.5 s every packet holds a tone, and says that it is silence."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    packets = [
        Sent(p.number, p.payload, p.arrival, 127 if 0.5 <= p.arrival < 1.5 else 10) for p in punctual(opus(TONE))
    ]
    mixed = play(mixer, alice, packets, seconds=2)
    heard = levels(mixed)
    assert min(heard[10:46]) > 0.2
    assert max(heard[49:76]) < 0.001
    assert min(heard[80:99]) > 0.2
    assert largest_step(mixed[60_000:]) < largest_step(mixed[9600:24_000]) + INAUDIBLE


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
