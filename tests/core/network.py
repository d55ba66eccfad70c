"""A network in virtual time: sends a participant's packets, and mixes, until everything has been played."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from audiomixer import Mixer, Participant
from tests.signals import Signal


@dataclass(frozen=True)
class Sent:
    """A packet on its way."""

    number: int
    payload: bytes
    arrival: float
    audio_level: int | None = None


def punctual(payloads: Iterable[bytes], spacing: float = 0.02) -> list[Sent]:
    """Packets that arrive when they are sent, 10 ms after a tick."""
    return [Sent(n, payload, 0.01 + n * spacing) for n, payload in enumerate(payloads)]


def play(
    mixer: Mixer,
    participant: Participant,
    packets: Iterable[Sent],
    *,
    ticks_per_packet: int = 960,
    seconds: float,
    first_sequence: int = 65_500,
    first_timestamp: int = 2**32 - 48_000,
    at_tick: Callable[[float], None] = lambda now: None,
) -> Signal:
    """Mixes `seconds`; sequence number and timestamp wrap around on the way."""
    waiting = sorted(packets, key=lambda packet: packet.arrival)
    mixed = []
    for tick in range(round(seconds * 50)):
        now = (tick + 1) * 0.02
        while waiting and waiting[0].arrival <= now:
            packet = waiting.pop(0)
            participant.push_rtp(
                (first_sequence + packet.number) & 0xFFFF,
                (first_timestamp + packet.number * ticks_per_packet) & 0xFFFF_FFFF,
                packet.payload,
                packet.arrival,
                packet.audio_level,
            )
        mixed.append(mixer.mix(now))
        at_tick(now)
    return np.concatenate(mixed)
