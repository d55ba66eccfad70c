"""The pacer, overloaded."""

import threading
import time
from collections.abc import Sequence

from audiomixer.clock.pacer import Pacer, shares


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
    before = set(threading.enumerate())
    pacer, quick = Pacer(advance), Slow(0)
    began = time.monotonic()
    pacer.add(quick)
    while quick.calls < 25:
        time.sleep(0.01)
    pacer.remove(quick)
    assert quick.calls <= (time.monotonic() - began) / 0.02 + 1, "not sooner than it is time"
    deadline = time.monotonic() + 5
    while ours := [one for one in threading.enumerate() if one.name == "pacer" and one not in before]:
        assert time.monotonic() < deadline, ours
        time.sleep(0.02)


def test_shares_cost_about_the_same_and_are_none_of_them_empty() -> None:
    costs = {"large": 10.0, **{f"small {n}": 1.0 for n in range(10)}}
    one, other = sorted(shares(costs, 2), key=len)
    assert one == ["large"]
    assert len(other) == 10
    assert sorted(map(len, shares(dict.fromkeys("abcde", 0.0), 2))) == [2, 3], "before anything is known of them"
    assert shares({"only": 1.0}, 4) == [["only"]]
    assert shares({}, 4) == []
