"""People who speak in a process of their own, so that their work is not the mixer's."""

import asyncio
import contextlib
import multiprocessing
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from typing import Any


class Stage:
    """Has another process do what its people are asked to, one thing at a time.

    Args:
        pipe: To the process.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._turn = asyncio.Lock()

    async def ask(self, identity: str, what: str | Callable[..., Any], *arguments: object) -> None:
        """Has somebody made, by what is called, or do something, by the name of a method."""
        async with self._turn:
            self._pipe.send((identity, what, arguments))
            error = await asyncio.to_thread(self._pipe.recv)
        if error:
            raise error


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_perform, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Stage(ours)
    finally:
        ours.close()
        await asyncio.to_thread(process.join, 10)
        process.kill()


def _perform(pipe: Connection) -> None:
    with contextlib.suppress(EOFError):
        asyncio.run(_listen(pipe))


async def _listen(pipe: Connection) -> None:
    people: dict[str, Any] = {}
    while True:
        identity, what, arguments = await asyncio.to_thread(pipe.recv)
        error = None
        try:
            if isinstance(what, str):
                await getattr(people[identity], what)(*arguments)
            else:
                people[identity] = what(*arguments)
        except Exception as mistake:
            error = RuntimeError(f"{identity} {what}: {mistake!r}")
        pipe.send(error)
