"""Status callbacks: told once a change is on disk, in order per resource, until they are heard.

A callback is stored in the transaction of the change that it tells of, and deleted when it has been delivered (any
answer of 2xx) or given up. Each resource that has callbacks waiting has a task of its own that delivers them one after
the other, so that a slow receiver delays its own resources only.
"""

import asyncio
import base64
import hmac
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import httpx
from sqlalchemy import delete, func, select
from sqlalchemy import event as event_
from sqlalchemy.orm import Session

from audiomixer.clock.tasks import spawn
from audiomixer.service.outbound import Outbound, OutboundTransport
from audiomixer.service.resources.store import Callback, Resource, Store, StoreClosedError, now

_TIMEOUT: Final = 10.0
"""Seconds for a receiver to answer."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds between tries: twice as long each time."""
_GIVEN_UP: Final = 24 * 3600.0
"""Seconds after which a callback is given up."""
_MOST_WAITING: Final = 1000
"""Callbacks of one resource; then new ones are given up at once, and counted."""
_MOST_IN_ALL: Final = 100_000
"""The same, of all resources."""

_AS_IT_IS: Final = "".join(map(chr, range(33, 127)))
"""What is quoted already stays so, and so does what need not be."""

_log = logging.getLogger(__name__)


def signature(secret: str, url: str, parameters: Mapping[str, str] = {}) -> str:
    """What `X-Twilio-Signature` holds: HMAC-SHA1 over the URL and each parameter's name and value, in name order."""
    text = url + "".join(f"{name}{parameters[name]}" for name in sorted(parameters))
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode()


def iso(seconds: float) -> str:
    """A time as the API has it: ISO 8601, UTC, with seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _requested(url: str, query: Mapping[str, str] | None = None) -> str:
    """A URL as it is requested, and signed: as it was given, but for its fragment."""
    url = quote(url.partition("#")[0], safe=_AS_IT_IS)
    if not urlsplit(url).path:
        url = url.replace("?", "/?", 1) if "?" in url else f"{url}/"
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}" if query else url


class Callbacks:
    """The outbox.

    Args:
        store: Where callbacks wait.
        account_sid: The account they are of.
        secret: What they are signed with.
        outbound: Where they may go.
    """

    def __init__(self, store: Store, account_sid: str, secret: str, outbound: Outbound) -> None:
        self._store = store
        self._account_sid = account_sid
        self._secret = secret
        self._delivering: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._client = httpx.AsyncClient(transport=OutboundTransport(outbound), timeout=_TIMEOUT)
        self._told = 0
        """Put into the outbox; counted in the store's thread only."""
        self._done = 0
        """Taken out of it; counted on the event loop only."""
        self.delivered = 0
        self.failed = 0
        """Tries without success."""
        self.given_up = 0

    @property
    def waiting(self) -> int:
        """Callbacks not delivered yet."""
        return self._told - self._done

    def tell(self, session: Session, resource: Resource, event: str, **parameters: str | None) -> None:
        """Tells the log, and puts a callback into the outbox, within the transaction of the change.

        `deliver` has to follow.
        """
        reason = parameters.get("EndedReason")
        _log.info("%s", f"{event}: {reason}" if reason else event, extra={"sid": resource.sid})
        url = resource.status_callback
        if not url:
            return
        waiting = session.scalar(select(func.count(Callback.id)).where(Callback.resource_sid == resource.sid)) or 0
        number, resource.callbacks_made = resource.callbacks_made, resource.callbacks_made + 1
        if waiting >= _MOST_WAITING or self.waiting >= _MOST_IN_ALL:
            self.given_up += 1
            return
        told = {
            "AccountSid": self._account_sid,
            "StatusCallbackEvent": event,
            "Timestamp": iso(now()),
            "SequenceNumber": str(number),
            **{name: value for name, value in parameters.items() if value is not None},
        }
        # Not before it is certain that it waits.
        if self not in session.info:
            event_.listen(session, "after_commit", self._count, once=True)
        session.info[self] = session.info.get(self, 0) + 1
        session.add(
            Callback(
                resource_sid=resource.sid,
                url=url,
                method=resource.status_callback_method,
                parameters=told,
                created=now(),
            )
        )

    def _count(self, session: Session) -> None:
        self._told += session.info.pop(self)

    def deliver(self, sid: str) -> None:
        """Begins to deliver what waits for a resource, if anything does."""
        if sid in self._delivering:
            self._again.add(sid)
        else:
            self._delivering[sid] = spawn(self._deliver(sid))

    async def start(self) -> None:
        """Delivers what was left when the last process ended."""

        def left(session: Session) -> tuple[int, list[str]]:
            return (
                session.scalar(select(func.count(Callback.id))) or 0,
                list(session.scalars(select(Callback.resource_sid).distinct())),
            )

        self._told, sids = await self._store.run(left)
        for sid in sids:
            self.deliver(sid)

    async def close(self) -> None:
        """Ceases to deliver; what is left waits for the next start."""
        tasks = list(self._delivering.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _deliver(self, sid: str) -> None:
        oldest = select(Callback).where(Callback.resource_sid == sid).order_by(Callback.id).limit(1)
        try:
            while True:
                self._again.discard(sid)
                try:
                    callback = await self._store.run(lambda session: session.scalars(oldest).first())
                    if callback is not None:
                        await self._until_delivered(callback)
                except StoreClosedError:
                    return
                except Exception:
                    _log.exception("callbacks have to wait", extra={"sid": sid})
                    await asyncio.sleep(_LONGEST_PAUSE / 10)
                    continue
                if callback is None and sid not in self._again:
                    return
        finally:
            del self._delivering[sid]

    async def _until_delivered(self, callback: Callback) -> None:
        pause = _FIRST_PAUSE
        while not await self._try(callback):
            self.failed += 1
            if now() - callback.created > _GIVEN_UP:
                self.given_up += 1
                _log.warning("callback given up", extra={"sid": callback.resource_sid})
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            self.delivered += 1
        await self._store.run(lambda session: session.execute(delete(Callback).where(Callback.id == callback.id)))
        self._done += 1

    async def _try(self, callback: Callback) -> bool:
        try:
            url, parameters = _requested(callback.url), callback.parameters
            if callback.method == "GET":
                url, parameters = _requested(callback.url, parameters), {}
            headers = {"X-Twilio-Signature": signature(self._secret, url, parameters)}
            async with asyncio.timeout(_TIMEOUT):
                # What a receiver has to say is not read.
                async with self._client.stream(
                    callback.method, url, data=parameters or None, headers=headers
                ) as response:
                    heard = response.is_success
                    problem = f"it answered {response.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            heard, problem = False, repr(error)
        if not heard:
            _log.info("callback failed: %s", problem, extra={"sid": callback.resource_sid})
        return heard
