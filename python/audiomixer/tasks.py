"""Background work that must not be forgotten."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, Final

_TOGETHER: Final = 0.1

_tasks: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Runs `work` as a task of its own, and holds on to it: the event loop alone would not."""
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def doze(seconds: float) -> None:
    """Sleeps for so many seconds, and up to a tenth more: all who doze wake together, and the loop once for all."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(math.ceil((now + seconds) / _TOGETHER) * _TOGETHER - now)
