"""How long the receiver holds packets: as long as the network demands, and as steadily as it can."""

import itertools
import random

import numpy as np
import pytest

from audiomixer import Mixer, Stats
from benches.quality.network import Arrival, Network, ticks
from tests.opus import opus
from tests.signals import Signal, noise, rms, sine, speech

VOICE = opus(speech())


def stats_of(payloads: list[bytes], arrivals: list[Arrival], seconds: float, **options: float) -> list[Stats]:
    """What the receiver says after each tick; the payloads are repeated as often as need be."""
    mixer = Mixer(**options)
    alice = mixer.add_participant("alice")

    def push(arrival: Arrival) -> None:
        number = arrival.number
        alice.push_rtp(number & 0xFFFF, number * 960 & 0xFFFF_FFFF, payloads[number % len(payloads)], arrival.at)

    out = np.empty((960, 2), np.float32)
    told = []
    for now in ticks(arrivals, seconds, 0.02, push):
        mixer.mix_into(out, now)
        told.append(alice.stats())
    return told


@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_a_clock_that_runs_fast_or_slow_is_followed(drift: float) -> None:
    """For half an hour, 200 ppm: 360 ms that have to be cut or repeated."""
    arrivals = Network(drift=drift).transmit(90_000, seed=1)
    told = stats_of(VOICE, arrivals, 1790)
    delays = [stats.delay for stats in told[500:]]
    assert min(delays) > 0.02
    assert max(delays) < 0.06
    # Whose clock runs fast sends more than is played.
    edited = told[-1].accelerated if drift > 0 else told[-1].expanded
    assert edited > 0.3
    assert told[-1].concealed < 0.2


@pytest.mark.parametrize("payloads", [VOICE, opus(sine(200, 0.3, 5))], ids=["speech", "tone"])
@pytest.mark.parametrize("tick", [3000, 3005, 3011, 3018, 3025, 3040])
def test_after_a_stall_the_delay_is_back_within_three_seconds(payloads: list[bytes], tick: int) -> None:
    """A quiet minute, then the network holds everything for 200 ms."""
    begin, end = tick * 0.02, tick * 0.02 + 0.2
    arrivals = Network().transmit(3300, seed=1)
    held = [Arrival(a.number, end) if begin <= a.at < end else a for a in arrivals]
    told = stats_of(payloads, held, 65)
    assert told[tick - 1].delay == pytest.approx(0.04, abs=0.01)
    assert told[tick + 12].delay > 0.15
    assert abs(told[tick + 160].delay - told[tick + 160].target_delay) <= 0.02
    assert told[-1].late == 0
    assert told[-1].accelerated > 0.1


@pytest.mark.parametrize("jitter", [0.015, 0.04])
def test_once_a_networks_jitter_is_known_nothing_is_edited(jitter: float) -> None:
    """Exponentially distributed delays, for two minutes."""
    told = stats_of(VOICE, Network(jitter=jitter).transmit(6000, seed=4), 119)
    known = told[15 * 50]
    assert told[-1].expanded - known.expanded <= 0.05
    assert told[-1].accelerated - known.accelerated <= 0.05
    assert told[-1].late - known.late <= 0.02 * 5250


def test_a_restless_network_raises_the_delay_and_a_calm_one_lowers_it() -> None:
    """From 5 s to 20 s packets are late by 0 to 100 ms, in order."""
    dice = random.Random(5)
    arrivals, latest = [], 0.0
    for number in range(11_000):
        at = number * 0.02
        latest = max(latest, at + (dice.uniform(0, 0.1) if 5 <= at < 20 else 0))
        arrivals.append(Arrival(number, latest))
    told = stats_of(VOICE, arrivals, 215)
    assert told[240].delay == pytest.approx(0.04, abs=0.01)
    restless = told[19 * 50]
    # Delays like these have an end, but nobody knows that.
    assert 0.08 <= restless.target_delay <= 0.13
    assert abs(restless.delay - restless.target_delay) <= 0.045
    assert restless.expanded > 0.02
    assert restless.jitter > 0.005
    assert told[19 * 50].late - told[7 * 50].late <= 15
    calm = told[-1]
    assert calm.target_delay == 0.04
    assert calm.delay <= 0.06


def test_the_delay_has_the_bounds_it_is_given() -> None:
    arrivals = Network(jitter=0.04).transmit(1000, seed=2)
    low = stats_of(VOICE, arrivals, 20, min_delay=0.02, max_delay=0.06)[-1]
    high = stats_of(VOICE, arrivals, 20, min_delay=0.3, max_delay=0.5)[-1]
    assert low.target_delay == 0.06
    assert high.target_delay == 0.3
    assert high.delay == pytest.approx(0.3, abs=0.05)


CELLS = [
    Network(loss=loss, burst=burst, **delay)
    for loss, burst, delay in itertools.product((0.01, 0.05, 0.2), (1, 4), ({}, {"jitter": 0.04}, {"stall": 0.2}))
]


@pytest.mark.parametrize("network", CELLS, ids=lambda n: f"{n.loss:.0%}x{n.burst}+{n.jitter or n.stall}")
def test_every_tick_has_audio_unless_so_much_is_lost_that_it_has_faded_out(network: Network) -> None:
    payloads = opus(noise(-20, 20))
    arrivals = network.transmit(len(payloads), seed=3)
    mixer = Mixer()
    alice = mixer.add_participant("alice")

    def push(arrival: Arrival) -> None:
        alice.push_rtp(arrival.number, arrival.number * 960, payloads[arrival.number], arrival.at)

    frames: list[Signal] = [mixer.mix(now) for now in ticks(arrivals, 20, 0.02, push)]
    silent = sum(rms(frame) < 0.001 for frame in frames[10:])
    came = {arrival.number for arrival in arrivals}
    gaps = np.diff(sorted(came)) - 1
    assert silent <= sum(gap - 6 for gap in gaps if gap > 6) + (8 if network.stall else 0)
    assert alice.stats().lost == pytest.approx(len(payloads) - len(came), abs=6)
