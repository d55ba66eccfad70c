"""Which share of the packets lost one at a time is repaired from the copy in the next."""

import numpy as np
from numpy.typing import NDArray

from audiomixer.clock.frame import FRAME_SIZE
from benches.quality.network import PACKET, Arrival, Network
from benches.quality.ours import receive
from tests.signals import Signal

Flags = NDArray[np.bool_]

_LOSS = 0.05
_ACTIVE = 10 ** (-15.9 / 10)
"""Speech is active where its power is more than this share of that of all active speech (ITU-T P.56)."""


def repairs(signal: Signal, payloads: list[bytes], seeds: range) -> str:
    """A line on the isolated ones of 5 % independent losses: all of them, and those of active speech."""
    lost = [isolated(len(payloads), seed) for seed in seeds]
    speaking = active(signal, len(payloads))
    shares = [
        f"{share_repaired(payloads, lost):.1%} of isolated losses",
        f"{share_repaired(payloads, [gone & speaking for gone in lost]):.1%} of those of active speech",
    ]
    return f"Repaired at {_LOSS:.0%} loss: {', '.join(shares)}"


def active(signal: Signal, packets: int) -> Flags:
    """Which packets are of active speech."""
    power = np.square(signal[: packets * FRAME_SIZE].reshape(packets, FRAME_SIZE)).mean(axis=1)
    level = power.mean()
    for _ in range(10):
        level = power[power > level * _ACTIVE].mean()
    return np.asarray(power > level * _ACTIVE)


def isolated(packets: int, seed: int) -> Flags:
    """Which packets are lost, but for those beside a lost one."""
    gone = np.ones(packets + 2, bool)
    gone[[1 + arrival.number for arrival in Network(loss=_LOSS).transmit(packets, seed)]] = False
    return np.asarray(gone[1:-1] & ~gone[:-2] & ~gone[2:])


def share_repaired(payloads: list[bytes], lost: list[Flags]) -> float:
    """Of the packets lost, in one stream after the other."""
    repaired = 0
    for gone in lost:
        arrivals = [Arrival(number, number * PACKET) for number in np.flatnonzero(~gone).tolist()]
        _, stats = receive(payloads, arrivals, len(payloads) * PACKET)
        repaired += stats.recovered
    return repaired / int(np.sum(lost))
