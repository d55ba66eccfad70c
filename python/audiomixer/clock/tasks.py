"""Background work that must not be forgotten."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

_TOGETHER: Final = 0.1
_BLOCKING: Final = ThreadPoolExecutor(64, thread_name_prefix="blocking")
"""For what may hang for seconds, as servers and disks do: the event loop's own threads are six, for everybody."""

P = ParamSpec("P")
T = TypeVar("T")

_tasks: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Runs `work` as a task of its own, and holds on to it: the event loop alone would not."""
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def blocking(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Does what may hang for a while in another thread."""
    return await asyncio.get_running_loop().run_in_executor(_BLOCKING, partial(work, *args, **kwargs))


async def doze(seconds: float) -> None:
    """Sleeps for so many seconds, and up to a tenth more: all who doze wake together, and the loop once for all."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(math.ceil((now + seconds) / _TOGETHER) * _TOGETHER - now)
