"""Senders as they are in the field: clocks that stand still, padding, encoders that are fed too much."""

import random

import numpy as np
import pytest

from audiomixer import Mixer
from tests.opus import opus
from tests.signals import Signal, decibels, level_at, rms, sine, speech

FRAME = 960


def utterances(pauses: list[float], seconds: float = 0.8) -> tuple[list[tuple[float, int, bytes]], list[float]]:
    """Speech after each pause, stamped as if there were none: arrival, timestamp, payload; and when each begins."""
    voice = speech()
    loud = int(np.argmax(np.abs(voice) > 0.1))
    payloads = opus(voice[loud : loud + round(seconds * 48_000)], 32)
    packets, onsets, now = [], [], 0.0
    for pause in pauses:
        now += pause
        onsets.append(now)
        for payload in payloads:
            packets.append((now, FRAME * len(packets), payload))
            now += 0.02
    return packets, onsets


def heard(
    packets: list[tuple[float, int, bytes]], jitter: float = 0.0, **options: float
) -> tuple[Signal, list[float], object]:
    """The mix, the target delay at each tick, and the statistics at the end."""
    mixer = Mixer(channels=1, **options)  # type: ignore[arg-type]
    alice = mixer.add_participant("alice")
    late = random.Random(1)
    arrivals, last = [], 0.0
    for at, timestamp, payload in packets:
        last = max(last, at + late.expovariate(1 / jitter) if jitter else at)
        arrivals.append((last, timestamp, payload))
    mixed, targets, sequence = [], [], 0
    for tick in range(round((packets[-1][0] + 1) * 50)):
        now = 0.02 * (tick + 1)
        while sequence < len(arrivals) and arrivals[sequence][0] <= now:
            at, timestamp, payload = arrivals[sequence]
            alice.push_rtp(sequence & 0xFFFF, timestamp & 0xFFFF_FFFF, payload, at)
            sequence += 1
        mixed.append(mixer.mix(now))
        targets.append(alice.stats().target_delay)
    return np.concatenate(mixed)[:, 0], targets, alice.stats()


@pytest.mark.parametrize("jitter", [0.0, 0.015])
def test_utterances_of_a_clock_that_stands_still_lose_no_onset_and_raise_no_delay(jitter: float) -> None:
    """Fifty of them, after pauses of 0.2 to 6 s."""
    pauses = [0.2 + 5.8 * (n * 37 % 50) / 49 for n in range(50)]
    packets, onsets = utterances(pauses)
    mixed, targets, stats = heard(packets, jitter)
    assert max(targets) <= (0.15 if jitter else 0.05)
    reference = heard([(0.02 * n, FRAME * n, payload) for n, (_, _, payload) in enumerate(packets[:40])])[0]
    first = int(np.argmax(np.abs(reference) > 0.02))
    expected = decibels(rms(reference[first : first + 4800]))
    for onset in onsets[1:]:
        begin = round(onset * 48_000)
        found = mixed[begin : begin + 24_000]
        start = int(np.argmax(np.abs(found) > 0.02))
        assert decibels(rms(found[start : start + 4800])) == pytest.approx(expected, abs=1.5), onset
        assert start < 48 * (60 if not jitter else 230), onset
    if not jitter:
        assert stats.expanded < 0.5  # type: ignore[attr-defined]
        assert stats.late == 0  # type: ignore[attr-defined]


def test_a_stall_of_the_network_is_none_of_the_clock() -> None:
    """What comes in a burst after 0.3 s is played, and what the delay has become is known."""
    payloads = opus(sine(440, 0.3, 6), 32)
    packets = [(0.02 * n if not 100 <= n < 115 else 2.3, FRAME * n, payload) for n, payload in enumerate(payloads)]
    _, targets, stats = heard(packets)
    assert max(targets) > 0.2
    assert stats.lost == 0  # type: ignore[attr-defined]


def test_padding_is_part_of_the_sequence_and_of_nothing_else() -> None:
    """After each second packet one without audio, as bandwidth probes are; and a pause in between."""
    mixer, plain = Mixer(channels=1), Mixer(channels=1)
    alice, bob = mixer.add_participant("alice"), plain.add_participant("alice")
    payloads = opus(sine(440, 0.3, 4), 32)
    sequence = 0
    for tick, payload in enumerate(payloads):
        now = 0.02 * (tick + 1)
        if not 100 <= tick < 120:
            bob.push_rtp(tick - 20 * (tick >= 120), FRAME * tick, payload, now - 0.01)
            alice.push_rtp(sequence, FRAME * tick, payload, now - 0.01)
            sequence += 1
            if tick % 2:
                alice.push_rtp(sequence, FRAME * tick, b"", now - 0.01)
                sequence += 1
        assert np.array_equal(mixer.mix(now), plain.mix(now)), tick
    assert (alice.stats().lost, alice.stats().discarded) == (0, 0)
    assert alice.stats().concealed == bob.stats().concealed


@pytest.mark.parametrize("times", [10, 100])
def test_an_encoder_that_is_fed_too_much_turns_nobody_else_down_further_than_full_scale_does(times: int) -> None:
    def tone_beside(amplitude: float) -> float:
        mixer = Mixer(channels=1)
        alice, loud = mixer.add_participant("alice"), mixer.add_participant("loud")
        tone, other = opus(sine(440, 0.1, 4), 64), opus(sine(1000, amplitude, 4), 64, application="audio")
        mixed = []
        for tick in range(200):
            now = 0.02 * (tick + 1)
            alice.push_rtp(tick, FRAME * tick, tone[tick], now - 0.01)
            loud.push_rtp(tick, FRAME * tick, other[tick], now - 0.01)
            mixed.append(mixer.mix(now))
        return level_at(np.concatenate(mixed)[96_000:, 0], 440)

    assert decibels(tone_beside(1.0) / tone_beside(float(times))) < 2
