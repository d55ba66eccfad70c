"""A worker as control knows it: what it has been given, what it has told, and since when it is silent."""

import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from audiomixer.service.cluster.nodes import Handle
from audiomixer.service.cluster.reports import Greeting, Report
from audiomixer.service.jobs import Job, Load, Progress

PATIENCE: Final = 0.5
"""Seconds that a worker may keep a question, if nothing happens."""
_QUIET: Final = 1.5
"""Seconds after which what it told last is not true any more."""
_A_JOB: Final = 0.01
"""Of a worker's time, about what a mixer, or a room, takes: that is counted at once, before it can be measured."""
_A_LISTENER: Final = 0.0002
"""The same of a listener."""
_FULL: Final = 0.85
"""The share of its time from which on a worker gets nothing more."""

Status = Literal["active", "draining", "lost"]


@dataclass(slots=True)
class Member:
    """A worker of the cluster."""

    handle: Handle
    status: Status = "lost"
    greeting: Greeting | None = None
    """None until it has been met."""
    jobs: dict[str, Job] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    report: Report | None = None
    number: int = 0
    """Of the last happening that is known."""
    heard: float = 0.0
    """When it told something last."""
    rounds: tuple[int, float] = (0, 0.0)
    """Its last tick that is known, and since when."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.handle.slot.name

    @property
    def load(self) -> Load:
        """What it has to do."""
        return self.report.load if self.report else Load()

    @property
    def share(self) -> float:
        """Of its time, how much it needs."""
        return self.report.share if self.report else 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether what it told is too old."""
        return self.status == "lost" or time.monotonic() - self.heard > _QUIET

    @property
    def is_full(self) -> bool:
        """Whether it may get nothing more."""
        return self.share > _FULL

    def weight(self, rooms: int) -> float:
        """How much it has to do, with so many rooms of ours; the least gets what is new."""
        return self.share + _A_JOB * (len(self.jobs) + rooms) + _A_LISTENER * self.load.listeners

    def met(self, greeting: Greeting) -> None:
        """It has said what it is at."""
        self.greeting, self.report = greeting, None
        self.jobs, self.progress = dict(greeting.jobs), {}
        self.number = greeting.number
        self.heard = time.monotonic()
        self.rounds = (-1, self.heard)
        self.status = "draining" if greeting.draining else "active"

    def told(self, report: Report) -> None:
        """It has said how it gets on."""
        self.report, self.number = report, report.number
        self.heard = time.monotonic()
        self.progress = dict(report.progress)
        if report.load.ticks != self.rounds[0] or not (report.rooms or report.progress):
            self.rounds = (report.load.ticks, self.heard)

    @property
    def stuck(self) -> float:
        """Seconds for which it has not mixed, though it should."""
        return self.heard - self.rounds[1]

    async def call(self, method: str, *arguments: Any, patience: float = 15.0, **named: Any) -> Any:
        """Calls it, as `Handle.call`."""
        return await self.handle.call(method, *arguments, patience=patience, **named)
