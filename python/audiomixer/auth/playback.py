"""Permission to play a stream: a signed, expiring parameter of its playback URL."""

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

import jwt

from audiomixer.auth.tokens import TokenError

_SESSION: Final = 26 * 3600
"""Seconds for which a player that has started may go on: longer than any stream lasts."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What a playback token allows."""

    sid: str
    origin: str | None
    """The only site whose pages may play; None for any."""
    until: float | None = None
    """When it ends for good, for one that has started to play."""


class PlaybackKey:
    """Signs and verifies playback tokens.

    What is bounded in time is starting to play, not playing: who has started gets a token of another kind, to go on and
    to come back with.

    Args:
        secret: The server's; it signs nothing else with the key that is derived from it.
    """

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"audiomixer playback", hashlib.sha256)

    def grant(self, sid: str, ttl: float, origin: str | None = None) -> str:
        """A token to start playing the stream `sid` within `ttl` seconds."""
        return self._sign(Permission(sid, origin), "start", ttl)

    def session(self, permission: Permission) -> str:
        """A token to go on playing what one was permitted to start, until it is a day later, however often renewed."""
        now = time.time()
        until = min(permission.until or now + _SESSION, now + _SESSION)
        return self._sign(permission, "session", until - now)

    def verify(self, token: str | None, sid: str) -> Permission:
        """What a token, of either kind, permits to do with the stream `sid`.

        Raises:
            TokenError: Nothing: it is missing, forged, expired, or for another stream.
        """
        if not token:
            raise TokenError("token: expected one: this stream needs a playback token")
        try:
            payload = jwt.decode(token, self._key, algorithms=["HS256"], options={"require": ["exp", "sub"]})
        except jwt.ExpiredSignatureError:
            raise TokenError("token: it has expired") from None
        except (jwt.InvalidTokenError, UnicodeError, RecursionError) as error:
            raise TokenError(f"token: {error}") from None
        if payload["sub"] != sid:
            raise TokenError("token: it is for another stream")
        return Permission(sid, payload.get("origin"), payload["exp"] if payload.get("kind") == "session" else None)

    def _sign(self, permission: Permission, kind: str, ttl: float) -> str:
        claims = {"sub": permission.sid, "kind": kind, "exp": time.time() + ttl}
        if permission.origin:
            claims["origin"] = permission.origin
        return jwt.encode(claims, self._key, algorithm="HS256")


def token_of(playback_url: str) -> str | None:
    """The token in a playback URL."""
    try:
        return parse_qs(urlsplit(playback_url).query).get("token", [None])[0]
    except ValueError:
        return None
