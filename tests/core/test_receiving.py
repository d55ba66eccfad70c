"""Packets lost, late, twice, out of order, or nonsense: the mix goes on."""

import random

import numpy as np
import pytest

from audiomixer import Mixer, Participant
from benches.quality.network import Arrival, Network, ticks
from benches.quality.repairs import active, isolated, share_repaired
from tests.core.network import Sent, play, punctual
from tests.opus import has_fec, opus
from tests.signals import Signal, level_at, noise, rms, sine, speech, stereo

TONE = sine(440, 0.3, 4)


def levels(mixed: Signal, start: float, end: float) -> list[float]:
    """RMS of each 20 ms from `start` to `end` seconds."""
    return [rms(mixed[n : n + 960]) for n in range(round(start * 48_000), round(end * 48_000), 960)]


def is_steady(mixed: Signal, start: float, end: float) -> bool:
    return min(levels(mixed, start, end)) > 0.9 * 0.3 / 2**0.5


def test_a_punctual_stream_is_played_whole_within_the_least_delay() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    mixed = play(mixer, alice, punctual(opus(TONE)), seconds=4)
    assert is_steady(mixed, 0.2, 3.9)
    assert level_at(mixed[9600:105_600, 0], 440) == pytest.approx(0.3, rel=0.02)
    stats = alice.stats()
    assert (stats.received, stats.lost, stats.late, stats.concealed) == (200, 0, 0, 0)
    assert stats.delay == pytest.approx(0.04, abs=0.01)


def test_left_and_right_stay_apart() -> None:
    mixer = Mixer()
    both = np.stack([sine(440, 0.3, 2), sine(880, 0.2, 2)], axis=1)
    mixed = play(mixer, mixer.add_participant("alice"), punctual(opus(both, 96, application="audio")), seconds=2)
    left, right = mixed[24_000:72_000].T
    assert level_at(left, 440) == pytest.approx(0.3, rel=0.05)
    assert level_at(right, 880) == pytest.approx(0.2, rel=0.05)
    assert level_at(left, 880) < 0.01
    assert level_at(right, 440) < 0.01


def test_a_sender_may_turn_to_stereo_and_back() -> None:
    mixer = Mixer()
    payloads = [*opus(TONE[:48_000]), *opus(stereo(TONE[:48_000]), 64), *opus(TONE[:48_000])]
    mixed = play(mixer, mixer.add_participant("alice"), punctual(payloads), seconds=3)
    assert min(levels(mixed, 0.2, 2.9)) > 0.1


@pytest.mark.parametrize("milliseconds", [2.5, 5, 10, 20, 40, 60, 80, 100, 120])
def test_packets_of_any_duration(milliseconds: float) -> None:
    mixer = Mixer()
    payloads = opus(TONE, 64, milliseconds=milliseconds, application="audio")
    packets = punctual(payloads, milliseconds / 1000)
    alice = mixer.add_participant("alice")
    mixed = play(mixer, alice, packets, ticks_per_packet=round(milliseconds * 48), seconds=3.9)
    assert is_steady(mixed, 0.4, 3.6)
    assert alice.stats().concealed == 0


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.1, 0.3])
def test_lost_packets_never_stall(loss: float) -> None:
    """A voice that never pauses: no 20 ms tick may be silent, and the time is not stretched."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    dice = random.Random(1)
    voice = noise(-20, 10)
    sent = [packet for packet in punctual(opus(voice)) if packet.number == 0 or dice.random() >= loss]
    mixed = play(mixer, alice, sent, seconds=10)
    assert min(levels(mixed, 0.2, 9.9)) > 0.005
    stats = alice.stats()
    assert stats.received == len(sent)
    assert stats.lost == pytest.approx(500 - len(sent), abs=2)
    assert stats.delay < 0.1


def test_isolated_losses_of_speech_are_repaired_wherever_there_is_a_copy() -> None:
    """One packet in ten is lost, and the next one has a copy of it unless the encoder took it for a pause."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    payloads = opus(speech()[: 6 * 48_000], 24)
    sent = [packet for packet in punctual(payloads) if packet.number % 10 != 5]
    play(mixer, alice, sent, seconds=6)
    copies = sum(has_fec(payloads[number + 1]) for number in range(5, 300, 10))
    assert alice.stats().lost == 30
    assert alice.stats().recovered == copies >= 24


def test_of_a_twentieth_of_the_packets_lost_nearly_all_speech_is_repaired() -> None:
    voice = speech()
    payloads = opus(voice, 24)
    lost = isolated(len(payloads), seed=1) & active(voice, len(payloads))
    assert np.sum(lost) >= 20
    assert share_repaired(payloads, [lost]) >= 0.9


def test_a_late_packet_is_played_and_the_delay_given_back() -> None:
    """At 30 s the network holds everything for 200 ms: nothing of it is lost, and 3 s later the delay is as before."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    sent = [
        Sent(p.number, p.payload, 30.2 if 30 <= p.arrival < 30.2 else p.arrival)
        for p in punctual(opus(sine(200, 0.3, 34)))
    ]
    delays = {}
    play(mixer, alice, sent, seconds=33.2, at_tick=lambda now: delays.__setitem__(round(now, 2), alice.stats().delay))
    stats = alice.stats()
    assert stats.late == 0
    assert delays[29.9] < 0.07
    assert delays[30.24] > 0.12
    assert delays[33.2] < 0.07
    assert stats.accelerated > 0.05


def test_reordered_packets_are_put_in_order() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    sent = [Sent(p.number, p.payload, p.arrival + (0.025 if p.number % 5 == 2 else 0)) for p in punctual(opus(TONE))]
    mixed = play(mixer, alice, sent, seconds=4)
    assert is_steady(mixed, 0.3, 3.9)
    assert alice.stats().late == 0
    assert alice.stats().concealed == 0


def test_duplicates_are_counted_and_heard_once() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    packets = punctual(opus(TONE))
    again = [Sent(p.number, p.payload, p.arrival + 0.001 * (p.number % 300)) for p in packets]
    mixed = play(mixer, alice, [*packets, *again], seconds=4.4)
    assert is_steady(mixed, 0.2, 3.9)
    assert alice.stats().duplicate == 200
    assert alice.stats().received == 200


def test_nonsense_is_counted_and_dropped() -> None:
    """Every third packet is accompanied by one of random bytes, or with a random number and time."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    dice = random.Random(7)
    packets = punctual(opus(TONE))

    def disturb(now: float) -> None:
        alice.push_rtp(dice.getrandbits(16), dice.getrandbits(32), dice.randbytes(dice.randrange(60)), now)

    mixed = play(mixer, alice, packets, seconds=4, at_tick=disturb)
    assert min(levels(mixed, 0.2, 3.9)) > 0.01
    assert np.mean(levels(mixed, 0.2, 3.9)) == pytest.approx(0.3 / 2**0.5, rel=0.1)
    assert alice.stats().discarded > 150


def test_a_sender_that_starts_anew_is_heard_again_at_once() -> None:
    """At 1 s a new sender takes over, with other numbers and times, as after a reload."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    before = play(mixer, alice, punctual(opus(TONE[:48_000])), seconds=1)
    packets = [Sent(p.number, p.payload, p.arrival + 1) for p in punctual(opus(TONE[:48_000]))]
    mixed = []
    for tick in range(50):
        now = 1.02 + tick * 0.02
        packet = packets[tick]
        alice.push_rtp((9_000 + tick) & 0xFFFF, 123_456 + tick * 960, packet.payload, packet.arrival)
        mixed.append(mixer.mix(now))
    assert is_steady(before, 0.2, 0.9)
    assert is_steady(np.concatenate(mixed), 0.2, 0.9)


@pytest.mark.parametrize("seconds", [0.5, 3, 4.9, 60])
def test_a_timestamp_that_goes_back_is_a_new_beginning(seconds: float) -> None:
    """At 1 s the sender's timestamp is set back, while its sequence numbers go on."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    payloads = opus(TONE[:96_000])
    mixed = []
    for tick, payload in enumerate(payloads):
        back = round(seconds * 48_000) if tick >= 50 else 0
        alice.push_rtp(tick, (10_000_000 + tick * 960 - back) & 0xFFFF_FFFF, payload, tick * 0.02)
        mixed.append(mixer.mix(tick * 0.02))
    assert is_steady(np.concatenate(mixed), 1.3, 1.9)


def test_the_delay_stays_below_its_ceiling_even_where_nothing_can_be_cut() -> None:
    """Noise has no pitch periods to cut. The network stalls for 0.25 s at 2, 4, 6 and 8 s."""
    mixer = Mixer(max_delay=0.2)
    alice = mixer.add_participant("alice")
    sent = []
    for packet in punctual(opus(noise(-20, 12))):
        stall = packet.arrival // 2 * 2
        held = 2 <= stall <= 8 and packet.arrival - stall < 0.25
        sent.append(Sent(packet.number, packet.payload, max(packet.arrival, stall + 0.25) if held else packet.arrival))
    delays = []
    mixed = play(mixer, alice, sent, seconds=11.9, at_tick=lambda now: delays.append(alice.stats().delay))
    assert max(delays[-100:]) <= 0.24
    assert min(levels(mixed, 9, 11.8)) > 0.01


def test_a_network_that_becomes_slower_for_good_is_followed() -> None:
    """From 2 s on every packet takes 0.6 s longer, more than the ceiling."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    sent = [
        Sent(p.number, p.payload, p.arrival + (0.6 if p.arrival >= 2 else 0)) for p in punctual(opus(noise(-20, 8)))
    ]
    mixed = play(mixer, alice, sent, seconds=8)
    assert min(levels(mixed, 2.8, 7.9)) > 0.01


def test_a_pause_of_the_sender_is_no_loss() -> None:
    """From 1 s to 3 s nothing is sent; numbers go on where they were, the timestamp has jumped."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    payloads = opus(TONE[: 2 * 48_000])
    mixed = []
    for tick in range(200):
        now = 0.02 * (tick + 1)
        if tick < 50 or tick >= 150:
            number = tick if tick < 50 else tick - 100
            alice.push_rtp(number, tick * 960, payloads[number], now - 0.01)
        mixed.append(mixer.mix(now))
    result = np.concatenate(mixed)
    assert is_steady(result, 0.2, 0.98)
    assert max(levels(result, 1.4, 3.0)) < 1e-3
    assert is_steady(result, 3.2, 3.9)
    assert alice.stats().lost == 0
    assert alice.stats().concealed < 0.05


@pytest.mark.parametrize("milliseconds", [60, 100, 180])
@pytest.mark.parametrize("anew", [False, True])
def test_a_short_pause_or_another_sender_is_no_click(milliseconds: int, anew: bool) -> None:
    """At 1 s nothing is sent for a while; then the same sender goes on, or another takes over."""
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    payloads = opus(sine(200, 0.3, 2))
    mixed = []
    for tick in range(100):
        now = 0.02 * (tick + 1)
        if tick < 50 or tick >= 50 + milliseconds // 20:
            number = tick if tick < 50 else tick - milliseconds // 20
            other = 7_000 if anew and tick >= 50 else 0
            alice.push_rtp(number + other, tick * 960 + other * 1_000, payloads[number], now - 0.01)
        mixed.append(mixer.mix(now))
    result = np.concatenate(mixed)[:, 0]
    undisturbed = np.max(np.abs(np.diff(result[9600:40_000])))
    assert np.max(np.abs(np.diff(result[40_000:]))) < undisturbed + 0.01
    assert is_steady(np.concatenate(mixed), 1.6, 1.9)


def test_no_loss_and_little_jitter_conceal_next_to_nothing() -> None:
    for jitter in (0.0, 0.015, 0.04):
        mixer = Mixer()
        alice = mixer.add_participant("alice")
        payloads = opus(speech())
        concealed = {}

        def push(arrival: Arrival, alice: Participant = alice, payloads: list[bytes] = payloads) -> None:
            alice.push_rtp(arrival.number, arrival.number * 960, payloads[arrival.number], arrival.at)

        for now in ticks(Network(jitter=jitter).transmit(len(payloads), seed=1), 28, 0.02, push):
            mixer.mix(now)
            concealed[round(now, 2)] = alice.stats().concealed
        assert concealed[28] - concealed[4] <= 0.005 * 24


def test_participants_do_not_disturb_each_other() -> None:
    """Bob's network is a catastrophe; Alice is heard as if he were not there."""
    alone, together = Mixer(), Mixer()
    packets = punctual(opus(TONE))
    expected = play(alone, alone.add_participant("alice"), packets, seconds=4)
    alice, bob = together.add_participant("alice"), together.add_participant("bob")
    bob.gain = 0.0
    dice = random.Random(3)

    def bob_sends(now: float) -> None:
        bob.push_rtp(dice.getrandbits(16), dice.getrandbits(32), dice.randbytes(40), dice.uniform(0, 1e6))

    assert np.array_equal(play(together, alice, packets, seconds=4, at_tick=bob_sends), expected)
