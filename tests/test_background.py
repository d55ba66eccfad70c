"""Work that may wait."""

import threading

import pytest

from audiomixer.clock.background import Line


def test_jobs_of_a_line_are_done_in_order_and_all_of_them() -> None:
    line, done = Line(), list[int]()
    for n in range(200):
        line.add(lambda n=n: done.append(n))  # type: ignore[misc]
    line.finish()
    assert done == list(range(200))


def test_a_line_tells_how_much_waits() -> None:
    line, begun, may_go_on, done = Line(), threading.Event(), threading.Event(), list[int]()

    def hold() -> None:
        begun.set()
        may_go_on.wait(10)

    line.add(hold)
    assert begun.wait(5)
    waiting = []
    for n in range(3):
        line.add(lambda n=n: done.append(n))  # type: ignore[misc]
        waiting.append(line.waiting)
    assert waiting == [1, 2, 3]
    may_go_on.set()
    line.finish()
    assert line.waiting == 0
    assert done == [0, 1, 2]


def test_a_failure_is_told_and_the_rest_is_done(caplog: pytest.LogCaptureFixture) -> None:
    line, done = Line(), list[int]()

    def fail() -> None:
        raise ZeroDivisionError

    line.add(fail)
    line.add(lambda: done.append(1))
    line.finish()
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text
