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


def test_a_line_with_too_much_in_it_is_full() -> None:
    line, may_go_on, done = Line(2), threading.Event(), list[int]()
    line.add(lambda: may_go_on.wait() and None)
    full = []
    for n in range(3):
        full.append(line.full)
        line.add(lambda n=n: done.append(n))  # type: ignore[misc]
    assert full[0] is False
    assert line.full
    may_go_on.set()
    line.finish()
    assert not line.full
    assert done == [0, 1, 2]


def test_a_failure_is_told_and_the_rest_is_done(caplog: pytest.LogCaptureFixture) -> None:
    line, done = Line(5), list[int]()

    def fail() -> None:
        raise ZeroDivisionError

    line.add(fail)
    line.add(lambda: done.append(1))
    line.finish()
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text
