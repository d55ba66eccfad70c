"""For connections by a TURN server, what the hub does for all others: consent (RFC 7675), and reports."""

import contextlib
import random
from typing import Any, Final

from aioice.stun import TransactionError

from audiomixer._core import Session
from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import doze

_INTERVAL: Final = 2.0
_UNASKED: Final = 4
"""So many questions are left out in a row while anything authentic comes."""
_LASTS: Final = 30.0
"""Seconds for which an answer is good, whatever else comes."""
_RETRY: Final = 0.25
_FAILURES: Final = 5
"""Who answers none for about six seconds is gone (a question takes half a second to fail, and then another is asked
soon); aioice would wait for half a minute."""


async def ask(agent: Any, session: Session) -> None:
    """Asks now and then, and closes the agent when nobody answers."""
    failures, unasked, signs = 0, 0, session.inlet.authentic
    answered = clock()
    while failures < _FAILURES and clock() - answered < _LASTS:
        await doze((_RETRY if failures else _INTERVAL) * random.uniform(0.8, 1.2))  # noqa: S311
        if agent._closing:
            return
        for packet in session.report():
            with contextlib.suppress(ConnectionError):
                await agent.send(packet)
        before, signs = signs, session.inlet.authentic
        if signs > before and unasked < _UNASKED:
            failures, unasked = 0, unasked + 1
            continue
        unasked = 0
        for pair in agent._nominated.values():
            request = agent.build_request(pair, nominate=False)
            password = agent.remote_password.encode()
            try:
                await pair.protocol.request(request, pair.remote_addr, integrity_key=password, retransmissions=0)
                failures, answered = 0, clock()
            except TransactionError:
                failures += 1
    agent._query_consent_task = None
    await agent.close()
