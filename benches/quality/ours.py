"""Our receiver, in virtual time."""

import numpy as np

from audiomixer import Mixer, Stats
from audiomixer.clock.frame import FRAME_SIZE
from benches.quality.network import PACKET, Arrival, ticks
from tests.signals import Signal


def receive(payloads: list[bytes], arrivals: list[Arrival], seconds: float) -> tuple[Signal, Stats]:
    """What `Mixer` plays of a single participant, and how that came about."""
    mixer = Mixer()
    participant = mixer.add_participant("speaker")

    def push(arrival: Arrival) -> None:
        number = arrival.number
        participant.push_rtp(number & 0xFFFF, number * FRAME_SIZE, payloads[number], arrival.at)

    frames = [mixer.mix(now)[:, 0] for now in ticks(arrivals, seconds, PACKET, push)]
    return np.concatenate(frames), participant.stats()
