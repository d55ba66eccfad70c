"""A worker as control knows it: what it has been given, what it has told, and since when it is silent."""

import contextlib
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from audiomixer.clock.pacer import clock
from audiomixer.service.cluster.nodes import GoneError, Handle
from audiomixer.service.cluster.reports import Greeting, Report
from audiomixer.service.jobs import AwayError, Job, Load, Playing, Progress

PATIENCE: Final = 0.5
"""Seconds that a worker may keep a question, if nothing happens."""
_BEGIN: Final = 70.0
"""Seconds after which a job that was given has begun, or never will."""
_DESK: Final = 3.0
"""Seconds that it may take to say how participants get on."""
_QUIET: Final = 1.5
"""Seconds after which what it told last is not true any more."""
_A_JOB: Final = 0.01
"""Of a worker's time, about what a mixer, or a room, takes: that is counted at once, before it can be measured."""
_A_LISTENER: Final = 0.0002
"""The same of a listener."""
_FULL: Final = 0.85
"""The share of its time from which on a worker gets nothing more."""

Status = Literal["active", "draining", "lost"]


@dataclass(slots=True, eq=False)
class Member:
    """A worker of the cluster."""

    handle: Handle
    status: Status = "lost"
    greeting: Greeting | None = None
    """None until it has been met."""
    is_anew: bool = False
    """Whether the process that was lost has another in its place already."""
    drained: bool = False
    """Whether it is to get nothing new, whichever process it is."""
    jobs: dict[str, Job] = field(default_factory=dict)
    starting: dict[str, float] = field(default_factory=dict)
    """Jobs that it has been given, and may not be at yet, and since when."""
    progress: dict[str, Progress] = field(default_factory=dict)
    report: Report | None = None
    recordings: frozenset[str] = frozenset()
    """Those that anything was left of here, when it told last."""
    number: int = 0
    """Of the last happening that is known."""
    heard: float = 0.0
    """When it told something last."""
    _rounds: tuple[int, float] = (0, 0.0)
    """Its last tick that is known, and since when."""
    _strays: set[str] = field(default_factory=set)
    """What it mixed at its last report, though it should not."""
    _missing: set[str] = field(default_factory=set)
    """What it did not mix then, though it should."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.handle.slot.name

    @property
    def load(self) -> Load | None:
        """What it has to do, once it has told."""
        return self.report.load if self.report else None

    @property
    def share(self) -> float:
        """Of its time, how much it needs."""
        return self.report.share if self.report else 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether what it told is too old."""
        return self.status == "lost" or clock() - self.heard > _QUIET

    @property
    def is_full(self) -> bool:
        """Whether it may get nothing more."""
        return self.share > _FULL

    def weight(self, rooms: int) -> float:
        """How much it has to do, with so many rooms of ours; the least gets what is new."""
        listeners = self.report.load.listeners if self.report else 0
        return self.share + _A_JOB * (len(self.jobs) + rooms) + _A_LISTENER * listeners

    def met(self, greeting: Greeting) -> None:
        """It has said what it is at."""
        self.greeting, self.report = greeting, None
        self.jobs, self.progress, self._strays, self._missing = dict(greeting.jobs), {}, set(), set()
        self.starting = dict.fromkeys(greeting.jobs, clock())
        self.number = greeting.number
        self.heard = clock()
        self._rounds = (-1, self.heard)
        self.drained |= greeting.draining
        self.status = "draining" if self.drained else "active"

    def told(self, report: Report) -> None:
        """It has said how it gets on."""
        self.report, self.number = report, report.number
        self.heard = clock()
        self.progress = dict(report.progress)
        self.recordings = frozenset(report.recordings)
        if report.load.ticks != self._rounds[0] or not (report.rooms or report.progress):
            self._rounds = (report.load.ticks, self.heard)
        for sid in set(self.starting).intersection(report.progress):
            del self.starting[sid]

    def strays(self, report: Report) -> set[str]:
        """What it mixed at its last two reports, though it is another's now, or nobody's."""
        before, self._strays = self._strays, set(report.progress).difference(self.jobs)
        return self._strays & before

    def missing(self, report: Report) -> set[str]:
        """What it did not mix at its last two reports, though it should, for long enough to have begun."""
        before, now = self._missing, clock()
        fresh = {sid for sid, since in self.starting.items() if now - since < _BEGIN}
        self._missing = set(self.jobs).difference(report.progress, fresh)
        return self._missing & before

    @property
    def playing(self) -> list[Playing]:
        """Its streams that are live, once it has told."""
        return self.report.streams if self.report else []

    def lost(self) -> list[str]:
        """It is gone; the jobs that it had."""
        jobs, self.jobs, self.progress, self.report = list(self.jobs), {}, {}, None
        return jobs

    @property
    def stuck(self) -> float:
        """Seconds for which it has not mixed, though it should."""
        return self.heard - self._rounds[1]

    async def at_desk(
        self, of: Literal["room", "job"], method: str, *given: Any, patience: float = _DESK, **named: Any
    ) -> Any:
        """Calls `Worker.at_desk`.

        Raises:
            AwayError: The worker is gone, or does not answer.
        """
        try:
            return await self.call("at_desk", of, method, *given, patience=patience, **named)
        except (GoneError, TimeoutError) as error:
            raise AwayError(f"worker: {self.name} does not answer") from error

    async def look(self, of: Literal["room", "job"], method: str, *given: Any) -> Any:
        """The same of what is only looked at; gives nothing if the worker does not answer."""
        with contextlib.suppress(AwayError):
            return await self.at_desk(of, method, *given)
        return {}

    async def call(self, method: str, *arguments: Any, patience: float = 15.0, **named: Any) -> Any:
        """Calls it, as `Handle.call`."""
        return await self.handle.call(method, *arguments, patience=patience, **named)
