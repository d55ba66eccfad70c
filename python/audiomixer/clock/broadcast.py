"""Hands every item to every subscriber; who is slow loses its own oldest items, never anyone else's."""

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Broadcast(Generic[T]):
    """To be used on one event loop.

    Args:
        limit: So many items may wait for a subscriber.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._subscribers: weakref.WeakSet[_Subscriber[T]] = weakref.WeakSet()
        self._closed = False
        self.dropped = 0
        """Items that subscribers lost."""

    @property
    def wanted(self) -> bool:
        """Whether there are subscribers."""
        return bool(self._subscribers)

    def publish(self, item: T) -> None:
        """Hands an item to every subscriber."""
        for subscriber in self._subscribers:
            self.dropped += len(subscriber.items) == self._limit
            subscriber.items.append(item)
            subscriber.arrived.set()

    def close(self) -> None:
        """Ends every subscription, once its items are read."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.arrived.set()

    def subscribe(self) -> AsyncIterator[T]:
        """Every item from now on."""
        subscriber = _Subscriber[T](self._limit)
        self._subscribers.add(subscriber)
        return self._items(subscriber)

    async def _items(self, subscriber: "_Subscriber[T]") -> AsyncIterator[T]:
        try:
            while True:
                while subscriber.items:
                    yield subscriber.items.popleft()
                if self._closed:
                    return
                subscriber.arrived.clear()
                await subscriber.arrived.wait()
        finally:
            self._subscribers.discard(subscriber)


class _Subscriber(Generic[T]):
    def __init__(self, limit: int) -> None:
        self.items: deque[T] = deque(maxlen=limit)
        self.arrived = asyncio.Event()
