"""Work that may wait."""

import threading

import pytest

from audiomixer.background import Line


def test_jobs_of_a_line_are_done_in_order_and_all_of_them() -> None:
    line, done = Line(5), list[int]()
    for n in range(200):
        line.add(lambda n=n: done.append(n))  # type: ignore[misc]
    line.finish()
    assert done == list(range(200))


def test_who_adds_too_much_waits() -> None:
    line, may_go_on, added = Line(2), threading.Event(), list[int]()

    def add() -> None:
        for n in range(4):
            line.add(may_go_on.wait)
            added.append(n)

    adding = threading.Thread(target=add)
    adding.start()
    adding.join(0.3)
    assert len(added) in (2, 3), "one at work, two that wait, and the fourth does not fit"
    may_go_on.set()
    adding.join(5)
    line.finish()
    assert len(added) == 4


def test_after_a_failure_nothing_more_is_done() -> None:
    line = Line(5)

    def fail() -> None:
        raise ZeroDivisionError

    line.add(fail)
    line.finish()
    with pytest.raises(RuntimeError, match="an earlier job failed"):
        line.add(lambda: None)
