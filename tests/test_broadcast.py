"""Slow subscribers lose their own items only."""

import asyncio

from audiomixer.clock.broadcast import Broadcast


async def test_everybody_gets_everything_from_when_they_came_until_it_ends() -> None:
    broadcast: Broadcast[int] = Broadcast(limit=10)
    received: dict[str, list[int]] = {"early": [], "late": []}

    async def read(name: str) -> None:
        async for item in broadcast.subscribe():
            received[name].append(item)

    early = asyncio.create_task(read("early"))
    await asyncio.sleep(0)
    broadcast.publish(1)
    late = asyncio.create_task(read("late"))
    await asyncio.sleep(0)
    broadcast.publish(2)
    broadcast.close()
    await asyncio.gather(early, late)
    assert received == {"early": [1, 2], "late": [2]}


async def test_who_is_slow_loses_the_oldest_and_it_is_counted() -> None:
    broadcast: Broadcast[int] = Broadcast(limit=3)
    slow = broadcast.subscribe()
    first = asyncio.ensure_future(anext(slow))
    await asyncio.sleep(0)
    for item in range(10):
        broadcast.publish(item)
    broadcast.close()
    assert [await first, *[item async for item in slow]] == [7, 8, 9]
    assert broadcast.dropped == 7
