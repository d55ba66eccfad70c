"""The workers of a cluster: met, watched, lost, and met again."""

import asyncio
import contextlib
import logging
from typing import Final, Protocol

from audiomixer.clock.tasks import spawn
from audiomixer.service.cluster.member import PATIENCE, Member
from audiomixer.service.cluster.nodes import GoneError, Nodes, Slot
from audiomixer.service.cluster.reports import VERSION, Greeting, Report

_SILENT: Final = 1.5
"""Seconds beyond its patience until a worker that does not answer is lost, if its machine is."""
_HUNG: Final = 5.0
"""Seconds after which one is ended that does not answer, or does not mix."""
_LOOK: Final = 1.0
"""Seconds until the next look for machines, and for a worker that was lost."""
_PAUSE: Final = 0.05
"""Seconds between two reports at least, however much happens."""
_START: Final = 60.0
"""Seconds that a worker may take until it is there."""
_OTHER: Final = 30.0
"""Seconds until the next look whether a machine has our version by now."""

_log = logging.getLogger(__name__)


class VersionError(Exception):
    """A worker speaks another version."""


class Audience(Protocol):
    """Is told what becomes of workers, on the event loop."""

    def worker_met(self, member: Member, greeting: Greeting) -> None:
        """A worker is there, and has said what it is at."""

    def worker_told(self, member: Member, report: Report) -> None:
        """It has said how it gets on."""

    def worker_lost(self, member: Member) -> None:
        """It is gone, and does nothing any more."""


class Membership:
    """All workers of a service, by their names.

    Args:
        nodes: Where they are.
        audience: Who is told.
    """

    def __init__(self, nodes: Nodes, audience: Audience) -> None:
        self.members: dict[str, Member] = {}
        self._nodes = nodes
        self._audience = audience
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Joins the cluster, and meets the workers there are; the missing ones are started, others ended.

        Raises:
            ValueError: There is no cluster, or no worker.
        """
        await self._nodes.connect()
        slots = await self._nodes.slots()
        await self._nodes.retire_others({slot.name for slot in slots})
        problems = await asyncio.gather(*(self._add(slot) for slot in slots))
        if all(member.status == "lost" for member in self.members.values()):
            problem = next(filter(None, problems), None)
            raise ValueError(f"engine: no worker can be had: {problem or 'no node has a CPU, or audiomixer, for one'}")

    async def _add(self, slot: Slot) -> Exception | None:
        """Meets the worker that is there, or starts it; gives what is wrong with it."""
        try:
            member = self.members[slot.name] = Member(await self._nodes.worker(slot))
            await self._meet(member)
        except Exception as error:
            _log.warning("worker %s cannot work yet: %s", slot.name, error)
            return error
        return None

    async def _meet(self, member: Member) -> None:
        """Asks a worker what it is at.

        Raises:
            GoneError: It does not answer, or is the one that was taken for lost, and is ended now.
            VersionError: It speaks another version, and so does the one that takes its place.
        """
        if await member.call("version", patience=_START) != VERSION:
            # What it says cannot be relied on: whatever it is at goes on elsewhere.
            _log.warning("worker %s speaks another version: replaced", member.name)
            with contextlib.suppress(GoneError, TimeoutError):
                await member.call("close")
            await member.handle.retire()
            member.handle = await self._nodes.worker(member.handle.slot)
            version = await member.call("version", patience=_START)
            if version != VERSION:
                raise VersionError(f"its machine has another version of audiomixer: {version}, not {VERSION}")
        greeting: Greeting = await member.call("hello", patience=_START)
        if member.greeting and greeting.incarnation == member.greeting.incarnation:
            await member.handle.kill()
            raise GoneError("it was taken for lost")
        if member.drained and not greeting.draining:
            await member.call("drain", True)
        member.met(greeting)
        _log.info("worker %s is there, process %d, media port %d", member.name, greeting.process, greeting.media_port)
        self._audience.worker_met(member, greeting)

    def begin(self) -> None:
        """Watches the workers, and looks for new machines."""
        for member in self.members.values():
            self._watch(member)
        self._looking = asyncio.create_task(self._look_for_ever())

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                slots = {slot.name: slot for slot in await self._nodes.slots()}
                for name in set(self.members).difference(slots):
                    self._forget(self.members[name])
                for name in set(slots).difference(self.members):
                    # It is watched from the beginning: meeting it may take a minute.
                    self.members[name] = Member(await self._nodes.worker(slots[name]))
                    self._watch(self.members[name])
            except Exception:
                _log.exception("the cluster cannot be asked for its machines")

    def _forget(self, member: Member) -> None:
        """A worker's machine is gone, or has fewer workers now."""
        del self.members[member.name]
        watching = self._watching.pop(member.name, None)
        if watching:
            watching.cancel()
        spawn(self._lose(member, "its machine is gone", for_good=True))

    def _watch(self, member: Member) -> None:
        self._watching[member.name] = asyncio.create_task(self._watch_for_ever(member))

    async def _watch_for_ever(self, member: Member) -> None:
        while True:
            try:
                if member.status == "lost":
                    await asyncio.sleep(_LOOK / 2)
                    await self._meet(member)
                await self._follow(member)
            except GoneError as error:
                await self._lose(member, str(error).partition("\n")[0])
            except TimeoutError:
                await self._lose(member, "it does not answer")
            except VersionError as error:
                _log.error("worker %s cannot be used: %s", member.name, error)
                await asyncio.sleep(_OTHER)
            except Exception:
                _log.exception("worker %s cannot be followed", member.name)
                await self._lose(member, "it cannot be followed")

    async def _follow(self, member: Member) -> None:
        """Listens to a worker until it is lost."""
        while True:
            report = await self._ask(member)
            if member.greeting is None or report.incarnation != member.greeting.incarnation:
                member.is_anew = True
                raise GoneError("its process has begun anew")
            member.told(report)
            self._audience.worker_told(member, report)
            if member.stuck > _HUNG:
                raise GoneError("it does not mix any more")
            await asyncio.sleep(_PAUSE)

    async def _ask(self, member: Member) -> Report:
        """What a worker has to tell: in two seconds, if its machine is gone, else in five."""
        asking = asyncio.ensure_future(member.call("report", member.number, PATIENCE, patience=PATIENCE + _HUNG))
        try:
            done, _ = await asyncio.wait([asking], timeout=PATIENCE + _SILENT)
            if not done and member.name not in {slot.name for slot in await self._nodes.slots()}:
                raise GoneError("its machine is gone")
            report: Report = await asking
            return report
        finally:
            asking.cancel()

    async def _lose(self, member: Member, reason: str, *, for_good: bool = False) -> None:
        """A worker is not to be relied on any more: it is ended, before others go on with what it was at."""
        if member.status == "lost":
            return
        _log.error("worker %s is lost with %d jobs: %s", member.name, len(member.jobs), reason)
        member.status = "lost"
        if not member.is_anew:
            try:
                await (member.handle.retire() if for_good else member.handle.kill())
            except Exception:
                _log.exception("worker %s cannot be ended", member.name)
        member.is_anew = False
        self._audience.worker_lost(member)

    async def close(self) -> None:
        """Asks no more; the workers go on."""
        tasks = [task for task in (self._looking, *self._watching.values()) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def retire(self) -> None:
        """Ends all workers, and whatever they do, for good."""
        for member in self.members.values():
            await member.handle.retire()
