"""The pacer, overloaded."""

import threading
import time
from collections.abc import Sequence

from audiomixer.pacer import Pacer


class Slow:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.calls = 0
        self.called = threading.Event()

    def advance(self) -> None:
        self.calls += 1
        self.called.set()
        time.sleep(self.seconds)


def advance(those: Sequence[Slow], now: float) -> None:
    for one in those:
        one.advance()


def test_whatever_is_paced_can_be_removed_though_every_tick_is_late() -> None:
    pacer, slow, other = Pacer(advance), Slow(0.03), Slow(0)
    pacer.add(slow)
    pacer.add(other)
    assert other.called.wait(1)
    began = time.monotonic()
    pacer.remove(other)
    assert time.monotonic() - began < 0.5
    assert pacer.late > 0
    calls = other.calls
    before = slow.calls
    time.sleep(0.2)
    assert other.calls == calls
    assert slow.calls > before
    pacer.remove(slow)


def test_it_keeps_step_and_stops_with_the_last() -> None:
    pacer, quick = Pacer(advance), Slow(0)
    pacer.add(quick)
    time.sleep(1)
    pacer.remove(quick)
    assert 35 <= quick.calls <= 52
    time.sleep(0.1)
    assert "pacer" not in [thread.name for thread in threading.enumerate()]
