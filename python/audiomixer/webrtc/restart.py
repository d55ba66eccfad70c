"""ICE restarts (RFC 8445, section 9): another agent takes the place of one, while media flows."""

import asyncio
from typing import Any

import aioice
from aiortc import RTCDtlsTransport

from audiomixer.clock.tasks import spawn


class Restart:
    """An agent that is to take the place of a transport's.

    Args:
        transport: What is connected anew.
        ufrag: The other side's new username fragment.
        password: Its new password.
    """

    def __init__(self, transport: RTCDtlsTransport, ufrag: str, password: str) -> None:
        self._transport: Any = transport.transport
        before = self._transport._connection
        self.agent = aioice.Connection(ice_controlling=before.ice_controlling)
        self.agent.remote_is_lite = before.remote_is_lite
        self.agent.remote_username, self.agent.remote_password = ufrag, password
        # DTLS reads on from the same queue, whoever fills it.
        self.agent._queue = before._queue

    async def finish(self, seconds: float) -> bool:
        """Takes the place once it is connected; whether it is, within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self.agent.connect()
        except (ConnectionError, TimeoutError):
            await self.give_up()
            return False
        before, now = self._transport._connection, self.agent
        # Who waits for the end of the connection waits for the new one's.
        now._event_waiter, before._event_waiter = before._event_waiter, None
        self._transport._connection = self._transport.iceGatherer._connection = now
        self._transport._recv, self._transport._send = now.recv, now.send
        # Whoever restarts once more finds this one done.
        spawn(_close(before))
        return True

    async def give_up(self) -> None:
        """Leaves everything as it is."""
        if self._transport._connection is not self.agent:
            await _close(self.agent)


async def _close(agent: Any) -> None:
    """Ends an agent, and not the connection."""
    agent._queue = asyncio.Queue()
    await agent.close()
