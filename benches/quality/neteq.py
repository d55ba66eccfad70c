"""A model of NetEq, libwebrtc's receiver, with its default settings.

After `modules/audio_coding/neteq` as of 2025: the decisions of `decision_logic.cc`, the delay of `delay_manager.cc`
with its underrun and reorder optimizers, playout delay by `packet_arrival_history.cc`. Time is in milliseconds, 10 a
tick; audio at 48 kHz. What it does to the samples is in `neteq_signal`. Left out: comfort noise, nack, and the exact
integer arithmetic.
"""

from collections import deque
from enum import Enum, auto

import numpy as np

from audiomixer.clock.frame import FRAME_SIZE, SAMPLE_RATE
from benches.quality.measures import Played
from benches.quality.neteq_signal import Expand, accelerate, merge, preemptive_expand, resume
from benches.quality.network import PACKET, Arrival, ticks
from tests.opus import Decoder, has_fec

TICK = 480
"""Samples."""
_MS = SAMPLE_RATE // 1000
_PACKET = round(PACKET * 1000)


class Histogram:
    """`histogram.cc`: forgets, and does so faster in the beginning."""

    def __init__(self, buckets: int, forget: float, start_forget_weight: float | None) -> None:
        self.buckets = np.zeros(buckets)
        self._forget = forget
        self._start = start_forget_weight
        self._added = 0

    def add(self, bucket: int) -> None:
        self._added += 1
        forget = self._forget
        if self._start is not None:
            forget = min(forget, max(0.0, 1 - self._start / (self._added + 1)))
        self.buckets *= forget
        self.buckets[bucket] += 1 - forget

    def quantile(self, probability: float) -> int:
        over = np.cumsum(self.buckets) >= probability * self.buckets.sum()
        return int(np.argmax(over))


class DelayManager:
    """`delay_manager.cc`, `underrun_optimizer.cc` and `reorder_optimizer.cc`."""

    _BUCKETS, _BUCKET = 100, 20
    _RESAMPLE = 500
    _LOSS_COST = 20
    """Milliseconds of delay that are worth one percent of loss."""

    def __init__(self) -> None:
        self._underruns = Histogram(self._BUCKETS, 0.983, 2)
        self._reordered = Histogram(self._BUCKETS, 0.9993, 2)
        self._interval_start: float | None = None
        self._largest = 0.0
        self._optimum = 80
        self.target = 80

    def update(self, delay: float, reordered: bool, now: float) -> None:
        """Takes note of a packet's delay above that of the fastest."""
        bucket = min(int(max(delay, 0) / self._BUCKET), self._BUCKETS - 1)
        if not reordered:
            if self._interval_start is None:
                self._interval_start = now
            if now - self._interval_start > self._RESAMPLE:
                self._underruns.add(int(self._largest / self._BUCKET))
                self._optimum = (1 + self._underruns.quantile(0.95)) * self._BUCKET
                self._interval_start, self._largest = now, 0.0
            self._largest = max(self._largest, min(delay, self._BUCKET * (self._BUCKETS - 1)))
        self._reordered.add(bucket if reordered else 0)
        self.target = self._optimum
        if reordered or self._reordered.buckets[1:].sum() > 0:
            self.target = max(self.target, self._reorder_optimum())

    def _reorder_optimum(self) -> int:
        delays = np.arange(self._BUCKETS) * self._BUCKET
        lost = 1 - np.cumsum(self._reordered.buckets)
        cost = np.maximum(0, delays - self._optimum) + 100 * self._LOSS_COST * lost
        return int(np.argmin(cost) + 1) * self._BUCKET


class ArrivalHistory:
    """`packet_arrival_history.cc`: delays above that of the fastest packet of the last two seconds."""

    _WINDOW = 2000

    def __init__(self) -> None:
        self._transits: deque[tuple[float, float]] = deque()

    def insert(self, timestamp: int, now: float) -> None:
        self._transits.append((now, now - timestamp / _MS))
        while now - self._transits[0][0] > self._WINDOW:
            self._transits.popleft()

    def delay(self, timestamp: float, now: float) -> float:
        return max(0.0, now - timestamp / _MS - min(transit for _, transit in self._transits))

    def largest(self) -> float:
        transits = [transit for _, transit in self._transits]
        return max(transits) - min(transits)


class Operation(Enum):
    """What a tick is filled with."""

    NORMAL = auto()
    MERGE = auto()
    EXPAND = auto()
    ACCELERATE = auto()
    FAST_ACCELERATE = auto()
    PREEMPTIVE_EXPAND = auto()


_STRETCHES = {Operation.ACCELERATE, Operation.FAST_ACCELERATE, Operation.PREEMPTIVE_EXPAND}


class NetEq:
    """One stream's receiver."""

    _TIMESCALE_INTERVAL = 50
    _MAX_WAIT = 100

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._packets: dict[int, tuple[bytes, bool]] = {}
        """Payloads by timestamp, and whether it is their redundant copy that is to be decoded."""
        self._delays = DelayManager()
        self._history = ArrivalHistory()
        self._newest = -1
        self._expected: int | None = None
        self._future = np.zeros(0, np.float32)
        self._past = np.zeros(FRAME_SIZE * 3, np.float32)
        self._expand = Expand()
        self._last = Operation.NORMAL
        self._expansions = 0
        self._generated = 0.0
        self._since_stretch = 0.0
        self.concealed = 0

    def insert(self, timestamp: int, payload: bytes, now: float) -> None:
        """A packet has come."""
        reordered = timestamp < self._newest
        self._newest = max(self._newest, timestamp)
        self._history.insert(timestamp, now)
        self._delays.update(self._history.delay(timestamp, now), reordered, now)
        if self._expected is not None and timestamp < self._expected:
            return
        self._packets[timestamp] = (payload, False)
        copy = timestamp - FRAME_SIZE
        if copy >= (self._expected or 0) and copy not in self._packets and has_fec(payload):
            self._packets[copy] = (payload, True)

    def tick(self, now: float) -> np.ndarray:
        """The next 10 ms."""
        operation = self._decide(now)
        self._since_stretch += 10
        while len(self._future) < TICK or operation in {Operation.MERGE, *_STRETCHES}:
            if operation is Operation.EXPAND:
                self._conceal()
            else:
                self._play(operation)
            if len(self._future) < TICK and operation is not Operation.EXPAND:
                operation = Operation.NORMAL if self._next() == self._expected else Operation.EXPAND
                continue
            break
        self._last = operation
        self._expansions = self._expansions + 1 if operation is Operation.EXPAND else 0
        out, self._future = self._future[:TICK], self._future[TICK:]
        self._past = np.append(self._past, out)[-FRAME_SIZE * 3 :]
        return out

    def _next(self) -> int | None:
        return min(self._packets, default=None)

    def _decide(self, now: float) -> Operation:
        """`DecisionLogic::GetDecision`, and the part of `NetEqImpl::GetDecision` after it."""
        following = self._next()
        if self._expected is None:
            if following is None:
                return Operation.EXPAND
            self._expected = following
        if following is None or self._postponed():
            operation = Operation.EXPAND
        elif following == self._expected:
            operation = self._expected_there(now)
        else:
            operation = self._later_there(following)
        if len(self._future) >= TICK and operation is not Operation.MERGE and operation not in _STRETCHES:
            return Operation.NORMAL
        return operation

    def _postponed(self) -> bool:
        """After an expansion has faded out, waits until half the target delay is there."""
        if self._last is not Operation.EXPAND or self._generated >= self._MAX_WAIT or self._expand.mute > 0.5:
            return False
        return len(self._packets) * _PACKET + len(self._future) / _MS < self._delays.target / 2

    def _expected_there(self, now: float) -> Operation:
        if self._last is Operation.EXPAND:
            return Operation.NORMAL
        low = self._delays.target
        high = low + self._history.largest() + 20
        playout = self._history.delay((self._expected or 0) - len(self._future), now)
        if playout >= 4 * high:
            return Operation.FAST_ACCELERATE
        if self._since_stretch >= self._TIMESCALE_INTERVAL:
            if playout >= high:
                return Operation.ACCELERATE
            if playout < low:
                return Operation.PREEMPTIVE_EXPAND
        return Operation.NORMAL

    def _later_there(self, following: int) -> Operation:
        if self._last is not Operation.EXPAND:
            return Operation.EXPAND
        leap = (following - (self._expected or 0)) / _MS
        level = len(self._packets) * _PACKET + len(self._future) / _MS
        too_early = leap > 10 * self._expansions and self._generated < self._MAX_WAIT
        return Operation.EXPAND if too_early and level <= self._delays.target else Operation.MERGE

    def _conceal(self) -> None:
        samples = self._expand.process(np.append(self._past, self._future))
        self._future = np.append(self._future, samples)
        self._generated += len(samples) / _MS
        self.concealed += len(samples)

    def _decode(self) -> np.ndarray:
        following = self._next()
        if following is None:
            return np.zeros(0, np.float32)
        payload, redundant = self._packets.pop(following)
        self._expected = following + FRAME_SIZE
        return self._decoder.decode(payload, FRAME_SIZE, fec=redundant)

    def _play(self, operation: Operation) -> None:
        if operation in _STRETCHES:
            while len(self._future) < 3 * TICK and self._next() == self._expected:
                self._future = np.append(self._future, self._decode())
            if len(self._future) >= (TICK if operation is Operation.PREEMPTIVE_EXPAND else 3 * TICK):
                self._stretch(operation)
        elif operation is Operation.MERGE:
            decoded = self._decode()
            self._future = merge(np.append(self._past, self._future), len(self._future), decoded, self._expand)
        else:
            self._future = resume(self._future, self._decode(), self._expand)
        self._expand.reset()
        self._generated = 0.0

    def _stretch(self, operation: Operation) -> None:
        before = len(self._future)
        if operation is Operation.PREEMPTIVE_EXPAND:
            borrowed = max(0, 3 * TICK - before)
            old = self._past[len(self._past) - borrowed :]
            self._future = preemptive_expand(np.append(old, self._future), borrowed)[borrowed:]
        else:
            self._future = accelerate(self._future, fast=operation is Operation.FAST_ACCELERATE)
        if len(self._future) != before:
            self._since_stretch = 0.0


def neteq(payloads: list[bytes], arrivals: list[Arrival], seconds: float) -> Played:
    """Plays a stream out as NetEq does."""
    receiver = NetEq()

    def push(arrival: Arrival) -> None:
        receiver.insert(arrival.number * FRAME_SIZE, payloads[arrival.number], arrival.at * 1000)

    pieces = [receiver.tick(now * 1000) for now in ticks(arrivals, seconds, TICK / SAMPLE_RATE, push)]
    return Played(np.concatenate(pieces), receiver.concealed / SAMPLE_RATE / seconds)
