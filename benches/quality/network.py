"""A seeded network: which packets of a stream come through, and when."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

PACKET = 0.02
"""Seconds of audio in a packet."""
_NO_STALL, _BETWEEN_STALLS = 4.0, 8.0
"""Seconds until there may be stalls, and from one to the next: one in each of the chunks that are judged."""
_OVERTAKEN_BY = 2.5
"""A reordered packet comes so many packets late."""


@dataclass(frozen=True)
class Arrival:
    """A packet that came through, in seconds since the first was sent."""

    number: int
    at: float


@dataclass(frozen=True)
class Network:
    """What happens to a packet every 20 ms.

    Loss is Gilbert's model: a good state that lets everything through, and a bad one that lets nothing through.
    """

    loss: float = 0.0
    """Share of packets lost."""
    burst: float = 1.0
    """Packets lost in a row, on average; losses are independent at 1."""
    jitter: float = 0.0
    """Each packet is late by an exponentially distributed time of this mean, in seconds."""
    stall: float = 0.0
    """For so many seconds nothing comes through, then everything at once; every eight seconds, the first at random."""
    reorder: float = 0.0
    """Share of packets that two others overtake."""
    duplicate: float = 0.0
    """Share of packets that come twice."""
    drift: float = 0.0
    """How much faster the sender's clock runs than ours, as a share (100 ppm: 1e-4)."""

    def transmit(self, packets: int, seed: int) -> list[Arrival]:
        """The arrivals, in order of time, of a stream of so many packets."""
        random = np.random.default_rng(seed)
        lost = self._lost(packets, random)
        sent = np.arange(packets) * PACKET * (1 - self.drift)
        late = random.exponential(1, packets) * self.jitter
        late += (random.random(packets) < self.reorder) * _OVERTAKEN_BY * PACKET
        twice = random.random(packets) < self.duplicate
        begin = _NO_STALL + random.random() * _BETWEEN_STALLS
        into_stall = (sent - begin) % _BETWEEN_STALLS
        stalled = (sent >= begin) & (into_stall < self.stall)
        at = sent + np.maximum(late, stalled * (self.stall - into_stall))
        arrivals = [Arrival(n, float(at[n])) for n in range(packets) if not lost[n]]
        arrivals += [Arrival(n, float(at[n]) + PACKET / 2) for n in range(packets) if twice[n] and not lost[n]]
        return sorted(arrivals, key=lambda arrival: arrival.at)

    def _lost(self, packets: int, random: np.random.Generator) -> list[bool]:
        recover = min(1 / self.burst, 1 - self.loss)
        fail = self.loss * recover / (1 - self.loss)
        lost, bad = [], False
        for chance in random.random(packets):
            bad = chance >= recover if bad else chance < fail
            lost.append(bad)
        return lost


def ticks(arrivals: list[Arrival], seconds: float, tick: float, push: Callable[[Arrival], None]) -> Iterator[float]:
    """The end of each tick; what has arrived by then has been handed to `push`."""
    coming = iter(arrivals)
    arrival = next(coming, None)
    for count in range(1, round(seconds / tick) + 1):
        now = count * tick
        while arrival and arrival.at <= now:
            push(arrival)
            arrival = next(coming, None)
        yield now
